"""The order of runs, also of those with equal timestamps: the same on every backend, and that of their pages."""

from __future__ import annotations

import time
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from reference import STATUSES

IDS = [f"run-{number * 7919 % 400:03}" for number in range(400)] + [
    "", "RUN-1", "run", "läuft", "läuft 🧠", "\U0010fffe", "\x01",
    "x" * 512, "x" * 513, "x" * 600 + "b", "x" * 600 + "a",
]  # fmt: skip


def put(log: Log, run_id: str, status: str, timestamp: int) -> ns.WorkflowRun:
    run = ns.WorkflowRun(run_id, ("deploy", "triage")[len(run_id) % 2], ns.WorkflowRunStatus(status), timestamp)
    log.upsert_workflow_run(("workflow", status, run_id, None, timestamp), run)
    return run


@pytest.fixture
def everything(log: Log) -> list[ns.WorkflowRun]:
    """Many runs of three timestamps, in the order in which they are listed."""
    found = [put(log, run_id, STATUSES[n % 8], 5 + n % 3) for n, run_id in enumerate(IDS)]
    return sorted(found, key=lambda run: (run.timestamp, run.run_id))


def pages(log: Log, size: int, **options: Any) -> list[ns.WorkflowRun]:
    found: list[ns.WorkflowRun] = []
    while page := log.query_workflow_runs(**options, limit=size, after=found[-1] if found else None):
        found += page
    return found


@pytest.mark.parametrize("status", [None, ["queued", "started"], ["completed", "queued"], ["failed"]])
def test_runs_of_equal_timestamps_are_listed_by_their_ids(
    log: Log, everything: list[ns.WorkflowRun], status: list[str] | None
) -> None:
    wanted = [run for run in everything if status is None or run.status in status]
    for descending in (False, True):
        expected = wanted[::-1] if descending else wanted
        options: dict[str, Any] = {"status": status, "descending": descending}
        assert log.query_workflow_runs(**options) == expected
        assert list(log.iter_workflow_runs(**options)) == expected
        for size in (1, 7, 50):
            assert pages(log, size, **options) == expected
    assert log.get_active_workflow_runs() == [run for run in everything if run.status.is_active]
    assert log.get_all_workflow_runs() == everything[::-1]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("status", [None, ["queued", "started"]])
def test_pages_hold_what_did_not_move_once_whatever_changes_between_them(
    log: Log, everything: list[ns.WorkflowRun], status: list[str] | None, descending: bool
) -> None:
    """A change of state gives a run another timestamp, or leaves it where it is."""
    wanted = [run for run in everything if status is None or run.status.is_active]
    changing = [run for run in everything if run.status == "queued"]
    moved: set[str] = set()
    options: dict[str, Any] = {"status": status, "descending": descending}
    found: list[ns.WorkflowRun] = []
    while page := log.query_workflow_runs(**options, limit=20, after=found[-1] if found else None):
        found += page
        for _ in range(25):
            if changing:
                run = changing.pop(len(changing) // 2)
                stays = len(changing) % 2 == 0
                timestamp = run.timestamp if stays else 9
                log.transition(run.run_id, "started", timestamp=timestamp)
                if not stays:
                    moved.add(run.run_id)
    assert not changing
    assert len(moved) > 20
    expected = [run.run_id for run in (wanted[::-1] if descending else wanted)]
    assert [run.run_id for run in found if run.run_id not in moved] == [name for name in expected if name not in moved]
    if descending:
        # What moved is before what was read.
        assert len(found) == len({run.run_id for run in found})
    else:
        assert moved <= {run.run_id for run in found}


def test_queued_runs_of_equal_timestamps_are_claimed_in_the_order_of_their_creation(backend: Backend) -> None:
    log = backend.open()
    names = [f"run-{number * 7 % 20:02}" for number in range(20)]
    for name in names[:10]:
        log.create_workflow_run(name, "deploy", timestamp=5)
    with log.batch() as batch:
        for name in names[10:15]:
            batch.create_workflow_run(name, "deploy", timestamp=5)
    for name in names[15:]:
        put(log, name, "queued", 5)
    # A change that leaves a run in its place, and one that goes back to where it was.
    log.transition(names[3], "queued", timestamp=5)
    log.transition(names[4], "interrupted", timestamp=7)
    log.transition(names[4], "queued", timestamp=5)
    put(log, "earlier", "queued", 4)
    claimed = [log.claim_workflow_run("w") for _ in range(21)]
    assert [claim and claim.run.run_id for claim in claimed] == ["earlier", *names]


def test_the_run_whose_lease_ran_out_first_is_taken_over_first(backend: Backend) -> None:
    log = backend.open()
    names = [f"run-{9 - number}" for number in range(10)]
    for name in names:
        log.create_workflow_run(name, "deploy", timestamp=5)
    leases = [1.0, *[0.001] * 8, 0.5]
    claims: list[ns.RunClaim] = []
    for name, lease in zip(names, leases, strict=True):
        claim = log.claim_workflow_run("w", lease=lease, run_id=name)
        assert claim is not None
        claims.append(claim)
    expected = sorted(claims, key=lambda claim: (claim.expires_at, claim.token))
    while time.time() * 1000 <= expected[-1].expires_at + 50:
        time.sleep(0.05)
    taken = [log.claim_workflow_run("v") for _ in names]
    assert [claim and claim.run.run_id for claim in taken] == [claim.run.run_id for claim in expected]
