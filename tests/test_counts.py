"""Counts are right whatever other programs do to the rows, and look at no more rows than those programs touched."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nerve_store as ns
from reference import Row
from strategies import SOURCES, TYPES, query_options
from support import INSERT_ROW_WITH_ID, as_row, foreign_many, foreign_script, foreign_sql
from support.archive import NOW, at, fill

REFS = st.sampled_from(["r1", "r2", None])
TIMES = st.integers(0, 20)
NEW_ROWS = st.tuples(SOURCES, TYPES, REFS, st.just("x"), TIMES)
IDS = st.integers(1, 70)

INSERT = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?)"
REPLACE = INSERT_ROW_WITH_ID.replace("INSERT", "INSERT OR REPLACE")

Change = tuple[str, Any]
"""What another program does, and to what."""
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.tuples(st.just("append"), st.lists(NEW_ROWS, min_size=1, max_size=12)),
    st.tuples(st.just("delete"), st.tuples(IDS, IDS)),
    st.tuples(st.just("update"), st.tuples(IDS, NEW_ROWS)),
    st.tuples(st.just("replace"), st.tuples(IDS, NEW_ROWS)),
    st.tuples(st.just("insert"), st.tuples(IDS, NEW_ROWS)),
    st.tuples(st.just("move"), st.tuples(IDS, IDS)),
    st.tuples(st.just("ours"), st.lists(NEW_ROWS, min_size=1, max_size=30)),
    st.tuples(st.just("reopen"), st.none()),
    st.tuples(st.just("reindex"), st.none()),
    st.tuples(st.just("archive"), st.none()),
)


class Model:
    """The rows there should be, and the store and the other program that change them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[int, tuple[Any, ...]] = {}
        self.archived_up_to = 0
        """Under an id of an archived row another row would be a conflict."""
        self.store = self.opened()

    def opened(self) -> ns.LogStore:
        return ns.LogStore(self.path, segment_rows=8)

    def apply(self, change: Change) -> None:
        kind, what = change
        getattr(self, f"do_{kind}")(what)

    def do_ours(self, rows: list[tuple[Any, ...]]) -> None:
        self.rows.update(zip(self.store.append_many(rows), rows, strict=True))

    def do_append(self, rows: list[tuple[Any, ...]]) -> None:
        foreign_many(self.path, INSERT, rows)
        self.rows = dict(self.stored())

    def do_delete(self, ids: tuple[int, int]) -> None:
        first, last = (id + self.archived_up_to for id in ids)
        foreign_sql(self.path, "DELETE FROM logs WHERE id BETWEEN ? AND ?", (first, last))
        self.rows = {id: row for id, row in self.rows.items() if not first <= id <= last}

    def do_update(self, what: tuple[int, tuple[Any, ...]]) -> None:
        id, row = what[0] + self.archived_up_to, what[1]
        sql = "UPDATE logs SET source = ?, type = ?, ref_id = ?, payload = ?, timestamp = ? WHERE id = ?"
        foreign_sql(self.path, sql, (*row, id))
        if id in self.rows:
            self.rows[id] = row

    def do_replace(self, what: tuple[int, tuple[Any, ...]]) -> None:
        id, row = what[0] + self.archived_up_to, what[1]
        foreign_sql(self.path, REPLACE, (id, *row))
        self.rows[id] = row

    def do_insert(self, what: tuple[int, tuple[Any, ...]]) -> None:
        if what[0] + self.archived_up_to not in self.rows:
            foreign_sql(self.path, INSERT_ROW_WITH_ID, (what[0] + self.archived_up_to, *what[1]))
            self.rows[what[0] + self.archived_up_to] = what[1]

    def do_move(self, ids: tuple[int, int]) -> None:
        old, new = (id + self.archived_up_to for id in ids)
        foreign_sql(self.path, "UPDATE OR REPLACE logs SET id = ? WHERE id = ?", (new, old))
        if old in self.rows:
            self.rows[new] = self.rows.pop(old)

    def do_reopen(self, _: None) -> None:
        self.store.close()
        self.store = self.opened()

    def do_reindex(self, _: None) -> None:
        self.store.reindex()

    def do_archive(self, _: None) -> None:
        self.archived_up_to = max(self.rows, default=self.archived_up_to)
        self.store.archive_logs(now=NOW, retention=timedelta(0))
        self.rows = {}

    def stored(self) -> list[tuple[int, tuple[Any, ...]]]:
        return [(row[0], row[1:]) for row in foreign_sql(self.path, "SELECT * FROM logs")]

    def expected(self, options: dict[str, Any]) -> list[Row]:
        found = [
            Row(id, *row)
            for id, row in sorted(self.rows.items(), reverse=options.get("descending", False))
            if options.get("source", row[0]) == row[0]
            and options.get("type", row[1]) == row[1]
            and options.get("ref_id", row[2]) == row[2]
            and options.get("since", row[4]) <= row[4] <= options.get("until", row[4])
            and options.get("after_id", -1) < id < options.get("before_id", 1 << 40)
        ]
        return found[: options.get("limit")]


OPTIONS = query_options(refs=st.sampled_from(["r1", "r2"]), timestamps=TIMES, greatest_id=70, limit=20)


_ROW = ("workflow", "thread_workflow_message", "r1", "x", 0)


@given(changes=st.lists(st.tuples(CHANGES, st.lists(OPTIONS, max_size=4)), max_size=8))
@example(  # an id that was moved up counts as given out, although AUTOINCREMENT does not know it
    changes=[
        (change, []) for change in (("replace", (1, _ROW)), ("move", (1, 3)), ("reindex", None), ("replace", (2, _ROW)))
    ]
)
@example(  # a row between two segments is of none
    changes=[
        (change, [])
        for change in (
            ("append", [_ROW] * 8),
            ("replace", (10, _ROW)),
            ("append", [_ROW] * 6),
            ("ours", [_ROW]),
            ("insert", (9, _ROW)),
            ("archive", None),
        )
    ]
)
def test_counts_are_those_of_a_model_beside_another_program(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[Change, list[dict[str, Any]]]]
) -> None:
    model = Model(tmp_path_factory.mktemp("counts") / "logs.db")
    try:
        for change, filters in changes:
            model.apply(change)
            assert dict(model.stored()) == model.rows
            for options in [{}, *filters]:
                rows = model.expected(options)
                assert list(map(as_row, model.store.query(**options))) == rows, options
                assert model.store.count(**options) == len(rows), options
            figures = model.store.stats()
            assert figures == model.store.stats(exact=True)
            assert figures.row_count == len(model.rows)
            with ns.LogStore(model.path, read_only=True) as other:
                assert other.count(ref_id="r1") == len(model.expected({"ref_id": "r1"}))
    finally:
        model.store.close()


# --- each kind of change ------------------------------------------------------------------------------------------

SEALED, TAIL = 64, 5
ROW = ("system", "tick", "r1", "x", 3)
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"ref_id": "r1"},
    {"source": "system"},
    {"type": "tick"},
    {"source": "system", "type": "tick"},
    {"since": 2, "until": 5},
    {"source": "system", "since": 2},
    {"after_id": 20},
)
TOUCHES: dict[str, str] = {
    "delete": "DELETE FROM logs WHERE id IN (3, 30, 66)",
    "delete all": "DELETE FROM logs",
    "update": "UPDATE logs SET source = 'other', type = 'odd', ref_id = 'r9', timestamp = 99 WHERE id IN (4, 31, 67)",
    "replace": "INSERT OR REPLACE INTO logs VALUES (5, 'other', 'odd', 'r9', NULL, 99), (68, 'o', 'o', 'r9', NULL, 99)",
    "replace by REPLACE": "REPLACE INTO logs VALUES (5, 'other', 'odd', 'r9', NULL, 99)",
    "delete and put back under the id": "DELETE FROM logs WHERE id = 6;"
    "INSERT INTO logs VALUES (6, 'o', 'o', 'r9', NULL, 99)",
    "move": "UPDATE logs SET id = 500 WHERE id = 7",
    "move onto another": "UPDATE OR REPLACE logs SET id = 8 WHERE id = 9",
    "move all": "UPDATE logs SET id = id + 1000",
    "an old id": "DELETE FROM logs WHERE id = 10;"
    "INSERT INTO logs (id, source, type, timestamp) VALUES (10, 'a', 'b', 1)",
    "below all ids": "INSERT INTO logs VALUES (-5, 'system', 'tick', 'r1', NULL, 3)",
    "upsert": "INSERT INTO logs VALUES (11, 'a', 'b', 'r9', NULL, 1) ON CONFLICT (id) DO UPDATE SET ref_id = 'r9'",
    "recursive triggers": "PRAGMA recursive_triggers = ON; REPLACE INTO logs VALUES (12, 'o', 'o', 'r9', NULL, 99)",
    "without the deleting trigger": "DROP TRIGGER log_row_deleted; DELETE FROM logs WHERE id IN (13, 40)",
    "without any trigger": "DROP TRIGGER log_row_deleted; DROP TRIGGER log_row_inserted; DROP TRIGGER log_row_updated;"
    " DELETE FROM logs WHERE id IN (14, 41)",
    "another trigger of the name": "DROP TRIGGER log_row_deleted; CREATE TRIGGER log_row_deleted AFTER DELETE ON logs"
    " BEGIN SELECT 1; END; DELETE FROM logs WHERE id IN (15, 42)",
    "the table made anew": "CREATE TABLE anew (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL,"
    " type TEXT NOT NULL, ref_id TEXT, payload TEXT, timestamp INTEGER NOT NULL);"
    " INSERT INTO anew SELECT * FROM logs WHERE id % 2; DROP TABLE logs; ALTER TABLE anew RENAME TO logs",
}


def filled(store: ns.LogStore) -> None:
    store.append_many(("system", ("tick", "tock")[n % 2], f"r{n % 3}", "x", n % 7) for n in range(SEALED + TAIL))


def plain(path: str | Path, options: dict[str, Any]) -> int:
    """The count, by the other program."""
    terms = {"source": "source = ?", "type": "type = ?", "ref_id": "ref_id = ?", "since": "timestamp >= ?"}
    terms |= {"until": "timestamp <= ?", "after_id": "id > ?"}
    condition = " AND ".join(["1", *(terms[name] for name in options)])
    return int(foreign_sql(path, f"SELECT count(*) FROM logs WHERE {condition}", list(options.values()))[0][0])


@pytest.mark.parametrize("is_known", [False, True], ids=["cold", "known"])
@pytest.mark.parametrize("touch", TOUCHES)
def test_no_count_is_wrong_after_another_program_touched_rows(data_dir: Path, touch: str, is_known: bool) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path, segment_rows=8) as store:
        filled(store)
        if is_known:
            assert [store.count(**options) for options in FILTERS] == [plain(path, options) for options in FILTERS]
        foreign_script(path, TOUCHES[touch])
        for _ in range(2):
            for options in FILTERS:
                assert store.count(**options) == plain(path, options), options
            assert store.stats().row_count == plain(path, {})
    with ns.LogStore(path, segment_rows=8) as store:
        store.append_many([ROW] * 20)
        for options in FILTERS:
            assert store.count(**options) == plain(path, options), options
        store.reindex()
        for options in FILTERS:
            assert store.count(**options) == plain(path, options), options
        assert store.stats() == store.stats(exact=True)
        assert store.verify().problems == ()


OVERWRITES = [name for name in TOUCHES if name in ("update", "replace", "upsert", "move onto another", "an old id")]


@pytest.mark.parametrize("touch", OVERWRITES)
def test_an_overwritten_row_is_a_finding(data_dir: Path, touch: str) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=8) as store:
        filled(store)
        assert store.verify().problems == ()
        foreign_script(store.path, TOUCHES[touch])
        problems = store.verify().problems
        assert problems
        assert any("another program" in problem.reason for problem in problems)
        store.reindex()
        assert store.verify().problems == ()


def test_an_overwritten_row_among_restored_ones_is_a_finding(data_dir: Path) -> None:
    """What was put back from the archive excuses a segment's checksum, but not this."""
    with ns.LogStore(data_dir / "logs.db", segment_rows=8) as store:
        fill(store, days=3, per_day=8)
        store.append("system", "tick", None, "new", NOW)
        store.archive_logs(now=NOW)
        for item in store.archived_days():
            store.restore_archive(item.day)
        assert store.verify().problems == ()
        foreign_sql(store.path, "UPDATE logs SET payload = 'forged' WHERE id = 5")
        assert store.verify().problems


def spans(store: ns.LogStore, table: str) -> list[tuple[int, int]]:
    return [(first, last) for first, last in store.sql(f"SELECT first_id, last_id FROM {table} ORDER BY 1")]


def test_only_what_was_touched_is_in_doubt(log_store: ns.LogStore) -> None:
    log_store.append_many([ROW] * 20_000)
    assert spans(log_store, "log_deleted") == spans(log_store, "log_changed") == []
    foreign_sql(log_store.path, "DELETE FROM logs WHERE id BETWEEN 5000 AND 5100")
    foreign_sql(log_store.path, "UPDATE logs SET payload = NULL WHERE id = 9000")
    assert spans(log_store, "log_deleted") == [(4096, 8191)]
    assert spans(log_store, "log_changed") == [(8960, 9215)]
    # Nor does an append of another program leave anything.
    foreign_many(log_store.path, INSERT, [ROW] * 100)
    assert spans(log_store, "log_changed") == [(8960, 9215)]
    log_store.reindex()
    assert spans(log_store, "log_deleted") == spans(log_store, "log_changed") == []


def test_an_archive_job_leaves_one_span(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=64) as store:
        store.append_many(("system", "tick", f"r{n % 5}", "x", at(n // 3_000)) for n in range(12_000))
        store.append_many([("system", "tick", "r1", "y", NOW)] * 10_000)
        store.archive_logs(now=NOW)
        assert spans(store, "log_deleted") == [(0, 12_287)]
        assert (store.count(), store.count(ref_id="r1"), store.count(source="system")) == (10_000,) * 3
        assert store.count(archived=True) == 22_000


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_days_that_take_turns_in_the_ids_leave_no_gap(data_dir: Path, order: tuple[int, ...]) -> None:
    """A block of ids that leaves between two that have left is noted as well."""
    with ns.LogStore(data_dir / "logs.db") as store:
        for block in range(3):
            store.append_many([("system", "tick", "r1", "x", at(order[block]))] * 4_096)
        store.append_many([("system", "tick", "r1", "y", NOW)] * 8_192)
        store.archive_logs(now=NOW)
        assert spans(store, "log_deleted") == [(0, 16_383)]
        assert (store.count(), store.count(ref_id="r1"), store.count(source="system")) == (8_192,) * 3
        assert store.count(archived=True) == 20_480
        assert store.verify().ok


def test_triggers_of_other_programs_fire_for_our_rows(log_store: ns.LogStore) -> None:
    foreign_script(
        log_store.path,
        "CREATE TABLE seen (id INTEGER);"
        "CREATE TRIGGER watch AFTER INSERT ON logs BEGIN INSERT INTO seen VALUES (new.id); END",
    )
    log_store.append_many([ROW] * 3)
    assert log_store.sql("SELECT id FROM seen") == [(1,), (2,), (3,)]
    foreign_sql(log_store.path, "DROP TRIGGER watch")
    log_store.append("a", "b")
    assert log_store.sql("SELECT count(*) FROM seen") == [(3,)]
    assert log_store.count() == 4


def test_a_database_of_the_schema_before_counts_right(data_dir: Path) -> None:
    """Nothing noted what was deleted there."""
    path = data_dir / "logs.db"
    with ns.LogStore(path, segment_rows=8) as store:
        filled(store)
    foreign_script(
        path,
        "DROP TRIGGER log_row_deleted; DROP TRIGGER log_row_inserted; DROP TRIGGER log_row_updated;"
        "DROP TABLE log_deleted; DROP TABLE log_changed; ALTER TABLE log_kinds DROP COLUMN row_count;"
        "DROP INDEX idx_workflow_runs_active; DROP INDEX idx_workflow_runs_ended; PRAGMA user_version = 4;"
        "DELETE FROM logs WHERE id % 5 = 0",
    )
    for read_only in (True, False):
        with ns.LogStore(path, read_only=read_only) as store:
            for filters in FILTERS:
                assert store.count(**filters) == plain(path, filters), filters
    with ns.LogStore(path, segment_rows=8) as store:
        store.append_many([ROW] * 40)
        for filters in FILTERS:
            assert store.count(**filters) == plain(path, filters), filters
    assert foreign_sql(path, "PRAGMA user_version") == [(5,)]
