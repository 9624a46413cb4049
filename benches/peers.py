"""What a user would write instead: the predecessor's schema in Python's sqlite3, and the same in apsw.

Only ever on a database file of its own: a second SQLite in the process of a store must not touch the store's file.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import apsw

from workload import Row

UPSTREAM_SCHEMA = """
CREATE TABLE IF NOT EXISTS logs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  source     TEXT NOT NULL,
  type       TEXT NOT NULL,
  ref_id     TEXT,
  payload    TEXT,
  timestamp  INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_logs_source_type ON logs(source, type);
CREATE INDEX IF NOT EXISTS idx_logs_timestamp ON logs(timestamp);
CREATE INDEX IF NOT EXISTS idx_logs_ref_id ON logs(ref_id);
CREATE TABLE IF NOT EXISTS meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS workflow_runs (
  run_id    TEXT PRIMARY KEY,
  workflow  TEXT NOT NULL,
  status    TEXT NOT NULL,
  timestamp INTEGER NOT NULL,
  exit_code INTEGER
);
CREATE INDEX IF NOT EXISTS idx_workflow_runs_status ON workflow_runs(status);
CREATE INDEX IF NOT EXISTS idx_workflow_runs_workflow ON workflow_runs(workflow);
"""
INSERT = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?)"
COLUMNS = "id, source, type, ref_id, payload, timestamp"
BUSY_TIMEOUT_SECONDS = 60

MESSAGES = f"""
SELECT {COLUMNS} FROM logs WHERE source = 'workflow' AND type = 'thread_workflow_message' AND ref_id = ? ORDER BY id
"""
_ROUNDS = """
  FROM logs
 WHERE source = 'workflow' AND type IN ('thread_command_event', 'thread_workflow_message') AND ref_id = ?
   AND json_valid(payload)
   AND coalesce(json_extract(payload, '$.type'), '') <> 'thread_start'
   AND coalesce(json_extract(payload, '$.role'), '') <> '__start__'
"""
ROUND_COUNT = f"SELECT count(*) {_ROUNDS}"
NEWEST_ROUNDS = f"""
SELECT round, id, timestamp, payload
  FROM (SELECT row_number() OVER (ORDER BY id) AS round, id, timestamp, payload {_ROUNDS})
 ORDER BY round DESC LIMIT ?
"""

Durability = Literal["full", "normal"]
Parameter = str | int

L = TypeVar("L")
T = TypeVar("T")
R = TypeVar("R")


class Cursor(Protocol):
    """What the cursors of both have."""

    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """What the connections of both have."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor: ...
    def executemany(self, sql: str, rows: Sequence[Row], /) -> object: ...
    def close(self) -> None: ...


class PeerLog(ABC):
    """The log in a database of its own, WAL, one connection, which any thread may use while no other does."""

    name: ClassVar[str]

    def __init__(self, path: Path, *, durability: Durability = "full", create: bool = True) -> None:
        self._connection = self._connect(path)
        self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self._connection.execute(f"PRAGMA synchronous = {durability}").fetchall()
        if create:
            for statement in filter(str.strip, UPSTREAM_SCHEMA.split(";")):
                self._connection.execute(statement)

    @abstractmethod
    def _connect(self, path: Path) -> Connection:
        """A connection that commits each statement and waits for locks."""

    def append(self, row: Row) -> None:
        """One row in a commit of its own."""
        self._connection.execute(INSERT, row)

    def append_each(self, rows: Sequence[Row]) -> None:
        """Each row in a commit of its own."""
        for row in rows:
            self.append(row)

    def append_many(self, rows: Sequence[Row]) -> None:
        """All rows in one commit."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(INSERT, rows)
        self._connection.execute("COMMIT")

    def fetch(self, sql: str, parameters: Sequence[Parameter] = ()) -> list[Any]:
        """The rows of a statement."""
        return self._connection.execute(sql, parameters).fetchall()

    def count(self) -> int:
        """Rows in the table."""
        return int(self.fetch("SELECT count(*) FROM logs")[0][0])

    def close(self) -> None:
        """Move all into the database file and close."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._connection.close()


class Sqlite3Log(PeerLog):
    """In the sqlite3 of the standard library, which is as old as the system's library."""

    name = "sqlite3"

    def _connect(self, path: Path) -> Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_SECONDS)


class ApswLog(PeerLog):
    """In apsw, which brings a current SQLite."""

    name = "apsw"

    def _connect(self, path: Path) -> Connection:
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_TIMEOUT_SECONDS * 1000)
        return connection


PEERS: tuple[type[PeerLog], ...] = (Sqlite3Log, ApswLog)


def on_each(logs: Mapping[str, L], run: Callable[[L, T], R]) -> dict[str, Callable[[T], R]]:
    """The same on each of the logs, as `Compare` takes its peers."""
    return {name: partial(run, log) for name, log in logs.items()}
