"""One day: its rows from the database and from its file, merged into a new file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from datetime import date
from typing import BinaryIO

from nerve_store._core import LogEntry
from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.directory import PLAIN, ZSTD
from nerve_store.postgres.archive.known import DaySummary, KnownDay
from nerve_store.postgres.archive.lines import DayWriter, corrupt, line


class NullFile(io.RawIOBase):
    """Where a dry run writes."""

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: object, /) -> int:
        """Forget the bytes."""
        return len(data) if isinstance(data, bytes) else 0


def write_day(
    file: BinaryIO | NullFile,
    form: str,
    old: Iterator[tuple[LogEntry, bytes]],
    new: Iterator[LogEntry],
    day: date,
    *,
    archived_at: int,
    on_row: Callable[[], None],
) -> tuple[KnownDay, DaySummary]:
    """Write the rows of both, each once; `ArchiveError` if they have different rows under one id."""
    writer = DayWriter(file, form)  # type: ignore[arg-type]
    summary = DaySummary()
    for entry, content, is_new in _merged(old, new, day):
        writer.add(entry.id, content)
        summary.add(entry)
        if is_new:
            summary.added_rows += 1
            on_row()
    sha256 = writer.end()
    known = KnownDay(
        day,
        form,
        writer.row_count,
        summary.first_id,
        summary.last_id,
        writer.size,
        writer.raw_size,
        sha256,
        archived_at,
    )
    return known, summary


def _merged(
    old: Iterator[tuple[LogEntry, bytes]], new: Iterator[LogEntry], day: date
) -> Iterator[tuple[LogEntry, bytes, bool]]:
    kept, fresh = next(old, None), next(new, None)
    while kept is not None or fresh is not None:
        if fresh is None or (kept is not None and kept[0].id < fresh.id):
            assert kept is not None
            yield (*kept, False)
            kept = next(old, None)
        elif kept is None or fresh.id < kept[0].id:
            yield fresh, line(fresh), True
            fresh = next(new, None)
        else:
            if kept[0] != fresh:
                raise ArchiveError(
                    f"day {day}: row {fresh.id} differs between the database and the archive; "
                    "the archive may be another log's"
                )
            yield (*kept, False)
            kept, fresh = next(old, None), next(new, None)


def described(
    rows: Iterator[tuple[LogEntry, bytes]],
    day: date,
    form: str,
    content: tuple[int, str],
    *,
    archived_at: int,
    place: str | None = None,
    key: str | None = None,
) -> tuple[KnownDay, DaySummary]:
    """What a day holds that the database does not know; `content` is the size and the sha256."""
    summary = DaySummary()
    count = raw_size = 0
    for entry, text in rows:
        summary.add(entry)
        count += 1
        raw_size += len(text)
    size, sha256 = content
    known = KnownDay(
        day, form, count, summary.first_id, summary.last_id, size, raw_size, sha256, archived_at, place, key
    )  # fmt: skip
    return known, summary


def digest_of(path: str) -> tuple[int, str]:
    """The size and the sha256 of a file."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return file.tell(), digest.hexdigest()
    except OSError as error:
        raise corrupt(path, f"it cannot be read ({error.strerror})") from error


def next_form(current: str | None, compression: str | None) -> str:
    """The form of a file that gains rows: a compressed one stays so."""
    return ZSTD if compression == "zstd" or current == ZSTD else PLAIN
