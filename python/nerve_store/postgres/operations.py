"""What changes runs and meta, as operations of a job."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nerve_store._core import ARCHIVED_UP_TO
from nerve_store.postgres import checks
from nerve_store.postgres.entries import CheckedRow, Rules, checked_item
from nerve_store.postgres.jobs import Operation
from nerve_store.postgres.texts import decode, encode, index_key
from nerve_store.records import RunClaim, WorkflowRun, WorkflowRunStatus
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
    if checks.text(key, "key") == ARCHIVED_UP_TO:
        raise ValueError(f"{ARCHIVED_UP_TO!r} is the archive's own and can be neither set nor deleted; choose another")
    return encode(key)


def key_operation(key: str, row: CheckedRow) -> Operation:
    """The operation of an append with a key."""
    size = len(checks.text(key, "key").encode())
    if not 1 <= size <= checks.MAX_NAME_BYTES:
        raise ValueError(f"key has {size} bytes, and may have 1 to {checks.MAX_NAME_BYTES}")
    stored = index_key(key)
    operation: Operation = {"op": "key", "key": encode(stored), "digest": row.digest()}
    # What is said of a key that is in use.
    return operation if stored == key else {**operation, "name": encode(key)}


def check_claim_of(claim: RunClaim | None, run_id: str) -> None:
    """A change of a run carries no claim on another."""
    if claim is not None and checks.claim(claim).run.run_id != run_id:
        raise ValueError(f"the claim is on run {claim.run.run_id!r}, and the change is of run {run_id!r}")


def change_operation(
    row: CheckedRow,
    status: WorkflowRunStatus,
    *,
    expect: Status | Collection[Status] | None,
    exit_code: int | None,
    claim: RunClaim | None,
) -> Operation:
    """The operation of `transition`."""
    assert row.ref_id is not None
    check_claim_of(claim, row.ref_id)
    expected = None
    if expect is not None:
        expected = [str(item) for item in checks.statuses(expect, "expect")]
        if not expected:
            raise ValueError("expect names no status; leave it out to expect nothing")
    return {
        "op": "change",
        "run_id": encode(row.ref_id),
        "status": str(status),
        "timestamp": row.timestamp,
        "exit_code": checks.optional_integer(exit_code, "exit_code"),
        "expect": expected,
    }


def run_operation(
    entry: Row, run: WorkflowRun, *, force: bool, claim: RunClaim | None, rules: Rules
) -> tuple[CheckedRow, Operation]:
    """The row and the operation of `upsert_workflow_run`."""
    row = checked_item(entry, rules=rules)
    if not isinstance(run, WorkflowRun):
        raise TypeError(f'run is a WorkflowRun, not "{type(run).__name__}"')
    run_id = checks.text(run.run_id, "run_id")
    if row.ref_id != run_id:
        raise ValueError(f"the entry's ref_id is {row.ref_id!r}, not the run's id {run_id!r}")
    check_claim_of(claim, run_id)
    return row, {
        "op": "change",
        "run_id": encode(run_id),
        "workflow": encode(checks.text(run.workflow, "workflow")),
        "status": str(checks.status(run.status)),
        "timestamp": rules.timestamp(run.timestamp),
        "exit_code": checks.optional_integer(run.exit_code, "exit_code"),
        "force": checks.flag(force, "force"),
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
    return {
        "op": "create",
        "run_id": encode(checks.text(row.ref_id, "ref_id")),
        "workflow": encode(checks.text(workflow, "workflow")),
        "status": str(status),
        "timestamp": row.timestamp,
        "not_before": None if not_before is None else checks.timestamp(not_before, "not_before"),
        "exist_ok": checks.flag(exist_ok, "exist_ok"),
    }
