"""The blobs that go with a log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from nerve_store.exceptions import BlobNotFoundError, NerveStoreError
from nerve_store.protocols import Blobs

_AT_ONCE = 16
_SMALL = 4 << 20
"""What is held in memory while it is copied."""


def bring_blobs(source: Blobs, target: Blobs) -> tuple[int, int]:
    """Store at `target` what only `source` has; how many were stored, and how many `source` has.

    The content is compared with the hash on both sides: where it is read, and where it gets its name.
    """
    count = copied = 0

    def missing() -> Iterator[str]:
        """Both lists are in order, so that neither has to be held."""
        nonlocal count
        theirs = iter(target)
        at = next(theirs, None)
        for hash in source:
            count += 1
            while at is not None and at < hash:
                at = next(theirs, None)
            if at != hash:
                yield hash

    waiting: deque[Future[bool]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="nerve_store-copy") as pool:
        try:
            for hash in missing():
                waiting.append(pool.submit(_bring, source, target, hash))
                if len(waiting) >= 2 * _AT_ONCE:
                    copied += waiting.popleft().result()
            while waiting:
                copied += waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    return copied, count


def _bring(source: Blobs, target: Blobs, hash: str) -> bool:
    """Copy a blob; false if it was deleted meanwhile."""
    try:
        if source.size(hash) <= _SMALL:
            data = source.read(hash)
            if data is None:
                return False
            stored = target.write(data)
        else:
            with source.open(hash) as file:
                stored = target.write_file(file)
    except BlobNotFoundError:
        return False
    if stored != hash:
        raise NerveStoreError(f"the blob {hash} was stored at the target as {stored}")
    return True
