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
from nerve_store.postgres.texts import decode, quoted
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
                f"run {quoted(run_id)} is there already ({quoted(decode(detail['workflow']))}, {detail['status']}); "
                "choose another id, or pass exist_ok for a run of the same workflow"
            )
            exists.run_id = run_id
            return exists
        case "workflow":
            return ValueError(
                f"run {quoted(run_id)} is of the workflow {quoted(decode(detail['workflow']))}, and a run keeps its "
                "workflow"
            )
        case "key":
            repeated = IdempotencyError(
                f"key {quoted(decode(detail['key']))}: row {detail['id']} was appended with it, and has another "
                "source, type, ref_id or payload than this one; use a key for one row alone"
            )
            repeated.key, repeated.first_id = decode(detail["key"]), detail["id"]
            return repeated
    return NerveStoreError(f"the database refused it: {detail}")


def _claim_lost(detail: dict[str, Any], run_id: str) -> ClaimLostError:
    token, owner = detail.get("token"), detail.get("owner")
    if not detail.get("status"):
        reason = "there is no such run any more"
    elif token is not None and token == detail.get("newest"):
        reason = f"it has ended with the run, which is {detail['status']}"
    elif owner:
        reason = f"{quoted(decode(owner))} has taken the run over"
    else:
        reason = f"the run was changed without it or given back, and is {detail['status']}"
    error = ClaimLostError(
        f"the claim {token} on run {quoted(run_id)} is lost: {reason}; nothing was changed, and the run is not the "
        "claimant's any more"
    )
    error.run_id, error.token = run_id, token
    return error


def _illegal(detail: dict[str, Any], run_id: str) -> IllegalTransitionError:
    current, wanted = detail.get("from"), detail["to"]
    followers = FOLLOWERS.get(current or "", ())
    match detail["reason"]:
        case "missing":
            reason = "there is no such run; create it with create_workflow_run"
        case "expect":
            reason = f"it is {current}, not in a state that was expected"
        case "lease":
            followers = ("killed",)
            reason = (
                f"{quoted(decode(detail['owner']))} works on it under a claim: carry the claim, wait for its lease to "
                "end, or kill the run"
            )
        case _:
            allowed = f"allowed: {', '.join(followers)}" if followers else "nothing follows"
            reason = (
                f"it is {current} and cannot become {wanted} ({allowed}); upsert_workflow_run(force=True) overrides"
            )
    error = IllegalTransitionError(f"run {quoted(run_id)}: {reason}")
    error.run_id = run_id
    error.from_status = None if current is None else str(WorkflowRunStatus(current))
    error.to_status = wanted
    error.allowed = followers
    return error
