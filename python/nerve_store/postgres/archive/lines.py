"""Reading the lines of a day file (docs/format.md)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import date
from typing import Any, BinaryIO

from nerve_store._core import LogEntry, utc_day
from nerve_store._places import error_at
from nerve_store.exceptions import ArchiveCorruptError, ArchiveError
from nerve_store.postgres.archive.directory import ZSTD
from nerve_store.postgres.archive.known import KnownDay
from nerve_store.records import VerifyProblem


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ArchiveError("a compressed archive needs zstandard: pip install 'nerve-store[postgres]'") from error
    return zstandard


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
    zstandard = _zstandard()
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
    try:
        yield from io.BufferedReader(reader, 1 << 18)
    except zstandard.ZstdError as error:
        raise corrupt(path, f"a frame cannot be read ({error})") from error


def missing(path: str, row_count: int | None = None) -> ArchiveCorruptError:
    """The error of a file that is gone."""
    held = "" if row_count is None else f", and held {row_count} rows"
    return corrupt(path, f"it is missing{held} (is this the archive of the log, and mounted?)")


def corrupt(path: str, reason: str, way_out: str = "restore the file from a backup") -> ArchiveCorruptError:
    """The error of a damaged day file."""
    return error_at(ArchiveCorruptError, path, f"{reason}; {way_out}")


def problem_of(error: ArchiveError, day: date, known: KnownDay | None = None) -> VerifyProblem:
    """The error as a line of a report; `known` is what the database says of the day."""
    path = str(error.path)
    first_id, last_id = (known.first_id, known.last_id) if known else (None, None)
    return VerifyProblem(path, str(error).removeprefix(f"{path}: "), day=day, first_id=first_id, last_id=last_id)
