"""Moving days from the database to files or objects.

For every row, at every crash: it is in the database, or in a complete file that was read back, or in both. Rows are
deleted by id, never by time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import BinaryIO

from psycopg import Copy, errors

from nerve_store._core import ARCHIVED_UP_TO, MAX_TIMESTAMP
from nerve_store.postgres.archive.day import NullFile, next_form, write_day
from nerve_store.postgres.archive.days import Days
from nerve_store.postgres.archive.known import DaySummary, KnownDay, day_start
from nerve_store.postgres.archive.manifest import PINNED, Manifest
from nerve_store.postgres.arrays import Integers
from nerve_store.postgres.entries import now as clock
from nerve_store.postgres.filters import COLUMNS
from nerve_store.postgres.schema import lock_key
from nerve_store.records import ArchivedDay, VerifyProblem

_DAY_MS = 86_400_000
_PAGE_ROWS = 2_000
_PROGRESS_ROWS = 1_000
_KEY_DAYS = 7
"""A key is remembered until its row is archived, and at least so long."""
_DROP_TIMEOUT = "1s"
"""How long dropping a partition may wait for readers, and let new ones wait behind it."""


@dataclass(frozen=True, slots=True)
class RipeDay:
    """A day that has ended, and what of it may go."""

    day: date
    row_count: int
    pinned_rows: int


class ArchiveJob:
    """One run of `archive_logs` on a session of its own, which holds the archive's lock."""

    def __init__(
        self,
        manifest: Manifest,
        days: Days,
        *,
        compression: str | None,
        dry_run: bool,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self._manifest, self._days, self._compression = manifest, days, compression
        self._session, self._name, self._schema = manifest.session, manifest.name, manifest.schema
        self._dry_run, self._progress = dry_run, progress
        self._done = self._total = 0
        self.problems: list[VerifyProblem] = []
        """What is wrong with days that no row needed."""
        self._pinned = PINNED.format(s=self._schema)

    def plan(self, last: date) -> list[RipeDay]:
        """The days up to `last` that have rows, oldest first."""
        rows = self._session.execute(
            f"SELECT l.timestamp / {_DAY_MS} AS number, count(*) FILTER (WHERE NOT {self._pinned}), "
            f"count(*) FILTER (WHERE {self._pinned}) FROM {self._schema}.logs l "
            "WHERE l.timestamp >= 0 AND l.timestamp < %s GROUP BY number ORDER BY number",
            (day_start(last) + _DAY_MS,),
        ).fetchall()
        return [RipeDay(date(1970, 1, 1) + timedelta(days=int(number)), ripe, pinned) for number, ripe, pinned in rows]

    def unarchivable_rows(self) -> int:
        """Rows whose timestamp is outside of the years 1970 to 9999."""
        row = self._session.execute(
            f"SELECT count(*) FROM {self._schema}.logs WHERE timestamp < 0 OR timestamp > {MAX_TIMESTAMP}"
        ).fetchone()
        return int(row[0]) if row else 0

    def run(self, days: list[RipeDay], max_days: int | None, last: date) -> list[ArchivedDay]:
        """Archive the days; returns those that gained rows."""
        self._total = sum(item.row_count for item in days)
        gained: list[ArchivedDay] = []
        watermark: date | None = None
        is_whole = True
        if not self._dry_run:
            self.problems = self._days.prepare(self._manifest, is_idle=not self._total)
            self._analyze()
        for item in days:
            if not item.row_count:
                continue
            if max_days is not None and len(gained) >= max_days:
                break
            added, is_moved = self._move(item.day)
            is_whole = is_whole and is_moved
            watermark = item.day if is_whole else watermark
            if added is not None:
                gained.append(added)
        else:
            watermark = last if watermark is not None and is_whole else watermark
        if not self._dry_run:
            self._end(watermark)
        anew = {item.day for item in gained}
        self.problems = [problem for problem in self.problems if problem.day not in anew]
        return gained

    def _analyze(self) -> None:
        """Have the planner know tables that it knows nothing of: it would read a day again to delete each page."""
        unknown = self._session.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid "
            "WHERE i.inhparent = %s::regclass AND c.reltuples < 0 AND pg_relation_size(c.oid) > 0 "
            "AND pg_get_userbyid(c.relowner) = current_user",
            (f"{self._schema}.logs",),
        ).fetchall()
        for (name,) in unknown:
            self._session.execute(f'ANALYZE {self._schema}."{name}"'.encode())

    def _end(self, watermark: date | None) -> None:
        if watermark is not None:
            self._move_watermark(watermark)
        with self._session.transaction():
            self._session.execute(
                f"DELETE FROM {self._schema}.keys k WHERE at < now() - make_interval(days => {_KEY_DAYS}) "
                f"AND NOT EXISTS (SELECT FROM {self._schema}.logs l WHERE l.id = k.id)"
            )
            # Of processes that were killed; one that lives gets another row with its next call.
            self._session.execute(
                f"DELETE FROM {self._schema}.writers WHERE seen < now() - make_interval(days => {_KEY_DAYS})"
            )
        self._days.tidy(self._manifest)

    def _move(self, day: date) -> tuple[ArchivedDay | None, bool]:
        """The day, if it gained rows; and whether its rows have been moved."""
        current, old = self._days.current(self._manifest, day)
        form = next_form(current, self._compression)
        ids: Sequence[int] = ()

        def write(file: BinaryIO | NullFile) -> tuple[KnownDay, DaySummary]:
            nonlocal ids
            with self._rows(day) as rows:
                known, summary, ids = write_day(
                    file, form, None if current is None else old, rows, day, archived_at=clock(), on_rows=self._tell
                )
            return known, summary

        if self._dry_run:
            known, summary = write(NullFile())
        else:
            stored = self._days.store(self._manifest, day, form, write)
            if stored is None:
                return None, False
            known, summary = stored
            self._delete(day, ids)
        if not summary.added_rows:
            return None, True
        return known.record(self._days.of(known), added_rows=summary.added_rows), True

    def _tell(self, row_count: int) -> None:
        before = self._done
        self._done += row_count
        is_due = self._done // _PROGRESS_ROWS > before // _PROGRESS_ROWS or self._done == self._total
        if self._progress is not None and row_count and is_due:
            self._progress(self._done, self._total)

    def _rows(self, day: date) -> AbstractContextManager[Copy]:
        """The rows that may go, as they are at this moment; what comes meanwhile is left to the next job."""
        first = day_start(day)
        statement = (
            f"COPY (SELECT {COLUMNS} FROM {self._schema}.logs l WHERE l.timestamp >= {first} "
            f"AND l.timestamp < {first + _DAY_MS} AND NOT {self._pinned} ORDER BY l.id) TO STDOUT (FORMAT binary)"
        )
        return self._session.cursor().copy(statement.encode())

    def _delete(self, day: date, ids: Sequence[int]) -> None:
        """Delete the rows that are in the file, without those of runs that were resumed meanwhile."""
        if not ids or self._drop_partition(day, len(ids)):
            return
        first = day_start(day)
        for start in range(0, len(ids), _PAGE_ROWS):
            with self._session.transaction():
                # A run that is resumed changes under this lock alone.
                self._session.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(self._name),))
                self._session.execute(
                    f"DELETE FROM {self._schema}.logs l WHERE l.id = ANY(%b) AND l.timestamp >= %s "
                    f"AND l.timestamp < %s AND NOT {self._pinned}",
                    (Integers.of(ids[start : start + _PAGE_ROWS]), first, first + _DAY_MS),
                )

    def _drop_partition(self, day: date, count: int) -> bool:
        """Drop the day's partition, if it holds the archived rows and no others: much less work than to delete them."""
        partition = f'{self._schema}."logs_{day:%Y%m%d}"'
        # Another role than the owner may not even look at it: rights on the log are none on its partitions.
        row = self._session.execute(
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass(%s)", (partition,)
        ).fetchone()
        if not row or not row[0] or not self._has_only(partition, count):
            return False
        try:
            with self._session.transaction():
                self._session.execute(
                    "SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(%s)",
                    (_DROP_TIMEOUT, lock_key(self._name)),
                )
                self._session.execute(f"LOCK TABLE {self._schema}.logs IN ACCESS EXCLUSIVE MODE".encode())
                if not self._has_only(partition, count):
                    return False
                self._session.execute(f"DROP TABLE {partition}".encode())
        except (errors.LockNotAvailable, errors.InsufficientPrivilege, errors.DeadlockDetected):
            return False
        return True

    def _has_only(self, partition: str, count: int) -> bool:
        # Its ids are among those of the archived rows: only archive jobs delete, and this one holds their lock.
        row = self._session.execute(
            f"SELECT (SELECT count(*) FROM {partition}) = %s "
            f"AND NOT EXISTS (SELECT FROM {partition} l WHERE {self._pinned})".encode(),
            (count,),
        ).fetchone()
        return bool(row and row[0])

    def _move_watermark(self, day: date) -> None:
        with self._session.transaction():
            self._session.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(self._name),))
            updated = self._session.execute(
                f"UPDATE {self._schema}.meta SET value = greatest(value, %s) WHERE key = %s",
                (day.isoformat(), ARCHIVED_UP_TO),
            )
            if not updated.rowcount:
                self._session.execute(
                    f"INSERT INTO {self._schema}.meta (key, value) VALUES (%s, %s)", (ARCHIVED_UP_TO, day.isoformat())
                )
