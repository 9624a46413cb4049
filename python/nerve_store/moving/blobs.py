"""The blobs that go with a log."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from nerve_store.exceptions import BlobNotFoundError, NerveStoreError
from nerve_store.protocols import Blobs

_AT_ONCE = 16
_SMALL = 4 << 20
"""What is held in memory while it is copied."""


class _Listing:
    """The hashes that a store has, counted as they are looked at."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.count = 0
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        for hash in self._blobs:
            self.count += 1
            self._digest.update(hash.encode())
            yield hash

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


def digest_of(blobs: Blobs) -> str:
    """What differs if other blobs are there."""
    listing = _Listing(blobs)
    deque(listing, maxlen=0)
    return listing.digest


def bring_blobs(source: Blobs, target: Blobs) -> tuple[int, int, str]:
    """Store at `target` what only `source` has; how many were stored, how many `source` has, and their digest.

    The content is compared with the hash on both sides: where it is read, and where it gets its name.
    """
    listing = _Listing(source)
    copied = 0

    def missing() -> Iterator[str]:
        """Both lists are in order, so that neither has to be held."""
        theirs = iter(target)
        at = next(theirs, None)
        for hash in listing:
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
    return copied, listing.count, listing.digest


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
