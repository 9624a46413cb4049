"""The blobs in the order of their hashes, whatever order the store lists them in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import TypeVar

from nerve_store.remote.blobs.keys import hash_of
from nerve_store.remote.blobs.pool import Pool
from nerve_store.remote.bucket import PAGE, Bucket, Found

SHARDS = tuple(f"{number:02x}" for number in range(256))
AT_ONCE = 16
"""Listings under way."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def listed(bucket: Bucket, folder: str | None) -> list[Found]:
    """The blobs whose hash begins with `folder`, or all, in order."""
    found = (one for page in bucket.list(folder) for one in page if hash_of(one.key))
    return sorted(found, key=lambda one: one.key)


def folder_groups(bucket: Bucket) -> list[tuple[str | None, ...]]:
    """What to list at the same time: everything at once if one answer has it all, else some shards."""
    pages = bucket.list()
    if len(next(pages, [])) < PAGE and next(pages, None) is None:
        return [(None,)]
    return [SHARDS[at : at + AT_ONCE] for at in range(0, len(SHARDS), AT_ONCE)]


def shards(bucket: Bucket, pool: Pool, first: str = "") -> Iterator[list[Found]]:
    """All blobs, a shard or more at a time; those of the shards before the `first` may be left out."""
    pages = bucket.list()
    page = next(pages, [])
    if len(page) < PAGE and next(pages, None) is None:
        yield sorted((one for one in page if hash_of(one.key)), key=lambda one: one.key)
        return
    wanted = [shard for shard in SHARDS if shard >= first]
    yield from in_turn(pool, lambda shard: listed(bucket, shard), wanted, at_once=AT_ONCE)


def hash_pages(bucket: Bucket, pool: Pool, last: str = "") -> Iterator[list[str]]:
    """The hashes of all blobs after the `last` one, in order; no page is empty."""
    for shard in shards(bucket, pool, last[:2]):
        hashes = [hash for one in shard if (hash := hash_of(one.key)) is not None and hash > last]
        if hashes:
            yield hashes


def in_turn(pool: Pool, call: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int) -> Iterator[_Result]:
    """The results of calls in the order of their items, so many of them under way; the first error ends them all."""
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except Exception:
        # What has begun ends first, so that nothing happens after the error; an interruption waits for nothing.
        wait([future for future in waiting if not future.cancel()])
        raise
    finally:
        for future in waiting:
            future.cancel()
