"""A data directory that a log is moved to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from nerve_store._core import BlobStore, LogEntry, LogStore
from nerve_store._places import MAX_CACHE_BYTES, sync_directory
from nerve_store.exceptions import NerveStoreError
from nerve_store.moving.place import Remote
from nerve_store.moving.shelf import Directory
from nerve_store.moving.source import LEAST_ID
from nerve_store.moving.state import KnownDay, State
from nerve_store.moving.target import Target
from nerve_store.protocols import Blobs
from nerve_store.store import attach_days

if TYPE_CHECKING:
    from nerve_store.moving.objects import Objects

UNFINISHED = ".copying.db"
"""The database until the copy is whole."""
_NOTES = ".copying-notes.db"


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
        self.shelf = self._objects or Directory(os.path.join(self.place, "archive", "logs"))
        self._final = os.path.join(self.place, "logs.db")
        self._path = os.path.join(self.place, UNFINISHED)
        self._notes = os.path.join(self.place, _NOTES)
        if os.path.lexists(self._final):
            if os.path.lexists(self._path) and os.path.samefile(self._path, self._final):
                # It was finished, and then interrupted.
                self._tidy()
            raise NerveStoreError(f"{self._final} is there already; name a directory without a log")
        if not os.path.exists(self._path):
            with suppress(FileNotFoundError):
                if os.listdir(self.place):
                    raise NerveStoreError(f"{self.place} is not empty, and holds no unfinished copy")
            os.makedirs(self.place, mode=0o700, exist_ok=True)
        # Makes the tables, or brings those of an older version up to date.
        LogStore(self._path).close()
        self._open()

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, timeout=30)
        self._database.execute("PRAGMA synchronous = FULL")
        self._progress = sqlite3.connect(self._notes, timeout=1)
        # Two copies at once would write rows twice: the first one keeps the lock that it takes to write.
        self._progress.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            with self._progress:
                self._progress.execute("BEGIN EXCLUSIVE")
                self._progress.execute("CREATE TABLE IF NOT EXISTS copying (source TEXT, done INTEGER)")
                self._progress.execute("CREATE TABLE IF NOT EXISTS days (day TEXT, format TEXT, sha256 TEXT)")
        except sqlite3.OperationalError as error:
            self.close()
            raise NerveStoreError(f"{self.place}: another copy to it is under way ({error})") from error

    def begin(self, source: str) -> str:
        with self._progress:
            found = self._progress.execute("SELECT source FROM copying").fetchone()
            if found is None:
                self._progress.execute("INSERT INTO copying VALUES (?, ?)", (source, LEAST_ID))
        return source if found is None else str(found[0])

    @property
    def done(self) -> int:
        return int(self._progress.execute("SELECT done FROM copying").fetchone()[0])

    def put(self, rows: list[LogEntry], *, after: int | None = None) -> None:
        with self._database:
            if after is not None:
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
        if self._objects is not None:
            self._note_objects(self._objects)
        self.close()
        try:
            with LogStore(self._path) as store:
                if self._remote is not None and self._objects is not None:
                    attach_days(store, self.place, self._remote.url, self._remote.options, MAX_CACHE_BYTES)
                    self._objects.sign(store)
                store.reindex()
                days = store.archived_days()
        finally:
            self._open()
        # An adopted file would count as archived now.
        times = [(time, day) for day, time in archived_at.items()]
        with self._database:
            self._database.executemany("UPDATE archive_days SET archived_at = ? WHERE day = ?", times)
        return {str(day.day): day.sha256 for day in days}

    def _note_objects(self, objects: Objects) -> None:
        """Let the manifest say which object each day is, and nothing else: `reindex` then describes them."""
        rows = [
            (day.day, key, day.sha256, size, objects.place)
            for day in self.days()
            for key, size in objects.objects.get(day.day, {}).items()
        ]
        with self._database:
            for table in ("archive_days", "archive_contents", "archive_refs"):
                self._database.execute(f"DELETE FROM {table}")
            self._database.execute("DROP TABLE IF EXISTS archive_remote")
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

    def publish(self) -> None:
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.close()
        # Unlike a rename, a link takes nothing's place.
        os.link(self._path, self._final)
        sync_directory(self.place)
        self._tidy()

    def _tidy(self) -> None:
        for path in (self._notes, self._path):
            with suppress(FileNotFoundError):
                os.unlink(path)
        sync_directory(self.place)

    def close(self) -> None:
        self._database.close()
        self._progress.close()
