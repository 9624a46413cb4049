"""Another program takes the newest rows away beside open stores: it deletes them and lowers the sequence, or puts an
older copy in the place of the whole content (SQLite's backup API). Every read of every store, whatever it had read
before, says what a store says that is opened afterwards, and what plain SQL says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import INSERT_ROW, foreign_copy, foreign_many, foreign_script, foreign_sql
from support.archive import NOW, at

OLD, NEW = 50, 100
"""Rows of the beginning, and those after them that go."""

FILTERS: tuple[dict[str, Any], ...] = (
    {},
    *({"ref_id": ref_id} for ref_id in ("run-0", "run-1", "late", "nothing")),
    *({"source": source} for source in ("workflow", "sensor", "late")),
    {"type": "thread_workflow_message"},
    {"ref_id": "run-0", "source": "late"},
    {"since": at(2)},
    {"source": "late", "since": at(2), "until": at(4)},
    {"after_id": OLD},
    {"descending": True, "limit": 5},
)

EMPTYINGS = {
    "all": "DELETE FROM logs",
    "the newest": f"DELETE FROM logs WHERE id > {OLD}",
    "the newest, from the end": f"DELETE FROM logs WHERE id > {OLD + NEW // 2};"
    f"DELETE FROM logs WHERE id > {OLD} AND id <= {OLD + NEW // 2}",
    "all but a few": f"DELETE FROM logs WHERE id % 20 OR id > {OLD}",
}
SEQUENCES = {
    "emptied": "DELETE FROM sqlite_sequence",
    "lowered": "UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(id), 0) FROM logs)",
    "as it was": "",
}


def rows(count: int, source: str) -> Iterator[tuple[str, str, str, str, int]]:
    """Rows of two runs; a third of them are no rounds."""
    for number in range(count):
        if number % 3:
            payload = json.dumps({"role": "user", "content": f"{source} {number}", "meta": {}})
            yield "workflow", "thread_workflow_message", f"run-{number % 2}", payload, at(1, number)
        else:
            yield source, ("started", "x")[number % 2], ("run-0", "late")[number % 2], json.dumps({"n": number}), at(3)


def answers(store: ns.LogStore) -> list[Any]:
    """What the store says, by each read of rows."""
    found: list[Any] = [store.stats().row_count]
    for run_id in ("run-0", "run-1", "late"):
        rounds = store.get_thread_rounds(run_id, limit=1_000)
        found += [store.get_thread_round_count(run_id), rounds, store.get_thread_rounds(run_id, before=9, limit=3)]
        found += [store.get_thread_messages(run_id), store.get_thread_events(run_id), store.get_trigger_payload(run_id)]
    for filters in FILTERS:
        matching = store.query(**filters)
        assert list(store.iter(**filters)) == matching, filters
        assert store.count(**{name: filters[name] for name in filters if name != "descending"}) == len(matching), (
            filters
        )
        found.append(matching)
    return found


def check(stores: list[ns.LogStore]) -> None:
    path = stores[0].path
    with ns.LogStore(path, read_only=True) as fresh:
        expected = answers(fresh)
        assert expected[0] == len(fresh.query()) == foreign_sql(path, "SELECT count(*) FROM logs")[0][0]
        for ref_id in ("run-0", "run-1", "late"):
            plain = foreign_sql(path, "SELECT id FROM logs WHERE ref_id = ? ORDER BY id", [ref_id])
            assert [(row.id,) for row in fresh.query(ref_id=ref_id)] == plain
    for number, store in enumerate(stores):
        assert answers(store) == expected, number


def by_another_program(stores: list[ns.LogStore], count: int) -> None:
    foreign_many(stores[0].path, INSERT_ROW, rows(count, "late"))


def by_a_second_store(stores: list[ns.LogStore], count: int) -> None:
    with ns.LogStore(stores[0].path, segment_rows=7) as store:
        store.append_many(rows(count, "late"))


def by_a_store_that_was_open(stores: list[ns.LogStore], count: int) -> None:
    stores[1].append_many(rows(count, "late"))


def by_the_writer(stores: list[ns.LogStore], count: int) -> None:
    stores[0].append_many(rows(count, "late"))


APPENDERS: list[Callable[[list[ns.LogStore], int], None]] = [
    *(by_another_program, by_a_second_store, by_a_store_that_was_open, by_the_writer),
]


@pytest.fixture(params=[8, 4_096], ids=["sealed", "not sealed"])
def stores(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[list[ns.LogStore]]:
    """One that writes, one beside it, and one that only reads; of the first two, each appended some."""
    path = data_dir / "logs.db"
    with ExitStack() as opened:
        writer = opened.enter_context(ns.LogStore(path, segment_rows=request.param))
        writer.append_many(rows(OLD, "sensor"))
        other = opened.enter_context(ns.LogStore(path, segment_rows=request.param))
        yield [writer, other, opened.enter_context(ns.LogStore(path, read_only=True))]


@pytest.mark.parametrize("count", [1, 3 * NEW])
@pytest.mark.parametrize("appender", APPENDERS)
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("emptying", EMPTYINGS)
def test_rows_after_deleted_ones_are_found_and_numbered(
    stores: list[ns.LogStore],
    emptying: str,
    sequence: str,
    appender: Callable[[list[ns.LogStore], int], None],
    count: int,
) -> None:
    writer = stores[0]
    last = writer.append_many(rows(NEW, "sensor"))[-1]
    check(stores)
    foreign_script(writer.path, f"BEGIN; {EMPTYINGS[emptying]}; {SEQUENCES[sequence]}; COMMIT")
    left = {row.id for row in writer.query()}
    appender(stores, count)
    check(stores)
    added = [row.id for row in writer.query() if row.id not in left]
    assert len(added) == count
    # Only the other program takes ids a second time.
    assert appender is by_another_program or min(added) > last
    assert writer.append("late", "x", "run-0").id > max(last, *added)
    check(stores)


@pytest.mark.parametrize("appender", [by_another_program, by_a_second_store])
def test_no_id_is_given_out_again_that_was_deleted_while_no_store_was_open(
    data_dir: Path, appender: Callable[[list[ns.LogStore], int], None]
) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        last = store.append_many(rows(NEW, "sensor"))[-1]
    foreign_script(path, "DELETE FROM logs WHERE id > 9; DELETE FROM sqlite_sequence")
    with ns.LogStore(path, read_only=True) as reader:
        appender([reader], 5)
    with ns.LogStore(path) as store:
        late = [row.id for row in store.query() if row.id > 9]
        assert late == list(range(10, 15) if appender is by_another_program else range(last + 1, last + 6))
        assert store.append("late", "x").id > last
        check([store])


def test_the_end_of_the_ids_is_no_id_that_was_given_out(data_dir: Path) -> None:
    """Above it there is none to go on with."""
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        last = store.append_many(rows(NEW, "sensor"))[-1]
        foreign_sql(path, "INSERT INTO logs VALUES (9223372036854775807, 'a', 'b', NULL, NULL, 1)")
        foreign_script(path, "DELETE FROM logs WHERE id > 90")
        assert store.append("late", "x").id == last + 1


# --- an older copy in the place of the content ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, NEW // 2, 3 * NEW])
@pytest.mark.parametrize("appender", APPENDERS)
def test_reads_forget_what_an_older_copy_replaced(
    stores: list[ns.LogStore], tmp_path: Path, appender: Callable[[list[ns.LogStore], int], None], count: int
) -> None:
    writer = stores[0]
    older = tmp_path / "older.db"
    foreign_copy(writer.path, older)
    last = writer.append_many(rows(NEW, "sensor"))[-1]
    check(stores)
    for _ in range(2):
        foreign_copy(older, writer.path)
        appender(stores, count)
        check(stores)
        # What this store has committed itself it gives out no second time, nor what it sees.
        greatest = max(row.id for row in writer.query())
        last = max(last, greatest)
        for store in (writer, writer, stores[1]):
            ids = store.append_many(rows(10, "late"))
            assert ids[0] > last
            last = ids[-1]
        check(stores)
        assert writer.verify().problems == ()


@pytest.mark.parametrize("is_read", [False, True], ids=["not read between", "read between"])
def test_reads_tell_copies_apart_that_are_put_back_in_turns(
    stores: list[ns.LogStore], tmp_path: Path, is_read: bool
) -> None:
    """Of two copies of which each has other rows at the same ids."""
    writer = stores[0]
    copies = [tmp_path / name for name in ("older.db", "one.db", "other.db")]
    foreign_copy(writer.path, copies[0])
    for copy, source in zip(copies[1:], ("sensor", "late"), strict=True):
        foreign_copy(copies[0], writer.path)
        foreign_many(writer.path, INSERT_ROW, rows(NEW, source))
        foreign_copy(writer.path, copy)
    for copy in [*copies, *copies[::-1], copies[2], copies[1]]:
        foreign_copy(copy, writer.path)
        if is_read:
            check(stores)
    check(stores)


def test_days_are_those_of_the_copy(stores: list[ns.LogStore], tmp_path: Path) -> None:
    """Of two copies, one from before the archive job, and one from after it."""
    writer = stores[0]
    writer.append_many(rows(NEW, "late"))
    copies = [tmp_path / "before.db", tmp_path / "after.db"]
    foreign_copy(writer.path, copies[0])
    writer.archive_logs(now=NOW)
    foreign_copy(writer.path, copies[1])

    def archived(store: ns.LogStore) -> list[Any]:
        found: list[Any] = [
            store.archived_days(),
            store.count(archived=True),
            store.get_thread_rounds("run-0", limit=500),
        ]
        return [*found, *(store.query(archived=True, **filters) for filters in FILTERS)]

    for copy in [*copies, *copies]:
        foreign_copy(copy, writer.path)
        with ns.LogStore(writer.path, read_only=True) as fresh:
            expected = archived(fresh)
        assert [archived(store) for store in stores] == [expected] * len(stores)
        assert expected[1] == OLD + NEW
        check(stores)
    foreign_copy(copies[0], writer.path)
    writer.archive_logs(now=NOW)
    assert writer.count(archived=True) == OLD + NEW
    assert writer.verify().problems == ()


def test_a_vacuum_costs_no_answer(stores: list[ns.LogStore]) -> None:
    writer = stores[0]
    writer.append_many(rows(NEW, "sensor"))
    before = [answers(store) for store in stores]
    foreign_script(writer.path, "VACUUM")
    assert [answers(store) for store in stores] == before
    writer.append("late", "x", "run-0", timestamp=NOW)
    check(stores)
