"""Ids that were given twice: to a row of the database, and to another one in a day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeAlias

from nerve_store._core import LogEntry, stored_rows
from nerve_store.postgres.archive.known import KnownDay
from nerve_store.postgres.arrays import Integers
from nerve_store.postgres.connections import Session
from nerve_store.postgres.filters import ROW

_PAGE_ROWS = 2_000
Read: TypeAlias = Callable[[Callable[[Session], list[tuple[Any, ...]]]], list[tuple[Any, ...]]]
"""Asks the server on a session."""


def clashing_ids(read: Read, schema: str, known: KnownDay, rows: Callable[[], Iterator[LogEntry]]) -> list[int]:
    """The ids under which the database has other rows than the day, whose `rows` are read only if it has any.

    Rows that a killed job left in both places, or that were restored, are the same.
    """
    within = f"SELECT FROM {schema}.logs WHERE id BETWEEN %s AND %s LIMIT 1"
    if not read(lambda session: session.execute(within.encode(), (known.first_id, known.last_id)).fetchall()):
        return []
    found: list[int] = []
    entries = rows()
    while page := {entry.id: entry for entry in islice(entries, _PAGE_ROWS)}:
        found += [entry.id for entry in _live(read, schema, list(page)) if page[entry.id] != entry]
    return sorted(set(found))


def _live(read: Read, schema: str, ids: list[int]) -> list[LogEntry]:
    statement = f"SELECT {ROW} FROM {schema}.logs WHERE id BETWEEN %s AND %s AND id = ANY(%b)"
    parameters = (ids[0], ids[-1], Integers.of(ids))
    return stored_rows(read(lambda session: session.execute(statement.encode(), parameters, binary=True).fetchall()))


def reason(ids: list[int]) -> str:
    """What is wrong with these ids, and the way out."""
    return (
        f"{len(ids)} rows of the database with ids from {ids[0]} to {ids[-1]} are others than in this day: the ids "
        "were given twice, by a database that was older than the day. If the days are this log's, reindex() gives "
        "those of the database new ids"
    )
