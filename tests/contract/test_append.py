"""Appending rows: one, many, texts of every kind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, StrEnum
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from reference import DAY_MS, MAX_TIMESTAMP, Row
from support import as_row, as_rows
from test_append import AWKWARD_TEXTS


def test_append_returns_the_row_that_is_stored(log: Log) -> None:
    entry = log.append("workflow", "started", "run-1", '{"a":1}', 1_700_000_000_000)
    assert as_row(entry) == Row(1, "workflow", "started", "run-1", '{"a":1}', 1_700_000_000_000)
    assert log.query() == [entry]
    assert entry.json() == {"a": 1}


def test_append_without_a_timestamp_takes_the_clock(log: Log) -> None:
    before = time.time_ns() // 1_000_000
    first = log.append("system", "tick")
    (second_id,) = log.append_many([ns.NewLogEntry("system", "tick")])
    after = time.time_ns() // 1_000_000
    (second,) = log.query(after_id=second_id - 1)
    assert before <= first.timestamp <= second.timestamp <= after
    assert (first.ref_id, first.payload) == (None, None)


def test_awkward_texts_come_back_as_they_were(backend: Backend) -> None:
    log = backend.open()
    for text in (*AWKWARD_TEXTS, "\U0010ffff0", "\0\U0010ffff1\0"):
        # Names have a limit of their own.
        name = text[:65_536]
        entry = log.append(name, name, name, text, 5)
        assert as_row(entry)[1:] == (name, name, name, text, 5)
        assert log.query(source=name, type=name, ref_id=name) == [entry]
        log.set_meta(text, text)
    rows = log.query()
    again = backend.open()
    assert again.query() == rows
    assert all(again.get_meta(entry.payload or "") == entry.payload for entry in rows)


@pytest.mark.parametrize("unit", ["x", "ü", "🧠"])
def test_names_may_have_64_kibibytes(log: Log, unit: str) -> None:
    name = unit * (65_536 // len(unit.encode()))
    other = f"{name[:-1]}y"[: len(name)] if unit == "x" else name[1:]
    first = log.append(name, name, name, None, 1)
    second = log.append(other, other, other, None, 2)
    assert log.query(ref_id=name) == [first]
    assert log.query(ref_id=other) == [second]
    assert log.query(source=other, type=other) == [second]
    with pytest.raises(ValueError, match="65536"):
        log.append("system", "tick", f"{name}x")


@pytest.mark.parametrize("timestamp", [0, 1, DAY_MS - 1, MAX_TIMESTAMP - 1, MAX_TIMESTAMP])
def test_timestamps_from_1970_to_9999_are_kept(log: Log, timestamp: int) -> None:
    assert log.append("system", "tick", timestamp=timestamp).timestamp == timestamp
    assert log.query(since=timestamp, until=timestamp)[0].timestamp == timestamp


def test_append_many_takes_tuples_and_records(log: Log) -> None:
    ids = log.append_many(
        [
            ("a", "tuple", "run-1", "{}", 1),
            ns.NewLogEntry("b", "new", timestamp=2),
            ns.LogEntry(77, "c", "stored", None, "p", 3),
            ("d", "no time", None, None, None),
        ]
    )
    assert ids == range(1, 5)
    rows = as_rows(log.query())
    assert rows[:3] == [
        Row(1, "a", "tuple", "run-1", "{}", 1),
        Row(2, "b", "new", None, None, 2),
        Row(3, "c", "stored", None, "p", 3),
    ]
    assert rows[3].timestamp > 1_700_000_000_000


def test_append_many_takes_any_iterable(log: Log) -> None:
    def rows() -> Iterator[ns.NewLogEntry]:
        for number in range(10_000):
            yield ns.NewLogEntry("system", "tick", None, str(number), number)

    assert log.append_many(rows()) == range(1, 10_001)
    assert [entry.payload for entry in log.query()] == [str(number) for number in range(10_000)]


def test_text_may_be_of_a_class_derived_from_str(log: Log) -> None:
    class Kind(StrEnum):
        TICK = "tick"

    entry = log.append(Kind.TICK, Kind.TICK, Kind.TICK, Kind.TICK, 0)
    assert {type(text) for text in (entry.source, entry.type, entry.ref_id, entry.payload)} == {str}
    assert log.query(type=Kind.TICK) == [entry]


def test_append_many_of_nothing_appends_nothing(log: Log) -> None:
    assert len(log.append_many([])) == 0
    assert log.count() == 0
    assert log.append("system", "tick").id == 1


def test_append_many_may_append_while_it_iterates(log: Log) -> None:
    def rows() -> Iterator[tuple[str, str, None, None, int]]:
        for _ in range(3):
            log.append("system", "inner", timestamp=0)
            yield ("system", "outer", None, None, 0)

    assert log.append_many(rows()) == range(4, 7)
    assert [entry.type for entry in log.query()] == ["inner"] * 3 + ["outer"] * 3


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_both_durabilities_survive_close_and_reopen(backend: Backend, durability: Any) -> None:
    with backend.open(durability=durability) as log:
        log.append("system", "one", timestamp=0)
        log.append("system", "two", timestamp=0, durability="full")
        log.append("system", "three", timestamp=0, durability="normal")
        log.append_many([("system", "four", None, None, 0)], durability="normal")
    assert [entry.type for entry in backend.open().query()] == ["one", "two", "three", "four"]


def test_large_payloads_come_back(log: Log) -> None:
    payload = "0123456789abcdef" * 65536 * 8
    entry = log.append("system", "large", None, payload, 0)
    assert log.query(type="large") == [entry]
    assert entry.payload == payload


def test_a_refused_call_uses_no_id(log: Log) -> None:
    log.append("system", "tick")
    with pytest.raises(ValueError, match="entries"):
        log.append_many([("system", "tick", None, None, 1), ("system", "tick", None, None, -1)])
    with pytest.raises(ns.IllegalTransitionError):
        log.transition("nothing", "started")
    assert log.append("system", "tick").id == 2


def test_ids_are_the_order_of_the_commits_of_all_threads_and_stores(backend: Backend) -> None:
    """A reader that has read up to an id has read all below it: no row is committed behind its back."""
    stores = [backend.open(durability="normal") for _ in range(2)]
    reader = backend.open()
    rows_each, threads = 60, 8
    seen: list[int] = []

    def write(number: int) -> list[int]:
        log = stores[number % 2]
        ids: list[int] = []
        for position in range(rows_each):
            if position % 3 == 0:
                ids += log.append_many([("system", f"w{number}", None, str(position), 1)] * 2)
            else:
                ids.append(log.append("system", f"w{number}", None, str(position), 1).id)
        return ids

    with ThreadPoolExecutor(threads) as pool:
        writers = [pool.submit(write, number) for number in range(threads)]
        while not all(writer.done() for writer in writers):
            seen += [entry.id for entry in reader.query(after_id=seen[-1] if seen else 0)]
    seen += [entry.id for entry in reader.query(after_id=seen[-1] if seen else 0)]
    written = [row_id for writer in writers for row_id in writer.result()]
    assert sorted(written) == seen == list(range(1, len(written) + 1))
    for writer in writers:
        assert writer.result() == sorted(writer.result())


class Name(str, Enum):  # noqa: UP042, those of older programs
    """Whose `str()` is not its value."""

    ONE = "one"
    TWO = "two"


def test_texts_that_are_members_of_an_enum_are_their_values(log: Log) -> None:
    log.append(Name.ONE, Name.TWO, Name.ONE, Name.TWO, 1)
    log.append_many([(Name.ONE, Name.TWO, Name.ONE, Name.TWO, 1), ns.NewLogEntry(Name.ONE, Name.TWO)])
    with log.batch() as batch:
        batch.append(Name.ONE, Name.TWO, key=Name.ONE)
        batch.create_workflow_run(Name.ONE, Name.TWO)
        batch.set_meta(Name.ONE, Name.TWO)
    assert [entry.id for entry in log.query(source=Name.ONE, type=Name.TWO)] == [1, 2, 3, 4]
    assert log.query(source="one", type="two", ref_id="one") == log.query(limit=2)
    assert log.count(ref_id=Name.ONE) == 3
    run = log.get_workflow_run("one")
    assert run is not None
    assert log.query_workflow_runs(workflow=Name.TWO) == log.query_workflow_runs(workflow=["two"]) == [run]
    assert (run.run_id, run.workflow, log.get_meta("one")) == ("one", "two", "two")
    claim = log.claim_workflow_run(Name.ONE, workflow=[Name.TWO])
    assert claim is not None
    assert (claim.owner, claim.run.run_id) == ("one", "one")
    assert log.transition(Name.ONE, "completed", claim=claim).status == "completed"
