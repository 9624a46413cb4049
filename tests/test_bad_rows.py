"""Every wrong row gets its own clear error, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import MAX_TIMESTAMP
from support import INSERT_ROW, as_rows, database_rows, foreign_script, foreign_sql, refused

LONE_SURROGATES = ("\ud800", "a\udfff", "\ud83e x", "x" * 5000 + "\udc00")
NOT_TEXT: tuple[Any, ...] = (b"bytes", 7, 1.5, True, ["x"], object())
NOT_A_TIMESTAMP: tuple[Any, ...] = (
    1.0,
    1.5,
    float("nan"),
    True,
    False,
    "1",
    b"1",
    [1],
    date(2026, 1, 1),
)
OUT_OF_RANGE = (-1, MAX_TIMESTAMP + 1, -(2**63), 2**63 - 1, 2**63, -(2**63) - 1, 2**200)


@pytest.mark.parametrize("value", NOT_TEXT, ids=lambda value: type(value).__name__)
def test_text_of_another_type_is_a_type_error(kept: ns.LogStore, value: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.append(value, "type"),
        lambda: kept.append("source", value),
        lambda: kept.append("source", "type", value),
        lambda: kept.append("source", "type", None, value),
        lambda: kept.append_many([("source", "type", None, value, 1)]),
        lambda: kept.append_many([("source", value, None, None, 1)]),
        lambda: ns.NewLogEntry(value, "type"),
        lambda: ns.NewLogEntry("source", "type", value),
        lambda: ns.LogEntry(1, "source", "type", None, value, 1),
        lambda: kept.query(source=value),
        lambda: kept.query(type=value),
        lambda: kept.iter(ref_id=value),
        lambda: kept.count(ref_id=value),
        lambda: kept.sql(value),
        lambda: kept.get_meta(value),
        lambda: kept.set_meta(value, "x"),
        lambda: kept.set_meta("key", value),
        lambda: kept.transition(value, "started"),
        lambda: kept.transition("run-1", "completed", payload=value),
        lambda: kept.get_workflow_run(value),
        lambda: kept.get_all_workflow_runs(value),
        lambda: kept.get_active_workflow_runs(value),
        lambda: kept.get_trigger_payload(value),
        lambda: kept.get_thread_events(value),
        lambda: kept.get_thread_messages(value),
        lambda: kept.get_thread_round_count(value),
        lambda: kept.get_thread_rounds(value, limit=1),
    ]
    for call in calls:
        refused(TypeError, call)


def test_required_text_may_not_be_none(kept: ns.LogStore) -> None:
    none: Any = None
    calls: list[Callable[[], object]] = [
        lambda: kept.append(none, "type"),
        lambda: kept.append("source", none),
        lambda: kept.append_many([(none, "type", None, None, 1)]),
        lambda: kept.set_meta("key", none),
        lambda: kept.get_meta(none),
        lambda: kept.get_workflow_run(none),
        lambda: kept.transition("run-1", none),
        lambda: kept.get_thread_messages(none),
    ]
    for call in calls:
        refused(TypeError, call)


@pytest.mark.parametrize("text", LONE_SURROGATES, ids=range(len(LONE_SURROGATES)))
def test_lone_surrogate_is_a_value_error(kept: ns.LogStore, text: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.append(text, "type"),
        lambda: kept.append("source", text),
        lambda: kept.append("source", "type", text),
        lambda: kept.append("source", "type", None, text),
        lambda: kept.append_many([("source", "type", None, None, 1), ("source", "type", None, text, 1)]),
        lambda: kept.append_many([ns.NewLogEntry("source", "type", None, text, 1)]),
        lambda: kept.set_meta(text, "x"),
        lambda: kept.set_meta("key", text),
        lambda: kept.transition("run-1", "completed", payload=text),
        lambda: kept.transition(text, "completed"),
        lambda: kept.upsert_workflow_run(
            ("workflow", "completed", text, None, 1),
            ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1),
        ),
        lambda: kept.upsert_workflow_run(
            ("workflow", "completed", "run-1", None, 1),
            ns.WorkflowRun(text, "deploy", ns.WorkflowRunStatus.COMPLETED, 1),
        ),
    ]
    for call in calls:
        refused(ValueError, call)


def test_lone_surrogate_in_a_filter_is_a_value_error(kept: ns.LogStore) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.query(ref_id="\ud800"),
        lambda: kept.count(source="\ud800"),
        lambda: kept.iter(type="\ud800"),
        lambda: kept.get_meta("\ud800"),
        lambda: kept.get_workflow_run("\ud800"),
        lambda: kept.get_thread_messages("\ud800"),
        lambda: kept.sql("SELECT '\ud800'"),
        lambda: kept.sql("SELECT ?", ("\ud800",)),
    ]
    for call in calls:
        refused(ValueError, call)


@pytest.mark.parametrize("value", NOT_A_TIMESTAMP, ids=repr)
def test_timestamp_that_is_no_integer_is_a_type_error(kept: ns.LogStore, value: Any) -> None:
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1)
    calls: list[Callable[[], object]] = [
        lambda: kept.append("source", "type", timestamp=value),
        lambda: kept.append_many([("source", "type", None, None, 1), ("source", "type", None, None, value)]),
        lambda: kept.append_many([ns.NewLogEntry("source", "type", timestamp=value)]),
        lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", None, value), run),
        lambda: kept.transition("run-1", "completed", timestamp=value),
        lambda: kept.query(since=value),
        lambda: kept.iter(until=value),
        lambda: kept.count(since=value),
        lambda: kept.archive_logs(now=value),
        lambda: ns.utc_day(value),
        lambda: ns.last_archivable_day(value),
    ]
    for call in calls:
        refused(TypeError, call)


@pytest.mark.parametrize("value", OUT_OF_RANGE)
def test_timestamp_outside_of_1970_to_9999_is_a_value_error(kept: ns.LogStore, value: int) -> None:
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1)
    late_run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, value)
    calls: list[Callable[[], object]] = [
        lambda: kept.append("source", "type", timestamp=value),
        lambda: kept.append_many([("source", "type", None, None, 1), ("source", "type", None, None, value)]),
        lambda: kept.append_many([ns.NewLogEntry("source", "type", timestamp=value)]),
        lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", None, value), run),
        lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", None, 1), late_run),
        lambda: kept.transition("run-1", "completed", timestamp=value),
        lambda: kept.archive_logs(now=value),
        lambda: ns.utc_day(value),
        lambda: ns.last_archivable_day(value),
    ]
    for call in calls:
        refused(ValueError, call)


def test_row_that_is_no_row_is_refused_with_its_index(kept: ns.LogStore) -> None:
    good = ("source", "type", None, None, 1)
    bad: list[Any] = [
        None,
        "abcde",
        b"abcde",
        7,
        (),
        ("source",),
        ("source", "type"),
        ("source", "type", None, None),
        ("source", "type", None, None, 1, 2),
        {"source": "s", "type": "t"},
        object(),
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1),
    ]
    for row in bad:
        error = refused((TypeError, ValueError), kept.append_many, [good, good, good, row, good])
        assert "3" in str(error), f"{row!r}: {error}"


def test_error_in_a_row_names_its_index(kept: ns.LogStore) -> None:
    good = ("source", "type", None, None, 1)
    for row in (("source", "type", None, None, -1), ("source", "\ud800", None, None, 1), ("source", 7, None, None, 1)):
        rows: Any = [good] * 41 + [row]
        error = refused((TypeError, ValueError), kept.append_many, rows)
        assert "41" in str(error)


def test_append_many_of_what_cannot_be_iterated(kept: ns.LogStore) -> None:
    for value in (None, 7, ns.NewLogEntry("source", "type")):
        refused(TypeError, kept.append_many, value)


def test_iterable_that_raises_leaves_nothing_behind(kept: ns.LogStore) -> None:
    def rows() -> Iterator[tuple[str, str, None, None, int]]:
        for _ in range(5_000):
            yield ("source", "type", None, None, 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kept.append_many(rows())


@pytest.mark.parametrize("unit", ["x", "é", "🧠"])
def test_payload_over_the_limit_is_refused_before_anything_is_written(data_dir: Path, unit: str) -> None:
    size = len(unit.encode())
    with ns.LogStore(data_dir / "logs.db", max_payload_bytes=120) as store:
        fits, over = unit * (120 // size), unit * (120 // size) + "x"
        assert store.append("source", "type", None, fits, 1).payload == fits
        error = refused(ValueError, lambda: store.append("source", "type", None, over, 1))
        assert "120" in str(error)
        error = refused(ValueError, lambda: store.append_many([("s", "t", None, fits, 1), ("s", "t", None, over, 1)]))
        assert "120" in str(error)
        assert "1" in str(error)
        run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
        refused(ValueError, lambda: store.upsert_workflow_run(("workflow", "started", "run-1", over, 1), run))
        store.upsert_workflow_run(("workflow", "started", "run-1", fits, 1), run)
        refused(ValueError, lambda: store.transition("run-1", "completed", payload=over))
        assert store.get_all_workflow_runs() == [run]
        assert store.count() == 2
        # The limit is of what is written: rows that are there are read.
    with ns.LogStore(data_dir / "logs.db", max_payload_bytes=10) as store:
        assert store.query(limit=1)[0].payload == fits


def test_default_limit_is_64_mebibytes(log_store: ns.LogStore) -> None:
    limit = 64 << 20
    refused(ValueError, lambda: log_store.append("source", "type", None, "x" * (limit + 1), 1))
    assert log_store.count() == 0
    assert log_store.append("source", "type", None, "x" * limit, 1).id == 1


def test_failed_transaction_changes_nothing(kept: ns.LogStore) -> None:
    """A row that only the database itself refuses, in the middle of a call."""
    foreign_script(
        kept.path,
        "CREATE TRIGGER t BEFORE INSERT ON logs WHEN NEW.payload = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    rows = [("system", "tick", None, "bad" if n == 50 else "good", n) for n in range(100)]
    refused(ns.NerveStoreError, lambda: kept.append_many(rows))
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1)
    refused(ns.NerveStoreError, lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", "bad", 1), run))
    refused(ns.NerveStoreError, lambda: kept.transition("run-1", "completed", payload="bad"))
    foreign_sql(kept.path, "DROP TRIGGER t")


def test_bad_call_leaves_the_store_usable(kept: ns.LogStore) -> None:
    for _ in range(50):
        refused(ValueError, lambda: kept.append("system", "tick", timestamp=-1))
        refused(ns.IllegalTransitionError, lambda: kept.transition("run-1", "queued"))
        refused(ValueError, lambda: kept.sql("SELECT nothing"))
    assert as_rows(kept.query()) == database_rows(kept)


def test_row_of_another_program_with_a_huge_payload_is_read(log_store: ns.LogStore) -> None:
    foreign_sql(log_store.path, INSERT_ROW, ("system", "tick", None, "x" * 3_000_000, 0))
    assert len(log_store.query()[0].payload or "") == 3_000_000
