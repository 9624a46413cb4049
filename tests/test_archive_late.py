"""Late rows join their days, and rows that must stay do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import nerve_store as ns
import reference
from reference import DAY_MS, MAX_TIMESTAMP, Row
from support import (
    INSERT_ROW,
    INSERT_ROW_WITH_ID,
    INSERT_RUN,
    as_row,
    as_rows,
    assert_union,
    database_rows,
    day_files,
    foreign_many,
    foreign_sql,
    read_day_file,
    run_child,
)
from support.archive import NOW, append, at, day, fill, gained, put_run

# --- late rows ---------------------------------------------------------------------------------------------------


def test_late_row_joins_its_archived_day(log_store: ns.LogStore) -> None:
    """Upstream overwrote the first day's file and truncated every later one to nothing."""
    rows = fill(log_store)
    log_store.archive_logs(now=NOW)
    before = {item: path.read_bytes() for item, path in day_files(log_store.archive_dir).items()}
    assert len(before) == 10
    late = append(log_store, at(0, 5), None, "late")
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(0): 1}
    assert result.days[0].row_count == 8
    after = {item: path.read_bytes() for item, path in day_files(log_store.archive_dir).items()}
    assert after == {**before, day(0): before[day(0)] + f"{reference.archive_line(late)}\n".encode()}
    assert_union(log_store, [*rows, late])


def test_late_rows_are_merged_in_id_order(log_store: ns.LogStore) -> None:
    """A run ends after its day was archived: its rows go between those that are there."""
    put_run(log_store, "started")
    rows = [append(log_store, at(0), "run-1" if n % 2 else None) for n in range(20)]
    log_store.archive_logs(now=NOW)
    assert [row.id for row in read_day_file(day_files(log_store.archive_dir)[day(0)])] == [row.id for row in rows[::2]]
    put_run(log_store, "completed")
    result = log_store.archive_logs(now=NOW)
    assert [(item.added_rows, item.row_count) for item in result.days] == [(10, 20)]
    assert read_day_file(day_files(log_store.archive_dir)[day(0)]) == rows


def test_many_late_rows_on_many_days(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=5)
    for round_number in range(4):
        log_store.archive_logs(now=NOW, max_days=2 if round_number % 2 else None)
        rows += [append(log_store, at(n, round_number)) for n in range(0, 5, round_number + 1)]
        assert_union(log_store, rows)
    log_store.archive_logs(now=NOW)
    assert assert_union(log_store, rows).database == {}


def test_large_day_is_merged(log_store: ns.LogStore) -> None:
    """More rows than any buffer or page of the store holds at once."""
    log_store.append_many([("system", "tick", None, f"{n} ü" * 10, at(0, n)) for n in range(12_345)])
    rows = database_rows(log_store)
    log_store.archive_logs(now=NOW)
    log_store.append_many([("system", "late", None, str(n), at(0, n)) for n in range(2_345)])
    rows += database_rows(log_store)
    result = log_store.archive_logs(now=NOW)
    assert [(item.added_rows, item.row_count) for item in result.days] == [(2_345, 14_690)]
    assert_union(log_store, rows)
    assert as_rows(log_store.read_archive(day(0))) == rows


def test_many_rows_of_one_instant_are_all_taken(log_store: ns.LogStore) -> None:
    """More than any page of the plan, all at one place in the order of time, between rows that stay."""
    odd = [("system", "tick", None, None, timestamp) for timestamp in (at(0) + 0.5, at(0) - 0.5, "later", -1)]
    foreign_many(log_store.path, INSERT_ROW, odd)
    log_store.append_many([("system", "tick", None, None, at(0))] * 45_000)
    foreign_many(log_store.path, INSERT_ROW, odd)
    last = append(log_store, at(1))
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(0): 45_000, day(1): 1}
    assert result.unarchivable_rows == 8
    assert log_store.sql("SELECT id FROM logs ORDER BY id") == [
        (n,) for n in (1, 2, 3, 4, 45_005, 45_006, 45_007, 45_008)
    ]
    assert [row.id for row in read_day_file(day_files(log_store.archive_dir)[day(0)])] == list(range(5, 45_005))
    assert as_rows(log_store.read_archive(day(1))) == [last]


def test_memory_does_not_grow_with_the_day(data_dir: Path) -> None:
    done = run_child("memory", path=str(data_dir / "logs.db"), calls=160, rows_per_call=200, payload_bytes=3_000)
    assert done.returncode == 0, done.stderr
    done_rows, added = [json.loads(line) for line in done.stdout.splitlines()]
    assert done_rows["rows"] == [32_000] * 3
    assert done_rows["size"] > 96_000_000
    assert all(kibibytes < 32_768 for kibibytes in added.values()), added


def test_empty_day_file_of_upstream_gains_rows(log_store: ns.LogStore) -> None:
    """What upstream's wipe leaves behind is a file of no bytes: no row, but no damage either."""
    path = Path(log_store.archive_dir) / f"{day(0)}.jsonl"
    path.parent.mkdir(parents=True)
    path.touch()
    assert [(item.day, item.row_count) for item in log_store.archived_days()] == [(day(0), 0)]
    assert list(log_store.read_archive(day(0))) == []
    rows = fill(log_store, days=1)
    assert gained(log_store.archive_logs(now=NOW)) == {day(0): 7}
    assert_union(log_store, rows)


# --- rows that stay ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "started"])
def test_active_run_keeps_its_rows_until_it_ends(log_store: ns.LogStore, status: str) -> None:
    rows = [put_run(log_store, status)]
    own = [append(log_store, at(n), "run-1", '{"role":"a","content":"b"}') for n in range(3)]
    others = [append(log_store, at(n), other) for n in range(3) for other in (None, "run-2", "run-", "RUN-1")]
    rows += own + others
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(n): 4 for n in range(3)}
    assert result.pinned_rows == 3
    union = assert_union(log_store, rows)
    assert {row.id for row in own} <= union.database.keys()
    assert len(log_store.get_thread_messages("run-1")) == 3
    assert log_store.get_thread_round_count("run-1") == 3

    rows.append(as_row(log_store.append("workflow", "killed", "run-1", None, NOW)))
    rows.append(put_run(log_store, "killed"))
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(n): 1 for n in range(3)}
    assert result.pinned_rows == 0
    union = assert_union(log_store, rows)
    assert {row.id for row in own} <= union.archived.keys()
    assert [len(union.files[day(n)]) for n in range(3)] == [5, 5, 5]


@pytest.mark.parametrize("status", ["completed", "failed", "crashed", "interrupted", "dropped", "killed"])
def test_run_that_is_not_active_does_not_keep_its_rows(log_store: ns.LogStore, status: str) -> None:
    rows = [put_run(log_store, status), append(log_store, at(0), "run-1")]
    assert gained(log_store.archive_logs(now=NOW)) == {day(0): 1}
    assert_union(log_store, rows)


def test_run_in_an_unknown_state_keeps_its_rows(log_store: ns.LogStore) -> None:
    foreign_sql(log_store.path, INSERT_RUN, ("run-1", "deploy", "paused", 0, None))
    row = append(log_store, at(0), "run-1")
    result = log_store.archive_logs(now=NOW)
    assert (result.days, result.pinned_rows) == ((), 1)
    assert assert_union(log_store, [row]).database == {row.id: row}


def test_rows_of_any_source_are_kept_with_their_run(log_store: ns.LogStore) -> None:
    rows = [put_run(log_store, "started"), as_row(log_store.append("system", "tick", "run-1", None, at(0)))]
    assert log_store.archive_logs(now=NOW).pinned_rows == 1
    assert rows[1].id in assert_union(log_store, rows).database


def test_only_rows_that_are_old_enough_count_as_pinned(log_store: ns.LogStore) -> None:
    put_run(log_store, "started")
    append(log_store, NOW, "run-1")
    append(log_store, at(0), "run-1")
    assert log_store.archive_logs(now=NOW).pinned_rows == 1


def test_rows_beyond_max_days_count_as_pinned(log_store: ns.LogStore) -> None:
    put_run(log_store, "started")
    rows = [append(log_store, at(n), ref_id) for n in range(4) for ref_id in ("run-1", "run-2")]
    for max_days, days in ((0, []), (2, [day(0), day(1)])):
        result = log_store.archive_logs(now=NOW, max_days=max_days)
        assert (list(gained(result)), result.pinned_rows) == (days, 4)
    assert len(database_rows(log_store)) == len(rows) - 2 + 1
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == day(1).isoformat()


@pytest.mark.parametrize("dry_run", [False, True])
def test_run_that_only_meets_pinned_rows_leaves_the_watermark(log_store: ns.LogStore, dry_run: bool) -> None:
    put_run(log_store, "started")
    append(log_store, at(0), "run-1")
    assert log_store.archive_logs(now=NOW, dry_run=dry_run).pinned_rows == 1
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) is None


def test_rows_outside_of_all_days_stay_and_are_counted(log_store: ns.LogStore) -> None:
    """An upstream database may hold them; they stay readable."""
    strange = [-1, -DAY_MS * 100_000, MAX_TIMESTAMP + 1, 2**62, -(2**62)]
    foreign_many(log_store.path, INSERT_ROW, [("system", "tick", None, None, value) for value in strange])
    row = append(log_store, at(0))
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(0): 1}
    assert result.unarchivable_rows == len(strange)
    assert [entry.timestamp for entry in log_store.query()] == strange
    assert list(day_files(log_store.archive_dir)) == [reference.utc_day(row.timestamp)]
    assert log_store.archive_logs(now=NOW).unarchivable_rows == len(strange)


def test_rows_whose_timestamp_is_no_integer_stay_and_are_counted(log_store: ns.LogStore) -> None:
    foreign_sql(log_store.path, INSERT_ROW, ("system", "tick", None, None, at(0) + 0.5))
    foreign_sql(log_store.path, INSERT_ROW, ("system", "tick", None, None, "2026-01-01T00:00:00Z"))
    foreign_sql(log_store.path, INSERT_ROW, ("system", "tick", None, None, b"\x00"))
    append(log_store, at(0))
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(0): 1}
    assert result.unarchivable_rows == 3
    assert log_store.sql("SELECT id, typeof(timestamp) FROM logs ORDER BY id") == [
        (1, "real"),
        (2, "text"),
        (3, "blob"),
    ]


def test_rows_whose_id_is_not_positive_stay_and_are_counted(log_store: ns.LogStore) -> None:
    strange = [Row(row_id, "system", "tick", None, None, at(0)) for row_id in (-7, 0)]
    foreign_many(log_store.path, INSERT_ROW_WITH_ID, strange)
    row = append(log_store, at(0))
    result = log_store.archive_logs(now=NOW)
    assert (gained(result), result.unarchivable_rows) == ({day(0): 1}, 2)
    assert assert_union(log_store, [*strange, row]).database == {item.id: item for item in strange}


# --- rows that another program wrote among sealed ones ------------------------------------------------------------

STORED = "INSERT INTO logs (id, source, type, ref_id, payload, timestamp) VALUES"
AMONG = {
    "between two segments": f"{STORED} (11, 'o', 't', NULL, NULL, {at(0)}), (12, 'o', 't', NULL, NULL, {at(2)})",
    "before the first": f"{STORED} (1, 'o', 't', NULL, NULL, {at(1)}), (2, 'o', 't', NULL, NULL, 'odd')",
    "another day in a segment of one": f"REPLACE INTO logs VALUES (13, 'o', 't', NULL, NULL, {at(1)})",
    "no day in a segment of one": "UPDATE logs SET timestamp = 'odd' WHERE id IN (13, 14)",
    "days changed": "UPDATE logs SET timestamp = timestamp + 86400000 * (id % 3) WHERE id % 2",
    "all of one day": f"UPDATE logs SET timestamp = {at(2)}",
    "into a segment of the future": f"UPDATE logs SET timestamp = {at(0)} WHERE id > 32",
    "moved into gaps": "UPDATE logs SET id = id - 20 WHERE id BETWEEN 31 AND 32",
}


@pytest.fixture
def sealed(data_dir: Path) -> Iterator[ns.LogStore]:
    """Segments of ids 3 to 10, 13 to 20, 23 to 30 and 33 to 40, each of one day, the last of a day that stays."""
    with ns.LogStore(data_dir / "logs.db", segment_rows=8) as store:
        for first, number in ((3, 0), (13, 0), (23, 1), (33, 200)):
            rows = [(id, "system", "tick", None, None, at(number)) for id in range(first, first + 8)]
            foreign_many(store.path, INSERT_ROW_WITH_ID, rows)
        store.reindex()
        yield store


def assert_all_archived(store: ns.LogStore) -> None:
    """All rows go but those of the future and of no day."""
    rows = store.sql("SELECT id, timestamp FROM logs ORDER BY id")
    staying = [row for row in rows if not (isinstance(row[1], int) and row[1] < at(100))]
    result = store.archive_logs(now=NOW)
    assert store.sql("SELECT id, timestamp FROM logs ORDER BY id") == staying
    assert sum(gained(result).values()) == len(rows) - len(staying)
    assert result.unarchivable_rows == sum(isinstance(row[1], str) for row in rows)
    if result.unarchivable_rows == 0:
        assert [(row.id, row.timestamp) for row in store.query(archived=True)] == rows
    assert store.archive_logs(now=NOW).days == ()


@pytest.mark.parametrize("sql", AMONG.values(), ids=AMONG)
def test_rows_that_another_program_wrote_among_sealed_ones_are_archived(sealed: ns.LogStore, sql: str) -> None:
    foreign_sql(sealed.path, sql)
    assert_all_archived(sealed)


@pytest.mark.parametrize("id", [1, 11, 12, 22])
def test_rows_that_another_program_wrote_beside_restored_ones_are_archived(sealed: ns.LogStore, id: int) -> None:
    sealed.archive_logs(now=NOW)
    for archived in sealed.archived_days():
        sealed.restore_archive(archived.day)
    foreign_sql(sealed.path, INSERT_ROW_WITH_ID, (id, "other", "tick", None, None, at(0)))
    sealed.archive_logs(now=NOW)
    assert [row.id for row in database_rows(sealed)] == list(range(33, 41))
    assert [row.id for row in sealed.query(archived=True)] == sorted(
        [id, *(n for n in range(3, 41) if n % 10 not in (1, 2))]
    )
