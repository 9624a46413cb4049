"""Claims: one owner a run, leases that end, and fences that stop an owner whose claim is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import foreign_sql, refused
from support.event_loops import run
from support.processes import start_child
from support.strace import run_straced


def create(store: ns.LogStore, *run_ids: str, workflow: str = "w") -> None:
    for run_id in run_ids:
        store.create_workflow_run(run_id, workflow, payload=json.dumps({"prompt": run_id, "maxRounds": 1}))


def taken(store: ns.LogStore, **options: object) -> ns.RunClaim:
    claim = store.claim_workflow_run("me", **options)  # type: ignore[arg-type]
    assert claim is not None
    return claim


def kinds(store: ns.LogStore, run_id: str) -> list[str]:
    return [row.type for row in store.query(ref_id=run_id)]


# --- creating ----------------------------------------------------------------------------------------------------


def test_create_logs_and_creates(log_store: ns.LogStore) -> None:
    run = log_store.create_workflow_run("r", "w", payload="{}", timestamp=7)
    assert run == ns.WorkflowRun("r", "w", ns.WorkflowRunStatus.QUEUED, 7)
    assert log_store.get_workflow_run("r") == run
    assert [(row.source, row.type, row.ref_id, row.payload, row.timestamp) for row in log_store.query()] == [
        ("workflow", "queued", "r", "{}", 7)
    ]


@pytest.mark.parametrize("status", ns.WorkflowRunStatus)
def test_create_takes_any_state_to_begin_in(log_store: ns.LogStore, status: ns.WorkflowRunStatus) -> None:
    assert log_store.create_workflow_run("r", "w", status=status).status is status
    assert kinds(log_store, "r") == [status]


def test_a_run_that_is_there_is_not_created_again(log_store: ns.LogStore) -> None:
    first = log_store.create_workflow_run("r", "w")
    error = refused(ns.RunExistsError, lambda: log_store.create_workflow_run("r", "w"))
    assert isinstance(error, ValueError)
    assert error.run_id == "r"  # type: ignore[attr-defined]
    assert log_store.create_workflow_run("r", "w", status="started", exist_ok=True) == first
    refused(ns.RunExistsError, lambda: log_store.create_workflow_run("r", "other", exist_ok=True))
    assert kinds(log_store, "r") == ["queued"]


def test_a_run_is_not_claimed_before_its_time(log_store: ns.LogStore) -> None:
    now = int(time.time() * 1000)
    log_store.create_workflow_run("late", "w", timestamp=1, not_before=now + 3_600_000)
    log_store.create_workflow_run("soon", "w", timestamp=2, not_before=now + 300)
    log_store.create_workflow_run("now", "w", timestamp=3)
    assert taken(log_store).run.run_id == "now"
    assert log_store.claim_workflow_run("me") is None
    assert taken(log_store, wait=10).run.run_id == "soon"
    assert time.time() * 1000 >= now + 300
    assert log_store.claim_workflow_run("me", run_id="late") is None


# --- claiming ----------------------------------------------------------------------------------------------------


def test_a_claim_says_what_it_is(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    before = time.time()
    claim = taken(log_store, lease=timedelta(minutes=2))
    assert (claim.run.run_id, claim.run.status, claim.owner, claim.attempt) == ("r", "started", "me", 1)
    row = log_store.query(type="started")[0]
    assert (row.id, row.payload, row.timestamp) == (claim.token, None, claim.run.timestamp)
    assert before + 119 < claim.expires_at / 1000 < time.time() + 121
    assert pickle.loads(pickle.dumps(claim)) == claim
    with pytest.raises(AttributeError):
        claim.token = 5  # type: ignore[misc]
    assert log_store.get_trigger_payload("r")["prompt"] == "r"


def test_runs_are_claimed_by_their_timestamps_and_then_as_they_were_created(log_store: ns.LogStore) -> None:
    for run_id, timestamp in [("d", 4), ("a", 1), ("c", 2), ("b", 2), ("e", 4)]:
        log_store.create_workflow_run(run_id, "w", timestamp=timestamp)
    assert [taken(log_store).run.run_id for _ in range(5)] == ["a", "c", "b", "d", "e"]
    assert log_store.claim_workflow_run("me") is None


def test_a_claim_takes_only_what_is_asked_for(log_store: ns.LogStore) -> None:
    create(log_store, "a", "b")
    create(log_store, "c", workflow="other")
    assert taken(log_store, workflow="other").run.run_id == "c"
    assert log_store.claim_workflow_run("me", workflow="other") is None
    assert taken(log_store, run_id="b").run.run_id == "b"
    assert log_store.claim_workflow_run("me", run_id="b") is None
    assert log_store.claim_workflow_run("me", run_id="none") is None
    assert log_store.claim_workflow_run("me", run_id="a", workflow="other") is None
    assert log_store.claim_workflow_run("me", workflow=[]) is None
    assert taken(log_store, workflow=["none", "w"]).run.run_id == "a"


@pytest.mark.parametrize("owner", ["me", ""])
@pytest.mark.parametrize(
    "options",
    [{"lease": 0}, {"lease": -1}, {"lease": float("nan")}, {"wait": -1}, {"max_attempts": 0},
     {"lease": timedelta(seconds=-1)}],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(log_store: ns.LogStore, options: dict[str, object], owner: str) -> None:
    create(log_store, "r")
    refused(ValueError, lambda: log_store.claim_workflow_run(owner, **options))  # type: ignore[arg-type]
    assert kinds(log_store, "r") == ["queued"]


def test_an_expired_lease_is_taken_over(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    first = taken(log_store, lease=0.05)
    again = taken(log_store, wait=5)
    assert (again.run.run_id, again.attempt) == ("r", 2)
    assert again.token > first.token
    assert kinds(log_store, "r") == ["queued", "started", "crashed", "started"]
    for call in carrying(log_store, first):
        error = refused(ns.ClaimLostError, call)
        assert (error.run_id, error.token) == ("r", first.token)  # type: ignore[attr-defined]
        assert "me" in str(error)
    assert kinds(log_store, "r") == ["queued", "started", "crashed", "started"]


def carrying(store: ns.LogStore, claim: ns.RunClaim) -> list[Callable[[], object]]:
    """Every call that carries a claim."""
    run_id = claim.run.run_id
    completed = ns.WorkflowRun(run_id, claim.run.workflow, ns.WorkflowRunStatus.COMPLETED, 1)

    def batch() -> None:
        with store.batch(claim=claim) as batch:
            batch.append("workflow", "row", run_id)

    def empty_batch() -> None:
        with store.batch(claim=claim):
            pass

    return [
        lambda: store.append("workflow", "row", run_id, claim=claim),
        lambda: store.append("workflow", "row", claim=claim),
        lambda: store.append("workflow", "row", run_id, key="k", claim=claim),
        lambda: store.append_many([("workflow", "row", run_id, None, 1)] * 3, claim=claim),
        lambda: store.transition(run_id, "completed", claim=claim),
        lambda: store.upsert_workflow_run(("w", "t", run_id, None, 1), completed, claim=claim),
        lambda: store.upsert_workflow_run(("w", "t", run_id, None, 1), completed, force=True, claim=claim),
        lambda: store.renew_claim(claim),
        lambda: store.release_claim(claim),
        batch,
        empty_batch,
    ]


ENDS: dict[str, Callable[[ns.LogStore, Path], object]] = {
    "kill": lambda store, _: store.transition("r", "killed"),
    "force": lambda store, _: store.upsert_workflow_run(
        ("w", "t", "r", None, 1), ns.WorkflowRun("r", "w", ns.WorkflowRunStatus.STARTED, 1), force=True
    ),
    "another program": lambda _, path: foreign_sql(path, "UPDATE workflow_runs SET status = 'failed', timestamp = 9"),
    "another program starts it": lambda _, path: foreign_sql(path, "UPDATE workflow_runs SET timestamp = 9"),
    "another program deletes it": lambda _, path: foreign_sql(path, "DELETE FROM workflow_runs"),
    "an unknown state": lambda _, path: foreign_sql(path, "UPDATE workflow_runs SET status = 'paused'"),
}


@pytest.mark.parametrize("end", ENDS)
def test_any_change_without_the_claim_ends_it(log_store: ns.LogStore, end: str) -> None:
    create(log_store, "r")
    claim = taken(log_store)
    ENDS[end](log_store, Path(log_store.path))
    before = kinds(log_store, "r")
    for call in carrying(log_store, claim):
        refused(ns.ClaimLostError, call)
    assert kinds(log_store, "r") == before
    assert log_store.claim_workflow_run("other") is None


def test_a_change_without_the_claim_is_refused_while_the_lease_lasts(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    claim = taken(log_store)
    before = kinds(log_store, "r")
    for status in set(ns.WorkflowRunStatus) - {ns.WorkflowRunStatus.KILLED}:
        run = ns.WorkflowRun("r", "w", status, 1)
        error = refused(ns.IllegalTransitionError, lambda: log_store.transition("r", status))  # noqa: B023
        assert "me" in str(error)
        refused(ns.IllegalTransitionError, lambda: log_store.upsert_workflow_run(("w", "t", "r", None, 1), run))  # noqa: B023
    assert kinds(log_store, "r") == before
    log_store.transition("r", "completed", claim=claim)
    assert log_store.transition("r", "completed", claim=claim).status == "completed", "repeated"
    refused(ns.ClaimLostError, lambda: log_store.transition("r", "failed", claim=claim))
    refused(ns.ClaimLostError, lambda: log_store.renew_claim(claim))
    refused(ns.ClaimLostError, lambda: log_store.append("w", "t", "r", claim=claim))
    with log_store.batch(claim=claim) as batch:
        batch.transition("r", "completed")
    with pytest.raises(ns.ClaimLostError), log_store.batch(claim=claim) as batch:
        batch.create_workflow_run("next", "w")


def test_a_claim_of_another_run_is_a_value_error(log_store: ns.LogStore) -> None:
    create(log_store, "a", "b")
    claim, other = taken(log_store), taken(log_store)
    run_id = other.run.run_id
    run_of_other = ns.WorkflowRun(run_id, "w", ns.WorkflowRunStatus.COMPLETED, 1)
    calls: list[Callable[[], object]] = [
        lambda: log_store.append("w", "t", run_id, claim=claim),
        lambda: log_store.append_many([("w", "t", "a", None, 1), ("w", "t", run_id, None, 1)], claim=claim),
        lambda: log_store.transition(run_id, "completed", claim=claim),
        lambda: log_store.upsert_workflow_run(("w", "t", run_id, None, 1), run_of_other, claim=claim),
    ]
    before = log_store.count()
    for call in calls:
        refused(ValueError, call)
    refused(TypeError, lambda: log_store.append("w", "t", claim=claim.run))  # type: ignore[arg-type]
    assert log_store.count() == before


CARRIERS: dict[str, Callable[[ns.LogStore, Any], object]] = {
    "append": lambda store, claim: store.append("w", "t", "r", claim=claim),
    "append_many": lambda store, claim: store.append_many([("w", "t", "r", None, 1)], claim=claim),
    "batch": lambda store, claim: store.batch(claim=claim),
    "transition": lambda store, claim: store.transition("r", "completed", claim=claim),
    "upsert": lambda store, claim: store.upsert_workflow_run(
        ("w", "t", "r", None, 1), ns.WorkflowRun("r", "w", ns.WorkflowRunStatus.COMPLETED, 1), claim=claim
    ),
    "renew": lambda store, claim: store.renew_claim(claim),
    "release": lambda store, claim: store.release_claim(claim),
}


@pytest.mark.parametrize("call", CARRIERS)
@pytest.mark.parametrize("field", ["run", "token", "both"])
def test_a_claim_that_was_made_of_other_values_is_refused_by_name(
    log_store: ns.LogStore, call: str, field: str
) -> None:
    create(log_store, "r")
    claim = taken(log_store)
    values = dataclasses.asdict(claim) | ({"token": str(claim.token)} if field != "run" else {})
    if field == "token":
        values["run"] = claim.run
    with pytest.raises(TypeError, match=r"claim\.(run|token) must be"):
        CARRIERS[call](log_store, ns.RunClaim(**values))
    assert kinds(log_store, "r") == ["queued", "started"]
    assert log_store.transition("r", "completed", claim=claim).status == "completed"


def test_a_claim_is_renewed_and_given_back(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    claim = taken(log_store, lease=0.1)
    longer = log_store.renew_claim(claim, lease=60)
    assert (longer.token, longer.attempt, longer.owner) == (claim.token, 1, "me")
    assert longer.expires_at > claim.expires_at + 50_000
    time.sleep(0.15)
    assert log_store.claim_workflow_run("other") is None
    released = log_store.release_claim(claim)
    assert released.status == "queued"
    assert kinds(log_store, "r") == ["queued", "started", "interrupted", "queued"]
    for call in carrying(log_store, claim):
        refused(ns.ClaimLostError, call)
    assert taken(log_store).attempt == 2


def test_a_released_run_waits_for_its_delay(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    claim = taken(log_store)
    began = time.monotonic()
    log_store.release_claim(claim, delay=timedelta(seconds=0.5))
    # Also where a busy machine comes to the first claim late: none comes too early.
    again = log_store.claim_workflow_run("me") or taken(log_store, wait=20)
    assert again.attempt == 2
    assert time.monotonic() - began >= 0.45


def test_a_run_that_fails_too_often_is_left_crashed(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    for attempt in (1, 2):
        assert taken(log_store, lease=0.01, max_attempts=2).attempt == attempt
        time.sleep(0.02)
    assert log_store.claim_workflow_run("me", max_attempts=2, wait=0.1) is None
    run_now = log_store.get_workflow_run("r")
    assert run_now is not None
    assert (run_now.status, run_now.exit_code) == ("crashed", 255)


def test_a_run_started_without_a_claim_is_never_taken_over(log_store: ns.LogStore) -> None:
    log_store.create_workflow_run("r", "w", status="started")
    create(log_store, "s")
    log_store.transition("s", "started")
    assert log_store.claim_workflow_run("me", wait=0.1) is None


def test_another_boot_ends_a_lease(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    claim = taken(log_store, lease=100_000)
    foreign_sql(log_store.path, "UPDATE run_claims SET boot = boot + 1")
    assert taken(log_store).attempt == 2
    refused(ns.ClaimLostError, lambda: log_store.renew_claim(claim))


def test_the_trigger_of_a_claimed_run_is_that_of_its_queued_row(log_store: ns.LogStore) -> None:
    create(log_store, "r")
    log_store.release_claim(taken(log_store))
    taken(log_store)
    expected = log_store.get_trigger_payload("r")
    assert expected["prompt"] == "r"
    log_store.create_workflow_run("given", "w", payload='{"prompt":"no","maxRounds":1}')
    log_store.transition("given", "started", payload='{"prompt":"yes","maxRounds":2}')
    assert log_store.get_trigger_payload("given")["prompt"] == "yes"
    log_store.create_workflow_run("empty", "w")
    log_store.transition("empty", "started")
    assert log_store.get_trigger_payload("empty") is None


# --- waiting -----------------------------------------------------------------------------------------------------


def test_a_commit_of_this_process_wakes_a_claimant(log_store: ns.LogStore) -> None:
    found: list[ns.RunClaim | None] = []
    waiting = threading.Thread(target=lambda: found.append(log_store.claim_workflow_run("me", wait=30)))
    waiting.start()
    time.sleep(0.1)
    create(log_store, "r")
    waiting.join(timeout=10)
    assert found[0] is not None


def test_a_commit_of_another_process_wakes_a_claimant(log_store: ns.LogStore) -> None:
    with start_child("runs", path=log_store.path, count=0) as child:
        child.communicate(timeout=30)
    found: list[ns.RunClaim | None] = []
    waiting = threading.Thread(target=lambda: found.append(log_store.claim_workflow_run("me", wait=30)))
    waiting.start()
    time.sleep(0.1)
    foreign_sql(log_store.path, "INSERT INTO workflow_runs VALUES ('r', 'w', 'queued', 1, NULL)")
    waiting.join(timeout=10)
    assert found[0] is not None


def locks_of_a_wait(tmp_path: Path, path: Path, seconds: float) -> int:
    """Locks that a process takes and gives back which waits for a run that never comes; each look takes one."""
    program = f"import nerve_store as ns; ns.LogStore({str(path)!r}).claim_workflow_run('me', wait={seconds})"
    done, calls = run_straced([sys.executable, "-c", program], tmp_path / f"trace-{seconds}", "fcntl")
    assert done.returncode == 0, done.stderr
    return sum("logs.db-shm" in call for call in calls)


def test_waiting_is_not_looking_again_and_again(tmp_path: Path, data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        create(store, "taken")
        store.transition("taken", "started")
    short, long = locks_of_a_wait(tmp_path, path, 0.2), locks_of_a_wait(tmp_path, path, 2.2)
    assert short > 0
    # Two more looks, for the clock may have been set; not one in 25 ms.
    assert long - short < 40


def test_waiting_ends_after_its_time_and_with_the_store(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    began = time.monotonic()
    assert store.claim_workflow_run("me", wait=0.2) is None
    assert 0.2 <= time.monotonic() - began < 5
    errors: list[BaseException] = []

    def claim() -> None:
        try:
            store.claim_workflow_run("me", wait=60)
        except ns.NerveStoreError as error:
            errors.append(error)

    waiting = threading.Thread(target=claim)
    waiting.start()
    time.sleep(0.1)
    store.close()
    waiting.join(timeout=10)
    assert isinstance(errors[0], ns.StoreClosedError)


def test_tasks_wait_without_threads_of_their_own(data_dir: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db") as logs:
            waiting = [asyncio.create_task(logs.claim_workflow_run(f"t{n}", wait=30)) for n in range(50)]
            await asyncio.sleep(0.1)
            threads = threading.active_count()
            for number in range(50):
                await logs.create_workflow_run(str(number), "w")
            claims = await asyncio.gather(*waiting)
            assert Counter(claim.run.run_id for claim in claims if claim) == {str(n): 1 for n in range(50)}
            assert threads < 20
            assert await logs.claim_workflow_run("x", wait=0.05) is None
            await asyncio.gather(*(logs.transition(c.run.run_id, "completed", claim=c) for c in claims if c))

    run(main())


def test_a_task_whose_watcher_gives_up_still_finds_its_run(data_dir: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db") as logs:
            first = asyncio.create_task(logs.claim_workflow_run("first", wait=30))
            second = asyncio.create_task(logs.claim_workflow_run("second", wait=30))
            await asyncio.sleep(0.1)
            first.cancel()
            foreign_sql(logs.path, "INSERT INTO workflow_runs VALUES ('r', 'w', 'queued', 1, NULL)")
            claim = await asyncio.wait_for(second, 10)
            assert claim is not None
            assert claim.owner == "second"

    run(main())
