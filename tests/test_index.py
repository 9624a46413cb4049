"""The segment index: whatever is sealed, merged, lost, rebuilt or odd, every read is the plain filter over the rows."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
import reference
from reference import DAY_MS, Log, Row
from strategies import SOURCES, TYPES, query_options
from support import (
    INSERT_ROW,
    Stop,
    StopAfter,
    as_message,
    as_round,
    as_rows,
    foreign_many,
    foreign_script,
    foreign_sql,
)

INDEX_TABLES = ("log_segments", "log_zones", "log_kinds", "log_fresh", "log_postings")
EMPTY_INDEX = "".join(f"DELETE FROM {table};" for table in INDEX_TABLES)
DROP_INDEX = "".join(f"DROP TABLE {table};" for table in INDEX_TABLES) + "PRAGMA user_version = 1;"
RUNS = ("r1", "r2", "r3")
MESSAGE, EVENT = "thread_workflow_message", "thread_command_event"
PAYLOADS = (
    None,
    "no JSON",
    "null",
    '{"role":"coder","content":"hi"}',
    '{"role":"__start__","content":"hi"}',
    '{"type":"thread_start"}',
    '{"type":"tool_call","n":1}',
)
REFS = st.sampled_from([*RUNS, None])
TIMESTAMPS = st.integers(0, 60)
NEW_ROWS = st.tuples(SOURCES, TYPES, REFS, st.sampled_from(PAYLOADS), TIMESTAMPS)
FILTERS = query_options(refs=st.sampled_from([*RUNS, "nobody"]), timestamps=TIMESTAMPS, greatest_id=120, limit=12)
SOME_FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"descending": True},
    {"source": "workflow"},
    {"type": "tick", "descending": True},
    {"source": "workflow", "type": MESSAGE},
    {"source": "system", "type": "tick", "limit": 3},
    {"ref_id": "r1"},
    {"ref_id": "r2", "descending": True, "limit": 5},
    {"ref_id": "r3", "after_id": 10, "before_id": 60},
    {"ref_id": "nobody"},
    {"since": 20, "until": 40},
    {"since": 20, "limit": 7},
    {"source": "", "until": 30, "descending": True, "limit": 4},
    {"type": EVENT, "since": 10, "after_id": 15},
)


def model_of(rows: Iterable[Row]) -> Log:
    model = Log()
    for row in rows:
        model.append(row)
    return model


def assert_reads(store: ns.LogStore, model: Log, filters: Iterable[dict[str, Any]] = SOME_FILTERS) -> None:
    """Every read by rows is that of the model."""
    for options in filters:
        expected = model.query(**options)
        assert as_rows(store.query(**options)) == expected, options
        assert as_rows(store.iter(**options)) == expected, options
        assert store.count(**options) == len(expected), options


def assert_threads(store: ns.LogStore, rows: list[Row], left: list[Row] | None = None) -> None:
    """Every read of a thread is that of the model; `rows`: all that ever were, `left`: those not archived."""
    there = {row.id for row in (rows if left is None else left)}
    for run_id in RUNS:
        count = reference.thread_round_count(rows, run_id)
        assert store.get_thread_round_count(run_id) == count
        if left is None:
            assert list(map(as_message, store.get_thread_messages(run_id))) == reference.thread_messages(rows, run_id)
        for before, limit in [(0, 3), (0, 1_000), (count // 2 + 1, 4), (2, 5), (count + 5, 2)]:
            found = list(map(as_round, store.get_thread_rounds(run_id, before=before, limit=limit)))
            expected = reference.thread_rounds(rows, run_id, before, limit)
            # An archived round may be missing, and keeps its number.
            assert [item for item in found if item.log_id in there] == [r for r in expected if r.log_id in there]
            assert all(item in expected for item in found), (run_id, before, limit)


def some_rows(count: int, *, first_id: int = 1) -> list[Row]:
    """Rows of every kind, in no regular order."""
    return [
        Row(
            first_id + n,
            ("workflow", "system", "workflow", "")[n * 7 % 4],
            (MESSAGE, EVENT, "started", "tick")[n * 11 // 3 % 4],
            (*RUNS, None)[n * 13 // 5 % 4],
            PAYLOADS[n * 17 // 2 % len(PAYLOADS)],
            n * 37 % 61,
        )
        for n in range(count)
    ]


def filled(path: Path, rows: list[Row], segment_rows: int, *, rows_per_call: int = 9) -> ns.LogStore:
    store = ns.LogStore(path, durability="normal", segment_rows=segment_rows)
    for first in range(0, len(rows), rows_per_call):
        batch = rows[first : first + rows_per_call]
        assert list(store.append_many([row[1:] for row in batch])) == [row.id for row in batch]
    return store


# --- reads through segments of every size ------------------------------------------------------------------------


@pytest.mark.parametrize("segment_rows", range(2, 8))
@pytest.mark.parametrize("rows_per_call", [1, 5, 300])
def test_reads_equal_a_plain_filter(data_dir: Path, segment_rows: int, rows_per_call: int) -> None:
    rows = some_rows(301)
    with filled(data_dir / "logs.db", rows, segment_rows, rows_per_call=rows_per_call) as store:
        (count,) = store.sql("SELECT count(*) FROM log_segments")[0]
        assert count == 301 // segment_rows
        assert_reads(store, model_of(rows))
        assert_threads(store, rows)


def test_rows_are_sealed_in_the_transaction_that_gathers_enough(data_dir: Path) -> None:
    with filled(data_dir / "logs.db", some_rows(20), 7, rows_per_call=1) as store:
        spans = store.sql("SELECT first_id, last_id, row_count FROM log_segments ORDER BY first_id")
    assert spans == [(1, 7, 7), (8, 14, 7)]


BATCHES = st.lists(st.tuples(st.lists(NEW_ROWS, max_size=25), st.sampled_from("aob")), min_size=1, max_size=6)


@given(
    batches=BATCHES,
    segment_rows=st.integers(2, 7),
    other_rows=st.integers(2, 7),
    filters=st.lists(FILTERS, min_size=1, max_size=8),
    gone=st.sets(st.integers(1, 120), max_size=20),
    rebuild=st.booleans(),
)
def test_reads_equal_the_model(
    batches: list[tuple[list[Any], str]],
    segment_rows: int,
    other_rows: int,
    filters: list[dict[str, Any]],
    gone: set[int],
    rebuild: bool,
) -> None:
    """Several writers with segments of their own size, another program that appends and deletes, and a rebuild."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "logs.db"
        model = Log()
        next_id = itertools.count(1)
        with (
            ns.LogStore(path, durability="normal", segment_rows=segment_rows) as store,
            ns.LogStore(path, durability="normal", segment_rows=other_rows) as other,
        ):
            for batch, writer in batches:
                if writer == "a":
                    store.append_many(batch)
                elif writer == "o":
                    other.append_many(batch)
                else:
                    foreign_many(path, INSERT_ROW, batch)
                for row in batch:
                    model.append(Row(next(next_id), *row))
                assert_reads(store, model, filters)
            assert_threads(store, model.rows())
            assert_threads(other, model.rows())
            foreign_many(path, "DELETE FROM logs WHERE id = ?", [[row_id] for row_id in gone])
            for row_id in gone:
                model.database.pop(row_id, None)
            if rebuild:
                other.reindex()
            assert_reads(store, model, filters)
            assert_reads(other, model, filters)
        with ns.LogStore(path, read_only=True) as store:
            assert_reads(store, model, filters)


# --- an index that is not there, or not right --------------------------------------------------------------------


def reopen(path: Path) -> ns.LogStore:
    return ns.LogStore(path, segment_rows=5)


def reopen_and_rebuild(path: Path) -> ns.LogStore:
    store = ns.LogStore(path, segment_rows=3)
    store.reindex()
    return store


def reopen_read_only(path: Path) -> ns.LogStore:
    return ns.LogStore(path, read_only=True)


@pytest.mark.parametrize("script", [EMPTY_INDEX, DROP_INDEX], ids=["emptied", "dropped"])
@pytest.mark.parametrize("opened", [reopen, reopen_and_rebuild, reopen_read_only])
def test_index_may_be_taken_away_and_is_rebuilt(
    data_dir: Path, script: str, opened: Callable[[Path], ns.LogStore]
) -> None:
    path = data_dir / "logs.db"
    rows = some_rows(200)
    filled(path, rows, 4).close()
    foreign_script(path, script)
    with opened(path) as store:
        assert_reads(store, model_of(rows))
        assert_threads(store, rows)
        if not store.read_only:
            more = some_rows(30, first_id=201)
            store.append_many([row[1:] for row in more])
            assert_reads(store, model_of(rows + more))
            assert_threads(store, rows + more)


@pytest.mark.parametrize("segment_rows", [2, 5, 4096])
def test_reindex_changes_no_answer(data_dir: Path, segment_rows: int) -> None:
    rows = some_rows(250)
    calls: list[tuple[int, int]] = []
    with filled(data_dir / "logs.db", rows, segment_rows) as store:
        store.reindex(progress=lambda done, total: calls.append((done, total)))
        assert calls[-1] == (250, 250)
        assert calls == sorted(calls)
        assert_reads(store, model_of(rows))
        assert_threads(store, rows)
        store.append_many([("workflow", MESSAGE, "r1", PAYLOADS[3], 5)] * 9)
        rows += [Row(row_id, "workflow", MESSAGE, "r1", PAYLOADS[3], 5) for row_id in range(251, 260)]
        assert_reads(store, model_of(rows))
        assert_threads(store, rows)


def test_reindex_that_is_stopped_changes_nothing(data_dir: Path) -> None:
    rows = some_rows(100)
    with filled(data_dir / "logs.db", rows, 3) as store:
        before = [store.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in INDEX_TABLES]
        with pytest.raises(Stop):
            store.reindex(progress=StopAfter(0))
        assert [store.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in INDEX_TABLES] == before
        assert_reads(store, model_of(rows))
        store.append("system", "after")


DAMAGES: dict[str, tuple[str, Callable[[ns.LogStore], object]]] = {
    "merged postings": ("UPDATE log_postings SET ids = x'0badc0de'", lambda store: store.query(ref_id="r1")),
    "fresh postings": ("UPDATE log_fresh SET postings = x'ffffff7f00'", lambda store: store.query(ref_id="r1")),
    "kinds": (
        "REPLACE INTO log_kinds SELECT source, type, segment, x'0badc0de', NULL FROM log_kinds",
        lambda store: store.count(source="workflow", type=MESSAGE),
    ),
    "zones": ("UPDATE log_zones SET zones = x'0badc0de'", lambda store: store.query(since=1, until=1)),
    "rounds": (
        "UPDATE log_postings SET rounds = x'0badc0de', ids = x'0badc0de'",
        lambda store: store.get_thread_rounds("r1", limit=1_000),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_index_is_told_and_healed_by_reindex(data_dir: Path, damage: str) -> None:
    sql, call = DAMAGES[damage]
    path = data_dir / "logs.db"
    rows = some_rows(150)
    filled(path, rows, 3).close()
    foreign_sql(path, sql)
    with ns.LogStore(path, segment_rows=3) as store:
        with pytest.raises(ns.CorruptStoreError, match=r"reindex\(\)") as told:
            call(store)
        assert str(path) in str(told.value)
        assert as_rows(store.query()) == rows
        store.reindex()
        assert_reads(store, model_of(rows))
        assert_threads(store, rows)


OVERLAPPING = b"\x02\0\0\0r1\x12\0\0\0" + b"\x3a\x30\0\0\x01\0\0\0\0\0\0\0\x10\0\0\0\x60\xea" + b"\xff\xff\xff\xff"
"""Postings of a segment in which `r1` has one row, 60,000 ids after the first of the segment."""


@pytest.mark.parametrize("segments", ["all", "one"])
def test_segments_that_overlap_are_not_merged(data_dir: Path, segments: str) -> None:
    path = data_dir / "logs.db"
    rows = some_rows(30)
    filled(path, rows, 3).close()
    where = "" if segments == "all" else " WHERE segment = (SELECT min(segment) FROM log_fresh)"
    foreign_sql(path, f"UPDATE log_fresh SET postings = ?{where}", [OVERLAPPING])
    with ns.LogStore(path, segment_rows=3) as store:
        more = [Row(31 + n, "workflow", MESSAGE, RUNS[n % 3], PAYLOADS[3], n) for n in range(60)]
        for row in more:
            store.append_many([row[1:]])
        assert store.sql("SELECT count(*) FROM log_postings") == [(0,)]
        assert not store.verify().ok
        store.reindex()
        assert_reads(store, model_of(rows + more))
        assert_threads(store, rows + more)


# --- rows that leave ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment_rows", [2, 7, 4096])
def test_rounds_keep_their_numbers_when_their_rows_are_archived(data_dir: Path, segment_rows: int) -> None:
    path = data_dir / "logs.db"
    rows = [row._replace(timestamp=row.id // 40 * DAY_MS) for row in some_rows(240)]
    with filled(path, rows, segment_rows) as store:
        store.archive_logs(now=33 * DAY_MS, retention=timedelta(days=30))
        left = [row for row in rows if row.timestamp >= 3 * DAY_MS]
        assert_reads(store, model_of(left))
        assert_threads(store, rows, left)
        store.reindex()
        assert_reads(store, model_of(left))
        assert_threads(store, rows, left)
    with ns.LogStore(path, segment_rows=3) as store:
        assert_threads(store, rows, left)
        more = [Row(241 + n, "workflow", MESSAGE, RUNS[n % 3], PAYLOADS[3], 9 * DAY_MS) for n in range(20)]
        store.append_many([row[1:] for row in more])
        assert_threads(store, rows + more, left + more)
        store.archive_logs(now=99 * DAY_MS, retention=timedelta(days=30))
        assert store.count() == 0
        assert_threads(store, rows + more, [])


def test_index_forgets_what_was_archived_but_for_the_rounds(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    rows = [row._replace(timestamp=row.id // 40 * DAY_MS) for row in some_rows(400)]
    with filled(path, rows, 3) as store:
        store.archive_logs(now=37 * DAY_MS, retention=timedelta(days=30))
        before = index_figures(store)
        store.archive_logs(now=38 * DAY_MS, retention=timedelta(days=30))
        assert all(now < then for now, then in zip(index_figures(store), before, strict=True))
        left = [row for row in rows if row.timestamp >= 8 * DAY_MS]
        assert_reads(store, model_of(left))
        assert_threads(store, rows, left)
        store.reindex()
        assert_reads(store, model_of(left))
        assert_threads(store, rows, left)


def index_figures(store: ns.LogStore) -> tuple[Any, ...]:
    """Segments, and bytes of the merged postings that are of no rounds."""
    return store.sql(
        "SELECT (SELECT count(*) FROM log_segments), (SELECT count(*) FROM log_zones), "
        "(SELECT count(*) FROM log_kinds),"
        "(SELECT total(length(ids)) FROM log_postings WHERE rounds IS NOT NULL OR round_count = 0)"
    )[0]


def test_rows_deleted_by_another_program_are_skipped(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    rows = some_rows(200)
    with filled(path, rows, 5) as store:
        assert_reads(store, model_of(rows))
        iterator = store.iter(ref_id="r1")
        first = next(iterator)
        foreign_sql(path, "DELETE FROM logs WHERE id % 3 = 0 OR id BETWEEN 50 AND 90 OR id > 190")
        left = [row for row in rows if not (row.id % 3 == 0 or 50 <= row.id <= 90 or row.id > 190)]
        assert_reads(store, model_of(left))
        of_run = [row.id for row in left if row.ref_id == "r1" and row.id > first.id]
        assert set(of_run) <= {entry.id for entry in iterator} | set(range(1, 201, 3))
        assert store.append("system", "tick", "r1", None, 5).id == 201
        left.append(Row(201, "system", "tick", "r1", None, 5))
        assert_reads(store, model_of(left))
        store.reindex()
        assert_reads(store, model_of(left))
