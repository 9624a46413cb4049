"""Appending and reading rows, meta, SQL, figures, opening and closing."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from reference import DAY_MS, MAX_TIMESTAMP, Log, Row
from support import INSERT_ROW, as_row, as_rows, foreign_many, foreign_script, foreign_sql, tree

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


# --- append ------------------------------------------------------------------------------------------------------


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
        entry = store.append(text, text, text, text, 5)
        assert as_row(entry) == Row(1, text, text, text, text, 5)
        assert store.query(source=text, type=text, ref_id=text) == [entry]
        store.set_meta(text, text)
    with ns.LogStore(path) as store:
        assert store.query() == [entry]
        assert store.get_meta(text) == text
    assert foreign_sql(path, "SELECT source, type, ref_id, payload FROM logs") == [(text,) * 4]


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


# --- query -------------------------------------------------------------------------------------------------------

SOURCES = ("workflow", "system", "reflex")
TYPES = ("started", "tick", "thread_workflow_message")
RUNS = ("run-1", "run-2", "run-3")


def queried(log_store: ns.LogStore) -> Log:
    """A log of 60 rows and the plain list of it."""
    rows = [(SOURCES[n % 3], TYPES[n // 3 % 3], (None, *RUNS)[n % 4], str(n), (n * 37) % 100) for n in range(60)]
    model = Log()
    for row_id, row in zip(log_store.append_many(rows), rows, strict=True):
        model.append(Row(row_id, *row))
    return model


FILTERS: list[dict[str, Any]] = [
    {},
    {"source": "workflow"},
    {"type": "tick"},
    {"source": "workflow", "type": "tick"},
    {"ref_id": "run-2"},
    {"ref_id": "run-2", "type": "started", "source": "system"},
    {"ref_id": "nobody"},
    {"since": 50},
    {"until": 50},
    {"since": 37, "until": 37},
    {"since": 60, "until": 40},
    {"after_id": 55},
    {"before_id": 5},
    {"after_id": 10, "before_id": 20},
    {"after_id": 20, "before_id": 21},
    {"after_id": 60},
    {"limit": 0},
    {"limit": 7},
    {"limit": 1000},
    {"source": "reflex", "limit": 3},
    {"ref_id": "run-1", "since": 20, "until": 80, "after_id": 5, "before_id": 50, "limit": 4},
]


@pytest.mark.parametrize("segment_rows", [2, 7, 32, 60, 4096])
def test_filters_select_what_a_plain_filter_selects(data_dir: Path, segment_rows: int) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=segment_rows) as store:
        model = queried(store)
        for filters in FILTERS:
            for descending in (False, True):
                expected = model.query(**filters, descending=descending)
                assert as_rows(store.query(**filters, descending=descending)) == expected, filters
                assert as_rows(store.iter(**filters, descending=descending)) == expected, filters
                assert store.count(**filters, descending=descending) == len(expected), filters


def test_a_filter_of_none_does_not_filter(log_store: ns.LogStore) -> None:
    queried(log_store)
    everything = log_store.query(
        source=None, type=None, ref_id=None, since=None, until=None, after_id=None, before_id=None, limit=None
    )
    assert len(everything) == 60


def test_filters_compare_text_exactly(log_store: ns.LogStore) -> None:
    for ref_id in ("run", "RUN", "run ", "run\0", "rün", "%", "r_n", ""):
        log_store.append("system", "tick", ref_id, None, 0)
    for entry in log_store.query():
        assert log_store.query(ref_id=entry.ref_id) == [entry]


def test_bounds_of_ids_may_be_anything(log_store: ns.LogStore) -> None:
    queried(log_store)
    largest = 2**63 - 1
    assert log_store.count(after_id=0, before_id=largest) == 60
    assert log_store.count(after_id=-largest) == 60
    assert log_store.count(after_id=largest) == 0
    assert log_store.count(before_id=-1) == 0
    assert log_store.count(limit=largest) == 60


# --- iter --------------------------------------------------------------------------------------------------------


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


# --- sql ---------------------------------------------------------------------------------------------------------


def test_sql_answers_with_tuples(log_store: ns.LogStore) -> None:
    log_store.append("system", "tick", "run-1", "nul \0 and 🧠", 5)
    assert log_store.sql("SELECT id, type, ref_id, payload, timestamp FROM logs") == [
        (1, "tick", "run-1", "nul \0 and 🧠", 5)
    ]
    assert log_store.sql("SELECT 1, 2.5, 'x', x'00ff', NULL") == [(1, 2.5, "x", b"\x00\xff", None)]
    assert log_store.sql("SELECT * FROM meta WHERE 0") == []


def test_sql_takes_positional_and_named_parameters(log_store: ns.LogStore) -> None:
    values: tuple[int | float | str | bytes | None, ...] = (1, 2.5, "nul \0", b"\x00", None)
    assert log_store.sql("SELECT ?, ?, ?, ?, ?", values) == [values]
    assert log_store.sql("SELECT :a, :b", {"a": 1, "b": "x"}) == [(1, "x")]


def test_sql_sees_every_acknowledged_row(log_store: ns.LogStore) -> None:
    for number in range(1, 20):
        log_store.append("system", "tick")
        assert log_store.sql("SELECT count(*) FROM logs") == [(number,)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO logs (source, type, timestamp) VALUES ('a', 'b', 0)",
        "UPDATE logs SET type = 'x'",
        "DELETE FROM logs",
        "DROP TABLE logs",
        "CREATE TABLE other (x)",
        "CREATE TEMP TABLE other (x)",
        "WITH gone AS (SELECT 1) DELETE FROM logs",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA query_only = OFF",
        "ATTACH ':memory:' AS other",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "SAVEPOINT s",
        "SELECT * FROM nothing",
        "SELECT 1; SELECT 2",
        "SELECT load_extension('x')",
        "not sql",
        "",
    ],
)
def test_sql_refuses_what_is_not_one_reading_statement(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    data_dir.mkdir()
    monkeypatch.chdir(data_dir)
    with ns.LogStore(data_dir / "logs.db") as store:
        store.append("system", "tick", timestamp=0)
        before = sorted(tree(data_dir))
        with pytest.raises(ValueError, match=r".") as refused:
            store.sql(statement)
        assert "\n" not in str(refused.value)
        assert [entry.type for entry in store.query()] == ["tick"]
        assert store.sql("SELECT count(*) FROM logs") == [(1,)]
        assert sorted(tree(data_dir)) == before
        assert store.append("system", "tick").id == 2


def test_sql_refuses_parameters_that_do_not_fit(log_store: ns.LogStore) -> None:
    with pytest.raises(ValueError, match=r"."):
        log_store.sql("SELECT ?, ?", (1,))
    with pytest.raises(ValueError, match=r"."):
        log_store.sql("SELECT ?", (1, 2))
    with pytest.raises(ValueError, match=r"."):
        log_store.sql("SELECT :a", {"b": 1})
    with pytest.raises(TypeError):
        log_store.sql("SELECT ?", (object(),))  # type: ignore[arg-type]


# --- meta --------------------------------------------------------------------------------------------------------


def test_meta_is_set_and_overwritten(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        assert store.get_meta("名前") is None
        store.set_meta("名前", "値 🧠")
        store.set_meta("", "empty key")
        assert store.get_meta("名前") == "値 🧠"
        store.set_meta("名前", "")
    with ns.LogStore(path) as store:
        assert store.get_meta("名前") == ""
        assert store.get_meta("") == "empty key"
        assert store.get_meta("NAME") is None


# --- records -----------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=20)
ENTRIES = st.builds(
    ns.LogEntry,
    st.integers(1, 2**63 - 1),
    TEXT,
    TEXT,
    st.none() | TEXT,
    st.none() | TEXT,
    st.integers(0, MAX_TIMESTAMP),
)
NEW_ENTRIES = st.builds(
    ns.NewLogEntry, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | st.integers(0, MAX_TIMESTAMP)
)


@given(ENTRIES | NEW_ENTRIES)
def test_entries_pickle_compare_and_hash_by_value(entry: ns.LogEntry | ns.NewLogEntry) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(entry, protocol))
        assert type(copy) is type(entry)
        assert copy == entry
        assert hash(copy) == hash(entry)
        assert repr(copy) == repr(entry)


def test_entries_that_differ_in_one_field_are_not_equal() -> None:
    fields: tuple[Any, ...] = (1, "s", "t", "r", "p", 5)
    others: tuple[Any, ...] = (2, "S", "T", None, None, 6)
    entry = ns.LogEntry(*fields)
    for position in range(len(fields)):
        changed = [*fields]
        changed[position] = others[position]
        assert ns.LogEntry(*changed) != entry
    assert entry != fields
    assert entry != ns.NewLogEntry("s", "t", "r", "p", 5)
    assert entry == ns.LogEntry(*fields)


def test_entries_say_what_they_hold() -> None:
    entry = ns.LogEntry(7, "workflow", "started", None, '{"a":1}', 5)
    assert eval(repr(entry), {"LogEntry": ns.LogEntry}) == entry
    new = ns.NewLogEntry("workflow", "started", "run-1")
    assert eval(repr(new), {"NewLogEntry": ns.NewLogEntry}) == new
    assert (new.source, new.type, new.ref_id, new.payload, new.timestamp) == (
        "workflow",
        "started",
        "run-1",
        None,
        None,
    )


def test_entries_are_immutable() -> None:
    entry = ns.LogEntry(7, "workflow", "started", None, None, 5)
    for name in ("id", "source", "timestamp", "other"):
        with pytest.raises(AttributeError):
            setattr(entry, name, 1)


def test_entries_match_by_position() -> None:
    match ns.LogEntry(7, "workflow", "started", "run-1", None, 5):
        case ns.LogEntry(row_id, "workflow", row_type, ref_id, None, timestamp):
            assert (row_id, row_type, ref_id, timestamp) == (7, "started", "run-1", 5)
        case _:
            pytest.fail("did not match")


def test_json_parses_the_payload() -> None:
    def parsed(payload: str | None) -> Any:
        return ns.LogEntry(1, "s", "t", None, payload, 0).json()

    assert parsed(None) is None
    assert parsed('{"a":[1,2.5,null,true,"\\u00fc"]}') == {"a": [1, 2.5, None, True, "ü"]}
    assert parsed("12345678901234567890") == 12345678901234567890
    for broken in ("", "{", "undefined", "{'a':1}", "[1,]"):
        with pytest.raises(ValueError, match=r"."):
            parsed(broken)


# --- opening, closing, figures -----------------------------------------------------------------------------------


def test_new_directories_and_files_are_the_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with ns.Store(tmp_path / "a" / "b" / "data") as store:
            store.logs.append("system", "tick", timestamp=0)
            store.logs.archive_logs()
            store.blobs.write("text")
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").rglob("*")}
            kinds = {path.suffix or path.name for path in modes}
    finally:
        os.umask(old)
    assert {".db", ".jsonl", "blobs", "archive"} <= kinds
    assert {oct(mode) for path, mode in modes.items() if path.is_dir()} == {"0o700"}
    assert {oct(mode) for path, mode in modes.items() if path.is_file() and path.suffix} == {"0o600"}


def test_a_store_takes_a_path_object_or_text(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir.mkdir()
    with ns.LogStore(data_dir / "logs.db") as store:
        store.append("system", "tick")
    with ns.LogStore(str(data_dir / "logs.db")) as store:
        assert store.count() == 1
    monkeypatch.chdir(data_dir)
    with ns.LogStore("logs.db") as store:
        assert store.count() == 1
        monkeypatch.chdir("/")
        assert store.append("system", "tick").id == 2
        store.archive_logs(now=MAX_TIMESTAMP)
        assert len(store.archived_days()) == 1
    assert sorted(path.name for path in data_dir.iterdir()) == ["archive", "logs.db"]


@pytest.mark.parametrize(
    "name",
    ["a?b#c%20d", "file:x?mode=ro", ":memory:", 'it\'s "quoted"', "工作 🧠", os.fsdecode(b"\xff\xfe"), " ", "-wal"],
)
def test_any_file_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / name
    with ns.LogStore(path) as store:
        store.append("system", "tick", timestamp=0)
        store.append("system", "tick", timestamp=MAX_TIMESTAMP)
        store.archive_logs()
    with ns.LogStore(path) as store:
        assert Path(store.path) == path
        assert store.count() == 1
        assert [day.row_count for day in store.archived_days()] == [1]
    assert sorted(item.name for item in path.parent.iterdir()) == sorted([name, "archive"])
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_default_archive_directory_is_beside_the_database(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        assert Path(store.path).samefile(data_dir / "logs.db")
        assert Path(store.archive_dir) == (data_dir / "archive" / "logs").resolve()


def test_archive_directory_may_be_elsewhere(data_dir: Path, tmp_path: Path) -> None:
    with ns.LogStore(data_dir / "logs.db", archive_dir=tmp_path / "cold") as store:
        store.append("system", "tick", timestamp=0)
        store.archive_logs()
    assert (tmp_path / "cold" / "1970-01-01.jsonl").is_file()
    assert not (data_dir / "archive").exists()


def test_directory_may_be_reached_through_a_symbolic_link(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir()
    (tmp_path / "link").symlink_to(data_dir)
    with ns.Store(tmp_path / "link") as store:
        store.logs.append("system", "tick")
    with ns.Store(data_dir) as store:
        assert store.logs.count() == 1


def test_closing_leaves_one_file_and_may_be_repeated(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.append("system", "tick")
    assert not store.closed
    store.close()
    store.close()
    assert store.closed
    assert [path.name for path in data_dir.iterdir()] == ["logs.db"]


def test_leaving_the_context_closes(data_dir: Path) -> None:
    with ns.Store(data_dir) as store:
        assert not store.logs.closed
    assert store.logs.closed
    with pytest.raises(KeyError), ns.LogStore(data_dir / "logs.db") as logs:
        raise KeyError
    assert logs.closed


def test_two_stores_of_one_process_share_a_database(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as first:
        first.append("system", "first", timestamp=0)
        with ns.LogStore(path) as second:
            second.append("system", "second", timestamp=0)
            assert [entry.type for entry in first.query()] == ["first", "second"]
        first.append("system", "third", timestamp=0)
        assert foreign_sql(path, "SELECT count(*) FROM logs") == [(3,)]


@pytest.mark.parametrize("segment_rows", [2, 7, 1_000])
def test_stores_that_append_in_turns_seal_every_row_once(data_dir: Path, segment_rows: int) -> None:
    path = data_dir / "logs.db"
    expected: list[ns.LogEntry] = []
    with ns.LogStore(path, segment_rows=segment_rows) as first, ns.LogStore(path, segment_rows=segment_rows) as second:
        for turn in range(60):
            store = (first, second)[turn % 2]
            rows = [("workflow", "thread_workflow_message", f"run-{turn % 3}", '{"role":"a","content":""}', turn)]
            rows *= 1 + turn % 5 * 4
            expected += [ns.LogEntry(id, *row) for id, row in zip(store.append_many(rows), rows, strict=True)]
            if turn % 7 == 0:
                with pytest.raises(ValueError, match="surrogates"):
                    store.append_many([*rows, ("\ud800", "", None, None, 0)])
        for store in (first, second):
            assert store.query() == expected
            for run in range(3):
                mine = [entry for entry in expected if entry.ref_id == f"run-{run}"]
                assert store.query(ref_id=f"run-{run}") == mine
                rounds = store.get_thread_rounds(f"run-{run}", limit=1_000)
                assert [(one.round, one.log_id) for one in reversed(rounds)] == [
                    (number, entry.id) for number, entry in enumerate(mine, 1)
                ]
            assert store.verify().ok
        segments = foreign_sql(path, "SELECT first_id, last_id FROM log_segments ORDER BY first_id")
    assert len(segments) == len(expected) // segment_rows
    assert all(last - first == segment_rows - 1 for first, last in segments)


def test_read_only_store_reads_and_refuses_to_write(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as writer, ns.LogStore(path, read_only=True) as reader:
        assert reader.read_only
        assert not writer.read_only
        entry = writer.append("system", "tick")
        assert reader.query() == [entry]
        with pytest.raises(ns.NerveStoreError):
            reader.append("system", "tick")
        with pytest.raises(ns.NerveStoreError):
            reader.set_meta("a", "b")
        with pytest.raises(ns.NerveStoreError):
            reader.archive_logs()
        assert writer.query() == [entry]
    assert sorted(item.name for item in data_dir.iterdir()) == ["logs.db"]


def test_database_left_by_a_killed_process_is_opened(data_dir: Path, tmp_path: Path) -> None:
    """A write-ahead log that no close has folded into the database, without its index."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with ns.LogStore(data_dir / "logs.db") as store:
        entry = store.append("system", "tick")
        # In another process: closing a file of a live database here would drop the store's locks on it.
        files = [str(data_dir / name) for name in ("logs.db", "logs.db-wal")]
        subprocess.run(["cp", *files, str(copy)], check=True)
    with ns.LogStore(copy / "logs.db", read_only=True) as store:
        assert store.query() == [entry]
    with ns.LogStore(copy / "logs.db") as store:
        assert store.query() == [entry]
    assert [path.name for path in copy.iterdir()] == ["logs.db"]


def test_stats_give_the_figures(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        empty = store.stats()
        assert (empty.row_count, empty.first_id, empty.last_id) == (0, None, None)
        assert (empty.first_timestamp, empty.last_timestamp, empty.archived_up_to) == (None, None, None)
        assert dict(empty.runs) == {} or set(empty.runs.values()) == {0}
        store.append_many([("system", "tick", None, "x" * 100, t) for t in (500, 100, 900)])
        store.upsert_workflow_run(
            ("workflow", "queued", "run-1", None, 700),
            ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.QUEUED, 700),
        )
        store.set_meta(ns.ARCHIVED_UP_TO, "2026-03-25")
        stats = store.stats()
        assert Path(stats.path).samefile(path)
        assert (stats.row_count, stats.first_id, stats.last_id) == (4, 1, 4)
        assert (stats.first_timestamp, stats.last_timestamp) == (100, 900)
        assert {status: count for status, count in stats.runs.items() if count} == {"queued": 1}
        assert stats.archived_up_to == date(2026, 3, 25)
        assert stats.database_bytes > 0
        assert stats.wal_bytes >= 0
        assert stats.free_bytes >= 0


def test_stats_count_space_that_deleted_rows_left(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, "x" * 1000, n) for n in range(1000)])
    assert log_store.stats().free_bytes < 100_000
    log_store.archive_logs()
    assert log_store.stats().free_bytes > 500_000


def test_large_payloads_come_back(log_store: ns.LogStore) -> None:
    payload = "0123456789abcdef" * 65536 * 8
    entry = log_store.append("system", "large", None, payload, 0)
    assert log_store.query(type="large") == [entry]
    assert entry.payload == payload


def test_database_written_by_others_in_rollback_mode_is_opened(data_dir: Path) -> None:
    data_dir.mkdir()
    path = data_dir / "logs.db"
    foreign_script(
        path,
        """
        CREATE TABLE logs (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, type TEXT NOT NULL,
          ref_id TEXT, payload TEXT, timestamp INTEGER NOT NULL);
        """,
    )
    foreign_many(path, INSERT_ROW, [("system", "tick", None, None, n) for n in range(10)])
    with ns.LogStore(path) as store:
        assert store.count() == 10
        assert store.append("system", "tick").id == 11
