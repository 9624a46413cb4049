"""`verify` takes any history of a run for right: a program may log a row without changing the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import permutations

import pytest

import nerve_store as ns
from nerve_store.protocols import Log
from support.archive import NOW, at, day

IS_ABOUT_ARCHIVES = True

STATES = ("queued", "started", "completed")


def run_on_days(log: Log, days: tuple[int, ...] = (0, 1, 2)) -> None:
    """A run whose states were logged with these times, as by clocks that disagree."""
    for status, number in zip(STATES, days, strict=True):
        run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus(status), at(number))
        log.upsert_workflow_run(("workflow", status, "run-1", None, at(number)), run)


@pytest.mark.parametrize("days", list(permutations(range(3))))
def test_rows_of_a_run_that_leave_or_come_back_out_of_their_order_are_no_problem(
    log: Log, days: tuple[int, ...]
) -> None:
    run_on_days(log, days)
    log.archive_logs(now=at(2), retention=timedelta(0))
    assert log.count() == 1
    assert log.verify().problems == ()
    log.archive_logs(now=NOW)
    for number in range(3):
        log.restore_archive(day(number))
        assert log.verify().problems == ()
        log.archive_logs(now=NOW)
        assert log.count() == 0
    log.expire_archive(before=day(2))
    assert log.verify().problems == ()


def upsert(log: Log, type: str) -> None:
    entry = ns.NewLogEntry("workflow", type, "run-2", None, at(3))
    log.upsert_workflow_run(entry, ns.WorkflowRun("run-2", "deploy", ns.WorkflowRunStatus("started"), at(3)))


LOGGED: dict[str, Callable[[Log], object]] = {
    "a row that says another state": lambda log: log.append("workflow", "started", "run-1", None, at(3)),
    "a row that says the state of an active run": lambda log: log.append("workflow", "completed", "run-2", None, at(3)),
    "a run with a row of no state": lambda log: upsert(log, "note"),
    "a run with a row of another state": lambda log: upsert(log, "failed"),
    "a state of no run": lambda log: log.append("workflow", "started", "run-3", None, at(3)),
}


@pytest.mark.parametrize("logged", LOGGED)
def test_rows_that_are_logged_without_a_change_of_the_run_are_no_problem(log: Log, logged: str) -> None:
    run_on_days(log)
    log.create_workflow_run("run-2", "deploy", timestamp=at(0))
    LOGGED[logged](log)
    assert log.verify().problems == ()
    log.archive_logs(now=NOW)
    assert log.verify().problems == ()
