"""The bytes of a day file: lines, blocks and, compressed, frames with a table at the end (docs/format.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import date
from struct import Struct
from typing import Any, BinaryIO

from nerve_store._core import LogEntry, utc_day
from nerve_store.exceptions import ArchiveCorruptError, ArchiveError
from nerve_store.postgres.archive.directory import ZSTD

_BLOCK_BYTES = 256 << 10
"""Bytes of lines after which a frame ends."""
_LEVEL = 3
_SKIPPABLE = 0x184D2A5D
_MAGIC = b"nrvblk01"
_ENTRY, _HEAD, _TRAILER = Struct("<IIqQ"), Struct("<II"), Struct("<QI8s")


def line(entry: LogEntry) -> bytes:
    """The row's line: what `JSON.stringify` writes."""
    return (
        json.dumps(
            {
                "id": entry.id,
                "source": entry.source,
                "type": entry.type,
                "refId": entry.ref_id,
                "payload": entry.payload,
                "timestamp": entry.timestamp,
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )
        + "\n"
    ).encode()


def _compression() -> tuple[Any, Any]:
    try:
        import xxhash
        import zstandard
    except ImportError as error:
        raise ArchiveError(
            "a compressed archive needs zstandard and xxhash: pip install 'nerve-store[postgres]'"
        ) from error
    return zstandard, xxhash


class DayWriter:
    """Takes the lines of a day and writes its file."""

    def __init__(self, file: BinaryIO, form: str) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = self.raw_size = self.row_count = 0
        self._lines: list[bytes] = []
        self._block_size = 0
        self._first_id = 0
        self._blocks: list[bytes] = []
        self._zstd = self._hash = None
        if form == ZSTD:
            zstandard, xxhash = _compression()
            self._zstd = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)
            self._hash = xxhash.xxh3_64_intdigest

    def add(self, row_id: int, content: bytes) -> None:
        """Append a row's line."""
        if not self._lines:
            self._first_id = row_id
        self._lines.append(content)
        self._block_size += len(content)
        self.raw_size += len(content)
        self.row_count += 1
        if self._block_size >= _BLOCK_BYTES:
            self._end_block()

    def _end_block(self) -> None:
        if not self._lines:
            return
        content = b"".join(self._lines)
        if self._zstd is not None and self._hash is not None:
            content = self._zstd.compress(content)
            self._blocks.append(_ENTRY.pack(len(content), len(self._lines), self._first_id, self._hash(content)))
        self._put(content)
        self._lines, self._block_size = [], 0

    def _put(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)

    def end(self) -> str:
        """Write what is left; the sha256 of the file."""
        self._end_block()
        if self._hash is not None:
            table = b"".join(self._blocks)
            length = len(table) + _TRAILER.size
            self._put(_HEAD.pack(_SKIPPABLE, length) + table)
            self._put(_TRAILER.pack(self._hash(table), length + _HEAD.size, _MAGIC))
        return self._digest.hexdigest()


def read_day(file: BinaryIO, path: str, day: date, form: str) -> Iterator[tuple[LogEntry, bytes]]:
    """The rows of a day's file and their lines, in order; `ArchiveCorruptError` for anything else in it."""
    last = None
    for number, content in enumerate(_lines_of(file, path, form), 1):
        try:
            record = json.loads(content)
            entry = LogEntry(
                record["id"], record["source"], record["type"], record["refId"], record["payload"], record["timestamp"]
            )
            row_day = utc_day(entry.timestamp)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise corrupt(path, f"line {number}: {' '.join(str(error).split())}") from error
        if not content.endswith(b"\n"):
            raise corrupt(path, f"line {number}: the last line is torn")
        if row_day != day:
            raise corrupt(path, f"line {number}: a row of another day")
        if last is not None and entry.id <= last:
            raise corrupt(path, f"line {number}: its id is out of order")
        last = entry.id
        yield entry, content


def _lines_of(file: BinaryIO, path: str, form: str) -> Iterator[bytes]:
    if form != ZSTD:
        yield from file
        return
    zstandard, _ = _compression()
    import io

    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    try:
        yield from io.BufferedReader(reader, 1 << 18)
    except zstandard.ZstdError as error:
        raise corrupt(path, f"a frame cannot be read ({error})") from error


def corrupt(path: str, reason: str) -> ArchiveCorruptError:
    """The error of a damaged day file."""
    error = ArchiveCorruptError(f"{path}: {reason}; restore the file from a backup")
    error.path = path
    return error
