"""Appending rows: one, many, texts of every kind, and beside another program."""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import DAY_MS, MAX_TIMESTAMP, Row
from support import INSERT_ROW, as_row, as_rows, foreign_sql

AWKWARD_TEXTS = (
    "",
    "\0",
    "nul \0 inside",
    "".join(map(chr, range(32))) + "\x7f",
    '"quotes" and \\backslashes\\',
    "line\u2028separator\u2029",
    "emoji 🧠🚀 and 漢字",
    "\ufeffbom \ufffe\uffff \U0010ffff",
    "e\u0301 stays decomposed",
    '{"json": [1, 2.50, null]}',
    " spaces ",
    "x" * 100_000,
)


def test_append_returns_the_row_that_is_stored(log_store: ns.LogStore) -> None:
    entry = log_store.append("workflow", "started", "run-1", '{"a":1}', 1_700_000_000_000)
    assert as_row(entry) == Row(1, "workflow", "started", "run-1", '{"a":1}', 1_700_000_000_000)
    assert log_store.query() == [entry]
    assert entry.json() == {"a": 1}


def test_append_without_a_timestamp_takes_the_clock(log_store: ns.LogStore) -> None:
    before = time.time_ns() // 1_000_000
    first = log_store.append("system", "tick")
    (second_id,) = log_store.append_many([ns.NewLogEntry("system", "tick")])
    after = time.time_ns() // 1_000_000
    (second,) = log_store.query(after_id=second_id - 1)
    assert before <= first.timestamp <= second.timestamp <= after
    assert (first.ref_id, first.payload) == (None, None)


@pytest.mark.parametrize("text", AWKWARD_TEXTS, ids=range(len(AWKWARD_TEXTS)))
def test_awkward_text_comes_back_as_it_was(data_dir: Path, text: str) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        # Names have a limit of their own.
        name = text[:65_536]
        entry = store.append(name, name, name, text, 5)
        assert as_row(entry) == Row(1, name, name, name, text, 5)
        assert store.query(source=name, type=name, ref_id=name) == [entry]
        store.set_meta(text, text)
    with ns.LogStore(path) as store:
        assert store.query() == [entry]
        assert store.get_meta(text) == text
    assert foreign_sql(path, "SELECT source, type, ref_id, payload FROM logs") == [(name, name, name, text)]


@pytest.mark.parametrize("timestamp", [0, 1, DAY_MS - 1, MAX_TIMESTAMP - 1, MAX_TIMESTAMP])
def test_timestamps_from_1970_to_9999_are_kept(log_store: ns.LogStore, timestamp: int) -> None:
    assert log_store.append("system", "tick", timestamp=timestamp).timestamp == timestamp
    assert log_store.query(since=timestamp, until=timestamp)[0].timestamp == timestamp


def test_append_many_takes_tuples_and_records(log_store: ns.LogStore) -> None:
    ids = log_store.append_many(
        [
            ("a", "tuple", "run-1", "{}", 1),
            ns.NewLogEntry("b", "new", timestamp=2),
            ns.LogEntry(77, "c", "stored", None, "p", 3),
            ("d", "no time", None, None, None),
        ]
    )
    assert ids == range(1, 5)
    rows = as_rows(log_store.query())
    assert rows[:3] == [
        Row(1, "a", "tuple", "run-1", "{}", 1),
        Row(2, "b", "new", None, None, 2),
        Row(3, "c", "stored", None, "p", 3),
    ]
    assert rows[3].timestamp > 1_700_000_000_000


def test_append_many_takes_any_iterable(log_store: ns.LogStore) -> None:
    def rows() -> Iterator[ns.NewLogEntry]:
        for number in range(10_000):
            yield ns.NewLogEntry("system", "tick", None, str(number), number)

    assert log_store.append_many(rows()) == range(1, 10_001)
    assert [entry.payload for entry in log_store.query()] == [str(number) for number in range(10_000)]


def test_text_may_be_of_a_class_derived_from_str(log_store: ns.LogStore) -> None:
    class Kind(StrEnum):
        TICK = "tick"

    entry = log_store.append(Kind.TICK, Kind.TICK, Kind.TICK, Kind.TICK, 0)
    assert {type(text) for text in (entry.source, entry.type, entry.ref_id, entry.payload)} == {str}
    assert log_store.query(type=Kind.TICK) == [entry]
    log_store.append("workflow", ns.WorkflowRunStatus.STARTED)
    assert log_store.count(type="started") == 1


def test_append_many_of_nothing_appends_nothing(log_store: ns.LogStore) -> None:
    assert len(log_store.append_many([])) == 0
    assert log_store.count() == 0
    assert log_store.append("system", "tick").id == 1


def test_append_many_may_read_the_store_while_it_iterates(log_store: ns.LogStore) -> None:
    log_store.append("system", "first", timestamp=0)

    def rows() -> Iterator[tuple[str, str, None, str, int]]:
        for number in range(3):
            yield ("system", "next", None, f"{number} of {log_store.count()}", 0)

    assert log_store.append_many(rows()) == range(2, 5)
    assert [entry.payload for entry in log_store.query(type="next")] == ["0 of 1", "1 of 1", "2 of 1"]


def test_append_many_may_append_while_it_iterates(log_store: ns.LogStore) -> None:
    def rows() -> Iterator[tuple[str, str, None, None, int]]:
        for _ in range(3):
            log_store.append("system", "inner", timestamp=0)
            yield ("system", "outer", None, None, 0)

    assert log_store.append_many(rows()) == range(4, 7)
    assert [entry.type for entry in log_store.query()] == ["inner"] * 3 + ["outer"] * 3


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_both_durabilities_survive_close_and_reopen(data_dir: Path, durability: Any) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path, durability=durability) as store:
        store.append("system", "one", timestamp=0)
        store.append("system", "two", timestamp=0, durability="full")
        store.append("system", "three", timestamp=0, durability="normal")
        store.append_many([("system", "four", None, None, 0)], durability="normal")
    with ns.LogStore(path) as store:
        assert [entry.type for entry in store.query()] == ["one", "two", "three", "four"]


def test_ids_are_not_reused_after_the_last_row_is_gone(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("system", "tick", None, None, 0)] * 3)
    foreign_sql(path, "DELETE FROM logs")
    with ns.LogStore(path) as store:
        assert store.append("system", "tick").id == 4


def test_rows_of_another_program_are_seen_and_counted_on(log_store: ns.LogStore) -> None:
    log_store.append("system", "ours", timestamp=0)
    foreign_sql(log_store.path, INSERT_ROW, ("system", "theirs", "run-1", "p", 7))
    assert as_rows(log_store.query(after_id=1)) == [Row(2, "system", "theirs", "run-1", "p", 7)]
    assert log_store.count(ref_id="run-1") == 1
    assert log_store.append("system", "ours", timestamp=0).id == 3


def test_rows_that_another_program_deletes_are_skipped(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", "run-1", None, n) for n in range(10)])
    foreign_sql(log_store.path, "DELETE FROM logs WHERE id IN (1, 5, 10)")
    kept = [2, 3, 4, 6, 7, 8, 9]
    assert [entry.id for entry in log_store.query(ref_id="run-1")] == kept
    assert [entry.id for entry in log_store.iter()] == kept
    assert log_store.count() == len(kept)


def test_large_payloads_come_back(log_store: ns.LogStore) -> None:
    payload = "0123456789abcdef" * 65536 * 8
    entry = log_store.append("system", "large", None, payload, 0)
    assert log_store.query(type="large") == [entry]
    assert entry.payload == payload
