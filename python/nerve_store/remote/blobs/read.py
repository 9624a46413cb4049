"""Reading a blob: no wrong byte is taken for the blob's."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nerve_store._core import blob_hash
from nerve_store.exceptions import BlobCorruptError, BlobNotFoundError
from nerve_store.remote.blobs.keys import key_of
from nerve_store.remote.bucket import PART_BYTES, Bucket
from nerve_store.remote.failures import ShortObjectError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_PART = PART_BYTES // 2
_PARTS = 4
"""Parts fetched at the same time of a large blob."""
VERIFIED_FIRST = 256 << 10
"""A blob of up to this size is verified before its first byte is given out."""


def read(bucket: Bucket, hash: str) -> bytes | None:
    """The bytes of a blob, verified; None if there is none."""
    data = bucket.get(key_of(hash), longest=PART_BYTES)
    if isinstance(data, int):
        pieces = b"".join(parts_of(bucket, hash, data))
        data = pieces
    if data is None:
        return None
    found = blob_hash(data)
    if found != hash:
        raise corrupt(bucket, hash, found)
    return data


def digest_of(bucket: Bucket, hash: str, size: int) -> str:
    """The sha256 of what lies in a blob's place."""
    digest = hashlib.sha256()
    for piece in parts_of(bucket, hash, size):
        digest.update(piece)
    return digest.hexdigest()


def parts_of(bucket: Bucket, hash: str, size: int) -> Iterator[bytes]:
    """The bytes of a blob of this size, part by part, unverified."""
    for at in range(0, size, _PART * _PARTS):
        starts = range(at, min(at + _PART * _PARTS, size), _PART)
        try:
            parts = bucket.get_parts(key_of(hash), starts, [min(_PART, size - start) for start in starts])
        except ShortObjectError as short:
            raise corrupt(bucket, hash, None, str(short)) from None
        if parts is None:
            raise missing(bucket, hash)
        yield from parts


def corrupt(bucket: Bucket, hash: str, found: str | None, reason: str | None = None) -> BlobCorruptError:
    """The error of bytes that are not the blob's, whose sha256 is `found`, if it is known."""
    place = bucket.name(key_of(hash))
    what = reason or f"the bytes there have the sha256 {found}"
    error = BlobCorruptError(f"{place}: {what}; writing the content again repairs it")
    error.path, error.hash, error.actual_hash = place, hash, found
    return error


def missing(bucket: Bucket, hash: str) -> BlobNotFoundError:
    """The error of a blob that is not there, or not any more."""
    error = BlobNotFoundError(f"{bucket.place}: there is no blob {hash[:80]}")
    error.path, error.hash = bucket.place, hash
    return error


class ObjectBlobReader(io.RawIOBase):
    """The raw file under the one that `ObjectBlobStore.open` returns."""

    def __init__(self, bucket: Bucket, hash: str, size: int) -> None:
        super().__init__()
        self._bucket = bucket
        self._hash = hash
        self._digest = hashlib.sha256()
        self._parts = parts_of(bucket, hash, size)
        self._held = b""
        """Verified or not, it may be given out."""
        self._last = b""
        """The newest part; given out once another has come, or all are verified."""
        self._is_at_end = False
        self._error: Exception | None = None
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill `buffer` with the bytes at hand and return how many; 0 at the end, once all bytes were verified."""
        if self.closed:
            raise ValueError("the file is closed")
        if self._error is not None:
            raise self._error
        view = memoryview(buffer).cast("B")
        try:
            while not self._held and not self._is_at_end and len(view):
                self._fetch()
        except (BlobCorruptError, BlobNotFoundError) as error:
            self._error = error
            raise
        piece = self._held[: len(view)]
        view[: len(piece)] = piece
        self._held = self._held[len(piece) :]
        self._position += len(piece)
        return len(piece)

    def _fetch(self) -> None:
        part = next(self._parts, None)
        if part is not None:
            self._digest.update(part)
            self._held, self._last = self._last, part
            return
        if self._digest.hexdigest() != self._hash:
            raise corrupt(self._bucket, self._hash, self._digest.hexdigest())
        self._held, self._last, self._is_at_end = self._last, b"", True
