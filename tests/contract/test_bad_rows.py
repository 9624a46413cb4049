"""Every wrong row gets its own clear error, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from support import is_one_line
from test_bad_rows import LONE_SURROGATES, NOT_TEXT, OUT_OF_RANGE

IS_ABOUT_ARGUMENTS = True

NOT_AN_INTEGER: tuple[Any, ...] = (1.0, float("nan"), True, "1", b"1", [1])


@pytest.fixture
def kept(log: Log) -> Iterator[Log]:
    """A log with a row, a run and a meta value, of which a test must leave everything as it is."""
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
    log.upsert_workflow_run(("workflow", "started", "run-1", "{}", 1), run)
    log.set_meta("key", "value")
    rows = log.query()
    yield log
    assert log.query() == rows
    assert log.get_all_workflow_runs() == [run]
    assert log.get_meta("key") == "value"
    assert log.append("system", "next", timestamp=0).id == 2


def refuse(kinds: type[Exception] | tuple[type[Exception], ...], calls: list[Callable[[], object]]) -> None:
    for position, call in enumerate(calls):
        with pytest.raises(kinds) as refused:
            call()
        assert is_one_line(refused.value), position


def test_text_of_another_type_is_a_type_error(kept: Log) -> None:
    none: Any = None

    def calls(value: Any) -> list[Callable[[], object]]:
        return [
            lambda: kept.append(value, "type"),
            lambda: kept.append("source", value),
            lambda: kept.append("source", "type", value),
            lambda: kept.append("source", "type", None, value),
            lambda: kept.append_many([("source", value, None, None, 1)]),
            lambda: kept.query(source=value),
            lambda: kept.iter(ref_id=value),
            lambda: kept.count(type=value),
            lambda: kept.sql(value),
            lambda: kept.get_meta(value),
            lambda: kept.set_meta("key", value),
            lambda: kept.transition(value, "started"),
            lambda: kept.transition("run-1", "completed", payload=value),
            lambda: kept.get_workflow_run(value),
            lambda: kept.get_all_workflow_runs(value),
            lambda: kept.get_thread_rounds(value, limit=1),
            lambda: kept.get_trigger_payload(value),
        ]

    for value in NOT_TEXT:
        refuse(TypeError, calls(value))
    refuse(
        TypeError,
        [
            lambda: kept.append(none, "type"),
            lambda: kept.append("source", none),
            lambda: kept.set_meta("key", none),
            lambda: kept.get_workflow_run(none),
            lambda: kept.transition("run-1", none),
        ],
    )


def test_lone_surrogate_is_a_value_error(kept: Log) -> None:
    def calls(text: Any) -> list[Callable[[], object]]:
        return [
            lambda: kept.append(text, "type"),
            lambda: kept.append("source", "type", text),
            lambda: kept.append("source", "type", None, text),
            lambda: kept.append_many([("s", "t", None, None, 1), ("s", "t", None, text, 1)]),
            lambda: kept.set_meta(text, "x"),
            lambda: kept.set_meta("key", text),
            lambda: kept.transition("run-1", "completed", payload=text),
            lambda: kept.transition(text, "completed"),
            lambda: kept.query(ref_id=text),
            lambda: kept.get_meta(text),
            lambda: kept.sql(f"SELECT '{text}'"),
        ]

    for text in LONE_SURROGATES:
        refuse(ValueError, calls(text))


def test_timestamp_that_is_no_integer_is_a_type_error(kept: Log) -> None:
    def calls(value: Any) -> list[Callable[[], object]]:
        return [
            lambda: kept.append("source", "type", timestamp=value),
            lambda: kept.append_many([("s", "t", None, None, 1), ("s", "t", None, None, value)]),
            lambda: kept.transition("run-1", "completed", timestamp=value),
            lambda: kept.query(since=value),
            lambda: kept.iter(until=value),
            lambda: kept.count(after_id=value),
            lambda: kept.query(limit=value),
            lambda: kept.archive_logs(now=value),
        ]

    for value in NOT_AN_INTEGER:
        refuse(TypeError, calls(value))


def test_number_out_of_range_is_a_value_error(kept: Log) -> None:
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.COMPLETED, 1)

    def calls(value: Any) -> list[Callable[[], object]]:
        return [
            lambda: kept.append("source", "type", timestamp=value),
            lambda: kept.append_many([("s", "t", None, None, 1), ("s", "t", None, None, value)]),
            lambda: kept.upsert_workflow_run(("workflow", "completed", "run-1", None, value), run),
            lambda: kept.transition("run-1", "completed", timestamp=value),
            lambda: kept.archive_logs(now=value),
        ]

    for value in OUT_OF_RANGE:
        refuse(ValueError, calls(value))
    refuse(
        ValueError,
        [
            lambda: kept.query(limit=-1),
            lambda: kept.query(after_id=2**63),
            lambda: kept.get_thread_rounds("run-1", limit=-1),
            lambda: kept.transition("run-1", "paused"),  # type: ignore[arg-type]
            lambda: kept.append("source", "type", durability="soon"),  # type: ignore[arg-type]
        ],
    )


def test_error_in_a_row_names_its_index(kept: Log) -> None:
    good = ("source", "type", None, None, 1)
    bad: list[Any] = [
        None,
        "abcde",
        (),
        ("source", "type", None, None),
        ("source", "type", None, None, 1, 2),
        {"source": "s", "type": "t"},
        ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1),
        ("source", "type", None, None, -1),
        ("source", "\ud800", None, None, 1),
        ("source", 7, None, None, 1),
    ]
    for row in bad:
        rows: Any = [good] * 41 + [row]
        with pytest.raises((TypeError, ValueError)) as refused:
            kept.append_many(rows)
        assert "41" in str(refused.value), row


def test_iterable_that_raises_leaves_nothing_behind(kept: Log) -> None:
    def rows() -> Iterator[tuple[str, str, None, None, int]]:
        for _ in range(5_000):
            yield ("source", "type", None, None, 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kept.append_many(rows())


@pytest.mark.parametrize("unit", ["x", "é", "🧠"])
def test_payload_over_the_limit_is_refused_before_anything_is_written(backend: Backend, unit: str) -> None:
    size = len(unit.encode())
    log = backend.open(max_payload_bytes=120)
    fits, over = unit * (120 // size), unit * (120 // size) + "x"
    assert log.append("source", "type", None, fits, 1).payload == fits
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
    for call in (
        lambda: log.append("source", "type", None, over, 1),
        lambda: log.append_many([("s", "t", None, fits, 1), ("s", "t", None, over, 1)]),
        lambda: log.upsert_workflow_run(("workflow", "started", "run-1", over, 1), run),
    ):
        with pytest.raises(ValueError, match="120"):
            call()
    assert log.count() == 1
    assert log.get_all_workflow_runs() == []
