"""`verify` names runs that cannot be read, and takes any history of a run for right."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_sql
from support.archive import at

STATES = ("queued", "started", "completed")
ORDERS = list(permutations(range(3)))


def run_on_days(store: ns.LogStore, days: tuple[int, ...]) -> None:
    """A run whose states were logged with these times, as by clocks that disagree."""
    for status, day in zip(STATES, days, strict=True):
        run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus(status), at(day))
        store.upsert_workflow_run(("workflow", status, "run-1", None, at(day)), run)


def archive_two_days(store: ns.LogStore) -> None:
    store.archive_logs(now=at(2), retention=timedelta(0))
    assert store.count() == 1


@pytest.mark.parametrize("days", ORDERS)
def test_rows_of_a_run_that_are_archived_out_of_their_order_are_no_problem(
    log_store: ns.LogStore, days: tuple[int, ...]
) -> None:
    run_on_days(log_store, days)
    archive_two_days(log_store)
    assert log_store.verify().problems == ()


def test_rows_that_are_logged_without_a_change_of_the_run_are_no_problem(log_store: ns.LogStore) -> None:
    run_on_days(log_store, (0, 1, 2))
    log_store.append("workflow", "started", "run-1", None, at(3))
    assert log_store.verify().problems == ()


@pytest.mark.parametrize(
    "spoiled", ["status = 'paused'", "status = x'00'", "status = ''", "timestamp = 'noon'", "timestamp = x'00'"]
)
def test_run_that_cannot_be_read_is_a_problem(data_dir: Path, spoiled: str) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        run_on_days(store, (0, 1, 2))
        foreign_sql(store.path, f"UPDATE workflow_runs SET {spoiled}")
        (problem,) = store.verify().problems
        assert "run" in problem.reason
