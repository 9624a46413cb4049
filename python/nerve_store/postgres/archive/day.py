"""One day: its rows from the database and from its file, merged into a new file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import BinaryIO

from nerve_store._core import LogEntry
from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.directory import PLAIN, ArchiveDirectory
from nerve_store.postgres.archive.lines import DayWriter, corrupt, line, read_day
from nerve_store.postgres.archive.reader import KnownDay
from nerve_store.postgres.rounds import is_round

_MOST_KINDS = 64


@dataclass
class DaySummary:
    """What the database is to know of a day's file."""

    refs: dict[str, list[int]] = field(default_factory=dict)
    """Each reference, with the ids of its rounds."""
    kinds: set[tuple[str, str]] | None = field(default_factory=set)
    first_id: int | None = None
    last_id: int | None = None
    added_rows: int = 0

    def add(self, entry: LogEntry) -> None:
        """Take note of a row; rows come in the order of their ids."""
        if self.first_id is None:
            self.first_id = entry.id
        self.last_id = entry.id
        if entry.ref_id is not None:
            rounds = self.refs.setdefault(entry.ref_id, [])
            if is_round(entry.source, entry.type, entry.payload):
                rounds.append(entry.id)
        if self.kinds is not None:
            self.kinds.add((entry.source, entry.type))
            if len(self.kinds) > _MOST_KINDS:
                self.kinds = None


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
                    "the directory may be another log's archive"
                )
            yield (*kept, False)
            kept, fresh = next(old, None), next(new, None)


def read_file(directory: ArchiveDirectory, day: date, form: str | None) -> Iterator[tuple[LogEntry, bytes]]:
    """The rows of a day's file and their lines; none if there is no file."""
    if form is None:
        return
    path = directory.of(day, form)
    with open(path, "rb") as file:
        yield from read_day(file, path, day, form)


def form_of(directory: ArchiveDirectory, day: date) -> str | None:
    """The form of the day's file, if there is one."""
    forms = [form for found, form in directory.days() if found == day]
    return forms[-1] if forms else None


def describe(directory: ArchiveDirectory, day: date, form: str) -> tuple[KnownDay, DaySummary]:
    """What a file that the database does not know holds; reads it."""
    path = directory.of(day, form)
    summary = DaySummary()
    count = raw_size = 0
    for entry, content in read_file(directory, day, form):
        summary.add(entry)
        count += 1
        raw_size += len(content)
    size, sha256 = digest_of(path)
    known = KnownDay(
        day, form, count, summary.first_id, summary.last_id, size, raw_size, sha256,
        os.stat(path).st_mtime_ns // 1_000_000,
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
    return "jsonl.zst" if compression == "zstd" or current == "jsonl.zst" else PLAIN
