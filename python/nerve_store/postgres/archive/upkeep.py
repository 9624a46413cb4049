"""The archive of an open log: jobs, listing, reading, restoring, verifying, expiring."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any, Literal

import psycopg

from nerve_store._core import DEFAULT_RETENTION, LogEntry, last_archivable_day
from nerve_store.exceptions import ArchiveBusyError, ArchiveError
from nerve_store.postgres import checks, failures
from nerve_store.postgres.archive.day import describe, read_file
from nerve_store.postgres.archive.job import ArchiveJob, release_lock, take_lock
from nerve_store.postgres.archive.manifest import forget, settle
from nerve_store.postgres.archive.reader import ArchiveReader, KnownDay, missing
from nerve_store.postgres.archive.restore import restore
from nerve_store.postgres.archive.verify import verify
from nerve_store.postgres.connections import Session
from nerve_store.postgres.entries import now as clock
from nerve_store.postgres.reads import PostgresIterator, Reads
from nerve_store.records import ArchivedDay, ArchiveResult, VerifyReport
from nerve_store.types import Timestamp

_DAY_MS = 86_400_000
_PAUSE = 0.1


class Archives(Reads):
    """The archive."""

    def archive_logs(
        self,
        *,
        now: Timestamp | None = None,
        retention: timedelta = DEFAULT_RETENTION,
        max_days: int | None = None,
        vacuum: bool | Literal["incremental"] = False,
        compression: Literal["zstd"] | None = None,
        dry_run: bool = False,
        wait: float = 0.0,
        progress: Callable[[int, int], object] | None = None,
    ) -> ArchiveResult:
        """Move the rows of every UTC day that ended before `now - retention` to that day's file.

        A day's file is staged, synced, published, read back and compared before exactly its rows are deleted; a file
        that is there already gains the new rows and loses none. Rows of queued and started runs stay. The options are
        those of `LogStore.archive_logs`; `vacuum` is the server's own work, so that it runs VACUUM on the tables and
        `vacuumed` says whether they became smaller.
        """
        moment = clock() if now is None else checks.timestamp(now)
        boundary = moment - checks.span(retention) // timedelta(milliseconds=1)
        most = None if max_days is None else checks.amount(max_days)
        if compression not in (None, "zstd"):
            raise ValueError(f"compression is None or 'zstd', not {compression!r}")
        patience = checks.seconds(wait, "wait")
        self._check_job(is_dry=checks.flag(dry_run))
        if boundary < _DAY_MS:
            return ArchiveResult((), vacuumed=False, dry_run=dry_run)
        last = last_archivable_day(min(boundary, checks.MAX_TIMESTAMP))
        with self._exclusive(patience) as session:
            job = ArchiveJob(
                session, self._name, self._archive, compression=compression, dry_run=dry_run, progress=progress
            )
            days = job.plan(last)
            gained = job.run(days, most, last) if any(item.row_count for item in days) else []
            return ArchiveResult(
                tuple(gained),
                vacuumed=bool(vacuum) and not dry_run and self._vacuum(session),
                dry_run=dry_run,
                pinned_rows=sum(item.pinned_rows for item in days),
                unarchivable_rows=job.unarchivable_rows(),
            )

    def archived_days(self) -> list[ArchivedDay]:
        """The days in the archive, oldest first, as the database describes them.

        A file that it does not know is read once to describe it; the next archive job adopts it.
        """
        known = {item.day: item for item in self._reader().known()}
        for day, form in self._archive.days():
            if day not in known:
                known[day] = describe(self._archive, day, form)[0]
        return [known[day].record(self._archive) for day in sorted(known)]

    def read_archive(self, day: date) -> PostgresIterator:
        """The rows in the file of `day`, in id order, in constant memory; `ArchiveError` if there is none."""
        known = self._known(checks.day(day))
        return PostgresIterator(self._checked_rows(known))

    def restore_archive(self, day: date, *, progress: Callable[[int, int], object] | None = None) -> int:
        """Put the rows of `day` back into the database, under their ids; returns how many were not there.

        The file stays, and the next archive job deletes the rows again. Nothing is put back if the file is damaged
        (`ArchiveCorruptError`), if there is none, or if the database has another row under one of the ids
        (`ArchiveError`).
        """
        checks.day(day)
        self._check_writable()
        with self._exclusive(0.0) as session:
            return restore(session, self._schema, self._archive, self._known(day), progress=progress)

    def verify(self, *, progress: Callable[[int, int], object] | None = None) -> VerifyReport:
        """Check the rows of the database and every archive file; what is wrong is in the report.

        Ids that occur twice, runs that are not in the state of their newest row, and of each file the sha256, every
        line, and what the database says of it. The server checks its own pages.
        """
        return verify(self._connections, self._schema, self._archive, self._path, progress=progress)

    def reindex(self, *, progress: Callable[[int, int], object] | None = None) -> None:
        """Describe the files of the archive anew, each as it is; missing ones are forgotten."""
        self._check_writable()
        with self._exclusive(0.0) as session:
            files = self._archive.days()
            for known in self._reader().known():
                if known.day not in {day for day, _ in files}:
                    forget(session, self._schema, known.day)
            for done, (day, form) in enumerate(files, 1):
                settle(session, self._schema, *describe(self._archive, day, form))
                if progress is not None:
                    progress(done, len(files))

    def expire_archive(self, *, before: date, dry_run: bool = False) -> list[ArchivedDay]:
        """Delete the files of the days before, and what the database keeps of them; rounds keep their numbers.

        Never a day in which an active run has rows. Returns the days that are deleted.
        """
        checks.day(before)
        self._check_job(is_dry=checks.flag(dry_run))
        with self._exclusive(0.0) as session:
            kept = {
                row[0]
                for row in session.execute(
                    f"SELECT DISTINCT a.day FROM {self._schema}.archive_refs a JOIN {self._schema}.workflow_runs r "
                    "ON r.run_id = a.ref_id WHERE r.status IN ('queued', 'started')"
                )
            }
            expired = [item for item in self._reader().known() if item.day < before and item.day not in kept]
            records = [item.record(self._archive) for item in expired]
            if not dry_run:
                for item in expired:
                    forget(session, self._schema, item.day)
                    self._archive.remove(item.day, item.format)
            return records

    def _check_job(self, *, is_dry: bool) -> None:
        """A job that changes nothing may be done by a store that only reads."""
        if is_dry:
            self._connections.check()
        else:
            self._check_writable()

    @contextmanager
    def _exclusive(self, patience: float) -> Iterator[Session]:
        """A session of its own that holds the archive's lock; it goes around a pooler, which would share it."""
        session = self._connections.reach(self._direct_url)
        try:
            end = time.monotonic() + patience
            while not take_lock(session, self._name):
                left = end - time.monotonic()
                if left <= 0:
                    reason = "another archive job is under way; wait for it, or say wait="
                    error = ArchiveBusyError(errno.EBUSY, reason, self._path)
                    error.path = self._path
                    raise error
                time.sleep(min(left, _PAUSE))
            try:
                yield session
            finally:
                release_lock(session, self._name)
        except psycopg.Error as error:
            failures.fail(error, self._path)
        finally:
            session.close()

    def _reader(self) -> ArchiveReader:
        return ArchiveReader(self._connections, self._schema, self._archive)

    def _known(self, day: date) -> KnownDay:
        known = self._reader().find(day)
        if known is None:
            for found, form in self._archive.days():
                if found == day:
                    return describe(self._archive, day, form)[0]
            error = ArchiveError(
                f"there is no archive file of {day.isoformat()}; archived_days() lists those there are"
            )
            error.path = self._archive.path
            raise error
        return known

    def _checked_rows(self, known: KnownDay) -> Iterator[LogEntry]:
        try:
            for entry, _ in read_file(self._archive, known.day, known.format):
                self._connections.check()
                yield entry
        except FileNotFoundError as error:
            raise missing(self._archive.of(known.day, known.format)) from error

    def _vacuum(self, session: Session) -> bool:
        size = self._size(session)
        for table in ("logs", "workflow_runs", "keys", "writers"):
            session.execute(f"VACUUM {self._schema}.{table}".encode())
        return self._size(session) < size

    def _size(self, session: Session) -> int:
        row: Any = session.execute(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'",
            (self._name,),
        ).fetchone()
        return int(row[0])
