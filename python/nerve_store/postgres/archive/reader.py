"""Reading archived rows: only files are opened that can hold a match."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime
from typing import Any, BinaryIO

from nerve_store._core import LogEntry
from nerve_store.exceptions import ArchiveCorruptError
from nerve_store.postgres.archive.days import Days
from nerve_store.postgres.archive.known import KnownDay
from nerve_store.postgres.archive.lines import read_day
from nerve_store.postgres.connections import Connections, Session
from nerve_store.postgres.filters import Filter
from nerve_store.postgres.texts import encode

_TRIES = 5
"""How often a read looks again for a file that was replaced or expired under it."""


class ArchiveReader:
    """Reads what has left the database."""

    def __init__(self, connections: Connections, schema: str, days: Days, columns: str) -> None:
        self._connections, self._schema, self._days = connections, schema, days
        self._columns = columns

    def known(self, wanted: Filter | None = None) -> list[KnownDay]:
        """The days that may hold a match, oldest first."""
        conditions, parameters = ["state = 0"], dict[str, Any]()
        if wanted is not None:
            if wanted.since is not None:
                conditions.append("day >= %(since)s")
                parameters["since"] = _day_of(wanted.since)
            if wanted.until is not None:
                conditions.append("day <= %(until)s")
                parameters["until"] = _day_of(wanted.until)
            if wanted.after_id is not None:
                conditions.append("last_id > %(after_id)s")
                parameters["after_id"] = wanted.after_id
            if wanted.before_id is not None:
                conditions.append("first_id < %(before_id)s")
                parameters["before_id"] = wanted.before_id
            if wanted.ref_id is not None:
                conditions.append(
                    f"day IN (SELECT r.day FROM {self._schema}.archive_refs r WHERE r.ref_id = %(ref_id)s)"
                )
                parameters["ref_id"] = encode(wanted.ref_id)
            for place, value in (("0", wanted.source), ("1", wanted.type)):
                if value is not None:
                    conditions.append(
                        "(kinds IS NULL OR EXISTS (SELECT FROM jsonb_array_elements(kinds) AS k(kind) "
                        f"WHERE kind ->> {place} = %(kind{place})s))"
                    )
                    parameters[f"kind{place}"] = encode(value)
        condition = " AND ".join(conditions)
        statement = f"SELECT {self._columns} FROM {self._schema}.archive_days WHERE {condition} ORDER BY day"

        def read(session: Session) -> list[KnownDay]:
            return [KnownDay(*row) for row in session.execute(statement.encode(), parameters)]

        return self._connections.read(read)

    def find(self, day: date) -> KnownDay | None:
        """The day, if it has a file."""
        statement = f"SELECT {self._columns} FROM {self._schema}.archive_days WHERE state = 0 AND day = %s"
        row = self._connections.read(lambda session: session.execute(statement.encode(), (day,)).fetchone())
        return None if row is None else KnownDay(*row)

    def states(self, day: date) -> list[KnownDay]:
        """What counts as the day's file, and after it what a job has published or is about to publish as such."""
        statement = f"SELECT {self._columns} FROM {self._schema}.archive_days WHERE day = %s ORDER BY state"
        rows = self._connections.read(lambda session: session.execute(statement.encode(), (day,)).fetchall())
        return [KnownDay(*row) for row in rows]

    def rows(self, wanted: Filter) -> Iterator[LogEntry]:
        """The archived rows that match, in the order asked for."""
        days = self.known(wanted)
        if not days:
            return iter(())
        return self._merged(days, wanted)

    def _merged(self, days: list[KnownDay], wanted: Filter) -> Iterator[LogEntry]:
        """The rows of the days, in order; a file is opened when the merge comes to its ids.

        Since the database was asked, a file may have gained rows that are before those that were given. They were in
        the database at that time, and a caller that asks for the rows of both has read those of the database before.
        """
        sign = -1 if wanted.descending else 1
        starts = [((day.last_id if wanted.descending else day.first_id) or 0, day) for day in days]
        ahead = sorted(starts, key=lambda item: sign * item[0], reverse=True)
        # The next row of each open file, the first in order on top.
        open_rows: list[tuple[int, int, LogEntry, Iterator[LogEntry]]] = []
        last: int | None = None

        def advance(number: int, rows: Iterator[LogEntry]) -> None:
            entry = next(rows, None)
            if entry is not None:
                heapq.heappush(open_rows, (sign * entry.id, number, entry, rows))

        while ahead or open_rows:
            while ahead and (not open_rows or sign * ahead[-1][0] <= open_rows[0][0]):
                advance(len(ahead), self._matching(ahead.pop()[1], wanted, last))
            if open_rows:
                _, number, entry, rows = heapq.heappop(open_rows)
                last = entry.id
                yield entry
                advance(number, rows)

    def _matching(self, known: KnownDay, wanted: Filter, last: int | None) -> Iterator[LogEntry]:
        """The rows of a day that match, after the one that was given last."""
        if last is not None:
            bounds = {"before_id" if wanted.descending else "after_id": last}
            wanted = wanted.between(limit=wanted.limit, **bounds)
        found = (entry for entry in self.rows_of(known) if wanted.matches(entry))
        # A file is read forwards alone.
        return iter(list(found)[::-1]) if wanted.descending else found

    def rows_of(self, known: KnownDay) -> Iterator[LogEntry]:
        """All rows of a day's file."""
        with ExitStack() as stack:
            found = self._opened(known, stack)
            if found is not None:
                known, file = found
                for entry, _ in read_day(file, self._days.of(known), known.day, known.format):
                    yield entry

    def _opened(self, known: KnownDay, stack: ExitStack) -> tuple[KnownDay, BinaryIO] | None:
        """The day as it is by now, and its content; None if it has expired."""
        failure: ArchiveCorruptError | None = None
        for _ in range(_TRIES):
            try:
                return known, stack.enter_context(self._days.opened(known))
            except ArchiveCorruptError as error:
                failure = failure or error
            # It gained rows, or expired, since the database was asked, or does so at the moment.
            states = self.states(known.day)
            if not states:
                return None
            others = [state for state in states if state != known]
            if not others:
                break
            known = others[0]
        assert failure is not None
        raise failure


def _day_of(timestamp: int) -> date:
    clipped = min(max(timestamp, 0), 253_402_300_799_999)
    return datetime.fromtimestamp(clipped // 1000, UTC).date()
