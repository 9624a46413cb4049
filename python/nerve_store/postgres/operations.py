"""What changes runs and meta, as operations of a job."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nerve_store._core import ARCHIVED_UP_TO, Check
from nerve_store.postgres.entries import CheckedRow, Rules, checked_entry
from nerve_store.postgres.jobs import Operation
from nerve_store.postgres.texts import decode, encode, index_key, quoted
from nerve_store.records import WorkflowRun, WorkflowRunStatus
from nerve_store.types import Row, Status, Timestamp


def as_run(found: dict[str, Any]) -> WorkflowRun:
    """A run as the database describes it."""
    return WorkflowRun(
        decode(found["run_id"]),
        decode(found["workflow"]),
        WorkflowRunStatus(found["status"]),
        found["timestamp"],
        found["exit_code"],
    )


def meta_key(key: str) -> str:
    """A key that a caller may set or delete."""
    if Check.text(key, "key") == ARCHIVED_UP_TO:
        raise ValueError(f"{ARCHIVED_UP_TO!r} is the archive's own and can be neither set nor deleted; choose another")
    return encode(key)


def key_operation(key: str, row: CheckedRow) -> Operation:
    """The operation of an append with a key."""
    stored = index_key(Check.key(key))
    operation: Operation = {"op": "key", "key": encode(stored), "digest": row.digest()}
    # What is said of a key that is in use.
    return operation if stored == key else {**operation, "name": encode(key)}


def change_operation(
    row: CheckedRow,
    status: WorkflowRunStatus,
    *,
    expect: Status | Collection[Status] | None,
    exit_code: int | None,
) -> Operation:
    """The operation of `transition`."""
    assert row.ref_id is not None
    expected = Check.expect(expect)
    return {
        "op": "change",
        "run_id": encode(row.ref_id),
        "status": str(status),
        "timestamp": row.timestamp,
        "exit_code": Check.integer(exit_code, "exit_code"),
        "expect": None if expected is None else [str(item) for item in expected],
    }


def run_operation(entry: Row, run: WorkflowRun, *, force: bool, rules: Rules) -> tuple[CheckedRow, Operation]:
    """The row and the operation of `upsert_workflow_run`."""
    row = checked_entry(entry, rules=rules)
    run, is_like_seconds = Check.run(run, "run")
    is_forced = Check.flag(force, "force")
    if row.ref_id != run.run_id:
        raise ValueError(f"the entry's ref_id is {quoted(row.ref_id)}, not the run {quoted(run.run_id)}")
    if is_like_seconds:
        rules.warn_of_seconds(run.timestamp)
    return row, {
        "op": "change",
        "run_id": encode(run.run_id),
        "workflow": encode(run.workflow),
        "status": str(run.status),
        "timestamp": run.timestamp,
        "exit_code": run.exit_code,
        "force": is_forced,
    }


def create_operation(
    row: CheckedRow,
    workflow: str,
    status: WorkflowRunStatus,
    *,
    not_before: Timestamp | None,
    exist_ok: bool,
) -> Operation:
    """The operation of `create_workflow_run`."""
    assert row.ref_id is not None
    return {
        "op": "create",
        "run_id": encode(row.ref_id),
        "workflow": encode(Check.text(workflow, "workflow")),
        "status": str(status),
        "timestamp": row.timestamp,
        "not_before": Check.timestamp(not_before, "not_before"),
        "exist_ok": Check.flag(exist_ok, "exist_ok"),
    }
