"""Reading every blob, and setting aside what is not what its name says."""

from __future__ import annotations

from collections.abc import Iterator

from nerve_store.exceptions import BlobNotFoundError, StoreIOError
from nerve_store.records import BlobProblem, BlobVerifyReport
from nerve_store.remote.blobs.keys import QUARANTINE, hash_in, key_of
from nerve_store.remote.blobs.listing import in_turn, shards
from nerve_store.remote.blobs.pool import Pool
from nerve_store.remote.blobs.read import digest_of
from nerve_store.remote.blobs.turns import Turn, turn
from nerve_store.remote.bucket import Bucket, Found
from nerve_store.types import Progress

_AT_ONCE = 8
"""Blobs that are read at the same time: each holds 16 MiB at the most."""


def verify(bucket: Bucket, pool: Pool, *, is_writable: bool, progress: Progress | None) -> BlobVerifyReport:
    """Read every blob; with `is_writable`, damaged ones go to `quarantine/`."""
    total = sum(one.size for shard in shards(bucket, pool) for one in shard) if progress is not None else 0
    if progress is not None:
        progress(0, total)
    count = size = 0
    damaged: list[tuple[Found, str]] = []
    for found, digest in _digests(bucket, pool):
        if digest is None:
            continue  # deleted meanwhile
        count += 1
        size += found.size
        if digest != hash_in(found.key):
            damaged.append((found, digest))
        if progress is not None:
            progress(min(size, total), total)
    if progress is not None and size != total:
        progress(total, total)
    problems = _set_aside(bucket, damaged) if is_writable else [_problem(bucket, *one, None) for one in damaged]
    return BlobVerifyReport(count, size, tuple(problems))


def _digests(bucket: Bucket, pool: Pool) -> Iterator[tuple[Found, str | None]]:
    def read(found: Found) -> tuple[Found, str | None]:
        try:
            return found, digest_of(bucket, hash_in(found.key), found.size)
        except BlobNotFoundError:
            return found, None

    for shard in shards(bucket, pool):
        yield from in_turn(pool, read, shard, at_once=_AT_ONCE)


def _set_aside(bucket: Bucket, damaged: list[tuple[Found, str]]) -> list[BlobProblem]:
    """Move damaged blobs away, under leases: a writer that heals one meanwhile looks again when the lease ends."""
    problems: list[BlobProblem] = []
    while len(problems) < len(damaged):
        with turn(bucket) as held:
            while len(problems) < len(damaged) and not held.is_over:
                found, digest = damaged[len(problems)]
                problems.append(_problem(bucket, found, digest, _moved(bucket, found, held)))
    return problems


def _moved(bucket: Bucket, found: Found, held: Turn) -> str | None:
    """Where a damaged blob went; None if it stays, because it is whole by now, or too large to be copied."""
    now = bucket.head(found.key)
    if now is None or digest_of(bucket, hash_in(found.key), now.size) == hash_in(found.key) or held.is_over:
        return None
    place = f"{QUARANTINE}/{hash_in(found.key)}"
    target, number = place, 1
    while bucket.head(target) is not None:
        number += 1
        target = f"{place}.{number}"
    try:
        copied = bucket.copy(found.key, target) and bucket.head(target)
    except StoreIOError:
        return None
    if not copied or copied.size != now.size or held.is_over:
        return None
    held.delete([found.key])
    return bucket.name(target)


def _problem(bucket: Bucket, found: Found, digest: str, quarantine: str | None) -> BlobProblem:
    hash = hash_in(found.key)
    place = bucket.name(key_of(hash))
    return BlobProblem(hash, place, f"its bytes have the sha256 {digest}", digest, quarantine)
