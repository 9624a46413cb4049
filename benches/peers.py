"""What a user would write instead: Python's sqlite3 with the predecessor's schema.

Only ever on a database file of its own: a second SQLite in the process of a store must not touch the store's file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from workload import Row

UPSTREAM_SCHEMA = """
CREATE TABLE logs (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  source     TEXT NOT NULL,
  type       TEXT NOT NULL,
  ref_id     TEXT,
  payload    TEXT,
  timestamp  INTEGER NOT NULL
);
CREATE INDEX idx_logs_source_type ON logs(source, type);
CREATE INDEX idx_logs_timestamp ON logs(timestamp);
CREATE INDEX idx_logs_ref_id ON logs(ref_id);
"""
INSERT = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?)"


class Sqlite3Log:
    """The log in Python's sqlite3, WAL, one connection."""

    def __init__(self, path: Path, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA synchronous = {synchronous}")
        self._connection.executescript(UPSTREAM_SCHEMA)

    def append(self, row: Row) -> None:
        """One row in a commit of its own."""
        self._connection.execute(INSERT, row)

    def append_many(self, rows: Sequence[Row]) -> None:
        """All rows in one commit."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(INSERT, rows)
        self._connection.execute("COMMIT")

    def count(self) -> int:
        """Rows in the table."""
        return int(self._connection.execute("SELECT count(*) FROM logs").fetchone()[0])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
