"""Iterating over rows in short transactions, as of the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_sql

DAY_MS = 86_400_000


def test_iter_is_an_iterator_of_entries(log_store: ns.LogStore) -> None:
    first, second = log_store.append("system", "a"), log_store.append("system", "b")
    rows = log_store.iter()
    assert iter(rows) is rows
    assert next(rows) == first
    assert list(rows) == [second]
    assert list(rows) == []


def test_iter_leaves_out_rows_appended_after_the_call(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, None, 0)] * 5_000)
    rows = log_store.iter()
    next(rows)
    log_store.append("system", "late")
    assert sum(1 for _ in rows) == 4_999
    assert log_store.count() == 5_001


def test_iter_before_its_first_step_leaves_out_later_rows(log_store: ns.LogStore) -> None:
    log_store.append("system", "tick")
    rows = log_store.iter()
    log_store.append("system", "late")
    assert [entry.type for entry in rows] == ["tick"]


def test_iter_skips_rows_that_are_taken_away_meanwhile(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, None, n) for n in range(20_000)])
    rows = log_store.iter()
    seen = [next(rows).id]
    foreign_sql(log_store.path, "DELETE FROM logs WHERE id > 15000")
    seen += [entry.id for entry in rows]
    assert seen[:15_000] == list(range(1, 15_001))
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("descending", [False, True])
def test_iter_crosses_its_pages_without_gap_or_repeat(log_store: ns.LogStore, descending: bool) -> None:
    log_store.append_many([("system", "tick", f"run-{n % 3}", None, n) for n in range(25_000)])
    ids = [entry.id for entry in log_store.iter(ref_id="run-1", limit=8_000, descending=descending)]
    assert ids == [entry.id for entry in log_store.query(ref_id="run-1", limit=8_000, descending=descending)]
    assert len(ids) == 8_000


def test_iter_holds_no_transaction_between_steps(log_store: ns.LogStore) -> None:
    """A reader that stops in the middle does not keep another program from resetting the write-ahead log."""
    log_store.append_many([("system", "tick", None, "x" * 100, 0)] * 10_000)
    rows = log_store.iter()
    next(rows)
    log_store.append("system", "tick")
    busy, frames, checkpointed = foreign_sql(log_store.path, "PRAGMA wal_checkpoint(TRUNCATE)")[0]
    assert (busy, frames, checkpointed) == (0, 0, 0)
    assert sum(1 for _ in rows) == 9_999


@pytest.mark.parametrize("call", ["iter", "read_archive", "follow"])
def test_an_error_is_no_end(log_store: ns.LogStore, call: str) -> None:
    """A caller that goes on after it gets it again, until the file is whole; a follower then goes on."""
    log_store.append_many([("s", "t", None, "x" * 50, day * DAY_MS + n) for day in range(3) for n in range(2_000)])
    log_store.archive_logs(now=9 * DAY_MS, retention=timedelta(0))
    damaged = log_store.archived_days()[1]
    content = Path(damaged.path).read_bytes()
    calls: dict[str, Callable[[], Iterator[ns.LogEntry]]] = {
        "iter": lambda: log_store.iter(archived=True),
        "read_archive": lambda: log_store.read_archive(damaged.day),
        "follow": lambda: log_store.follow(after_id=0),
    }
    rows = calls[call]()
    Path(damaged.path).write_bytes(content[: len(content) // 2] + b"damage\n")
    found: list[int] = []
    with pytest.raises(ns.ArchiveCorruptError):
        found.extend(entry.id for entry in rows)
    first = found[0] if found else 2_001
    assert found == list(range(first, first + len(found)))
    for _ in range(3):
        with pytest.raises(ns.ArchiveCorruptError):
            next(rows)
    if call == "follow":
        Path(damaged.path).write_bytes(content)
        assert next(rows).id == found[-1] + 1
