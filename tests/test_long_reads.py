"""Reads of many rows, which are taken from the database's pages, while others write and archive.

What pages say beside statements, and what happens where they are damaged, is tested in src/db/tests/table.rs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs.faulted import POLLS, poll
from support import foreign_script
from support.archive import NOW, at
from support.faults import run_faulted

ROWS = 6_000
"""More than the core reads by a statement."""

Row = tuple[str, str, str | None, str | None, int]


def row(id: int) -> Row:
    """The row with this id: most are short, a few are longer than a page, or than many."""
    length = 70_000 if id % 1_999 == 0 else 9_000 if id % 211 == 0 else id % 90
    payload = None if id % 7 == 0 else chr(97 + id % 26) * length + "é"
    return "ab"[id % 2], f"t{id % 5}", None if id % 3 else f"run-{id % 11}", payload, at(id // 1_500) + id % 1_000


def entries(first: int, last: int) -> list[Row]:
    return [row(id) for id in range(first, last + 1)]


def values(entry: ns.LogEntry) -> Row:
    return entry.source, entry.type, entry.ref_id, entry.payload, entry.timestamp


def assert_are_rows(found: Sequence[ns.LogEntry], ids: Sequence[int]) -> None:
    assert [entry.id for entry in found] == list(ids)
    for entry in found:
        assert values(entry) == row(entry.id), entry.id


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Repeats `work` in a thread; an error that it meets is raised at the end."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            work()

    with ThreadPoolExecutor() as pool:
        repeated = pool.submit(repeat)
        try:
            yield
        finally:
            ended.set()
        repeated.result()


FILTERS: list[dict[str, Any]] = [
    {},
    {"descending": True},
    {"source": "b"},
    {"type": "t3", "descending": True},
    {"after_id": 700, "before_id": 5_900},
    {"limit": 4_500},
    {"limit": 4_500, "descending": True},
    {"since": at(1), "until": at(3)},
]


def wanted(filters: dict[str, Any], last: int) -> list[int]:
    after, before = filters.get("after_id", 0), filters.get("before_id", last + 1)
    ids = [
        id
        for id in range(max(1, after + 1), min(before, last + 1))
        if filters.get("source") in (None, row(id)[0])
        and filters.get("type") in (None, row(id)[1])
        and filters.get("since", 0) <= row(id)[4] <= filters.get("until", 1 << 60)
    ]
    if filters.get("descending"):
        ids.reverse()
    return ids[: filters.get("limit")]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("is_logged", [False, True], ids=["in the file", "in the log"])
def test_long_reads_find_every_row(tmp_path: Path, filters: dict[str, Any], is_logged: bool) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path, durability="normal") as store:
        store.append_many(entries(1, ROWS))
        if not is_logged:
            store.close()
            store = ns.LogStore(path, durability="normal")  # noqa: PLW2901 - the close is the checkpoint
        with store:
            assert_are_rows(store.query(**filters), wanted(filters, ROWS))
            assert_are_rows(list(store.iter(**filters)), wanted(filters, ROWS))


@pytest.mark.parametrize("name", POLLS)
def test_polls_do_not_look_at_each_frame_of_the_log(tmp_path: Path, name: str) -> None:
    """What has no end is no longer than what there is."""
    path = tmp_path / "logs.db"
    with ns.LogStore(path, durability="normal") as store:
        store.append_many(entries(1, ROWS))
        for id in range(ROWS + 1, ROWS + 500):
            store.append(*row(id))
        few, many = (len(run_faulted(poll, reads=True, path=str(path), name=name, count=n).calls) for n in (5, 105))
    assert (many - few) / 100 < 50


def test_long_reads_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path, durability="normal") as store, ns.LogStore(path, read_only=True) as other:
        store.append_many(entries(1, ROWS))
        last = ROWS

        def write() -> None:
            nonlocal last
            store.append_many(entries(last + 1, last + 40))
            last += 40

        with meanwhile(write):
            for number in range(12):
                least = last
                found = (store, other)[number % 2].query(descending=number % 3 == 0)
                ids = sorted(entry.id for entry in found)
                assert ids[-1] >= least
                assert_are_rows(found, ids[::-1] if number % 3 == 0 else ids)
                assert ids == list(range(1, ids[-1] + 1))


def test_long_reads_beside_jobs_that_archive(tmp_path: Path) -> None:
    with ns.Store(tmp_path / "data", durability="normal") as store:
        store.logs.append_many(entries(1, ROWS))

        def job() -> None:
            for newest in range(5):
                store.logs.archive_logs(now=NOW, retention=timedelta(milliseconds=NOW - at(newest)))
            for day in store.logs.archived_days():
                store.logs.restore_archive(day.day)

        with meanwhile(job):
            for number in range(8):
                descending = number % 2 == 1
                ids = range(1, ROWS + 1)
                found = store.logs.query(archived=True, descending=descending)
                assert_are_rows(found, ids[::-1] if descending else ids)


def test_row_of_another_program_is_read_or_refused_as_by_a_statement(tmp_path: Path) -> None:
    """A timestamp with a fraction is read; bytes in place of a text are an error that names the row."""
    path = tmp_path / "logs.db"
    with ns.LogStore(path, durability="normal") as store:
        store.append_many(entries(1, ROWS))
    foreign_script(path, "UPDATE logs SET timestamp = timestamp + 0.5 WHERE id = 3000")
    with ns.LogStore(path, durability="normal") as store:
        assert_are_rows(store.query(), range(1, ROWS + 1))
    foreign_script(path, "UPDATE logs SET payload = x'00ff' WHERE id = 4000")
    with ns.LogStore(path, durability="normal") as store:
        with pytest.raises(ns.CorruptStoreError, match="row 4000 of logs: payload is Blob"):
            store.query()
        assert_are_rows(store.query(before_id=4_000), range(1, 4_000))
