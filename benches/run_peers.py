"""Changes of runs as a user writes them: a row and the run's state in one transaction, in the predecessor's schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peers import INSERT, PeerLog

UPSERT = """
INSERT INTO workflow_runs (run_id, workflow, status, timestamp, exit_code) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET workflow = excluded.workflow, status = excluded.status,
  timestamp = excluded.timestamp, exit_code = excluded.exit_code
"""
TAKE = """
UPDATE workflow_runs SET status = 'started'
 WHERE run_id = (SELECT run_id FROM workflow_runs WHERE status = 'queued' ORDER BY timestamp LIMIT 1)
RETURNING run_id, workflow
"""
KEYS = "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID"
NOW = 1_770_000_000_000


class Runs:
    """Runs in a peer's log."""

    def __init__(self, log: PeerLog) -> None:
        self._execute: Any = log._connection.execute  # noqa: SLF001, the same connection for all of it
        self._execute(KEYS)
        self._execute("CREATE INDEX IF NOT EXISTS queue ON workflow_runs(status, timestamp)")

    def begin(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._execute("COMMIT")

    def put(self, run_id: str, status: str, exit_code: int | None = None) -> None:
        """A row and the run's state, in the caller's transaction."""
        self._execute(INSERT, ("workflow", status, run_id, None, NOW))
        self._execute(UPSERT, (run_id, "w", status, NOW, exit_code))

    def change(self, run_id: str, status: str, exit_code: int | None = None) -> None:
        self.begin()
        self.put(run_id, status, exit_code)
        self.commit()

    def lives(self, run_ids: Sequence[str]) -> None:
        """Each run is queued, started and completed, in three commits."""
        for run_id in run_ids:
            self.change(run_id, "queued")
            self.change(run_id, "started")
            self.change(run_id, "completed", 0)

    def row(self, ref_id: str) -> None:
        """A row, in the caller's transaction."""
        self._execute(INSERT, ("s", "t", ref_id, None, NOW))

    def append_once(self, key: str) -> None:
        """A row with a key, in the caller's transaction."""
        if not self._execute("SELECT id FROM keys WHERE key = ?", (key,)).fetchall():
            ((row_id,),) = self._execute(f"{INSERT} RETURNING id", ("s", "t", None, key, NOW)).fetchall()
            self._execute("INSERT INTO keys VALUES (?, ?)", (key, row_id))

    def take(self) -> str | None:
        """Claim the oldest queued run."""
        self.begin()
        found = self._execute(TAKE).fetchall()
        if found:
            self._execute(INSERT, ("workflow", "started", found[0][0], None, NOW))
        self.commit()
        return found[0][0] if found else None

    def create(self, run_ids: Sequence[str]) -> None:
        """Queue runs, in one commit."""
        self.begin()
        for run_id in run_ids:
            self.put(run_id, "queued")
        self.commit()
