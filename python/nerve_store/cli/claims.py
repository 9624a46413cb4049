"""Who works on a run, as the tables of either kind of log have it."""

from __future__ import annotations

from nerve_store import LogStore, WorkflowRun
from nerve_store.cli.text import format_timestamp
from nerve_store.protocols import Log

__all__ = ["claim_of", "claim_text"]

_FIELDS = ("owner", "attempt", "expires_at")


def claim_of(store: Log, run: WorkflowRun) -> dict[str, object] | None:
    """Who holds the run; None if it was changed without the claim, or was never claimed."""
    rows = _in_sqlite(store, run) if isinstance(store, LogStore) else _in_postgresql(store, run)
    return dict(zip(_FIELDS, rows[0], strict=True)) if rows else None


def _in_sqlite(store: LogStore, run: WorkflowRun) -> list[tuple[object, ...]]:
    if not store.sql("SELECT 1 FROM sqlite_schema WHERE name = 'run_claims'"):
        return []
    return store.sql(
        "SELECT owner, attempt, expires_at FROM run_claims"
        " WHERE run_id = ? AND owner IS NOT NULL AND status = ? AND status = 'started' AND timestamp = ?",
        (run.run_id, run.status.value, run.timestamp),
    )


def _in_postgresql(store: Log, run: WorkflowRun) -> list[tuple[object, ...]]:
    from nerve_store.postgres.texts import decode, encode

    rows = store.sql(
        "SELECT owner, attempt, floor(extract(epoch FROM lease_until) * 1000)::bigint FROM workflow_runs"
        " WHERE run_id = %s AND token IS NOT NULL AND status = 'started'",
        (encode(run.run_id),),
    )
    return [(decode(owner), *rest) for owner, *rest in rows]


def claim_text(claim: dict[str, object]) -> str:
    """The claim in words."""
    lease = "" if claim["expires_at"] is None else f", lease until {format_timestamp(int(str(claim['expires_at'])))}"
    return f"{claim['owner']}, attempt {claim['attempt']}{lease}"
