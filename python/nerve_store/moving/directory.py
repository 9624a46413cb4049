"""A data directory that a log is moved to."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Collection, Generator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING

from nerve_store._core import BlobStore, LogEntry, LogStore
from nerve_store._places import COPY_DATABASE, MAX_CACHE_BYTES, make_directory, sync_directory
from nerve_store.exceptions import CorruptStoreError, NerveStoreError, StoreBusyError, StoreFullError, StoreIOError
from nerve_store.moving.place import Remote
from nerve_store.moving.shelf import Directory
from nerve_store.moving.source import LEAST_ID
from nerve_store.moving.state import KnownDay, Origin, State
from nerve_store.moving.target import Target, TargetExistsError, system_errors
from nerve_store.protocols import Blobs
from nerve_store.store import attach_days

if TYPE_CHECKING:
    from nerve_store.moving.objects import Objects

_NOTES, _LOCK = ".copying-notes.db", ".copying.lock"


def _objects_at(remote: Remote) -> Objects:
    from nerve_store.moving.objects import Objects

    return Objects(remote.url, remote.options)


class DirectoryTarget(Target):
    """Builds the database under another name.

    Python's SQLite has it open only while no `LogStore` of this process has: closing it would drop the store's locks.
    """

    def __init__(self, directory: str, remote: Remote | None = None) -> None:
        self.place = os.path.abspath(directory)
        self._remote = remote
        self._objects = None if remote is None else _objects_at(remote)
        self._files = os.path.join(self.place, "archive", "logs")
        self.shelf = self._objects or Directory(self._files)
        self._final = os.path.join(self.place, "logs.db")
        self._path, self._notes, lock = (os.path.join(self.place, name) for name in (COPY_DATABASE, _NOTES, _LOCK))
        self._own = [self._notes, f"{self._notes}-journal", self._path, f"{self._path}-shm", f"{self._path}-wal", lock]
        self._open = ExitStack()
        try:
            with self.translated():
                self._refuse_what_is_there()
                make_directory(self.place)
                self._exclude_others(lock)
                self._refuse_what_was_finished()
                # Makes the tables, or brings those of an older version up to date.
                with LogStore(self._path) as log:
                    self.identity = str(log._identity)
                self._database = self._connected()
                self._progress = self._open.enter_context(closing(self._noted()))
        except BaseException:
            self.close()
            raise

    def _refuse_what_is_there(self) -> None:
        if os.path.lexists(self._final):
            if not any(map(os.path.lexists, self._own)):
                raise self._is_there()
        elif not os.path.lexists(self._path):
            with suppress(FileNotFoundError):
                if set(os.listdir(self.place)) - {_LOCK}:
                    raise NerveStoreError(f"{self.place} is not empty, and holds no unfinished copy")

    def _refuse_what_was_finished(self) -> None:
        """Called with the lock: it may have been interrupted after that, or another one was faster."""
        if os.path.lexists(self._final):
            if not os.path.lexists(self._path) or os.path.samefile(self._path, self._final):
                self._tidy()
            raise self._is_there()

    def _is_there(self) -> TargetExistsError:
        return TargetExistsError(self.place, self._final, "name a directory without one", self.shelf)

    def _exclude_others(self, path: str) -> None:
        """Two at once would write rows twice: the first one has the lock until it ends."""
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._open.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NerveStoreError(f"{self.place}: another copy to it is under way") from error

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=30)
        database.execute("PRAGMA synchronous = FULL")
        return self._open.enter_context(closing(database))

    def _noted(self) -> sqlite3.Connection:
        # SQLite would make it as the process's mask allows.
        os.close(os.open(self._notes, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        notes = sqlite3.connect(self._notes)
        with notes:
            notes.execute("CREATE TABLE IF NOT EXISTS copying (source TEXT, done INTEGER)")
            notes.execute("CREATE TABLE IF NOT EXISTS days (day TEXT, format TEXT, sha256 TEXT)")
        return notes

    @contextmanager
    def translated(self) -> Generator[None]:
        with system_errors(self.place):
            try:
                yield
            except sqlite3.Error as error:
                raise _translated(error, self._path) from error

    def begin(self, source: str) -> str:
        with self._progress:
            found = self._progress.execute("SELECT source FROM copying").fetchone()
            if found is None:
                self._progress.execute("INSERT INTO copying VALUES (?, ?)", (source, LEAST_ID))
        return source if found is None else str(found[0])

    @property
    def done(self) -> int:
        return int(self._progress.execute("SELECT done FROM copying").fetchone()[0])

    def put(self, rows: list[LogEntry], *, after: int) -> None:
        with self._database:
            self._database.execute("DELETE FROM logs WHERE id > ? AND id <= ?", (after, rows[-1].id))
            self._database.executemany("INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?)", map(tuple, rows))

    def advance(self, done: int) -> None:
        with self._progress:
            self._progress.execute("UPDATE copying SET done = ?", (done,))

    def rows(self, after: int, last: int) -> list[LogEntry]:
        statement = "SELECT * FROM logs WHERE id > ? AND id <= ? ORDER BY id"
        return [LogEntry(*row) for row in self._database.execute(statement, (after, last))]

    def ids(self, after: int, last: int) -> list[int]:
        statement = "SELECT id FROM logs WHERE id > ? AND id <= ? ORDER BY id"
        return [row[0] for row in self._database.execute(statement, (after, last))]

    def delete(self, ids: Collection[int]) -> None:
        with self._database:
            self._database.executemany("DELETE FROM logs WHERE id = ?", [(row_id,) for row_id in ids])

    def count(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM logs").fetchone()[0])

    def days(self) -> set[KnownDay]:
        return {KnownDay(*row) for row in self._progress.execute("SELECT day, format, sha256 FROM days")}

    def note_day(self, day: KnownDay) -> None:
        with self._progress:
            self._progress.execute("INSERT INTO days VALUES (?, ?, ?)", (day.day, day.format, day.sha256))

    def forget_day(self, day: KnownDay) -> None:
        values = (day.day, day.format, day.sha256)
        with self._progress:
            self._progress.execute("DELETE FROM days WHERE (day, format, sha256) = (?, ?, ?)", values)

    def replace_state(self, state: State) -> None:
        with self._database:
            for table in ("meta", "workflow_runs", "run_claims", "append_keys"):
                self._database.execute(f"DELETE FROM {table}")
            self._database.executemany("INSERT INTO meta VALUES (?, ?)", state.meta.items())
            self._database.executemany(
                "INSERT INTO workflow_runs (run_id, workflow, status, timestamp, exit_code) VALUES (?, ?, ?, ?, ?)",
                [
                    (run.run_id, run.workflow, run.status, run.timestamp, run.exit_code)
                    for run in sorted(state.runs, key=lambda run: run.order)
                ],
            )
            self._database.executemany(
                # A lease of another boot has run out, and whoever holds the claim may renew it.
                "INSERT INTO run_claims (run_id, attempt, token, owner, lease, status, timestamp, not_before, boot, "
                "expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
                [
                    (
                        run.run_id, run.attempt, run.token, run.owner, run.lease_ms,
                        None if run.token is None and run.not_before is None else run.status,
                        None if run.token is None and run.not_before is None else run.timestamp,
                        run.not_before,
                    )
                    for run in state.runs
                    if run.attempt or run.not_before is not None
                ],
            )  # fmt: skip
            self._database.executemany(
                "INSERT INTO append_keys (key, id, digest, timestamp, appended_at) VALUES (?, ?, ?, ?, ?)",
                [(key.key, key.id, key.digest, key.timestamp, key.appended_at) for key in state.keys],
            )
            self._database.execute("DELETE FROM sqlite_sequence WHERE name = 'logs'")
            self._database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('logs', ?)", (state.last_id,))

    def index(self, archived_at: Mapping[str, int]) -> dict[str, str]:
        self._forget_days()
        if self._objects is not None:
            self._remove_files()
            self._note_objects(self._objects)
        self._database.close()
        with LogStore(self._path) as store:
            if self._remote is not None and self._objects is not None:
                attach_days(store, self.place, self._remote.url, self._remote.options, MAX_CACHE_BYTES)
                self._objects.sign(store)
            store.reindex()
            days = store.archived_days()
        self._database = self._connected()
        # An adopted file would count as archived now.
        times = [(time, day) for day, time in archived_at.items()]
        with self._database:
            self._database.executemany("UPDATE archive_days SET archived_at = ? WHERE day = ?", times)
        return {str(day.day): day.sha256 for day in days}

    def _forget_days(self) -> None:
        """An earlier call may have taken in others."""
        with self._database:
            for table in ("archive_days", "archive_contents", "archive_refs"):
                self._database.execute(f"DELETE FROM {table}")
            self._database.execute("DROP TABLE IF EXISTS archive_remote")

    def _remove_files(self) -> None:
        """Remove the days that a call brought here which named no object store."""
        files = Directory(self._files)
        claim = files.claimed()
        if claim is not None and claim.target == self.identity:
            for day in files.days():
                files.remove(day)
            files.release()

    def _note_objects(self, objects: Objects) -> None:
        """Let the manifest say which object each day is, and nothing else: `reindex` then describes them."""
        rows = [
            (day.day, key, day.sha256, size, objects.place)
            for day in self.days()
            for key, size in objects.objects.get(day.day, {}).items()
        ]
        with self._database:
            self._database.execute(
                "CREATE TABLE archive_remote (day TEXT NOT NULL, key TEXT NOT NULL, state INTEGER NOT NULL,"
                " size INTEGER NOT NULL, sha256 TEXT NOT NULL, place TEXT NOT NULL, PRIMARY KEY (day, key))"
                " WITHOUT ROWID"
            )
            self._database.executemany(
                "INSERT INTO archive_remote (day, key, state, sha256, size, place) VALUES (?, ?, 0, ?, ?, ?)", rows
            )

    def blobs(self) -> Blobs:
        if self._remote is not None:
            return self._remote.blobs(read_only=False)
        return BlobStore(os.path.join(self.place, "blobs"))

    def publish(self, origin: Origin) -> None:
        with self._database:
            self._database.execute("DROP TABLE IF EXISTS copied_from")
            self._database.execute("CREATE TABLE copied_from (source TEXT, days TEXT, written TEXT)")
            self._database.execute(
                "INSERT INTO copied_from VALUES (?, ?, ?)", (origin.source, origin.days, origin.written)
            )
        is_busy = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        self._database.close()
        if is_busy:
            raise StoreBusyError(f"{self._path}: another process has it open; end it, and finish again")
        # Unlike a rename, a link takes nothing's place.
        try:
            os.link(self._path, self._final)
        except FileExistsError as error:
            raise self._is_there().told() from error
        sync_directory(self.place)
        self._tidy()

    def _tidy(self) -> None:
        for path in self._own:
            with suppress(FileNotFoundError):
                os.unlink(path)
        sync_directory(self.place)

    def close(self) -> None:
        self._open.close()


def _translated(error: sqlite3.Error, path: str) -> NerveStoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    result: NerveStoreError
    match code:
        case sqlite3.SQLITE_FULL:
            result = StoreFullError(errno.ENOSPC, str(error), path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            result = StoreBusyError(f"{path}: another process holds a lock ({error}); end it, and copy again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            result = CorruptStoreError(f"{path}: {error}; remove {os.path.dirname(path)}, and copy anew")
        case _:
            result = StoreIOError(errno.EIO, str(error), path)
    result.path = path
    return result
