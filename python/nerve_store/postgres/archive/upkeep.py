"""The archive of an open log: jobs, listing, reading, restoring, verifying, expiring."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any, Literal

import psycopg

from nerve_store._core import DEFAULT_RETENTION, MAX_TIMESTAMP, Check, LogEntry, last_archivable_day
from nerve_store._places import error_at
from nerve_store.exceptions import ArchiveBusyError, ArchiveError
from nerve_store.postgres import failures
from nerve_store.postgres.archive.job import ArchiveJob
from nerve_store.postgres.archive.known import KnownDay
from nerve_store.postgres.archive.manifest import OBJECTS, Manifest
from nerve_store.postgres.archive.restore import restore
from nerve_store.postgres.archive.verify import verify
from nerve_store.postgres.entries import now as clock
from nerve_store.postgres.locks import release_lock, take_lock
from nerve_store.postgres.pages import paged
from nerve_store.postgres.reads import PostgresIterator, Reads
from nerve_store.postgres.schema import lock_key
from nerve_store.records import ArchivedDay, ArchiveResult, VerifyReport
from nerve_store.types import Timestamp

_DAY_MS = 86_400_000
_PAUSE = 0.1
_log = logging.getLogger("nerve_store")


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
        """Move the rows of every UTC day that ended before `now - retention` to that day's file or object.

        A day's file is staged, synced, published, read back and compared before exactly its rows are deleted; a file
        that is there already gains the new rows and loses none. An object is sent, read back and compared; a day that
        gains rows becomes another object. Rows of queued and started runs stay. The options are those of
        `LogStore.archive_logs`; `vacuum` is the server's own work, so that it runs VACUUM on the tables and `vacuumed`
        says whether they became smaller.

        If an object store gives no answer (`StoreUnavailableError`), the days before have been moved, and the next job
        goes on. An object there that is not this log's and bears the name of a day is left as it is, with the rows of
        that day (`ArchiveError`, after the other days have been moved). Days that are not what was archived, and that
        no row needs, are in `problems`, as far as it shows in sizes and in the times of files.
        """
        moment = Check.timestamp(now, "now")
        kept = Check.span(retention, "retention") // timedelta(milliseconds=1)
        boundary = (clock() if moment is None else moment) - kept
        most = Check.optional_count(max_days, "max_days")
        Check.compression(compression)
        Check.vacuum(vacuum)
        patience = Check.seconds(wait, "wait")
        Check.progress(progress)
        self._check_job(is_dry=Check.flag(dry_run, "dry_run"))
        if boundary < _DAY_MS:
            return ArchiveResult((), vacuumed=False, dry_run=dry_run)
        last = last_archivable_day(min(boundary, MAX_TIMESTAMP))
        with self._exclusive(patience) as manifest:
            job = ArchiveJob(manifest, self._archive, compression=compression, dry_run=dry_run, progress=progress)
            days = job.plan(last)
            gained = job.run(days, most, last)
            result = ArchiveResult(
                tuple(gained),
                vacuumed=bool(vacuum) and not dry_run and self._vacuum(manifest),
                dry_run=dry_run,
                pinned_rows=sum(item.pinned_rows for item in days),
                unarchivable_rows=job.unarchivable_rows(),
                problems=tuple(job.problems),
            )
        for problem in result.problems:
            _log.warning("%s: %s", problem.path, problem.reason)
        return result

    def archived_days(self) -> list[ArchivedDay]:
        """The days in the archive, oldest first, as the database describes them.

        A file that it does not know is read once to describe it; the next archive job adopts it.
        """
        known = {item.day: item for item in self._reader().known()}
        for item in self._archive.strays(set(known)):
            known[item.day] = item
        return [known[day].record(self._archive.of(known[day])) for day in sorted(known)]

    def read_archive(self, day: date) -> PostgresIterator:
        """The rows in the file or object of `day`, in id order, in constant memory; `ArchiveError` if there is none."""
        found: KnownDay | None = self._known(Check.day(day, "day"))

        def pages(last: LogEntry | None, _: int | None) -> Iterator[list[LogEntry]]:
            nonlocal found
            known, found = found or self._known(day), None
            return paged(entry for entry in self._checked_rows(known) if last is None or entry.id > last.id)

        return PostgresIterator(pages, self._connections.check)

    def restore_archive(self, day: date, *, progress: Callable[[int, int], object] | None = None) -> int:
        """Put the rows of `day` back into the database, under their ids; returns how many were not there.

        The file stays, and the next archive job deletes the rows again. Nothing is put back if the file is damaged
        (`ArchiveCorruptError`), if there is none, or if the database has another row under one of the ids
        (`ArchiveError`).
        """
        Check.day(day, "day")
        Check.progress(progress)
        self._check_writable()
        with self._exclusive(0.0) as manifest:
            self._take_in_left(manifest)
            known = self._known(day)
            return restore(manifest.session, self._schema, self._archive, known, progress=progress)

    def verify(self, *, progress: Callable[[int, int], object] | None = None) -> VerifyReport:
        """Check the rows of the database and every day of the archive; what is wrong is in the report.

        Ids that are of two rows, both in the database or one in a day; of each file or object the sha256, every line,
        and what the database says of it; of objects in the cache, also whether they are there with their size. A run's
        state is not compared with its rows: a program may log a row without changing the run. The server checks its own
        pages, and that states are known.
        """
        Check.progress(progress)
        reader = self._reader()
        return verify(self._connections, self._schema, reader, self._archive, self._path, progress=progress)

    def reindex(self, *, progress: Callable[[int, int], object] | None = None) -> None:
        """Describe the days of the archive anew, each as it is.

        Files that are missing in a directory are forgotten. A missing object is an `ArchiveCorruptError`, because a
        bucket that is the wrong one has none either: `expire_archive` forgets days whose objects were expired after
        the backup that the database comes from.

        Rows of the database whose ids a day has given to other rows get new ids, and a claim by one of them is lost.
        Days are taken in that the database does not know, such as files that were copied to the directory or to the
        folder `logs/` of the object store, with their names.
        """
        Check.progress(progress)
        self._check_writable()
        with self._exclusive(0.0) as manifest:
            self._archive.reindex(manifest, progress)

    def expire_archive(self, *, before: date, dry_run: bool = False) -> list[ArchivedDay]:
        """Delete the days before, and what the database keeps of them; rounds keep their numbers.

        Never a day in which an active run has rows. Returns the days that are deleted.
        """
        Check.day(before, "before")
        self._check_job(is_dry=Check.flag(dry_run, "dry_run"))
        with self._exclusive(0.0) as manifest:
            if not dry_run:
                self._take_in_left(manifest)
            kept = {
                row[0]
                for row in manifest.execute(
                    "SELECT DISTINCT a.day FROM @.archive_refs a JOIN @.workflow_runs r ON r.run_id = a.ref_id "
                    "WHERE r.status IN ('queued', 'started')"
                )
            }
            expired = [item for item in self._reader().known() if item.day < before and item.day not in kept]
            if not dry_run:
                self._archive.expire(manifest, expired)
            return [item.record(self._archive.of(item)) for item in expired]

    def _take_in_left(self, manifest: Manifest) -> None:
        """What a killed job published counts, before a day is put back or removed."""
        if manifest.announced():
            self._archive.prepare(manifest, is_idle=True)

    def _check_job(self, *, is_dry: bool) -> None:
        """A job that changes nothing may be done by a store that only reads."""
        if is_dry:
            self._connections.check()
        else:
            self._check_writable()

    @contextmanager
    def _exclusive(self, patience: float) -> Iterator[Manifest]:
        """What the database says of the days, on a session of its own that holds the archive's lock.

        It goes around a pooler: one that gives the session to others as well would give them the lock, too.
        """
        session, key = self._connections.reach(self._direct_url), lock_key(self._name, "archive")
        try:
            if self._connections.is_shared(session, self._direct_url):
                raise self._needs_own_session()
            end = time.monotonic() + patience
            while not take_lock(session, key):
                left = end - time.monotonic()
                if left <= 0:
                    reason = "another archive job is under way; wait for it, or say wait="
                    error = ArchiveBusyError(errno.EBUSY, reason, self._path)
                    error.path = self._path
                    raise error
                time.sleep(min(left, _PAUSE))
            try:
                manifest = Manifest(session, self._name, self._path, self._columns_of_days)
                if not self._log.startswith(manifest.identity()):
                    raise failures.moved(self._path, "another log has this name")
                yield manifest
            finally:
                release_lock(session, key)
        except psycopg.Error as error:
            failures.fail(error, self._path)
        finally:
            session.close()

    def _needs_own_session(self) -> ArchiveError:
        return error_at(
            ArchiveError,
            self._path,
            "a pooler gives this session to others, too, and archive jobs, or an opening that takes in "
            "days, need one of their own; give listen_url, an address that goes around the pooler",
        )

    def _open_archive(self) -> None:
        unknown = self._archive.unknown(self._identity, self._objects, self._reader().known)
        if not self._read_only:
            self._archive.take(self._path, self._reader().known)
        if not unknown:
            return
        if self._read_only:
            raise error_at(
                ArchiveError,
                unknown[0],
                "the database does not know this day: it is older than the object store; "
                "open the log for writing once, which takes in what is there",
            )
        with self._exclusive(self._connections.busy_timeout) as manifest:
            self._archive.prepare(manifest)
            self._archive.tidy(manifest)

    def _identity(self) -> str:
        return str(self._value(f"SELECT store_id FROM {self._schema}.state"))

    def _objects(self) -> list[tuple[Any, ...]]:
        if not self._knows_objects:
            return []
        statement = OBJECTS.replace("@", self._schema)
        return self._connections.read(lambda session: session.execute(statement.encode()).fetchall())

    def _known(self, day: date) -> KnownDay:
        known = self._reader().find(day)
        if known is not None:
            return known
        known = self._archive.stray(day)
        if known is not None:
            return known
        path = f"{self._archive.path}/{day.isoformat()}.jsonl"
        raise error_at(ArchiveError, path, "there is no such day in the archive")

    def _checked_rows(self, known: KnownDay) -> Iterator[LogEntry]:
        for entry in self._reader().rows_of(known):
            self._connections.check()
            yield entry

    def _vacuum(self, manifest: Manifest) -> bool:
        size = self._size(manifest)
        for table in ("logs", "workflow_runs", "keys", "writers"):
            manifest.execute(f"VACUUM @.{table}")
        return self._size(manifest) < size

    def _size(self, manifest: Manifest) -> int:
        rows = manifest.execute(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'",
            (self._name,),
        )
        return int(rows[0][0])
