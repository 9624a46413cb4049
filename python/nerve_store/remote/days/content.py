"""Reading the objects that hold days: no wrong byte is taken for a day's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO

from nerve_store._places import error_at
from nerve_store.exceptions import ArchiveCorruptError
from nerve_store.remote.bucket import PART_BYTES, Bucket
from nerve_store.remote.failures import ShortObjectError

_PART = PART_BYTES // 2
_PARTS = 4
"""Parts fetched at the same time."""
_WAY_OUT = "restore it from a version or a copy of the bucket"


def damaged(bucket: Bucket, key: str, reason: str) -> ArchiveCorruptError:
    """The error of an object that is not what it should be."""
    return error_at(ArchiveCorruptError, bucket.name(key), f"{reason}; {_WAY_OUT}")


def mismatch(bucket: Bucket, key: str, found: int | None, size: int) -> ArchiveCorruptError:
    """The error of an object that has another size than `size`; `found` None: it is missing."""
    return (
        _missing(bucket, key) if found is None else damaged(bucket, key, f"it has {found} bytes and should have {size}")
    )


def _missing(bucket: Bucket, key: str) -> ArchiveCorruptError:
    return damaged(
        bucket,
        key,
        "it is missing (a day that was expired after the backup of this database is forgotten by expire_archive)",
    )


def pieces(bucket: Bucket, key: str, size: int, sha256: str) -> Iterator[bytes]:
    """The content of an object, piece by piece; an `ArchiveCorruptError` if it is not what it should be."""
    found = bucket.head(key)
    if found is None or found.size != size:
        raise mismatch(bucket, key, None if found is None else found.size, size)
    digest = hashlib.sha256()
    for piece in _parts(bucket, key, size):
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise damaged(bucket, key, f"its content has the sha256 {digest.hexdigest()} and should have {sha256}")


def copied(bucket: Bucket, key: str, file: IO[bytes]) -> tuple[int, str, int]:
    """Write an object of which nothing is known into a file: its size, its sha256, and when it was stored."""
    found = bucket.head(key)
    if found is None:
        raise _missing(bucket, key)
    digest = hashlib.sha256()
    for piece in _parts(bucket, key, found.size):
        digest.update(piece)
        file.write(piece)
    return found.size, digest.hexdigest(), int(found.modified.timestamp() * 1000)


def holds(bucket: Bucket, key: str, size: int, sha256: str) -> bool:
    """Whether an object is there, whole."""
    try:
        for _ in pieces(bucket, key, size, sha256):
            pass
    except ArchiveCorruptError:
        return False
    return True


def _parts(bucket: Bucket, key: str, size: int) -> Iterator[bytes]:
    for at in range(0, size, _PART * _PARTS):
        starts = range(at, min(at + _PART * _PARTS, size), _PART)
        try:
            parts = bucket.get_parts(key, starts, [min(_PART, size - start) for start in starts])
        except ShortObjectError as short:
            raise damaged(bucket, key, str(short)) from None
        if parts is None:
            raise _missing(bucket, key)
        yield from parts
