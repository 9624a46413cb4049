"""Workflow runs: the state machine, the exit code, the lists, and what each change leaves in the log."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from reference import ACTIVE, ALLOWED, STATUSES, TERMINAL, Run, is_legal, merged_exit_code
from support import as_row, as_run, is_one_line
from support.runs import put as put_into
from support.runs import run_in


def put(log: Log, status: str, **options: Any) -> ns.LogEntry:
    return put_into(cast(ns.LogStore, log), status, **options)


def state(log: Log) -> tuple[list[ns.LogEntry], list[ns.WorkflowRun]]:
    """All that a refused change must leave alone."""
    return log.query(), log.get_all_workflow_runs()


def test_new_run_may_begin_in_any_state(log: Log) -> None:
    for status in STATUSES:
        entry = put(log, status, run_id=status)
        assert log.query(ref_id=status) == [entry]
        assert as_row(entry)[1:] == ("workflow", status, status, None, 5)
        assert log.get_workflow_run(status) == run_in(status, run_id=status)


@pytest.mark.parametrize("how", ["upsert_workflow_run", "append_with_workflow_update", "transition"])
def test_only_the_changes_of_the_contract_are_legal(log: Log, how: str) -> None:
    for current in STATUSES:
        for status in STATUSES:
            run_id = f"{current}-{status}"
            put(log, current, run_id=run_id)
            before = state(log)

            def change(run_id: str = run_id, status: str = status) -> object:
                if how == "transition":
                    return log.transition(run_id, ns.WorkflowRunStatus(status), timestamp=6)
                run = run_in(status, run_id=run_id, timestamp=6)
                return getattr(log, how)(("workflow", status, run_id, None, 6), run)

            if is_legal(current, status):
                change()
                assert log.get_workflow_run(run_id) == run_in(status, run_id=run_id, timestamp=6)
                (logged,) = log.query(ref_id=run_id, after_id=before[0][-1].id)
                assert as_row(logged)[1:] == ("workflow", status, run_id, None, 6)
            else:
                with pytest.raises(ns.IllegalTransitionError) as refused:
                    change()
                assert state(log) == before
                assert refused.value.run_id == run_id
                assert refused.value.from_status == current
                assert refused.value.to_status == status
                assert set(refused.value.allowed) - {current} == ALLOWED[current]
                assert is_one_line(refused.value)
                assert {current, status} <= set(str(refused.value).replace(",", " ").split())


def test_forced_upsert_goes_anywhere(log: Log) -> None:
    for current in STATUSES:
        for status in STATUSES:
            run_id = f"{current}-{status}"
            put(log, current, run_id=run_id)
            put(log, status, run_id=run_id, timestamp=6, force=True)
            assert log.get_workflow_run(run_id) == run_in(status, run_id=run_id, timestamp=6)
    assert log.count() == 2 * len(STATUSES) ** 2


def test_transition_logs_its_row_and_returns_the_run(log: Log) -> None:
    put(log, "started")
    run = log.transition("run-1", "failed", exit_code=ns.ExitCode.ROLE_ERROR, payload='{"why":"ü\0"}', timestamp=9)
    assert run == run_in("failed", timestamp=9, exit_code=1)
    assert log.get_workflow_run("run-1") == run
    assert as_row(log.query()[-1]) == (2, "workflow", "failed", "run-1", '{"why":"ü\0"}', 9)


def test_transition_without_a_timestamp_takes_the_clock(log: Log) -> None:
    put(log, "started")
    before = time.time_ns() // 1_000_000
    run = log.transition("run-1", ns.WorkflowRunStatus.COMPLETED)
    assert before <= run.timestamp <= time.time_ns() // 1_000_000
    assert log.query()[-1].timestamp == run.timestamp


def test_transition_of_a_missing_run_is_refused(log: Log) -> None:
    with pytest.raises(ns.IllegalTransitionError) as refused:
        log.transition("absent", "started")
    assert (refused.value.run_id, refused.value.from_status, refused.value.to_status) == ("absent", None, "started")
    assert "absent" in str(refused.value)
    assert state(log) == ([], [])


def test_expected_state_decides(log: Log) -> None:
    expected: list[Any] = ["started", ["queued", "started"], {"started", "crashed"}, frozenset({"started"}), None]
    for number, expect in enumerate(expected):
        put(log, "started", run_id=str(number))
        assert log.transition(str(number), "completed", expect=expect).status == "completed"
    put(log, "started")
    before = state(log)
    unexpected: list[Any] = ["queued", ns.WorkflowRunStatus.CRASHED, ["queued", "crashed"], {"completed"}]
    for expect in unexpected:
        with pytest.raises(ns.IllegalTransitionError) as refused:
            log.transition("run-1", "completed", expect=expect)
        assert refused.value.from_status == "started"
    with pytest.raises(ValueError, match=r"."):
        log.transition("run-1", "completed", expect=[])
    assert state(log) == before


@pytest.mark.parametrize("force", [False, True])
def test_exit_code_follows_the_rules(log: Log, force: bool) -> None:
    number = 0
    for current in STATUSES:
        for status in STATUSES:
            for old_code, new_code in ((None, None), (None, 7), (1, None), (1, 7), (0, 7)):
                if not (force or is_legal(current, status)):
                    continue
                number += 1
                run_id = str(number)
                put(log, current, run_id=run_id, exit_code=old_code)
                put(log, status, run_id=run_id, timestamp=6, exit_code=new_code, force=force)
                wanted = merged_exit_code(Run(run_id, "deploy", current, 5, old_code), status, new_code, force=force)
                found = log.get_workflow_run(run_id)
                assert found == run_in(status, run_id=run_id, timestamp=6, exit_code=wanted), (current, status)


def test_repeating_a_finished_runs_state_leaves_its_exit_code(log: Log) -> None:
    for status in sorted(TERMINAL):
        put(log, status, run_id=status, exit_code=3)
        for code in (None, 0, 9):
            put(log, status, run_id=status, timestamp=6, exit_code=code)
            assert log.get_workflow_run(status) == run_in(status, run_id=status, timestamp=6, exit_code=3)
            again = log.transition(status, ns.WorkflowRunStatus(status), exit_code=code, timestamp=7)
            assert again.exit_code == 3
        assert log.count(ref_id=status) == 7


def test_any_integer_is_an_exit_code(log: Log) -> None:
    for code in (0, 1, 255, -1, 2**31, -(2**63), 2**63 - 1):
        put(log, "started", run_id=str(code))
        assert log.transition(str(code), "failed", exit_code=code).exit_code == code
        found = log.get_workflow_run(str(code))
        assert found is not None
        assert found.exit_code == code


def test_lists_are_ordered_and_filtered(log: Log) -> None:
    runs = [
        ns.WorkflowRun(f"run-{n}", ("deploy", "triage")[n % 2], ns.WorkflowRunStatus(STATUSES[n % 8]), (n * 7) % 40)
        for n in range(24)
    ]
    for run in runs:
        log.upsert_workflow_run(("workflow", str(run.status), run.run_id, None, run.timestamp), run)
    for workflow in (None, "deploy", "triage", "nothing"):
        matching = [run for run in runs if workflow in (None, run.workflow)]
        everything = log.get_all_workflow_runs(workflow)
        assert [run.timestamp for run in everything] == sorted((run.timestamp for run in everything), reverse=True)
        assert sorted(map(as_run, everything), key=repr) == sorted(map(as_run, matching), key=repr)
        active = log.get_active_workflow_runs(workflow)
        assert [run.timestamp for run in active] == sorted(run.timestamp for run in active)
        waiting = [run for run in matching if run.status in ACTIVE]
        assert sorted(map(as_run, active), key=repr) == sorted(map(as_run, waiting), key=repr)


def test_names_of_runs_are_compared_exactly(backend: Backend) -> None:
    log = backend.open()
    names = ("run-1", "", "RUN-1", "run-1\0", "run", "x" * 65_536, "x" * 65_535, "läuft 🧠", "\U0010ffff")
    for name in names:
        put(log, "started", run_id=name)
    for name in names:
        found = log.get_workflow_run(name)
        assert found is not None
        assert found.run_id == name
    assert log.get_workflow_run("rum") is None
    again = backend.open()
    assert state(again) == state(log)


def test_refused_row_does_not_change_the_run(log: Log) -> None:
    put(log, "queued")
    before = state(log)
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
            log.upsert_workflow_run(entry, run_in("started"))
    bad_runs: list[Any] = [
        ns.WorkflowRun("\udfff", "deploy", ns.WorkflowRunStatus.STARTED, 1),
        ns.WorkflowRun("run-1", "\udfff", ns.WorkflowRunStatus.STARTED, 1),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, -1),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, True),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1, 2**63),
        ns.WorkflowRun(7, "deploy", ns.WorkflowRunStatus.STARTED, 1),  # type: ignore[arg-type]
        ns.WorkflowRun("run-1", None, ns.WorkflowRunStatus.STARTED, 1),  # type: ignore[arg-type]
        {"run_id": "run-1"},
        None,
    ]
    for run in bad_runs:
        with pytest.raises((TypeError, ValueError)):
            log.upsert_workflow_run(("workflow", "started", "run-1", None, 1), run)
    assert state(log) == before
