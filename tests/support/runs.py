"""Workflow runs brought to a state."""

from __future__ import annotations

import nerve_store as ns


def run_in(status: str, *, run_id: str = "run-1", timestamp: int = 5, exit_code: int | None = None) -> ns.WorkflowRun:
    return ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus(status), timestamp, exit_code)


def put(
    store: ns.LogStore,
    status: str,
    *,
    run_id: str = "run-1",
    timestamp: int = 5,
    exit_code: int | None = None,
    force: bool = False,
) -> ns.LogEntry:
    """Bring a run to a state by `upsert_workflow_run`, with the row that a daemon logs."""
    run = run_in(status, run_id=run_id, timestamp=timestamp, exit_code=exit_code)
    return store.upsert_workflow_run(("workflow", status, run_id, None, timestamp), run, force=force)
