"""Moving days to the archive: nothing is lost, nothing is doubled, whatever happens in between."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
import reference
from reference import DAY_MS, MAX_TIMESTAMP, Row
from support import (
    INSERT_ROW,
    INSERT_ROW_WITH_ID,
    INSERT_RUN,
    KILLED,
    as_row,
    as_rows,
    assert_union,
    count_calls,
    database_rows,
    day_files,
    foreign_many,
    foreign_sql,
    is_one_line,
    read_day_file,
    read_union,
    require_strace,
    run_child,
    run_failing,
    run_killed,
    sample,
    tiny_disk,
    tree,
    without_sidecars,
)

DAY_ONE = date(2026, 1, 1)
NOW = reference.day_start(date(2026, 4, 1)) + 12 * 3_600_000
"""Late enough that all of January and February is to be archived."""


def at(day: int, offset: int = 0) -> int:
    """A timestamp on the `day`th day (from 0)."""
    return reference.day_start(DAY_ONE) + day * DAY_MS + offset


def day(number: int) -> date:
    return DAY_ONE + timedelta(days=number)


def append(store: ns.LogStore, timestamp: int, ref_id: str | None = None, payload: str | None = "x") -> Row:
    return as_row(store.append("workflow", "thread_workflow_message", ref_id, payload, timestamp))


def fill(store: ns.LogStore, *, days: int = 10, per_day: int = 7) -> list[Row]:
    """`per_day` rows on each of `days` days, days interleaved, payloads awkward."""
    store.append_many(
        ("system", "tick", f"ref-{n % 3}", f'{n} "ü\u2028🧠\\\0\x1f"', at(n % days, n)) for n in range(days * per_day)
    )
    return database_rows(store)


def put_run(store: ns.LogStore, status: str, run_id: str = "run-1") -> Row:
    run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus(status), NOW)
    return as_row(store.upsert_workflow_run(("workflow", status, run_id, None, NOW), run, force=True))


def gained(result: ns.ArchiveResult) -> dict[date, int]:
    return {item.day: item.added_rows for item in result.days}


# --- the ordinary run --------------------------------------------------------------------------------------------


def test_old_days_move_to_their_files(log_store: ns.LogStore) -> None:
    rows = fill(log_store)
    recent = append(log_store, NOW)
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(n): 7 for n in range(10)}
    assert [item.day for item in result.days] == sorted(item.day for item in result.days)
    assert (result.vacuumed, result.dry_run, result.pinned_rows, result.unarchivable_rows) == (False, False, 0, 0)
    union = assert_union(log_store, [*rows, recent])
    assert union.database == {recent.id: recent}
    assert list(union.files) == [day(n) for n in range(10)]
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"


def test_result_describes_the_files(log_store: ns.LogStore) -> None:
    fill(log_store)
    result = log_store.archive_logs(now=NOW)
    files = tree(Path(log_store.archive_dir))
    for item in result.days:
        path = Path(item.path)
        assert path.parent == Path(log_store.archive_dir)
        assert path.name == f"{item.day}.jsonl"
        assert (item.size, item.sha256) == (path.stat().st_size, files[path.name])
        assert item.row_count == item.added_rows == len(read_day_file(path)) == 7
    listed = log_store.archived_days()
    assert [(item.day, item.row_count, item.path, item.size, item.sha256) for item in listed] == [
        (item.day, item.row_count, item.path, item.size, item.sha256) for item in result.days
    ]


def test_lines_are_those_of_json_stringify(log_store: ns.LogStore) -> None:
    entry = log_store.append('s"\\/', "t\b\f\n\r\t", "r\x00\x1f\x7f", "p\u2028\u2029é🧠\ufeff", at(0))
    empty = log_store.append("", "", None, None, at(0, 1))
    log_store.archive_logs(now=NOW)
    assert (
        day_files(log_store.archive_dir)[day(0)].read_bytes()
        == (
            f'{{"id":{entry.id},"source":"s\\"\\\\/","type":"t\\b\\f\\n\\r\\t","refId":"r\\u0000\\u001f\x7f",'
            f'"payload":"p\u2028\u2029é🧠\ufeff","timestamp":{at(0)}}}\n'
            f'{{"id":{empty.id},"source":"","type":"","refId":null,"payload":null,"timestamp":{at(0, 1)}}}\n'
        ).encode()
    )


@pytest.mark.parametrize(
    ("now", "retention", "last"),
    [
        (at(31), timedelta(days=30), day(0)),
        (at(31, -1), timedelta(days=30), None),
        (at(2), timedelta(days=1), day(0)),
        (at(1), timedelta(0), day(0)),
        (at(0, DAY_MS - 1), timedelta(0), None),
        (at(5, 12 * 3_600_000), timedelta(hours=60), day(2)),
        (at(5, 12 * 3_600_000 - 1), timedelta(hours=60), day(1)),
    ],
)
def test_only_days_that_ended_before_the_retention_go(
    log_store: ns.LogStore, now: int, retention: timedelta, last: date | None
) -> None:
    rows = [append(log_store, at(n, offset)) for n in range(4) for offset in (0, DAY_MS - 1)]
    result = log_store.archive_logs(now=now, retention=retention)
    union = assert_union(log_store, rows)
    expected = [] if last is None else [day(n) for n in range(4) if day(n) <= last]
    assert list(gained(result)) == list(union.files) == expected
    assert all(len(union.files[item]) == 2 for item in expected)
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == (None if last is None else last.isoformat())


def test_default_retention_and_clock(log_store: ns.LogStore) -> None:
    assert timedelta(days=30) == ns.DEFAULT_RETENTION
    now = datetime.now(UTC)
    old, young = now - timedelta(days=32), now - timedelta(days=29)
    rows = [
        append(log_store, moment // timedelta(milliseconds=1))
        for moment in (old - datetime(1970, 1, 1, tzinfo=UTC), young - datetime(1970, 1, 1, tzinfo=UTC))
    ]
    assert list(gained(log_store.archive_logs())) == [old.date()]
    assert assert_union(log_store, rows).database == {rows[1].id: rows[1]}


def test_retention_beyond_the_epoch_archives_nothing(log_store: ns.LogStore) -> None:
    row = append(log_store, 0)
    assert log_store.archive_logs(now=NOW, retention=timedelta(days=365 * 60)).days == ()
    assert log_store.archive_logs(now=NOW, retention=timedelta.max).days == ()
    assert assert_union(log_store, [row]).database == {row.id: row}


def test_run_with_nothing_to_move_changes_nothing(log_store: ns.LogStore, data_dir: Path) -> None:
    append(log_store, NOW)
    result = log_store.archive_logs(now=NOW)
    assert result == ns.ArchiveResult((), vacuumed=False)
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) is None
    fill(log_store)
    log_store.archive_logs(now=NOW)
    before, watermark = tree(data_dir / "archive"), log_store.get_meta(ns.ARCHIVED_UP_TO)
    assert log_store.archive_logs(now=NOW + 5 * DAY_MS).days == ()
    assert tree(data_dir / "archive") == before
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == watermark


def test_days_without_rows_get_no_file(log_store: ns.LogStore) -> None:
    rows = [append(log_store, at(0)), append(log_store, at(20))]
    log_store.archive_logs(now=NOW)
    assert list(assert_union(log_store, rows).files) == [day(0), day(20)]


def test_row_with_timestamp_zero_costs_one_small_file(log_store: ns.LogStore) -> None:
    """Upstream wrote a file for each of the 20,000 days between it and the next row."""
    rows = [append(log_store, 0), append(log_store, at(0)), append(log_store, NOW)]
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {date(1970, 1, 1): 1, day(0): 1}
    assert list(assert_union(log_store, rows).files) == [date(1970, 1, 1), day(0)]
    assert result.days[0].size < 200
    assert sum(path.is_file() for path in Path(log_store.archive_dir).rglob("*.jsonl")) == 2


def test_first_and_last_day_of_all_can_be_archived(log_store: ns.LogStore) -> None:
    last_day = date(9999, 12, 30)
    rows = [append(log_store, 0), append(log_store, MAX_TIMESTAMP - DAY_MS), append(log_store, MAX_TIMESTAMP)]
    result = log_store.archive_logs(now=MAX_TIMESTAMP, retention=timedelta(0))
    assert list(gained(result)) == [date(1970, 1, 1), last_day]
    assert assert_union(log_store, rows).database == {rows[2].id: rows[2]}
    assert as_rows(log_store.read_archive(last_day)) == [rows[1]]


def test_ids_go_on_after_everything_was_archived(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = fill(store)
        store.archive_logs(now=NOW, vacuum=True)
        assert store.count() == 0
    with ns.LogStore(data_dir / "logs.db") as store:
        assert append(store, at(0)).id == rows[-1].id + 1


# --- reading -----------------------------------------------------------------------------------------------------


def test_read_archive_gives_the_rows_back_in_id_order(log_store: ns.LogStore) -> None:
    rows = fill(log_store)
    log_store.archive_logs(now=NOW)
    for number in range(10):
        wanted = [row for row in rows if reference.utc_day(row.timestamp) == day(number)]
        assert as_rows(log_store.read_archive(day(number))) == wanted
    reader = log_store.read_archive(day(0))
    assert iter(reader) is reader
    assert isinstance(next(reader), ns.LogEntry)


def test_read_archive_of_a_day_that_is_not_there(log_store: ns.LogStore) -> None:
    for missing in (day(0), date(1970, 1, 1), date.max):
        with pytest.raises(ns.ArchiveError) as refused:
            list(log_store.read_archive(missing))
        assert missing.isoformat() in str(refused.value)
        assert not isinstance(refused.value, ns.ArchiveCorruptError)


def test_archive_of_a_new_store_is_empty(log_store: ns.LogStore) -> None:
    assert log_store.archived_days() == []
    assert not Path(log_store.archive_dir).exists()


def test_strange_files_in_the_archive_directory_are_not_taken_for_days(log_store: ns.LogStore) -> None:
    fill(log_store)
    log_store.archive_logs(now=NOW)
    listed = log_store.archived_days()
    for name in (
        "notes.txt",
        "2026-13-01.jsonl",
        "2026-1-1.jsonl",
        "x2026-01-01.jsonl",
        "2026-01-01.jsonl.bak",
        "1.jsonl",
    ):
        (Path(log_store.archive_dir) / name).write_text("not a row\n")
    assert log_store.archived_days() == listed


# --- max_days, dry_run, vacuum -----------------------------------------------------------------------------------


def test_max_days_takes_the_oldest_days_first(log_store: ns.LogStore) -> None:
    rows = fill(log_store)
    expected = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9], []]
    watermarks = [day(2), day(5), day(8), date(2026, 3, 1), date(2026, 3, 1)]
    for days, watermark in zip(expected, watermarks, strict=True):
        assert list(gained(log_store.archive_logs(now=NOW, max_days=3))) == [day(n) for n in days]
        assert log_store.get_meta(ns.ARCHIVED_UP_TO) == watermark.isoformat()
        assert_union(log_store, rows)


def test_max_days_counts_days_that_gained_rows(log_store: ns.LogStore) -> None:
    """Days whose rows are all pinned, or in their file already, do not use up the allowance."""
    put_run(log_store, "started")
    pinned = [append(log_store, at(n), "run-1") for n in range(3)]
    twice = append(log_store, at(3))
    log_store.archive_logs(now=NOW)
    foreign_sql(log_store.path, INSERT_ROW_WITH_ID, twice)
    fresh = [append(log_store, at(n)) for n in (4, 5)]
    result = log_store.archive_logs(now=NOW, max_days=1)
    assert gained(result) == {day(4): 1}
    union = read_union(log_store)
    assert {row.id for row in [*pinned, fresh[1]]} <= union.database.keys()
    assert twice.id not in union.database


def test_max_days_zero_moves_nothing(log_store: ns.LogStore) -> None:
    rows = fill(log_store)
    assert log_store.archive_logs(now=NOW, max_days=0).days == ()
    assert len(assert_union(log_store, rows).database) == len(rows)


def test_watermark_never_moves_back(log_store: ns.LogStore) -> None:
    fill(log_store)
    log_store.archive_logs(now=NOW)
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"
    append(log_store, at(0))
    log_store.archive_logs(now=at(40))
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"
    append(log_store, at(0))
    log_store.archive_logs(now=NOW, max_days=1)
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"
    assert log_store.stats().archived_up_to == date(2026, 3, 1)


def test_dry_run_tells_what_a_run_would_do_and_changes_nothing(log_store: ns.LogStore, data_dir: Path) -> None:
    rows = fill(log_store)
    put_run(log_store, "started")
    append(log_store, at(0), "run-1")
    log_store.archive_logs(now=at(33))
    append(log_store, at(0))
    before_rows, before_files = database_rows(log_store), without_sidecars(tree(data_dir / "archive"))
    watermark = log_store.get_meta(ns.ARCHIVED_UP_TO)
    told = log_store.archive_logs(now=NOW, dry_run=True, vacuum=True)
    assert told.dry_run
    assert not told.vacuumed
    assert database_rows(log_store) == before_rows
    assert tree(data_dir / "archive") == before_files
    assert log_store.get_meta(ns.ARCHIVED_UP_TO) == watermark
    done = log_store.archive_logs(now=NOW)
    assert not done.dry_run
    assert told.days == done.days
    assert (told.pinned_rows, told.unarchivable_rows) == (done.pinned_rows, done.unarchivable_rows)
    assert rows[0].id in read_union(log_store).archived


def test_dry_run_creates_no_directory(log_store: ns.LogStore) -> None:
    fill(log_store)
    assert len(log_store.archive_logs(now=NOW, dry_run=True).days) == 10
    assert not Path(log_store.archive_dir).exists()


def test_dry_run_respects_max_days(log_store: ns.LogStore) -> None:
    fill(log_store)
    told = log_store.archive_logs(now=NOW, max_days=2, dry_run=True)
    assert told.days == log_store.archive_logs(now=NOW, max_days=2).days


def test_vacuum_shrinks_the_database(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("system", "tick", None, "x" * 1000, at(n % 10)) for n in range(3000)])
        rows = database_rows(store)
        assert not store.archive_logs(now=NOW, max_days=5).vacuumed
        large = store.stats()
        result = store.archive_logs(now=NOW, vacuum=True)
        assert result.vacuumed
        small = store.stats()
        assert small.database_bytes < large.database_bytes / 10
        assert small.free_bytes < 100_000
        assert_union(store, rows)
        assert append(store, NOW).id == rows[-1].id + 1
    assert path.stat().st_size < large.database_bytes / 10
    assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]


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


# --- damaged files -----------------------------------------------------------------------------------------------

Damage = Callable[[bytes], bytes]


def changed(old: bytes, new: bytes) -> Damage:
    def damage(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return damage


def swap_lines(content: bytes) -> bytes:
    first, second, rest = content.split(b"\n", 2)
    return b"\n".join([second, first, rest])


DAMAGES: dict[str, Damage] = {
    "last line cut off": lambda content: content[:-20],
    "last newline cut off": lambda content: content[:-1],
    "not json": lambda content: b"not json\n" + content,
    "a line of zeros": lambda content: content + b"\0" * 512 + b"\n",
    "an empty line": lambda content: content.replace(b"\n", b"\n\n", 1),
    "no utf-8": changed(b'"tick"', b'"\xff\xfek"'),
    "other json": lambda content: b"[1,2]\n" + content,
    "key missing": changed(b',"refId":"ref-0"', b""),
    "key unknown": changed(b'"source"', b'"origin"'),
    "key too many": changed(b"}\n", b',"more":1}\n'),
    "id is text": changed(b'"id":1', b'"id":"1"'),
    "timestamp of another day": changed(f'"timestamp":{at(0)}'.encode(), f'"timestamp":{at(1)}'.encode()),
    "timestamp is a fraction": changed(f'"timestamp":{at(0)}'.encode(), f'"timestamp":{at(0)}.5'.encode()),
    "line twice": lambda content: content.split(b"\n", 1)[0] + b"\n" + content,
    "lines out of order": swap_lines,
    "bytes before": lambda content: b"\xef\xbb\xbf" + content,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_day_file_stops_the_run_and_nothing_is_deleted(log_store: ns.LogStore, damage: Damage) -> None:
    fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    path = day_files(log_store.archive_dir)[day(0)]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    late = [append(log_store, at(n)) for n in range(3)]
    before = tree(Path(log_store.archive_dir))
    with pytest.raises(ns.ArchiveCorruptError) as refused:
        log_store.archive_logs(now=NOW)
    assert refused.value.path is not None
    assert Path(refused.value.path) == path
    assert path.name in str(refused.value)
    assert is_one_line(refused.value)
    assert isinstance(refused.value, ns.CorruptStoreError)
    assert database_rows(log_store) == late
    assert tree(Path(log_store.archive_dir)) == before

    with pytest.raises(ns.ArchiveCorruptError) as unread:
        list(log_store.read_archive(day(0)))
    assert path.name in str(unread.value)

    path.write_bytes(whole)
    assert gained(log_store.archive_logs(now=NOW)) == {day(n): 1 for n in range(3)}
    assert database_rows(log_store) == []
    assert {row.id for row in late} <= read_union(log_store).archived.keys()


def test_rows_before_the_damage_are_still_read(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=1)
    log_store.archive_logs(now=NOW)
    path = day_files(log_store.archive_dir)[day(0)]
    path.write_bytes(path.read_bytes()[:-20])
    reader = log_store.read_archive(day(0))
    assert [as_row(next(reader)) for _ in range(6)] == rows[:6]
    with pytest.raises(ns.ArchiveCorruptError, match="7"):
        next(reader)


def test_damaged_file_does_not_spoil_the_other_days(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    day_files(log_store.archive_dir)[day(1)].write_bytes(b"not json\n")
    assert as_rows(log_store.read_archive(day(0))) == [row for row in rows if row.timestamp < at(1)]
    append(log_store, at(0))
    assert gained(log_store.archive_logs(now=NOW)) == {day(0): 1}


@pytest.mark.parametrize("column", ["source", "type", "ref_id", "payload", "timestamp"])
def test_other_row_under_the_same_id_stops_the_run(log_store: ns.LogStore, column: str) -> None:
    """A database that was replaced, so that its ids begin anew."""
    rows = fill(log_store, days=2)
    log_store.archive_logs(now=NOW)
    before = tree(Path(log_store.archive_dir))
    value: Any = at(0, 1234) if column == "timestamp" else "other"
    other = rows[0]._replace(**{column: value})
    foreign_sql(log_store.path, INSERT_ROW_WITH_ID, other)
    with pytest.raises(ns.ArchiveError) as refused:
        log_store.archive_logs(now=NOW)
    assert not isinstance(refused.value, ns.ArchiveCorruptError)
    assert f"{day(0)}.jsonl" in str(refused.value)
    assert str(other.id) in str(refused.value)
    assert database_rows(log_store) == [other]
    assert tree(Path(log_store.archive_dir)) == before


@pytest.mark.parametrize("kind", ["directory", "symlink", "dangling symlink", "fifo"])
def test_day_file_that_is_no_file_is_refused(log_store: ns.LogStore, tmp_path: Path, kind: str) -> None:
    path = Path(log_store.archive_dir) / f"{day(0)}.jsonl"
    path.parent.mkdir(parents=True)
    target = tmp_path / "target"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        subprocess.run(["mkfifo", str(path)], check=True)
    else:
        path.symlink_to(target)
        if kind == "symlink":
            target.write_text("precious")
    rows = fill(log_store, days=1)
    with pytest.raises(ns.NerveStoreError):
        log_store.archive_logs(now=NOW)
    assert database_rows(log_store) == rows
    assert (target.read_text() if target.exists() else None) == ("precious" if kind == "symlink" else None)


def test_archive_directory_that_is_a_file_is_refused(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "cold").write_text("not a directory")
    with ns.LogStore(data_dir / "logs.db", archive_dir=tmp_path / "cold") as store:
        rows = fill(store, days=1)
        with pytest.raises(ns.StoreIOError):
            store.archive_logs(now=NOW)
        assert database_rows(store) == rows


# --- interrupted runs --------------------------------------------------------------------------------------------


class Stop(Exception):  # noqa: N818
    """What a progress callback raises."""


def test_progress_counts_up_to_the_total(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, None, at(n % 3)) for n in range(5_000)])
    seen: list[tuple[int, int]] = []
    log_store.archive_logs(now=NOW, progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {5_000}
    assert all(type(value) is int for step in seen for value in step)
    assert len(seen) < 100


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5, 8])
def test_exception_of_progress_stops_the_run_and_the_next_one_completes(log_store: ns.LogStore, step: int) -> None:
    log_store.append_many([("system", "tick", None, None, at(n % 5)) for n in range(10_000)])
    rows = database_rows(log_store)
    calls = 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > step:
            raise Stop(f"{done} of {total}")

    with pytest.raises(Stop):
        log_store.archive_logs(now=NOW, progress=progress)
    assert calls == step + 1
    assert_union(log_store, rows)
    log_store.archive_logs(now=NOW)
    union = assert_union(log_store, rows)
    assert union.database == {}
    assert len(union.files) == 5
    # Nothing staged is left behind.
    assert {path.name for path in Path(log_store.archive_dir).iterdir() if not path.name.endswith(".jsonl")} <= {
        ".lock"
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_progress_stops_the_run(log_store: ns.LogStore, error: type[BaseException]) -> None:
    rows = fill(log_store)

    def progress(_done: int, _total: int) -> None:
        raise error

    with pytest.raises(error):
        log_store.archive_logs(now=NOW, progress=progress)
    assert_union(log_store, rows)
    assert len(log_store.archive_logs(now=NOW).days) == 10


def test_store_that_is_closed_during_the_run_stops_it(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    store = ns.LogStore(path)
    rows = fill(store)
    with pytest.raises(ns.StoreClosedError):
        store.archive_logs(now=NOW, progress=lambda _done, _total: store.close())
    with ns.LogStore(path) as reopened:
        assert_union(reopened, rows)
        assert len(reopened.archive_logs(now=NOW).days) == 10
        assert assert_union(reopened, rows).database == {}


def test_row_that_comes_in_during_the_run_is_not_lost(log_store: ns.LogStore) -> None:
    """Upstream selected by time range, then deleted by time range, and lost what came in between."""
    rows = fill(log_store, days=3)

    def progress(_done: int, _total: int) -> None:
        rows.extend(append(log_store, at(n), None, "meanwhile") for n in range(3))

    log_store.archive_logs(now=NOW, progress=progress)
    assert_union(log_store, rows)
    log_store.archive_logs(now=NOW)
    assert assert_union(log_store, rows).database == {}


def test_run_that_is_resumed_during_the_archive_run_keeps_its_rows(log_store: ns.LogStore) -> None:
    rows = [put_run(log_store, "crashed")]
    own = [append(log_store, at(n), "run-1") for n in range(3)]
    others = [append(log_store, at(n)) for n in range(3)]
    resumed = False

    def progress(_done: int, _total: int) -> None:
        nonlocal resumed
        if not resumed:
            resumed = True
            log_store.transition("run-1", "started", timestamp=NOW)

    log_store.archive_logs(now=NOW, progress=progress)
    rows = [*rows, *own, *others, as_row(log_store.query(type="started")[0])]
    union = assert_union(log_store, rows, may_repeat={row.id for row in own})
    assert {row.id for row in own} <= union.database.keys()
    log_store.transition("run-1", "completed", timestamp=NOW)
    rows.append(as_row(log_store.query(type="completed")[0]))
    log_store.archive_logs(now=NOW)
    assert {row.id for row in own} <= assert_union(log_store, rows).archived.keys()


def archived_elsewhere(data_dir: Path, scratch: Path, **options: Any) -> Path:
    """The archive directory after a whole run on a copy of a closed store."""
    shutil.copytree(data_dir, scratch)
    with ns.LogStore(scratch / "logs.db") as store:
        store.archive_logs(now=NOW, **options)
    return scratch / "archive" / "logs"


@pytest.mark.parametrize("published", [1, 3, 10])
def test_run_killed_between_publish_and_delete_is_completed(data_dir: Path, tmp_path: Path, published: int) -> None:
    """The published files are there, and so are their rows in the database."""
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = fill(store)
        archive_dir = Path(store.archive_dir)
    finished = archived_elsewhere(data_dir, tmp_path / "scratch")
    archive_dir.mkdir(parents=True)
    for number in range(published):
        shutil.copy2(finished / f"{day(number)}.jsonl", archive_dir)
    with ns.LogStore(data_dir / "logs.db") as store:
        assert len(assert_union(store, rows, may_repeat={row.id for row in rows}).repeated) == 7 * published
        result = store.archive_logs(now=NOW)
        assert gained(result) == {day(number): 7 for number in range(published, 10)}
        assert assert_union(store, rows).database == {}
        assert {path.name: path.read_bytes() for path in day_files(archive_dir).values()} == {
            path.name: path.read_bytes() for path in day_files(finished).values()
        }


def test_run_killed_in_the_middle_of_the_deletes_is_completed(log_store: ns.LogStore) -> None:
    """Some of a published file's rows are still in the database, and a late row has come in."""
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    before = {item: path.read_bytes() for item, path in day_files(log_store.archive_dir).items()}
    back = [row for row in rows if row.id % 2]
    foreign_many(log_store.path, INSERT_ROW_WITH_ID, back)
    assert assert_union(log_store, rows, may_repeat={row.id for row in back}).repeated == {row.id for row in back}
    late = append(log_store, at(1))
    result = log_store.archive_logs(now=NOW)
    assert gained(result) == {day(1): 1}
    assert assert_union(log_store, [*rows, late]).database == {}
    after = {item: path.read_bytes() for item, path in day_files(log_store.archive_dir).items()}
    assert (after[day(0)], after[day(2)]) == (before[day(0)], before[day(2)])


# --- killed runs -------------------------------------------------------------------------------------------------

SWEPT_DAYS, SWEPT_ROWS = 4, 12


def prepared(directory: Path) -> list[Row]:
    """A store to be archived: two days that have a file already, late rows for one of them, and a run that pins."""
    with ns.LogStore(directory / "logs.db") as store:
        rows = fill(store, days=SWEPT_DAYS, per_day=SWEPT_ROWS)
        store.archive_logs(now=NOW, max_days=2)
        rows += [append(store, at(n)) for n in range(SWEPT_DAYS + 1)]
        rows += [put_run(store, "started"), append(store, at(0), "run-1")]
    return rows


def check_after_kill(directory: Path, rows: Iterable[Row], finished: dict[str, bytes]) -> None:
    """Nothing is lost, and the next run ends where an undisturbed one ends."""
    rows = list(rows)
    ids = {row.id for row in rows}
    with ns.LogStore(directory / "logs.db") as store:
        assert_union(store, rows, may_repeat=ids)
        store.archive_logs(now=NOW)
        assert_union(store, rows)
        files = {path.name: path.read_bytes() for path in day_files(store.archive_dir).values()}
        assert files == finished
        leftovers = {path.name for path in Path(store.archive_dir).iterdir()} - files.keys()
        assert leftovers <= {".lock"}, leftovers
    assert foreign_sql(directory / "logs.db", "PRAGMA integrity_check") == [("ok",)]


def sweep(tmp_path: Path, kills_per_call: int | None, **options: Any) -> int:
    """Kill an archive run at its system calls, `kills_per_call` of each (None: all), and check each time."""
    require_strace()
    template = tmp_path / "template"
    rows = prepared(template)
    finished_dir = archived_elsewhere(template, tmp_path / "finished")
    finished = {path.name: path.read_bytes() for path in day_files(finished_dir).values()}
    shutil.copytree(template, tmp_path / "counted")
    counts = count_calls(tmp_path / "calls", "archive", path=str(tmp_path / "counted" / "logs.db"), now=NOW, **options)
    assert {"pwrite64", "fdatasync"} & counts.keys()
    assert {"rename", "renameat", "renameat2"} & counts.keys()
    kills = 0
    for call, count in counts.items():
        for when in sample(count, kills_per_call or count):
            directory = tmp_path / "killed"
            shutil.copytree(template, directory)
            done = run_killed(call, when, "archive", path=str(directory / "logs.db"), now=NOW, **options)
            assert done.returncode in KILLED, f"{call} {when} of {count}: {done.returncode} {done.stderr}"
            check_after_kill(directory, rows, finished)
            shutil.rmtree(directory)
            kills += 1
    return kills


def test_archive_run_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    assert sweep(tmp_path, 3) >= 10


@pytest.mark.torture
@pytest.mark.parametrize("vacuum", [False, True])
def test_archive_run_that_is_killed_at_any_call_loses_nothing(tmp_path: Path, vacuum: bool) -> None:
    assert sweep(tmp_path, None, vacuum=vacuum) >= 50


def test_kill_sweep_catches_an_archiver_that_deletes_first(tmp_path: Path) -> None:
    """The control: a sweep that cannot fail proves nothing."""
    require_strace()
    template = tmp_path / "template"
    with ns.LogStore(template / "logs.db") as store:
        rows = fill(store, days=SWEPT_DAYS)
    shutil.copytree(template, tmp_path / "counted")
    counts = count_calls(tmp_path / "calls", "archive_badly", path=str(tmp_path / "counted" / "logs.db"), now=NOW)
    caught = 0
    for when in range(1, counts["write"] + 1):
        directory = tmp_path / f"killed-{when}"
        shutil.copytree(template, directory)
        done = run_killed("write", when, "archive_badly", path=str(directory / "logs.db"), now=NOW)
        assert done.returncode in KILLED
        with ns.LogStore(directory / "logs.db") as store:
            try:
                assert_union(store, rows)
            except AssertionError:
                caught += 1
    assert caught > 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fsync", "EIO"),
        ("rename", "EACCES"),
        ("renameat2", "EACCES"),
        ("renameat", "EACCES"),
        ("write", "ENOSPC"),
        ("write", "EIO"),
    ],
)
def test_archive_run_that_the_system_fails_loses_nothing(tmp_path: Path, call: str, error: str) -> None:
    require_strace()
    template = tmp_path / "template"
    rows = prepared(template)
    finished_dir = archived_elsewhere(template, tmp_path / "finished")
    finished = {path.name: path.read_bytes() for path in day_files(finished_dir).values()}
    shutil.copytree(template, tmp_path / "counted")
    counts = count_calls(tmp_path / "calls", "archive", path=str(tmp_path / "counted" / "logs.db"), now=NOW)
    failures = 0
    # The program's own line on standard output is its last write.
    for when in sample(counts.get(call, 0) - (call == "write"), 3):
        directory = tmp_path / "failed"
        shutil.copytree(template, directory)
        done = run_failing(call, error, when, "archive", path=str(directory / "logs.db"), now=NOW)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        if "error" in said:
            assert said["error"] == ("StoreFullError" if error == "ENOSPC" else "StoreIOError"), said
            failures += 1
        check_after_kill(directory, rows, finished)
        shutil.rmtree(directory)
    assert failures > 0 or call not in counts


def test_full_disk_stops_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    with ns.LogStore(tmp_path / "data" / "logs.db") as store:
        store.append_many([("system", "tick", None, "x" * 1000, at(n % 4, n)) for n in range(2000)])
        rows = database_rows(store)
    archive_dir = tmp_path / "disk" / "logs"
    with (
        tiny_disk(tmp_path / "disk", "1200k") as resize,
        ns.LogStore(tmp_path / "data" / "logs.db", archive_dir=archive_dir) as store,
    ):
        with pytest.raises(ns.StoreFullError) as refused:
            store.archive_logs(now=NOW)
        assert is_one_line(refused.value)
        union = assert_union(store, rows)
        assert 0 < len(union.database) < len(rows)
        assert store.append("system", "tick", timestamp=NOW).id == len(rows) + 1
        resize("16m")
        store.archive_logs(now=NOW)
        assert len(assert_union(store, [*rows, *database_rows(store)]).database) == 1


# --- one archiver at a time --------------------------------------------------------------------------------------


def test_archiver_in_another_process_is_served_afterwards(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=2)
    said = json.loads(run_child("archive", path=log_store.path, now=NOW).stdout)
    assert said == {"days": {str(day(0)): 7, str(day(1)): 7}}
    assert log_store.count() == 0
    assert_union(log_store, rows)
    assert log_store.archive_logs(now=NOW).days == ()


def test_archive_run_from_its_own_progress_callback_is_refused(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=2)
    refused: list[BaseException] = []

    def progress(_done: int, _total: int) -> None:
        with pytest.raises(ns.ArchiveBusyError) as raised:
            log_store.archive_logs(now=NOW)
        refused.append(raised.value)

    log_store.archive_logs(now=NOW, progress=progress)
    assert refused
    assert assert_union(log_store, rows).database == {}
