"""Creating, claiming, listing and deleting runs."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from reference import STATUSES
from support import is_one_line

Q, S = ns.WorkflowRunStatus.QUEUED, ns.WorkflowRunStatus.STARTED


@pytest.fixture
def runs(log: Log) -> Log:
    """A log of runs."""
    return log


def claimed(log: Log, owner: str = "worker", **options: Any) -> Any:
    claim = log.claim_workflow_run(owner, **options)
    assert claim is not None
    return claim


def types(log: Log, run_id: str = "run-1") -> list[str]:
    return [entry.type for entry in log.query(ref_id=run_id)]


def lost(log: Log, *calls: Callable[[], object]) -> None:
    before = log.query()
    for call in calls:
        with pytest.raises(ns.ClaimLostError) as refused:
            call()
        assert is_one_line(refused.value)
        assert refused.value.run_id == "run-1"
        assert refused.value.token is not None
    assert log.query() == before


def test_creating_logs_and_creates(runs: Log) -> None:
    run = runs.create_workflow_run("run-1", "deploy", payload="{}", timestamp=5)
    assert run == ns.WorkflowRun("run-1", "deploy", Q, 5) == runs.get_workflow_run("run-1")
    (entry,) = runs.query()
    assert (entry.source, entry.type, entry.ref_id, entry.payload, entry.timestamp) == (
        "workflow", "queued", "run-1", "{}", 5,
    )  # fmt: skip
    with pytest.raises(ns.RunExistsError) as refused:
        runs.create_workflow_run("run-1", "deploy")
    assert isinstance(refused.value, ValueError)
    assert refused.value.run_id == "run-1"
    assert runs.create_workflow_run("run-1", "deploy", exist_ok=True, timestamp=9) == run
    with pytest.raises(ns.RunExistsError):
        runs.create_workflow_run("run-1", "other", exist_ok=True)
    assert runs.count() == 1
    for status in STATUSES:
        state = ns.WorkflowRunStatus(status)
        assert runs.create_workflow_run(status, "deploy", status=state).status == status


def test_upsert_checks_what_it_is_told(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy")
    before = runs.query(), runs.get_all_workflow_runs()
    with pytest.raises(ValueError, match="run-1"):
        runs.upsert_workflow_run(("workflow", "started", "run-2", None, 1), ns.WorkflowRun("run-1", "deploy", S, 1))
    for force in (False, True):
        with pytest.raises(ValueError, match="workflow"):
            runs.upsert_workflow_run(
                ("workflow", "started", "run-1", None, 1), ns.WorkflowRun("run-1", "other", S, 1), force=force
            )
    assert (runs.query(), runs.get_all_workflow_runs()) == before


def test_claims_go_to_the_oldest_queued_run(runs: Log) -> None:
    for run_id, timestamp in (("a", 3), ("b", 1), ("c", 1), ("d", 2)):
        runs.create_workflow_run(run_id, "deploy", timestamp=timestamp)
    runs.create_workflow_run("other", "triage", timestamp=0)
    claims = [claimed(runs, workflow="deploy") for _ in range(4)]
    assert [claim.run.run_id for claim in claims] == ["b", "c", "d", "a"]
    assert runs.claim_workflow_run("worker", workflow=["deploy", "nothing"]) is None
    claim = claimed(runs, "me")
    assert (claim.run.run_id, claim.run.status, claim.owner, claim.attempt) == ("other", S, "me", 1)
    (entry,) = runs.query(ref_id="other", type="started")
    assert (claim.token, entry.payload) == (entry.id, None)
    assert runs.get_workflow_run("other") == claim.run
    assert pickle.loads(pickle.dumps(claim)) == claim
    assert 0 < claim.expires_at - time.time() * 1000 < 120_000


def test_a_claim_names_its_run_or_none(runs: Log) -> None:
    runs.create_workflow_run("a", "deploy")
    runs.create_workflow_run("b", "deploy")
    assert claimed(runs, run_id="b").run.run_id == "b"
    assert runs.claim_workflow_run("worker", run_id="b") is None
    assert runs.claim_workflow_run("worker", run_id="absent") is None
    runs.upsert_workflow_run(("workflow", "started", "c", None, 1), ns.WorkflowRun("c", "deploy", S, 1))
    assert runs.claim_workflow_run("worker", run_id="c") is None, "a run without a lease was taken over"


def test_each_run_goes_to_one_claimant(backend: Backend) -> None:
    logs = [backend.open(durability="normal") for _ in range(2)]
    for number in range(40):
        logs[0].create_workflow_run(str(number), "deploy")

    def work(number: int) -> list[str]:
        found = []
        while (claim := logs[number % 2].claim_workflow_run(f"worker-{number}")) is not None:
            found.append(claim.run.run_id)
        return found

    with ThreadPoolExecutor(8) as pool:
        taken = [run_id for found in pool.map(work, range(8)) for run_id in found]
    assert sorted(taken, key=int) == [str(number) for number in range(40)]


def test_a_claim_is_about_the_rows_and_changes_of_its_run(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy")
    claim = claimed(runs)
    started = ns.WorkflowRun("other", "deploy", S, 1)
    before = runs.query()
    for call in (
        lambda: runs.append("workflow", "tick", "other", claim=claim),
        lambda: runs.append_many([("s", "t", None, None, 1), ("s", "t", "other", None, 1)], claim=claim),
        lambda: runs.transition("other", "started", claim=claim),
        lambda: runs.upsert_workflow_run(("workflow", "started", "other", None, 1), started, claim=claim),
    ):
        with pytest.raises(ValueError, match="claim"):
            call()
    assert runs.query() == before
    runs.append("workflow", "tick", claim=claim)


def test_a_claim_fences_a_batch_that_changes_other_runs_too(runs: Log) -> None:
    """As a worker does that begins, ends or kills runs of its own."""
    for run_id in ("run-1", "other", "leased", "third"):
        runs.create_workflow_run(run_id, "deploy")
    claim, other = claimed(runs, run_id="run-1"), claimed(runs, "somebody", run_id="leased")
    with runs.batch(claim=claim) as batch:
        batch.append("workflow", "tick", "other")
        batch.transition("other", "started")
        batch.create_workflow_run("new", "deploy")
        batch.upsert_workflow_run(("workflow", "started", "third", None, 1), ns.WorkflowRun("third", "deploy", S, 1))
        batch.transition("run-1", "started")
    assert {run.run_id: run.status for run in runs.get_all_workflow_runs()} == {
        "run-1": S, "other": S, "leased": S, "third": S, "new": ns.WorkflowRunStatus.QUEUED
    }  # fmt: skip
    claim = runs.renew_claim(claim)
    # What carries no claim of theirs: a run under another's lease is changed by its claimant alone, or killed.
    with pytest.raises(ns.IllegalTransitionError), runs.batch(claim=claim) as batch:
        batch.transition("leased", "completed")
    with runs.batch(claim=claim) as batch:
        batch.transition("leased", "killed")
        batch.transition("run-1", "completed")
    with pytest.raises(ns.ClaimLostError):
        runs.renew_claim(other)
    with pytest.raises(ns.ClaimLostError), runs.batch(claim=claim) as batch:
        batch.transition("other", "completed")


def test_claim_fences_rows_changes_and_batches(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy")
    claim = claimed(runs)
    runs.append("workflow", "tick", "run-1", claim=claim)
    runs.append_many([("workflow", "tick", "run-1", None, 1)] * 2, claim=claim)
    with runs.batch(claim=claim) as batch:
        batch.append("workflow", "tick", "run-1")
    runs.transition("run-1", "killed")
    lost(
        runs,
        lambda: runs.append("workflow", "tick", "run-1", claim=claim),
        lambda: runs.append_many([("workflow", "tick", "run-1", None, 1)], claim=claim),
        lambda: runs.transition("run-1", "completed", claim=claim),
        lambda: runs.transition("run-1", "killed", claim=claim),
        lambda: runs.renew_claim(claim),
        lambda: runs.release_claim(claim),
        lambda: runs.upsert_workflow_run(
            ("workflow", "completed", "run-1", None, 1),
            ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1),
            claim=claim,
        ),
    )
    with pytest.raises(ns.ClaimLostError), runs.batch(claim=claim) as batch:  # noqa: PT012
        batch.append("workflow", "tick", "run-1")
        batch.set_meta("a", "1")
    assert runs.get_meta("a") is None


def test_claim_of_another_run_is_a_value_error(runs: Log) -> None:
    for run_id in ("a", "b"):
        runs.create_workflow_run(run_id, "deploy")
    claim = claimed(runs, run_id="a")
    claimed(runs, run_id="b")
    before = runs.query()
    with pytest.raises(ValueError, match="a"):
        runs.transition("b", "completed", claim=claim)
    with pytest.raises(ValueError, match="a"):
        runs.upsert_workflow_run(("workflow", "failed", "b", None, 1), ns.WorkflowRun("b", "deploy", S, 1), claim=claim)
    assert runs.query() == before


def test_the_change_that_ended_the_run_may_be_repeated_with_its_claim(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy")
    claim = claimed(runs)
    assert runs.transition("run-1", "completed", exit_code=0, claim=claim).exit_code == 0
    assert runs.transition("run-1", "completed", exit_code=5, claim=claim).exit_code == 0
    lost(runs, lambda: runs.renew_claim(claim), lambda: runs.transition("run-1", "failed", claim=claim))


def test_change_without_the_claim_is_refused_unless_it_kills(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy")
    claim = claimed(runs)
    before = runs.query()
    for status in ("completed", "failed", "started", "crashed", "interrupted"):
        with pytest.raises(ns.IllegalTransitionError) as refused:
            runs.transition("run-1", status)
        assert is_one_line(refused.value)
        with pytest.raises(ns.IllegalTransitionError):
            runs.upsert_workflow_run(
                ("workflow", status, "run-1", None, 1),
                ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus(status), 1),
            )
    assert runs.query() == before
    runs.renew_claim(claim)
    runs.upsert_workflow_run(
        ("workflow", "failed", "run-1", None, 1),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.FAILED, 1),
        force=True,
    )
    lost(runs, lambda: runs.renew_claim(claim))


@pytest.mark.parametrize("status", ["interrupted", "crashed", "completed"])
def test_change_that_does_not_carry_the_claim_ends_it_for_good(runs: Log, status: Any) -> None:
    """Also where the run comes to be as the claim had left it."""
    runs.create_workflow_run("run-1", "deploy")
    claim = claimed(runs)
    runs.transition("run-1", status, timestamp=5, claim=claim)
    runs.transition("run-1", status, timestamp=5, claim=claim)
    if status != "completed":
        runs.transition("run-1", "started", timestamp=6)
    runs.transition("run-1", status, timestamp=5)
    lost(runs, lambda: runs.transition("run-1", status, timestamp=5, claim=claim), lambda: runs.renew_claim(claim))


def test_expired_lease_is_taken_over_and_renewed_if_it_was_not(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy")
    first = claimed(runs, "first", lease=0.05)
    time.sleep(0.1)
    # Not taken over yet: still of use.
    first = runs.renew_claim(first, lease=timedelta(milliseconds=50))
    runs.append("workflow", "tick", "run-1", claim=first)
    time.sleep(0.1)
    second = claimed(runs, "second")
    assert (second.attempt, second.owner, second.run.run_id) == (2, "second", "run-1")
    assert second.token > first.token
    assert types(runs) == ["queued", "started", "tick", "crashed", "started"]
    lost(runs, lambda: runs.renew_claim(first), lambda: runs.append("workflow", "tick", "run-1", claim=first))
    runs.transition("run-1", "completed", claim=second)


def test_expired_runs_come_before_queued_ones_and_stop_at_the_most_attempts(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy", timestamp=5)
    claimed(runs, lease=0.02)
    runs.create_workflow_run("run-2", "deploy", timestamp=1)
    time.sleep(0.06)
    assert claimed(runs, lease=0.02, max_attempts=2).run.run_id == "run-1"
    time.sleep(0.06)
    assert claimed(runs, lease=60, max_attempts=2).run.run_id == "run-2"
    assert runs.get_workflow_run("run-1") is not None
    run = runs.get_workflow_run("run-1")
    assert run is not None
    assert (run.status, run.exit_code) == ("crashed", 255)
    assert types(runs)[-1] == "crashed"
    assert runs.claim_workflow_run("worker", max_attempts=2) is None


def test_released_run_is_queued_again(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy")
    claim = claimed(runs)
    run = runs.release_claim(claim)
    assert run.status == Q
    assert types(runs) == ["queued", "started", "interrupted", "queued"]
    lost(runs, lambda: runs.renew_claim(claim))
    again = claimed(runs)
    assert again.attempt == 2
    began = time.monotonic()
    runs.release_claim(again, delay=0.5)
    early = runs.claim_workflow_run("worker")
    third = early or claimed(runs, wait=20)
    assert third.attempt == 3
    # Whether a busy machine comes to the first claim in time or not: no claim comes too early.
    assert time.monotonic() - began >= 0.45


def test_not_before_keeps_a_run_from_being_claimed(runs: Log) -> None:
    soon = time.time_ns() // 1_000_000 + 500
    runs.create_workflow_run("run-1", "deploy", not_before=soon)
    claim = runs.claim_workflow_run("worker") or claimed(runs, wait=20)
    assert claim.run.run_id == "run-1"
    assert time.time_ns() // 1_000_000 >= soon - 5


FAR = 86_400_000
QUEUED_AGAIN: dict[str, Callable[[Log], object]] = {
    "transition": lambda log: log.transition("run-1", "queued"),
    "upsert": lambda log: log.upsert_workflow_run(
        ("workflow", "queued", "run-1", None, None), ns.WorkflowRun("run-1", "deploy", "queued", 1)
    ),
    "forced": lambda log: log.upsert_workflow_run(
        ("workflow", "queued", "run-1", None, None), ns.WorkflowRun("run-1", "deploy", "queued", 1), force=True
    ),
    "interrupted": lambda log: (log.transition("run-1", "interrupted"), log.transition("run-1", "queued")),
    "started": lambda log: [log.transition("run-1", status) for status in ("started", "interrupted", "queued")],
    "completed": lambda log: (
        [log.transition("run-1", status) for status in ("started", "completed")],
        log.upsert_workflow_run(
            ("workflow", "queued", "run-1", None, None), ns.WorkflowRun("run-1", "deploy", "queued", 1), force=True
        ),
    ),
    "created": lambda log: log.create_workflow_run("run-1", "deploy", exist_ok=True),
}


def queue_again_in_a_batch(log: Log) -> None:
    with log.batch() as batch:
        batch.transition("run-1", "queued")


QUEUED_AGAIN["batch"] = queue_again_in_a_batch


@pytest.mark.parametrize("way", QUEUED_AGAIN)
@pytest.mark.parametrize("is_released", [False, True], ids=["created", "released"])
def test_run_that_is_queued_again_waits_as_long_as_before(runs: Log, way: str, is_released: bool) -> None:
    if is_released:
        runs.create_workflow_run("run-1", "deploy")
        runs.release_claim(claimed(runs), delay=3_600)
    else:
        runs.create_workflow_run("run-1", "deploy", not_before=time.time_ns() // 1_000_000 + FAR)
    QUEUED_AGAIN[way](runs)
    assert runs.claim_workflow_run("worker") is None
    assert runs.claim_workflow_run("worker", run_id="run-1") is None


def test_wait_of_a_run_ends_with_its_claim(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy", not_before=time.time_ns() // 1_000_000 + 200)
    claimed(runs, wait=20)
    runs.transition("run-1", "killed")
    runs.upsert_workflow_run(
        ("workflow", "queued", "run-1", None, None), ns.WorkflowRun("run-1", "deploy", "queued", 1), force=True
    )
    assert claimed(runs).attempt == 2


def test_waiting_claimant_is_woken(backend: Backend) -> None:
    log, other = backend.open(), backend.open()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(log.claim_workflow_run, "worker", wait=20)
        time.sleep(0.3)
        began = time.monotonic()
        other.create_workflow_run("run-1", "deploy")
        claim = waiting.result(10)
    assert claim is not None
    assert time.monotonic() - began < 10
    began = time.monotonic()
    assert log.claim_workflow_run("worker", wait=0.2) is None
    assert 0.2 <= time.monotonic() - began < 5


def test_trigger_of_a_claimed_run_is_that_of_its_queued_row(runs: Log) -> None:
    runs.create_workflow_run("run-1", "deploy", json={"prompt": "go", "maxRounds": 3})
    claimed(runs)
    assert runs.get_trigger_payload("run-1") == {"prompt": "go", "maxRounds": 3, "dryRun": False}


def filled(log: Log) -> list[ns.WorkflowRun]:
    found = []
    for number in range(48):
        run = ns.WorkflowRun(
            f"run-{number:02}", ("deploy", "triage", "工")[number % 3], ns.WorkflowRunStatus(STATUSES[number % 8]),
            number * 7 % 20,
        )  # fmt: skip
        log.upsert_workflow_run(("workflow", str(run.status), run.run_id, None, run.timestamp), run)
        found.append(run)
    return sorted(found, key=lambda run: (run.timestamp, run.run_id))


def test_runs_are_queried_page_by_page(log: Log) -> None:
    everything = filled(log)
    filters: list[tuple[dict[str, Any], Callable[[ns.WorkflowRun], bool]]] = [
        ({}, lambda run: True),
        ({"workflow": "deploy"}, lambda run: run.workflow == "deploy"),
        ({"workflow": ["deploy", "工"]}, lambda run: run.workflow != "triage"),
        ({"status": "started"}, lambda run: run.status == "started"),
        ({"status": {"started", "queued"}}, lambda run: run.status.is_active),
        ({"since": 5, "until": 9}, lambda run: 5 <= run.timestamp <= 9),
        ({"workflow": [], "status": None}, lambda run: False),
    ]
    for options, matches in filters:
        expected = [run for run in everything if matches(run)]
        for descending in (False, True):
            ordered = expected[::-1] if descending else expected
            if descending:
                assert log.query_workflow_runs(**options) == ordered
            assert log.query_workflow_runs(**options, descending=descending) == ordered
            assert list(log.iter_workflow_runs(**options, descending=descending)) == ordered
            assert list(log.iter_workflow_runs(**options, descending=descending, limit=5)) == ordered[:5]
            pages: list[ns.WorkflowRun] = []
            after = None
            while page := log.query_workflow_runs(**options, descending=descending, after=after, limit=7):
                pages += page
                after = page[-1]
            assert pages == ordered
    assert log.query_workflow_runs(limit=0) == []


def test_runs_are_counted_by_their_states(log: Log) -> None:
    everything = filled(log)
    for options in ({}, {"workflow": "deploy"}, {"status": ["queued", "failed"]}):
        counted = {status: count for status, count in log.count_workflow_runs(**options).items() if count}
        wanted: dict[ns.WorkflowRunStatus, int] = {}
        for run in everything:
            if run.workflow == options.get("workflow", run.workflow) and run.status in options.get("status", STATUSES):
                wanted[run.status] = wanted.get(run.status, 0) + 1
        assert counted == wanted


def test_finished_runs_are_deleted_and_their_rows_stay(log: Log) -> None:
    everything = filled(log)
    rows = log.query()
    gone = [run for run in everything if not run.status.is_active and run.timestamp < 10 and run.workflow == "deploy"]
    assert log.delete_workflow_runs(before=10, workflow="deploy") == len(gone) > 0
    assert log.query_workflow_runs(descending=False) == [run for run in everything if run not in gone]
    assert log.query() == rows
    assert log.delete_workflow_runs(before=10, workflow="deploy") == 0
    assert log.delete_workflow_runs(before=100) > 0
    assert {run.status for run in log.get_all_workflow_runs()} == {Q, S}


def test_meta_is_listed_and_deleted(log: Log) -> None:
    for key in ("b", "a:1", "a:2", "ä", "a\0", "%", "a_"):
        log.set_meta(key, f"value of {key}")
    assert list(log.list_meta()) == sorted(["b", "a:1", "a:2", "ä", "a\0", "%", "a_"])
    assert log.list_meta("a:") == {"a:1": "value of a:1", "a:2": "value of a:2"}
    assert list(log.list_meta("%")) == ["%"]
    assert log.delete_meta("a:1")
    assert not log.delete_meta("a:1")
    assert log.get_meta("a:1") is None
    for call in (lambda: log.set_meta(ns.ARCHIVED_UP_TO, "2026-01-01"), lambda: log.delete_meta(ns.ARCHIVED_UP_TO)):
        with pytest.raises(ValueError, match=ns.ARCHIVED_UP_TO):
            call()


def test_claims_of_threads_that_wait_do_not_block_the_log(runs: Log) -> None:
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(runs.claim_workflow_run, f"w{n}", wait=15) for n in range(4)]
        time.sleep(0.2)
        began = time.monotonic()
        for number in range(4):
            runs.create_workflow_run(str(number), "deploy")
        found = [item.result(15) for item in waiting]
        assert time.monotonic() - began < 10
    assert sorted(claim.run.run_id for claim in found if claim is not None) == ["0", "1", "2", "3"]
    assert threading.active_count() < 50


def test_runs_of_a_workflow_of_any_name_are_found(log: Log) -> None:
    """Names that lie before, among and after the digits, and ends of what can be a name."""
    names = [
        "", " ", "\0", "\n", "!", '"', "#", "$a", "%", "&", "'", "(", "*", "+1", "-", "-9", "-99", "/", "0", "9" * 20,
        ":", "A", "a", "~", "\x7f", "é", "\U0010ffff", "w" * 1_000,
    ]  # fmt: skip
    for number, name in enumerate(names):
        log.create_workflow_run(f"ended-{number}", name, status="completed", timestamp=1)
        log.create_workflow_run(f"queued-{number}", name, timestamp=2)
    runs = sorted(run.run_id for run in log.get_all_workflow_runs())
    assert len(runs) == 2 * len(names)
    assert sorted(run.run_id for run in log.query_workflow_runs()) == runs
    assert sorted(run.run_id for run in log.iter_workflow_runs(descending=False)) == runs
    assert log.count_workflow_runs() == {Q: len(names), ns.WorkflowRunStatus.COMPLETED: len(names)}
    for number, name in enumerate(names):
        found = [run.run_id for run in log.query_workflow_runs(workflow=name)]
        assert found == [f"queued-{number}", f"ended-{number}"]
        assert log.count_workflow_runs(workflow=[name]) == {Q: 1, ns.WorkflowRunStatus.COMPLETED: 1}
    assert log.delete_workflow_runs(before=3) == len(names)
    claimed_runs = [log.claim_workflow_run("me") for _ in names]
    assert {claim.run.workflow for claim in claimed_runs if claim is not None} == set(names)
