"""`verify` compares a run with the newest row that logged its state, wherever that row is."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_sql
from support.archive import at

STATES = ("queued", "started", "completed")


def run_on_days(store: ns.LogStore, days: tuple[int, ...]) -> None:
    """A run whose states were logged with these times, as by clocks that disagree."""
    for status, day in zip(STATES, days, strict=True):
        run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus(status), at(day))
        store.upsert_workflow_run(("workflow", status, "run-1", None, at(day)), run)


def archive_two_days(store: ns.LogStore) -> None:
    store.archive_logs(now=at(2), retention=timedelta(0))
    assert store.count() == 1


@pytest.mark.parametrize("days", permutations(range(3)))
def test_rows_of_a_run_that_are_archived_out_of_their_order_are_no_problem(
    log_store: ns.LogStore, days: tuple[int, ...]
) -> None:
    run_on_days(log_store, days)
    archive_two_days(log_store)
    assert log_store.verify().problems == []


@pytest.mark.parametrize("days", permutations(range(3)))
def test_run_that_is_not_what_its_newest_row_in_the_database_says_is_a_problem(
    data_dir: Path, days: tuple[int, ...]
) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        run_on_days(store, days)
        foreign_sql(store.path, "UPDATE workflow_runs SET status = 'crashed', timestamp = 0")
        (problem,) = store.verify().problems
        assert '"run-1" is crashed' in problem.reason
        assert "completed" in problem.reason
