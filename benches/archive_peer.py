"""The predecessor's archive job in Python: select a day by time, write it, delete it by time, in one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import COLUMNS

DAY_MS = 86_400_000
KEYS = ("id", "source", "type", "refId", "payload", "timestamp")
WATERMARK = "INSERT INTO meta VALUES ('archived_up_to', ?) ON CONFLICT DO UPDATE SET value = excluded.value"


class UpstreamArchive:
    """On a database of the predecessor's, at full durability."""

    def __init__(self, database: Path, directory: Path) -> None:
        self._connection = sqlite3.connect(database, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._directory = directory
        directory.mkdir(parents=True)

    def run(self) -> int:
        """Archive every day; returns how many rows that were."""
        first, last = self._connection.execute("SELECT min(timestamp), max(timestamp) FROM logs").fetchone()
        return sum(self._archive(day) for day in range(first // DAY_MS * DAY_MS, last + 1, DAY_MS))

    def _archive(self, day: int) -> int:
        name = datetime.fromtimestamp(day / 1000, UTC).strftime("%Y-%m-%d")
        span = (day, day + DAY_MS)
        execute = self._connection.execute
        rows = execute(
            f"SELECT {COLUMNS} FROM logs WHERE timestamp >= ? AND timestamp < ? ORDER BY id", span
        ).fetchall()
        with open(self._directory / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for row in rows:
                line = json.dumps(dict(zip(KEYS, row, strict=True)), ensure_ascii=False, separators=(",", ":"))
                file.write(line + "\n")
        execute("BEGIN IMMEDIATE")
        execute("DELETE FROM logs WHERE timestamp >= ? AND timestamp < ?", span)
        execute(WATERMARK, (name,))
        execute("COMMIT")
        return len(rows)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def parsed(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows in the plain files, by `json.loads` line by line."""
    for path in sorted(directory.glob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
