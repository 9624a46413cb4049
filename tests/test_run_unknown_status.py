"""A run in a state that another program invented."""

from __future__ import annotations

import logging

import pytest

import nerve_store as ns
from support import INSERT_RUN, LOG_STORE_CALLS, foreign_sql, is_one_line
from support.runs import put, run_in


@pytest.fixture
def with_unknown_status(log_store: ns.LogStore) -> ns.LogStore:
    """Two runs of ours, and between them one in a state that another program invented."""
    put(log_store, "started", run_id="run-1", timestamp=1)
    put(log_store, "queued", run_id="run-3", timestamp=3)
    foreign_sql(log_store.path, INSERT_RUN, ("run-2-odd", "deploy", "paused", 2, None))
    return log_store


@pytest.mark.parametrize("call", ["get_active_workflow_runs", "get_all_workflow_runs"])
@pytest.mark.parametrize("workflow", [None, "deploy"])
def test_unknown_status_spoils_its_own_run_alone(
    with_unknown_status: ns.LogStore, caplog: pytest.LogCaptureFixture, call: str, workflow: str | None
) -> None:
    with caplog.at_level(logging.DEBUG, logger="nerve_store"):
        runs = getattr(with_unknown_status, call)(workflow)
    assert sorted(run.run_id for run in runs) == ["run-1", "run-3"]
    (record,) = [record for record in caplog.records if record.name == "nerve_store"]
    assert record.levelno == logging.ERROR
    assert "run-2-odd" in record.getMessage()
    assert "paused" in record.getMessage()


def test_unknown_status_of_another_workflow_is_not_reported(
    with_unknown_status: ns.LogStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="nerve_store"):
        assert with_unknown_status.get_all_workflow_runs("triage") == []
    assert not caplog.records


def test_reading_the_run_itself_says_what_is_wrong(with_unknown_status: ns.LogStore) -> None:
    with pytest.raises(ns.CorruptStoreError) as refused:
        with_unknown_status.get_workflow_run("run-2-odd")
    assert "run-2-odd" in str(refused.value)
    assert "paused" in str(refused.value)
    assert is_one_line(refused.value)
    assert with_unknown_status.get_workflow_run("run-1") == run_in("started", timestamp=1)


def test_run_in_an_unknown_state_is_changed_only_by_force(with_unknown_status: ns.LogStore) -> None:
    rows = with_unknown_status.query()
    with pytest.raises(ns.CorruptStoreError):
        with_unknown_status.transition("run-2-odd", "started")
    with pytest.raises(ns.CorruptStoreError):
        put(with_unknown_status, "started", run_id="run-2-odd")
    assert with_unknown_status.query() == rows
    assert foreign_sql(with_unknown_status.path, "SELECT status FROM workflow_runs WHERE run_id = 'run-2-odd'") == [
        ("paused",)
    ]
    put(with_unknown_status, "failed", run_id="run-2-odd", force=True)
    assert with_unknown_status.get_workflow_run("run-2-odd") == run_in("failed", run_id="run-2-odd")


def test_unknown_status_is_counted_under_its_own_name(with_unknown_status: ns.LogStore) -> None:
    runs = {status: count for status, count in with_unknown_status.stats().runs.items() if count}
    assert runs == {"started": 1, "queued": 1, "paused": 1}


def test_unknown_status_leaves_the_other_reads_alone(with_unknown_status: ns.LogStore) -> None:
    for name in ("query", "count", "get_thread_messages", "get_trigger_payload", "archived_days", "archive_logs"):
        LOG_STORE_CALLS[name](with_unknown_status)
