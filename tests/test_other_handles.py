"""One handle changes the archive or the index while another one reads, or after that: no row is hidden or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

import nerve_store as ns
from support import foreign_script
from support.archive import NOW, at, day, message
from support.event_loops import run

REF = "run-1"
KIND = ("workflow", "thread_workflow_message", REF)

# --- a job merges rows into a day's file while a reader pauses between two pages ----------------------------------


def rows_of_two_days(store: ns.LogStore) -> None:
    """Day 1 has two rows in its file, the second one far behind the first page, and 500 late rows in the database."""
    rows: list[tuple[str, str, str, str | None, int]]
    rows = [(*KIND, message(n), at(0) if n % 2 else at(60)) for n in range(2_048)]
    rows[1_499] = (*KIND, "in the file", at(1))
    rows += [(*KIND, None, at(60))] * 10 + [(*KIND, "in the file", at(1))]
    store.append_many(rows)
    store.archive_logs(now=NOW, retention=timedelta(days=60))
    store.append_many([(*KIND, None, at(60))] * 50)
    store.append_many((*KIND, message(n), at(1)) for n in range(500))
    store.append_many([(*KIND, None, at(60))] * 2_000)


def ids_of_iter(store: ns.LogStore, merge: Callable[[], None], **filters: Any) -> list[int]:
    rows = store.iter(archived=True, **filters)
    first = next(rows).id
    merge()
    return [first, *(row.id for row in rows)]


def ids_of_arrow(store: ns.LogStore, merge: Callable[[], None], **filters: Any) -> list[int]:
    pyarrow = pytest.importorskip("pyarrow")
    batches = pyarrow.RecordBatchReader.from_stream(store.arrow(batch_rows=100, archived=True, **filters))
    first = batches.read_next_batch()["id"].to_pylist()
    merge()
    return [*first, *batches.read_all()["id"].to_pylist()]


def ids_in_a_loop(store: ns.LogStore, merge: Callable[[], None], **filters: Any) -> list[int]:
    async def ids() -> list[int]:
        async with ns.AsyncLogStore(store.path) as logs:
            rows: AsyncIterator[ns.LogEntry] = logs.iter(archived=True, **filters)
            first = (await anext(rows)).id
            await asyncio.to_thread(merge)
            return [first] + [row.id async for row in rows]

    return run(ids())


READERS: dict[str, Callable[[ns.LogStore, Callable[[], None]], list[int]]] = {
    "iter": lambda store, merge: ids_of_iter(store, merge, ref_id=REF),
    "iter with more conditions": lambda store, merge: ids_of_iter(
        store, merge, ref_id=REF, source=KIND[0], since=at(0)
    ),
    "iter with a limit": lambda store, merge: ids_of_iter(store, merge, ref_id=REF, limit=10_000),
    "iter backwards": lambda store, merge: ids_of_iter(store, merge, ref_id=REF, descending=True)[::-1],
    "iter of all": ids_of_iter,
    "arrow": lambda store, merge: ids_of_arrow(store, merge, ref_id=REF),
    "asyncio": lambda store, merge: ids_in_a_loop(store, merge, ref_id=REF),
}


@pytest.mark.parametrize("compression", [None, "zstd"], ids=["plain", "zstd"])
@pytest.mark.parametrize("reader", READERS)
def test_rows_that_join_a_file_between_two_pages_are_read(
    log_store: ns.LogStore, reader: str, compression: Literal["zstd"] | None
) -> None:
    rows_of_two_days(log_store)
    expected = [row.id for row in log_store.query(archived=True)]

    def merge() -> None:
        with ns.LogStore(log_store.path) as other:
            result = other.archive_logs(now=NOW, retention=timedelta(days=60), compression=compression)
            assert [each.added_rows for each in result.days if each.day == day(1)] == [500]

    assert READERS[reader](log_store, merge) == expected


# --- another handle builds the index anew --------------------------------------------------------------------------


def archive(store: ns.LogStore) -> None:
    store.archive_logs(now=NOW, retention=timedelta(days=60))


def archive_and_restore(store: ns.LogStore) -> None:
    archive(store)
    store.restore_archive(day(0))


def another_program(statements: str) -> Callable[[ns.LogStore], None]:
    return lambda store: foreign_script(Path(store.path), statements)


CHANGES: dict[str, Callable[[ns.LogStore], None]] = {
    "nothing": lambda _: None,
    "archived": archive,
    "archived and put back": archive_and_restore,
    "changed": another_program("UPDATE logs SET ref_id = 'z' WHERE id % 3 = 0"),
    "the newest deleted": another_program("DELETE FROM logs WHERE id > 35"),
    "some deleted": another_program("DELETE FROM logs WHERE id % 4 = 1"),
    "inserted": another_program(
        "INSERT INTO logs (id, source, type, ref_id, timestamp) SELECT id + 400, source, type, 'z', 1 FROM logs"
    ),
}
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"ref_id": REF},
    {"ref_id": "z"},
    {"source": "workflow"},
    {"source": "sensor", "type": "x"},
)
TRIGGERS = ("log_row_deleted", "log_row_inserted", "log_row_updated")


def answers(store: ns.LogStore) -> list[Any]:
    """What `store` says, one way and the other; the archive included, and without."""
    found: list[Any] = [store.get_thread_round_count(REF), store.get_thread_rounds(REF, limit=100)]
    for archived in (False, True):
        for filters in FILTERS:
            rows = store.query(archived=archived, **filters)
            assert store.count(archived=archived, **filters) == len(rows), (archived, filters)
            found.append(rows)
    return found


@pytest.mark.parametrize("segment_rows", [4, 16, 4_096])
@pytest.mark.parametrize("is_noted", [True, False], ids=["noted", "not noted"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_rebuilt_index_is_another_one_for_every_handle(
    data_dir: Path, change: str, is_noted: bool, segment_rows: int
) -> None:
    """Whatever they know of the one before, and whether the triggers noted the change."""
    path = data_dir / "logs.db"
    with ns.LogStore(path, segment_rows=segment_rows) as store:
        for number in range(40):
            kind = KIND if number % 2 else ("sensor", "x", f"run-{number % 3}")
            store.append(*kind, message(number), at(number % 4 // 2 * 60))
        with ns.LogStore(path) as other, ns.LogStore(path, read_only=True) as reader:
            for handle in (other, reader):
                answers(handle)
            if not is_noted:
                foreign_script(path, "".join(f"DROP TRIGGER {name};" for name in TRIGGERS))
            CHANGES[change](store)
            store.reindex()
            for more in range(3):
                with ns.LogStore(path) as fresh:
                    expected = answers(fresh)
                assert [answers(handle) for handle in (store, other, reader)] == [expected] * 3, more
                store.append_many((*KIND, message(number), at(60)) for number in range(3 * more))


# --- verify beside the work of others -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 5, 20])
def test_verify_tells_of_no_damage_when_a_day_is_put_back_meanwhile(data_dir: Path, call: int) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=64) as store:
        store.append_many((*KIND[:2], f"run-{n % 5}", message(n), at(n % 2 * 60)) for n in range(20_000))
        archive(store)
        calls: Iterator[int] = iter(range(1, 1_000_000))
        restored: list[int] = []

        def progress(_: int, __: int) -> None:
            if next(calls) == call:
                with ns.LogStore(store.path) as other:
                    restored.append(other.restore_archive(day(0)))
                    other.reindex()

        report = store.verify(progress=progress)
        assert report.problems == ()
        assert restored == [10_000]
