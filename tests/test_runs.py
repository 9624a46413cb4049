"""Workflow runs: the state machine, the exit code, the lists, and what each change leaves in the log."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import ACTIVE, ALLOWED, STATUSES, TERMINAL, Run, is_legal, merged_exit_code
from support import as_row, as_run, is_one_line
from support.runs import put, run_in


def state(store: ns.LogStore) -> tuple[list[ns.LogEntry], list[ns.WorkflowRun]]:
    """All that a refused change must leave alone."""
    return store.query(), store.get_all_workflow_runs()


def test_statuses_are_the_eight_of_the_contract() -> None:
    assert {status.value for status in ns.WorkflowRunStatus} == set(STATUSES)
    assert {status.value for status in ns.WorkflowRunStatus if status.is_active} == ACTIVE
    assert {status.value for status in ns.WorkflowRunStatus if status.is_terminal} == TERMINAL


def test_exit_codes_are_the_five_of_the_contract() -> None:
    assert {code.name: code.value for code in ns.ExitCode} == {
        "SUCCESS": 0,
        "ROLE_ERROR": 1,
        "MAX_ROUNDS": 2,
        "KILLED": 137,
        "CRASHED": 255,
    }


@pytest.mark.parametrize("status", STATUSES)
def test_new_run_may_begin_in_any_state(log_store: ns.LogStore, status: str) -> None:
    entry = put(log_store, status)
    assert log_store.query() == [entry]
    assert as_row(entry)[1:] == ("workflow", status, "run-1", None, 5)
    assert log_store.get_workflow_run("run-1") == run_in(status)


@pytest.mark.parametrize("current", STATUSES)
@pytest.mark.parametrize("how", ["upsert_workflow_run", "append_with_workflow_update", "transition"])
def test_only_the_changes_of_the_contract_are_legal(log_store: ns.LogStore, current: str, how: str) -> None:
    for status in STATUSES:
        run_id = f"{current}-{status}"
        put(log_store, current, run_id=run_id)
        before = state(log_store)

        def change(run_id: str = run_id, status: str = status) -> object:
            if how == "transition":
                return log_store.transition(run_id, ns.WorkflowRunStatus(status), timestamp=6)
            run = run_in(status, run_id=run_id, timestamp=6)
            return getattr(log_store, how)(("workflow", status, run_id, None, 6), run)

        if is_legal(current, status):
            change()
            assert log_store.get_workflow_run(run_id) == run_in(status, run_id=run_id, timestamp=6)
            (logged,) = log_store.query(ref_id=run_id, after_id=before[0][-1].id)
            assert as_row(logged)[1:] == ("workflow", status, run_id, None, 6)
        else:
            with pytest.raises(ns.IllegalTransitionError) as refused:
                change()
            assert state(log_store) == before
            assert refused.value.run_id == run_id
            assert refused.value.from_status == current
            assert refused.value.to_status == status
            assert set(refused.value.allowed) - {current} == ALLOWED[current]
            assert is_one_line(refused.value)
            assert {current, status} <= set(str(refused.value).replace(",", " ").split())
            assert isinstance(refused.value, ValueError)


def test_legal_changes_are_those_counted_in_the_contract() -> None:
    """A guard on the reference itself: 8 repeats, and the changes that API.md spells out."""
    assert sum(is_legal(a, b) for a in STATUSES for b in STATUSES) == 8 + 5 + 6 + 6 + 6


@pytest.mark.parametrize("current", STATUSES)
def test_forced_upsert_goes_anywhere(log_store: ns.LogStore, current: str) -> None:
    for status in STATUSES:
        run_id = f"{current}-{status}"
        put(log_store, current, run_id=run_id)
        put(log_store, status, run_id=run_id, timestamp=6, force=True)
        assert log_store.get_workflow_run(run_id) == run_in(status, run_id=run_id, timestamp=6)
    assert log_store.count() == 2 * len(STATUSES)


def test_status_may_be_given_as_text_or_member(log_store: ns.LogStore) -> None:
    put(log_store, "queued")
    assert log_store.transition("run-1", "started").status is ns.WorkflowRunStatus.STARTED
    assert log_store.transition("run-1", ns.WorkflowRunStatus.FAILED).status is ns.WorkflowRunStatus.FAILED
    assert [entry.type for entry in log_store.query()] == ["queued", "started", "failed"]


# --- transition --------------------------------------------------------------------------------------------------


def test_transition_logs_its_row_and_returns_the_run(log_store: ns.LogStore) -> None:
    put(log_store, "started")
    run = log_store.transition("run-1", "failed", exit_code=ns.ExitCode.ROLE_ERROR, payload='{"why":"ü"}', timestamp=9)
    assert run == run_in("failed", timestamp=9, exit_code=1)
    assert log_store.get_workflow_run("run-1") == run
    assert as_row(log_store.query()[-1]) == (2, "workflow", "failed", "run-1", '{"why":"ü"}', 9)


def test_transition_without_a_timestamp_takes_the_clock(log_store: ns.LogStore) -> None:
    put(log_store, "started")
    before = time.time_ns() // 1_000_000
    run = log_store.transition("run-1", "completed")
    assert before <= run.timestamp <= time.time_ns() // 1_000_000
    assert log_store.query()[-1].timestamp == run.timestamp


def test_transition_keeps_the_workflow(log_store: ns.LogStore) -> None:
    log_store.upsert_workflow_run(
        ("workflow", "queued", "run-1", None, 1), ns.WorkflowRun("run-1", "工作流", ns.WorkflowRunStatus.QUEUED, 1)
    )
    assert log_store.transition("run-1", "started").workflow == "工作流"


def test_transition_of_a_missing_run_is_refused(log_store: ns.LogStore) -> None:
    with pytest.raises(ns.IllegalTransitionError) as refused:
        log_store.transition("nobody", "started")
    assert (refused.value.run_id, refused.value.from_status, refused.value.to_status) == ("nobody", None, "started")
    assert "nobody" in str(refused.value)
    assert state(log_store) == ([], [])


@pytest.mark.parametrize(
    "expect",
    [
        "started",
        ns.WorkflowRunStatus.STARTED,
        ["queued", "started"],
        ("started",),
        {"started", "crashed"},
        frozenset({ns.WorkflowRunStatus.STARTED}),
        None,
    ],
)
def test_expected_state_lets_the_transition_happen(log_store: ns.LogStore, expect: Any) -> None:
    put(log_store, "started")
    assert log_store.transition("run-1", "completed", expect=expect).status == "completed"


@pytest.mark.parametrize("expect", ["queued", ns.WorkflowRunStatus.CRASHED, ["queued", "crashed"], {"completed"}])
def test_unexpected_state_refuses_the_transition(log_store: ns.LogStore, expect: Any) -> None:
    put(log_store, "started")
    before = state(log_store)
    with pytest.raises(ns.IllegalTransitionError) as refused:
        log_store.transition("run-1", "completed", expect=expect)
    assert refused.value.from_status == "started"
    assert state(log_store) == before


def test_expected_state_does_not_make_an_illegal_change_legal(log_store: ns.LogStore) -> None:
    put(log_store, "completed")
    before = state(log_store)
    with pytest.raises(ns.IllegalTransitionError):
        log_store.transition("run-1", "started", expect="completed")
    assert state(log_store) == before


def test_expecting_no_state_at_all_is_refused(log_store: ns.LogStore) -> None:
    """An empty collection is no way to say "any state": a filter that came out empty must not disarm the check."""
    put(log_store, "started")
    before = state(log_store)
    with pytest.raises(ValueError, match=r"."):
        log_store.transition("run-1", "completed", expect=[])
    assert state(log_store) == before


# --- the exit code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("current", STATUSES)
@pytest.mark.parametrize("old_code", [None, 0, 1])
@pytest.mark.parametrize("force", [False, True])
def test_exit_code_follows_the_rules(log_store: ns.LogStore, current: str, old_code: int | None, force: bool) -> None:
    for status in STATUSES:
        for new_code in (None, 0, 7):
            if not (force or is_legal(current, status)):
                continue
            run_id = f"{status}-{new_code}"
            put(log_store, current, run_id=run_id, exit_code=old_code)
            put(log_store, status, run_id=run_id, timestamp=6, exit_code=new_code, force=force)
            wanted = merged_exit_code(Run(run_id, "deploy", current, 5, old_code), status, new_code, force=force)
            found = log_store.get_workflow_run(run_id)
            assert found == run_in(status, run_id=run_id, timestamp=6, exit_code=wanted), (status, new_code)


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_repeating_a_finished_runs_state_leaves_its_exit_code(log_store: ns.LogStore, status: str) -> None:
    put(log_store, status, exit_code=3)
    for code in (None, 0, 9):
        put(log_store, status, timestamp=6, exit_code=code)
        assert log_store.get_workflow_run("run-1") == run_in(status, timestamp=6, exit_code=3)
        assert log_store.transition("run-1", ns.WorkflowRunStatus(status), exit_code=code, timestamp=7).exit_code == 3
    assert log_store.count() == 7


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_forced_change_without_a_code_keeps_that_of_a_finished_run(log_store: ns.LogStore, status: str) -> None:
    for target in STATUSES:
        put(log_store, status, run_id=target, exit_code=3)
        put(log_store, target, run_id=target, force=True)
        found = log_store.get_workflow_run(target)
        assert found is not None
        assert found.exit_code == 3


def test_resumed_run_begins_without_an_exit_code(log_store: ns.LogStore) -> None:
    put(log_store, "crashed", exit_code=ns.ExitCode.CRASHED)
    assert log_store.transition("run-1", "crashed").exit_code == 255
    assert log_store.transition("run-1", "started").exit_code is None
    assert log_store.transition("run-1", "completed", exit_code=0).exit_code == 0
    assert log_store.get_workflow_run("run-1") == log_store.get_all_workflow_runs()[0]


@pytest.mark.parametrize("code", [0, 1, 255, -1, 2**31, -(2**63), 2**63 - 1])
def test_any_integer_is_an_exit_code(log_store: ns.LogStore, code: int) -> None:
    put(log_store, "started")
    assert log_store.transition("run-1", "failed", exit_code=code).exit_code == code
    found = log_store.get_workflow_run("run-1")
    assert found is not None
    assert found.exit_code == code


# --- lists -------------------------------------------------------------------------------------------------------


def test_lists_are_ordered_and_filtered(log_store: ns.LogStore) -> None:
    runs = [
        ns.WorkflowRun(f"run-{n}", ("deploy", "triage")[n % 2], ns.WorkflowRunStatus(STATUSES[n % 8]), (n * 7) % 40)
        for n in range(24)
    ]
    for run in runs:
        log_store.upsert_workflow_run(("workflow", str(run.status), run.run_id, None, run.timestamp), run)

    def matching(workflow: str | None, *, active: bool) -> list[ns.WorkflowRun]:
        return [run for run in runs if workflow in (None, run.workflow) and (not active or run.status in ACTIVE)]

    for workflow in (None, "deploy", "triage", "nothing"):
        everything = log_store.get_all_workflow_runs(workflow)
        assert sorted(map(as_run, everything), key=repr) == sorted(
            map(as_run, matching(workflow, active=False)), key=repr
        )
        assert [run.timestamp for run in everything] == sorted((run.timestamp for run in everything), reverse=True)
        active = log_store.get_active_workflow_runs(workflow)
        assert sorted(map(as_run, active), key=repr) == sorted(map(as_run, matching(workflow, active=True)), key=repr)
        assert [run.timestamp for run in active] == sorted(run.timestamp for run in active)


def test_missing_run_is_none(log_store: ns.LogStore) -> None:
    put(log_store, "started")
    for run_id in ("run-2", "", "RUN-1", "run-1\0", "run"):
        assert log_store.get_workflow_run(run_id) is None


def test_upsert_takes_the_runs_new_fields(log_store: ns.LogStore) -> None:
    put(log_store, "queued")
    log_store.upsert_workflow_run(
        ns.NewLogEntry("system", "renamed", "run-1", "p", 8),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 9, 3),
    )
    assert log_store.get_workflow_run("run-1") == ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 9, 3)
    assert as_row(log_store.query()[-1]) == (2, "system", "renamed", "run-1", "p", 8)


@pytest.mark.parametrize("force", [False, True])
def test_upsert_refuses_a_row_of_another_run_and_another_workflow(log_store: ns.LogStore, force: bool) -> None:
    put(log_store, "queued")
    before = state(log_store)
    for ref_id in ("run-2", None, ""):
        with pytest.raises(ValueError, match="ref_id"):
            log_store.upsert_workflow_run(("workflow", "started", ref_id, None, 1), run_in("started"), force=force)
    other = ns.WorkflowRun("run-1", "other", ns.WorkflowRunStatus.STARTED, 9)
    with pytest.raises(ValueError, match="workflow"):
        log_store.upsert_workflow_run(("workflow", "started", "run-1", None, 1), other, force=force)
    assert state(log_store) == before


def test_runs_survive_close_and_reopen(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        put(store, "queued")
        store.transition("run-1", "started", timestamp=6)
        before = state(store)
    with ns.LogStore(path) as store:
        assert state(store) == before


def test_runs_pickle_compare_and_refuse_changes() -> None:
    run = run_in("started", exit_code=3)
    assert pickle.loads(pickle.dumps(run)) == run
    assert ns.WorkflowRun("run-1", "deploy", "started", 5, 3) == run
    assert {run: 1}[run_in("started", exit_code=3)] == 1
    assert run != run_in("started")
    with pytest.raises(AttributeError):
        run.status = ns.WorkflowRunStatus.FAILED  # type: ignore[misc]


# --- all or nothing ----------------------------------------------------------------------------------------------


def test_refused_row_does_not_change_the_run(log_store: ns.LogStore) -> None:
    put(log_store, "queued")
    before = state(log_store)
    bad_entries: list[Any] = [
        ("workflow", "started", "run-1", None, -1),
        ("workflow", "started", "run-1", "\ud800", 1),
        ("workflow", "started", "run-1", None, 1.5),
        ("workflow", "started"),
        "workflow",
        None,
    ]
    for entry in bad_entries:
        with pytest.raises((TypeError, ValueError)):
            log_store.upsert_workflow_run(entry, run_in("started"))
        assert state(log_store) == before


def test_refused_run_does_not_log_its_row(log_store: ns.LogStore) -> None:
    put(log_store, "queued")
    before = state(log_store)
    bad_runs: list[Any] = [
        ns.WorkflowRun("\udfff", "deploy", ns.WorkflowRunStatus.STARTED, 1),
        ns.WorkflowRun("run-1", "\udfff", ns.WorkflowRunStatus.STARTED, 1),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, -1),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1.5),  # type: ignore[arg-type]
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, True),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1, 1.5),  # type: ignore[arg-type]
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1, 2**63),
        ns.WorkflowRun(7, "deploy", ns.WorkflowRunStatus.STARTED, 1),  # type: ignore[arg-type]
        ns.WorkflowRun("run-1", None, ns.WorkflowRunStatus.STARTED, 1),  # type: ignore[arg-type]
        {"run_id": "run-1"},
        None,
    ]
    for run in bad_runs:
        with pytest.raises((TypeError, ValueError)):
            log_store.upsert_workflow_run(("workflow", "started", "run-1", None, 1), run)
        assert state(log_store) == before
