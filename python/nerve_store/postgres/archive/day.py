"""One day: its rows from the database and from its file, merged into a new file."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Callable, Iterator
from datetime import date
from itertools import islice
from typing import BinaryIO, TypeVar

from psycopg import Copy
from psycopg.abc import Buffer

from nerve_store._core import DayEncoder, LogEntry, copied_rows
from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.directory import PLAIN, ZSTD
from nerve_store.postgres.archive.known import DaySummary, KnownDay

_PAGE_ROWS, _PAGE_BYTES = 1_000, 1 << 20
_Rows = TypeVar("_Rows")


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
    old: Iterator[tuple[LogEntry, bytes]] | None,
    new: Copy,
    day: date,
    *,
    archived_at: int,
    on_rows: Callable[[int], None],
) -> tuple[KnownDay, DaySummary, array[int]]:
    """Write the rows of both, each once, and return the ids of the `new` ones, too.

    `new` is a binary COPY of a `LogEntry`'s fields, in the order of the ids; None in place of `old` is a day that has
    no file yet. `ArchiveError` if there are different rows under one id.
    """
    encoder = DayEncoder(compressed=form == ZSTD)
    ids, summary = array("q"), DaySummary()
    if old is None:
        for page in _pages(new):
            before = encoder.row_count
            file.write(_encoded(encoder.copied, page, day))
            on_rows(encoder.row_count - before)
    else:
        merged = _merged(old, _entries(new, ids), day)
        while rows := list(islice(merged, _PAGE_ROWS)):
            file.write(_encoded(encoder.add, rows, day))
            added = sum(line is None for _, line in rows)
            summary.added_rows += added
            on_rows(added)
    row_count = encoder.row_count
    rest, size, raw_size, sha256, all_ids, summary.refs, kinds = encoder.finish()
    file.write(rest)
    held = array("q", all_ids)
    if old is None:
        ids, summary.added_rows = held, row_count
    summary.kinds = None if kinds is None else set(kinds)
    summary.first_id, summary.last_id = (held[0], held[-1]) if held else (None, None)
    known = KnownDay(
        day, form, row_count, summary.first_id, summary.last_id, size, raw_size, sha256, archived_at
    )  # fmt: skip
    return known, summary, ids


def _pages(new: Copy) -> Iterator[bytes]:
    """The messages of the COPY, some at a time: a row may have as many megabytes as another has bytes."""
    page: list[Buffer] = []
    size = 0
    for message in new:
        page.append(message)
        size += len(message)
        if size >= _PAGE_BYTES or len(page) == _PAGE_ROWS:
            yield b"".join(page)
            page, size = [], 0
    if page:
        yield b"".join(page)


def _encoded(encode: Callable[[_Rows], bytes], rows: _Rows, day: date) -> bytes:
    try:
        return encode(rows)
    except ValueError as error:
        raise ArchiveError(f"day {day}: {error}; verify() tells more") from error


def _entries(new: Copy, ids: array[int]) -> Iterator[LogEntry]:
    """The rows of the COPY, whose ids are noted."""
    for page in _pages(new):
        for entry in copied_rows(page):
            ids.append(entry.id)
            yield entry


def _merged(
    old: Iterator[tuple[LogEntry, bytes]], new: Iterator[LogEntry], day: date
) -> Iterator[tuple[LogEntry, bytes | None]]:
    """All rows in the order of their ids; those of the file with their lines."""
    kept, fresh = next(old, None), next(new, None)
    while kept is not None or fresh is not None:
        if fresh is None or (kept is not None and kept[0].id < fresh.id):
            assert kept is not None
            yield kept
            kept = next(old, None)
        elif kept is None or fresh.id < kept[0].id:
            yield fresh, None
            fresh = next(new, None)
        else:
            if kept[0] != fresh:
                raise ArchiveError(
                    f"day {day}: row {fresh.id} differs between the database and the archive; "
                    "the archive may be another log's"
                )
            yield kept
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


def digest_of(file: io.BufferedReader) -> tuple[int, str]:
    """The size and the sha256 of a file, which is read again from its beginning afterwards."""
    digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    file.seek(0)
    return size, digest


def next_form(current: str | None, compression: str | None) -> str:
    """The form of a file that gains rows: a compressed one stays so."""
    return ZSTD if compression == "zstd" or current == ZSTD else PLAIN
