"""Every wrong option, status and date gets its own clear error, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import MAX_TIMESTAMP
from support import refused


def test_wrong_arguments_are_type_errors(kept: ns.LogStore) -> None:
    store: Any = kept
    calls: list[Callable[..., object]] = [
        store.append,
        lambda: store.append("source"),
        lambda: store.append("source", "type", None, None, None, "full"),
        lambda: store.append("source", "type", colour="red"),
        lambda: store.query("workflow"),
        lambda: store.query(archived_by="me"),
        lambda: store.get_thread_rounds("run-1"),
        lambda: store.get_thread_rounds("run-1", 0, 5),
        lambda: store.archive_logs(1_800_000_000_000),
        lambda: store.transition("run-1"),
        ns.LogStore,
    ]
    for call in calls:
        refused(TypeError, call)


@pytest.mark.parametrize("durability", ["FULL", "", "none", "full ", 1, True, b"full"])
def test_unknown_durability_is_refused(kept: ns.LogStore, tmp_path: Path, durability: Any) -> None:
    expected = ValueError if isinstance(durability, str) else TypeError
    refused(expected, lambda: kept.append("source", "type", durability=durability))
    refused(expected, lambda: kept.append_many([("source", "type", None, None, 1)], durability=durability))
    refused(expected, lambda: kept.transition("run-1", "completed", durability=durability))
    refused(expected, lambda: ns.LogStore(tmp_path / "other" / "logs.db", durability=durability))
    refused(expected, lambda: ns.Store(tmp_path / "other", durability=durability))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("value", [-1, -(2**63), 2**64, 1.5, "1", True])
def test_limit_is_a_count(kept: ns.LogStore, value: Any) -> None:
    expected = ValueError if type(value) is int else TypeError
    refused(expected, lambda: kept.query(limit=value))
    refused(expected, lambda: kept.iter(limit=value))
    refused(expected, lambda: kept.count(limit=value))
    refused(expected, lambda: kept.get_thread_rounds("run-1", limit=value))
    refused(expected, lambda: kept.get_thread_rounds("run-1", before=value, limit=1))
    refused(expected, lambda: kept.archive_logs(max_days=value))


@pytest.mark.parametrize("value", [1.5, "1", True, [1]])
def test_id_bound_of_another_type_is_a_type_error(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: kept.query(after_id=value))
    refused(TypeError, lambda: kept.iter(before_id=value))


@pytest.mark.parametrize("value", [30, 30.0, "30", None, date(2026, 1, 1)])
def test_retention_is_a_timedelta(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: kept.archive_logs(retention=value))


def test_negative_retention_is_refused(kept: ns.LogStore) -> None:
    """It would archive what is still to come."""
    refused(ValueError, lambda: kept.archive_logs(retention=timedelta(days=-1)))
    refused(ValueError, lambda: kept.archive_logs(now=MAX_TIMESTAMP, retention=timedelta.min))


def test_progress_must_be_callable(kept: ns.LogStore) -> None:
    refused(TypeError, lambda: kept.archive_logs(progress=7))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["2026-01-01", 20260101, None, 1.5])
def test_read_archive_takes_a_date(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: list(kept.read_archive(value)))


def test_days_before_1970_are_not_in_the_archive(kept: ns.LogStore) -> None:
    for day in (date.min, date(1969, 12, 31)):
        refused((ns.ArchiveError, ValueError), kept.read_archive, day)


@pytest.mark.parametrize("value", [1.5, "0", True, b"0", [0]])
def test_exit_code_is_an_integer(kept: ns.LogStore, value: Any) -> None:
    refused(TypeError, lambda: kept.transition("run-1", "failed", exit_code=value))
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.FAILED, 1, value)
    refused(TypeError, lambda: kept.upsert_workflow_run(("workflow", "failed", "run-1", None, 1), run))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**200])
def test_exit_code_has_64_bits(kept: ns.LogStore, value: int) -> None:
    refused(ValueError, lambda: kept.transition("run-1", "failed", exit_code=value))


@pytest.mark.parametrize("status", ["paused", "", "STARTED", "started ", "completed\0"])
def test_unknown_status_is_a_value_error(kept: ns.LogStore, status: Any) -> None:
    error = refused(ValueError, lambda: kept.transition("run-1", status))
    assert not isinstance(error, ns.IllegalTransitionError)
    refused(ValueError, lambda: kept.transition("run-1", "completed", expect=status))
    refused(ValueError, lambda: kept.transition("run-1", "completed", expect=["started", status]))
    refused(ValueError, lambda: ns.WorkflowRun("run-1", "deploy", status, 1))


@pytest.mark.parametrize("status", [None, 7, b"started", True])
def test_status_of_another_type_is_refused(kept: ns.LogStore, status: Any) -> None:
    refused(TypeError, lambda: kept.transition("run-1", status))
    refused((TypeError, ValueError), lambda: ns.WorkflowRun("run-1", "deploy", status, 1))
    if status is not None:
        refused(TypeError, lambda: kept.transition("run-1", "completed", expect=status))
        refused(TypeError, lambda: kept.transition("run-1", "completed", expect=["started", status]))


def test_illegal_transition_changes_nothing(kept: ns.LogStore) -> None:
    error = refused(ns.IllegalTransitionError, lambda: kept.transition("run-1", "queued"))
    assert isinstance(error, ns.IllegalTransitionError)
    assert (error.run_id, error.from_status, error.to_status) == ("run-1", "started", "queued")
    assert set(error.allowed) >= {"completed", "failed", "crashed", "interrupted", "dropped", "killed"}


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, 2**70])
def test_limit_of_a_payload_is_a_size(data_dir: Path, value: Any) -> None:
    expected = ValueError if type(value) is int else TypeError
    refused(expected, lambda: ns.LogStore(data_dir / "logs.db", max_payload_bytes=value))
    assert not data_dir.exists()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", 1e300])
def test_busy_timeout_is_a_number_of_seconds(data_dir: Path, value: Any) -> None:
    refused(
        TypeError if isinstance(value, str) else ValueError,
        lambda: ns.LogStore(data_dir / "logs.db", busy_timeout=value),
    )
    assert not data_dir.exists()
