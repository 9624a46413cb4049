"""Claiming runs: each goes to one worker, and a worker that lost its claim can change nothing with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from nerve_store._core import Check
from nerve_store.postgres.base import OpenPostgres
from nerve_store.postgres.entries import now
from nerve_store.postgres.jobs import Job, Operation
from nerve_store.postgres.operations import as_run
from nerve_store.postgres.texts import decode, encode, encode_all
from nerve_store.records import RunClaim, WorkflowRun
from nerve_store.types import Durability

LONGEST_TERM = 3e10
"""Seconds of a thousand years, which the server's clock can still add."""
_LONGEST_LOOK = 5.0
"""Seconds after which a claimant that waits looks again although nothing woke it."""


def carried(claim: RunClaim | None, ref_id: str | None = None) -> dict[str, Any] | None:
    """A claim as a job carries it that is about the run `ref_id`, or about none."""
    claim = Check.claim(claim, ref_id)
    return None if claim is None else {"run_id": encode(claim.run.run_id), "token": claim.token}


def _required(claim: RunClaim) -> dict[str, Any]:
    found = carried(claim)
    if found is None:
        raise TypeError("claim must be a RunClaim, not None")
    return found


def _claimed(found: dict[str, Any]) -> RunClaim:
    return RunClaim(as_run(found["run"]), decode(found["owner"]), found["attempt"], found["token"], found["expires_at"])


def _found(job: Job) -> tuple[RunClaim | None, float]:
    """The claim of a run, and after how many seconds to look again without one."""
    (found,) = job.results
    due = found.get("due")
    pause = _LONGEST_LOOK if due is None else min(max(due, 1) / 1000, _LONGEST_LOOK)
    return (_claimed(found) if "token" in found else None), pause


class Claims(OpenPostgres):
    """Claims on runs, with leases by the server's clock."""

    def claim_workflow_run(
        self,
        owner: str,
        *,
        workflow: str | Collection[str] | None = None,
        run_id: str | None = None,
        lease: float | timedelta = 60.0,
        wait: float | timedelta = 0.0,
        max_attempts: int | None = None,
        durability: Durability | None = None,
    ) -> RunClaim | None:
        """Take a run whose lease ran out, else the oldest queued run that may begin, and make it `started` for `owner`.

        Each run goes to one claimant. `wait`: seconds to wait for one. `run_id`: that run or none. Taking over an
        expired lease first logs `crashed`; a run that reaches `max_attempts` so is left crashed.
        """
        look = self._looking(owner, workflow, run_id, lease, max_attempts, durability)
        end = time.monotonic() + Check.seconds_or_delta(wait, "wait")
        while True:
            known = self._listener.run_notices() if time.monotonic() < end else 0
            claim, pause = look()
            left = end - time.monotonic()
            if claim is not None or left <= 0:
                return claim
            self._listener.wait(known, min(left, pause), of_runs=True)

    def _looking(
        self,
        owner: str,
        workflow: str | Collection[str] | None,
        run_id: str | None,
        lease: float | timedelta,
        max_attempts: int | None,
        durability: Durability | None,
    ) -> Callable[[], tuple[RunClaim | None, float]]:
        """A look for a run, which may be repeated: its claim, and after how many seconds to look again without one."""
        operation: Operation = {
            "op": "claim",
            "owner": encode(Check.text(owner, "owner")),
            "workflow": encode_all(Check.texts(workflow, "workflow")),
            "run_id": encode(Check.optional_text(run_id, "run_id")),
            "lease": min(Check.lease(lease), LONGEST_TERM),
            "max_attempts": Check.max_attempts(max_attempts),
        }
        Check.durability(durability)

        def look() -> tuple[RunClaim | None, float]:
            job = self._job(durability)
            job.change({**operation, "timestamp": now()})
            return self._commit(job, _found)

        return look

    def renew_claim(self, claim: RunClaim, *, lease: float | timedelta | None = None) -> RunClaim:
        """Let the lease run anew, by default as long as before; `ClaimLostError` if the claim is not the newest."""
        job = self._job(None, _required(claim))
        job.change({
            "op": "renew",
            "run_id": encode(claim.run.run_id),
            "lease": None if lease is None else min(Check.lease(lease), LONGEST_TERM),
        })  # fmt: skip
        return self._commit(job, lambda job: _claimed(job.results[0]))

    def release_claim(self, claim: RunClaim, *, delay: float | timedelta = 0.0) -> WorkflowRun:
        """Give the run back: `interrupted` and `queued` in one commit; not to be claimed before `delay` is over."""
        job = self._job(None, _required(claim))
        job.change({
            "op": "release",
            "run_id": encode(claim.run.run_id),
            "timestamp": now(),
            "delay": min(Check.seconds_or_delta(delay, "delay"), LONGEST_TERM),
        })  # fmt: skip
        return self._commit(job, lambda job: as_run(job.results[0]))
