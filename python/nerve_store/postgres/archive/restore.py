"""Putting an archived day back into the database."""

from __future__ import annotations

from collections.abc import Callable

from nerve_store._core import Columns, LogEntry, stored_rows
from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.days import Days
from nerve_store.postgres.archive.known import KnownDay
from nerve_store.postgres.archive.lines import read_day
from nerve_store.postgres.arrays import Integers, parameters
from nerve_store.postgres.connections import Session
from nerve_store.postgres.filters import ROW

_PAGE_ROWS = 2_000


def restore(
    session: Session,
    schema: str,
    days: Days,
    known: KnownDay,
    *,
    progress: Callable[[int, int], object] | None,
) -> int:
    """The rows of a day that were not in the database are there again, in one transaction."""
    days.check(known)
    restored = done = 0
    page: list[LogEntry] = []
    with days.opened(known) as file, session.transaction():
        for entry, _ in read_day(file, days.of(known), known.day, known.format):
            page.append(entry)
            if len(page) == _PAGE_ROWS:
                restored += _put(session, schema, page)
                done += len(page)
                page = []
                if progress is not None:
                    progress(done, known.row_count)
        restored += _put(session, schema, page)
        if progress is not None and page:
            progress(done + len(page), known.row_count)
    return restored


def _put(session: Session, schema: str, page: list[LogEntry]) -> int:
    if not page:
        return 0
    rows = session.execute(
        f"SELECT {ROW} FROM {schema}.logs WHERE id = ANY(%s)", ([entry.id for entry in page],), binary=True
    ).fetchall()
    there = {entry.id: entry for entry in stored_rows(rows)}
    missing = [entry for entry in page if entry.id not in there]
    for entry in page:
        if there.get(entry.id, entry) != entry:
            raise ArchiveError(f"row {entry.id} is another one in the database; nothing was restored")
    columns = Columns()
    columns.add_stored(missing)
    session.execute(
        f"INSERT INTO {schema}.logs (id, source, type, ref_id, payload, timestamp, is_round) "
        "SELECT * FROM unnest(%b, %b, %b, %b, %b, %b, %b)",
        (Integers.of([entry.id for entry in missing]), *parameters(columns)),
    )
    return len(missing)
