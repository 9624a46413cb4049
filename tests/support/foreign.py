"""Another program's SQLite, in a process of its own: a second SQLite in this one would drop the store's locks."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

from support.processes import TESTS

UPSTREAM_SCHEMA = """
CREATE TABLE IF NOT EXISTS logs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, type TEXT NOT NULL, ref_id TEXT, payload TEXT,
  timestamp INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_logs_source_type ON logs(source, type);
CREATE INDEX IF NOT EXISTS idx_logs_timestamp ON logs(timestamp);
CREATE INDEX IF NOT EXISTS idx_logs_ref_id ON logs(ref_id);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS workflow_runs (
  run_id TEXT PRIMARY KEY, workflow TEXT NOT NULL, status TEXT NOT NULL, timestamp INTEGER NOT NULL, exit_code INTEGER
);
CREATE INDEX IF NOT EXISTS idx_workflow_runs_status ON workflow_runs(status);
CREATE INDEX IF NOT EXISTS idx_workflow_runs_workflow ON workflow_runs(workflow);
"""
"""What upstream runs when it opens a database."""
INSERT_ROW = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?)"
INSERT_ROW_WITH_ID = "INSERT INTO logs (id, source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?, ?)"
INSERT_RUN = (
    "INSERT OR REPLACE INTO workflow_runs (run_id, workflow, status, timestamp, exit_code) VALUES (?, ?, ?, ?, ?)"
)


@functools.cache
def _foreign() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-I", str(TESTS / "foreign_sqlite.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )

    def stop() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()

    atexit.register(stop)
    return process


def _encode(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


_ASKING = threading.Lock()
"""One question and its answer at a time: tests may run in several threads."""


def _ask(path: str | os.PathLike[str], sql: str, params: Any, *, many: bool = False, script: bool = False) -> list[Any]:
    return _request({"path": os.fspath(path), "sql": sql, "params": params, "many": many, "script": script})


def _request(request: dict[str, Any]) -> list[Any]:
    process = _foreign()
    assert process.stdin is not None
    assert process.stdout is not None
    with _ASKING:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        reply = json.loads(process.stdout.readline())
    if "error" in reply:
        raise RuntimeError(f"{reply['error']}: {request.get('sql', 'backup')}")
    return [tuple(_decode(value) for value in row) for row in reply["rows"]]


def foreign_sql(path: str | os.PathLike[str], sql: str, params: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement as another program would, in a process of its own; returns the rows."""
    return _ask(path, sql, [_encode(value) for value in params])


def foreign_many(path: str | os.PathLike[str], sql: str, rows: Iterable[Iterable[Any]]) -> None:
    """Run one statement for each of `rows`, in one transaction of another process."""
    _ask(path, sql, [[_encode(value) for value in row] for row in rows], many=True)


def foreign_script(path: str | os.PathLike[str], sql: str) -> None:
    """Run several statements in another process."""
    _ask(path, sql, [], script=True)


def foreign_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Replace the content of the database `target` by SQLite's backup API, in another process."""
    _request({"path": os.fspath(target), "source": os.fspath(source)})
