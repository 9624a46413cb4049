"""What is to be stored: bytes at hand, or a file that is too large to be held in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from nerve_store._core import blob_hash
from nerve_store._places import system_error
from nerve_store.exceptions import StoreIOError
from nerve_store.remote.bucket import PART_BYTES, Bucket

SMALL_BYTES = PART_BYTES
"""What is sent in one request, which can be made to create and never to replace."""
PIECE_BYTES = 1 << 20


class ChangedError(Exception):
    """A file changed after it was hashed."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """Bytes at hand."""

    data: bytes
    hash: str

    @classmethod
    def of(cls, data: bytes) -> InMemory:
        """These bytes, hashed."""
        return cls(data, blob_hash(data))

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)

    def create(self, bucket: Bucket, key: str) -> bool:
        """Store it if nothing is there; only of what is small."""
        return bucket.create(key, self.data)

    def put(self, bucket: Bucket, key: str) -> None:
        """Store it, whatever was there."""
        if self.size <= SMALL_BYTES:
            bucket.put(key, self.data)
        else:
            view = memoryview(self.data)
            bucket.upload(key, lambda: (view[at : at + PART_BYTES] for at in range(0, len(view), PART_BYTES)))


@dataclass(frozen=True, slots=True)
class InFile:
    """A file that was hashed, larger than is sent in one request."""

    file: IO[bytes]
    hash: str
    size: int

    def create(self, bucket: Bucket, key: str) -> bool:
        """It is too large for that."""
        raise NotImplementedError

    def put(self, bucket: Bucket, key: str) -> None:
        """Store it, whatever was there; `ChangedError`, and nothing stored, if it has other bytes by now."""
        bucket.upload(key, self._pieces)

    def _pieces(self) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), self.size
        self.file.seek(0)
        while left:
            piece = self.file.read(min(PART_BYTES, left))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
            if not left and digest.hexdigest() != self.hash:
                break
            yield piece
        if left or digest.hexdigest() != self.hash:
            raise ChangedError


Content = InMemory | InFile


class Spool:
    """Bytes that come one after the other and get their name at the end; the larger ones wait in a temporary file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SMALL_BYTES)  # noqa: SIM115 - `close` closes it
        self._digest = hashlib.sha256()
        self._error: StoreIOError | None = None
        self.size = 0

    def write(self, piece: bytes | memoryview) -> int:
        """Add bytes; a `StoreFullError` or `StoreIOError` if the temporary file cannot take them, and ever after."""
        self._check()
        try:
            self._file.write(piece)
        except OSError as error:
            self._error = system_error(error, f"the temporary file cannot be written: {error.strerror}", _directory())
            raise self._error from error
        self._digest.update(piece)
        self.size += len(piece)
        return len(piece)

    def content(self) -> Content:
        """All that was written."""
        self._check()
        hash = self._digest.hexdigest()
        if self.size <= SMALL_BYTES:
            self._file.seek(0)
            return InMemory(self._file.read(), hash)
        return InFile(self._file, hash, self.size)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let go of the bytes."""
        with suppress(OSError):  # of bytes that were not written
            self._file.close()


def _directory() -> str:
    """Where temporary files are; the current directory if there is no place for them."""
    try:
        return tempfile.gettempdir()
    except OSError:
        return os.curdir


def hashed(file: IO[bytes]) -> Content:
    """The content of a regular file that is read from its beginning."""
    size = os.fstat(file.fileno()).st_size
    if size <= SMALL_BYTES:
        data = file.read(SMALL_BYTES + 1)
        if len(data) <= SMALL_BYTES:
            return InMemory.of(data)
        file.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
        size += len(piece)
    return InFile(file, digest.hexdigest(), size)


def read_from(source: Any, spool: Spool) -> None:
    """Read a file object to its end, piece by piece."""
    while True:
        piece = source.read(PIECE_BYTES)
        if piece is None:
            raise BlockingIOError("the file has no bytes yet: it must block until it has")
        if isinstance(piece, str):
            raise TypeError("the file gives text; open it in binary mode")
        try:
            view = memoryview(piece)
        except TypeError:
            raise TypeError(f"the file's read gave {type(piece).__name__}, not bytes") from None
        if view.nbytes > PIECE_BYTES:
            raise ValueError(f"the file's read({PIECE_BYTES}) gave {view.nbytes} bytes")
        if not view.nbytes:
            return
        spool.write(view.tobytes())
