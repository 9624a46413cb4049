"""What the database says of the days, for those who hold the lock of archive jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

from psycopg.types.json import Jsonb

from nerve_store._core import LogEntry
from nerve_store._places import error_at
from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.clashes import clashing_ids, reason
from nerve_store.postgres.archive.known import COLUMNS, DaySummary, KnownDay
from nerve_store.postgres.connections import Session
from nerve_store.postgres.schema import quoted
from nerve_store.postgres.texts import encode

PINNED = "EXISTS (SELECT FROM {s}.workflow_runs r WHERE r.run_id = l.ref_id AND r.status IN ('queued', 'started'))"
"""Whether the row `l` stays because its run is active."""
OBJECTS = "SELECT day, key, state, size, sha256 FROM @.archive_objects ORDER BY day, key"

_IDS = (("logs", "id"), ("keys", "id"), ("workflow_runs", "created_id"), ("workflow_runs", "token"))
"""Where ids of rows of the database are."""
_log = logging.getLogger("nerve_store")


class Manifest:
    """The tables `archive_days`, `archive_refs` and `archive_objects` of a schema, on the session that has the lock."""

    def __init__(self, session: Session, name: str, path: str, columns: str) -> None:
        """`path` is how the log is called in messages, `columns` are those of `archive_days` that there are."""
        self.session, self.name, self.schema, self.path = session, name, quoted(name), path
        self._columns = columns

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement, in which `@` stands for the schema."""
        cursor = self.session.execute(statement.replace("@", self.schema).encode(), parameters)
        return cursor.fetchall() if cursor.description is not None else []

    def identity(self) -> str:
        """What no other log has."""
        return str(self.execute("SELECT store_id FROM @.state")[0][0])

    def known(self) -> list[KnownDay]:
        """The days that have a file or an object, oldest first."""
        rows = self.execute(f"SELECT {self._columns} FROM @.archive_days WHERE state = 0 ORDER BY day")
        return [KnownDay(*row) for row in rows]

    def find(self, day: date) -> KnownDay | None:
        """A day, if it has one."""
        rows = self.execute(f"SELECT {self._columns} FROM @.archive_days WHERE state = 0 AND day = %s", (day,))
        return KnownDay(*rows[0]) if rows else None

    def objects(self) -> list[tuple[date, str, str, int, str]]:
        """The day, the key, the state, the size and the sha256 of all objects, by day."""
        return [(day, key, state, size, sha256) for day, key, state, size, sha256 in self.execute(OBJECTS)]

    def current_objects(self) -> list[KnownDay]:
        """The days that lie in objects, by these alone: what is said of the rows in them may be missing."""
        rows = self.execute(
            "SELECT o.day, o.key, o.size, o.sha256, o.place, coalesce(d.archived_at, 0) FROM @.archive_objects o "
            "LEFT JOIN @.archive_days d ON d.day = o.day AND d.state = 0 WHERE o.state = 'current' ORDER BY o.day"
        )
        return [
            KnownDay(day, key[key.index("jsonl") :], 0, None, None, size, 0, sha256, at, place, key)
            for day, key, size, sha256, place, at in rows
        ]

    def announced(self) -> dict[date, KnownDay]:
        """The files that were about to be published, by day."""
        rows = self.execute(f"SELECT {self._columns} FROM @.archive_days WHERE state = 1")
        return {row[0]: KnownDay(*row) for row in rows}

    def announce(self, known: KnownDay, summary: DaySummary) -> None:
        """Note the file that is about to be published: after a crash it is known whose it is."""
        with self.session.transaction():
            self.execute("DELETE FROM @.archive_days WHERE day = %s AND state = 1", (known.day,))
            self._insert(known, summary, state=1)

    def settle(self, known: KnownDay, summary: DaySummary) -> None:
        """The file or the object is the one that counts; objects that held the day before are to be deleted."""
        with self.session.transaction():
            self.execute("DELETE FROM @.archive_days WHERE day = %s", (known.day,))
            self._insert(known, summary, state=0)
            self.execute("DELETE FROM @.archive_refs WHERE day = %s AND NOT expired", (known.day,))
            statement = f"COPY {self.schema}.archive_refs (day, ref_id, round_ids) FROM STDIN"
            with self.session.cursor().copy(statement.encode()) as copy:
                for ref_id, rounds in summary.refs.items():
                    copy.write_row((known.day, encode(ref_id), rounds))
            self._supersede(known.day)
            if known.key is not None:
                self.execute(
                    "INSERT INTO @.archive_objects (day, key, state, size, sha256, place) "
                    "VALUES (%s, %s, 'current', %s, %s, %s) ON CONFLICT (day, key) DO UPDATE "
                    "SET state = 'current', size = excluded.size, sha256 = excluded.sha256, place = excluded.place",
                    (known.day, known.key, known.size, known.sha256, known.place),
                )

    def note_time(self, day: date, archived_at: int) -> None:
        """The file of the day was compared, and has been as it is since then."""
        self.execute("UPDATE @.archive_days SET archived_at = %s WHERE day = %s AND state = 0", (archived_at, day))

    def forget(self, day: date) -> None:
        """The day has no file any more, and its objects are to be deleted; its rounds keep their numbers."""
        with self.session.transaction():
            self.execute("DELETE FROM @.archive_days WHERE day = %s", (day,))
            self.execute("DELETE FROM @.archive_refs WHERE day = %s AND round_ids = '{}'", (day,))
            self.execute("UPDATE @.archive_refs SET expired = true WHERE day = %s", (day,))
            self._supersede(day)

    def _supersede(self, day: date) -> None:
        self.execute("UPDATE @.archive_objects SET state = 'superseded' WHERE day = %s AND state <> 'gone'", (day,))

    def _insert(self, known: KnownDay, summary: DaySummary, *, state: int) -> None:
        kinds = None
        if summary.kinds is not None:
            kinds = Jsonb(sorted([encode(source), encode(kind)] for source, kind in summary.kinds))
        self.execute(
            f"INSERT INTO @.archive_days (state, kinds, {COLUMNS}) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                state, kinds, known.day, known.format, known.row_count, known.first_id, known.last_id, known.size,
                known.raw_size, known.sha256, known.archived_at, known.place, known.key,
            ),
        )  # fmt: skip

    def take_in(
        self,
        known: KnownDay,
        summary: DaySummary,
        path: str,
        rows: Callable[[], Iterator[tuple[LogEntry, bytes]]],
        *,
        renumbers: bool,
    ) -> None:
        """A day that the database did not know, or not so, counts. Its ids are given to no other row, from before.

        `rows` reads it, with its lines. Other rows of the database that have their ids get new ones, or are an
        `ArchiveError`.
        """
        go_on_after(self.session, self.name, known.last_id)
        ids = clashing_ids(lambda call: call(self.session), self.schema, known, lambda: (entry for entry, _ in rows()))
        if ids:
            if not renumbers:
                raise error_at(ArchiveError, path, reason(ids))
            self._renumber(ids)
            _log.warning("%s: %d rows of the database had ids of other rows of it, and have new ones", path, len(ids))
        self.settle(known, summary)

    def _renumber(self, ids: list[int]) -> None:
        """Give rows of the database new ids. A claim by one of them is lost; its lease runs out."""
        with self.session.transaction():
            last = int(self.execute("SELECT @.lock_ids(0)")[0][0])
            new = list(range(last + 1, last + 1 + len(ids)))
            for table, column in _IDS:
                self.execute(
                    f"UPDATE @.{table} t SET {column} = m.new FROM unnest(%s::bigint[], %s::bigint[]) AS m(old, new) "
                    f"WHERE t.{column} = m.old",
                    (ids, new),
                )
            self.execute("SELECT @.go_on_after(%s)", (new[-1],))


def go_on_after(session: Session, name: str, last_id: int | None) -> None:
    """Give no id out that a day has, nor one before. Waits for the append lock without end."""
    schema = quoted(name)
    with session.transaction():
        row = session.execute(f"SELECT {schema}.lock_ids(0)").fetchone()
        if row is not None and last_id is not None and row[0] < last_id:
            session.execute(f"SELECT {schema}.go_on_after(%s)", (last_id,))
