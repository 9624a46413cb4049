"""Why the database refused a job."""

from __future__ import annotations

from typing import Any

from nerve_store.exceptions import (
    ClaimLostError,
    IdempotencyError,
    IllegalTransitionError,
    NerveStoreError,
    RunExistsError,
)
from nerve_store.postgres.texts import decode
from nerve_store.records import WorkflowRunStatus

FOLLOWERS: dict[str, tuple[str, ...]] = {
    "queued": ("started", "dropped", "killed", "interrupted", "failed"),
    "started": ("completed", "failed", "crashed", "interrupted", "dropped", "killed"),
    "crashed": ("started", "queued", "completed", "failed", "dropped", "killed"),
    "interrupted": ("started", "queued", "completed", "failed", "dropped", "killed"),
    "completed": (),
    "failed": (),
    "dropped": (),
    "killed": (),
}
"""What may follow a state, besides itself; `followers` in the database decides."""


def refusal(detail: dict[str, Any]) -> NerveStoreError | ValueError:
    """The error that says so."""
    run_id = decode(str(detail.get("run_id", "")))
    match detail["kind"]:
        case "transition":
            return _illegal(detail, run_id)
        case "claim":
            return _claim_lost(detail, run_id)
        case "exists":
            exists = RunExistsError(
                f"run {run_id!r}: it exists, {detail['status']}, of the workflow {decode(detail['workflow'])!r}; "
                "choose another id, or say exist_ok"
            )
            exists.run_id = run_id
            return exists
        case "workflow":
            return ValueError(
                f"run {run_id!r} is of the workflow {decode(detail['workflow'])!r}, and a run keeps its workflow"
            )
        case "key":
            repeated = IdempotencyError(
                f"key {decode(detail['key'])!r}: row {detail['id']} was appended with it, and has another source, "
                "type, ref_id or payload than this one; use a key for one row alone"
            )
            repeated.key, repeated.first_id = decode(detail["key"]), detail["id"]
            return repeated
    return NerveStoreError(f"the database refused it: {detail}")


def _claim_lost(detail: dict[str, Any], run_id: str) -> ClaimLostError:
    now = f"it is {detail['status']}" if detail.get("status") else "it is gone"
    owner = detail.get("owner")
    held = f", claimed by {decode(owner)!r}" if owner else ""
    error = ClaimLostError(f"run {run_id!r}: the claim is not its newest ({now}{held}); stop working on it")
    error.run_id, error.token = run_id, detail.get("token")
    return error


def _illegal(detail: dict[str, Any], run_id: str) -> IllegalTransitionError:
    current, wanted = detail.get("from"), detail["to"]
    followers = FOLLOWERS.get(current or "", ())
    match detail["reason"]:
        case "missing":
            reason = "there is no such run; create it with upsert_workflow_run"
        case "expect":
            reason = f"it is {current}, not in a state that was expected"
        case "lease":
            reason = (
                f"it is {current} and cannot become {wanted}: {decode(detail.get('owner'))!r} holds a lease on it; "
                "use the claim, or kill the run"
            )
        case _:
            allowed = f"allowed: {', '.join(followers)}" if followers else "nothing follows"
            reason = (
                f"it is {current} and cannot become {wanted} ({allowed}); upsert_workflow_run(force=True) overrides"
            )
    error = IllegalTransitionError(f'run "{run_id}": {reason}')
    error.run_id = run_id
    error.from_status = None if current is None else str(WorkflowRunStatus(current))
    error.to_status = wanted
    error.allowed = followers
    return error
