"""Moving days to the archive: the ordinary run, and its options."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

import nerve_store as ns
import reference
from reference import DAY_MS, MAX_TIMESTAMP
from support import (
    INSERT_ROW_WITH_ID,
    as_rows,
    assert_union,
    database_rows,
    day_files,
    foreign_sql,
    read_day_file,
    read_union,
    tree,
    without_sidecars,
)
from support.archive import NOW, append, at, day, fill, gained, put_run

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
