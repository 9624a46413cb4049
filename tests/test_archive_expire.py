"""Expiring the archive: the files of old days go, wherever the call is cut short, and nothing misses their rows."""

from __future__ import annotations

import errno
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs.logs import expire
from reference import Row
from support import as_row, as_rows, foreign_script, foreign_sql
from support.archive import MARK, NOW, append, at, content_of, day, file_rows, fill, message, put_run
from support.faults import KILL, Run, Scenario, sweep

DAYS, PER_DAY, SEGMENT_ROWS = 5, 6, 8
BEFORE = day(3)
RUN = "run-2"


def prepared(directory: Path, **options: Any) -> list[Row]:
    """An archive of five days, a run in each of them, and rows that stay."""
    with ns.LogStore(directory / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        fill(store, days=DAYS, per_day=PER_DAY)
        for number in range(DAYS):
            append(store, at(number), RUN, message(number))
        put_run(store, "completed", RUN)
        append(store, NOW, RUN, message(DAYS))
        rows = list(map(as_row, store.query()))
        store.archive_logs(now=NOW, **options)
    return rows


def left(rows: list[Row], *, before: date = BEFORE) -> list[Row]:
    return [row for row in rows if ns.utc_day(row.timestamp) >= before]


def rounds_of(store: ns.LogStore) -> list[tuple[int, int]]:
    return [(item.round, item.log_id) for item in store.get_thread_rounds(RUN, limit=100)]


def assert_expired(store: ns.LogStore, rows: list[Row], rounds: list[tuple[int, int]]) -> None:
    """The old days are gone from every read, and everything else is as it was."""
    remaining = left(rows)
    assert list(map(as_row, store.query(archived=True))) == remaining
    assert list(map(as_row, store.iter(archived=True))) == remaining
    assert store.count(archived=True) == len(remaining)
    assert [item.day for item in store.archived_days()] == [day(number) for number in range(3, DAYS)]
    kept = {row.id for row in remaining}
    assert rounds_of(store) == [item for item in rounds if item[1] in kept]
    assert store.get_thread_round_count(RUN) == len(rounds)
    with pytest.raises(ns.ArchiveError):
        list(store.read_archive(day(0)))
    with pytest.raises(ns.ArchiveError):
        store.restore_archive(day(0))


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}], ids=["plain", "zstd"])
def test_old_days_go_and_nothing_misses_them(data_dir: Path, options: dict[str, Any]) -> None:
    rows = prepared(data_dir, **options)
    with ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        rounds = rounds_of(store)
        before, days = content_of(Path(store.archive_dir)), store.archived_days()
        assert store.expire_archive(before=BEFORE, dry_run=True) == days[:3]
        assert content_of(Path(store.archive_dir)) == before
        assert store.archived_days() == days
        assert store.expire_archive(before=BEFORE) == days[:3]
        assert [Path(item.path).exists() for item in days] == [False] * 3 + [True] * 2
        assert_expired(store, rows, rounds)
        assert store.verify().problems == ()
        assert store.expire_archive(before=BEFORE) == store.expire_archive(before=BEFORE, dry_run=True) == []
        for step in (lambda: store.archive_logs(now=NOW), store.reindex, lambda: store.archive_logs(now=NOW)):
            step()
            assert_expired(store, rows, rounds)
            assert store.verify().problems == ()
        new = append(store, NOW)
        assert new.id > rows[-1].id


def test_every_day_may_go(data_dir: Path) -> None:
    rows = prepared(data_dir)
    with ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        assert len(store.expire_archive(before=day(100))) == DAYS
        assert set(content_of(Path(store.archive_dir))) == {MARK}
        assert store.archived_days() == []
        assert as_rows(store.query(archived=True)) == left(rows, before=day(80))
        store.append_many([("system", "tick", None, "x", NOW)] * 200)
        store.archive_logs(now=NOW)
        assert store.verify().problems == ()
        # What is known of their segments is forgotten.
        assert store.sql("SELECT count(*) FROM log_segments WHERE last_id < ?", [rows[-1].id - SEGMENT_ROWS]) == [(0,)]


@pytest.mark.parametrize("status", ["queued", "started", "paused"])
def test_a_day_in_which_an_active_run_has_rows_stays(data_dir: Path, status: str) -> None:
    rows = prepared(data_dir)
    with ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        # A run of the name is made again, and sees the rows of the one before.
        foreign_sql(store.path, "INSERT INTO workflow_runs VALUES ('ref-1', 'w', ?, 0, NULL)", (status,))
        held = {ns.utc_day(row.timestamp) for row in rows if row.ref_id == "ref-1"}
        days = [item.day for item in store.archived_days()]
        expected = [item for item in days if item not in held]
        assert [item.day for item in store.expire_archive(before=day(100), dry_run=True)] == expected
        assert [item.day for item in store.expire_archive(before=day(100))] == expected
        assert [item.day for item in store.archived_days()] == sorted(held & set(days))
        foreign_sql(store.path, "UPDATE workflow_runs SET status = 'failed' WHERE run_id = 'ref-1'")
        assert len(store.expire_archive(before=day(100))) == len(held & set(days))


def test_late_rows_make_the_day_anew(data_dir: Path) -> None:
    prepared(data_dir)
    with ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        store.expire_archive(before=BEFORE)
        late = append(store, at(0), RUN, message(50))
        store.archive_logs(now=NOW)
        assert [item.row_count for item in store.archived_days() if item.day == day(0)] == [1]
        assert as_rows(store.read_archive(day(0))) == [late]
        assert store.verify().problems == ()
        assert len(store.expire_archive(before=BEFORE)) == 1
        store.reindex()
        assert store.verify().problems == ()


def test_rounds_that_the_archive_alone_knows_keep_their_numbers(data_dir: Path) -> None:
    """As the predecessor left them: its rows were gone before there was an index."""
    rows = prepared(data_dir)
    tables = (
        *("archive_days", "archive_contents", "archive_refs"),
        *("log_segments", "log_gaps", "log_zones", "log_kinds", "log_fresh", "log_postings"),
    )
    foreign_script(data_dir / "logs.db", "".join(f"DELETE FROM {table};" for table in tables))
    with ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        rounds = rounds_of(store)
        assert len(rounds) == DAYS + 1
        store.expire_archive(before=BEFORE)
        assert_expired(store, rows, rounds)
        append(store, NOW, RUN, message(70))
        assert store.get_thread_rounds(RUN, limit=1)[0].round == len(rounds) + 1
        store.reindex()
        assert store.get_thread_rounds(RUN, limit=1)[0].round == len(rounds) + 1
        assert store.get_thread_round_count(RUN) == len(rounds) + 1
        assert store.verify().problems == ()


def test_restored_rows_outlive_their_file(data_dir: Path) -> None:
    prepared(data_dir)
    with ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        assert store.restore_archive(day(1)) > 0
        kept = as_rows(store.query(before_id=10_000, since=at(1), until=at(2) - 1))
        store.expire_archive(before=BEFORE)
        assert as_rows(store.query(archived=True, since=at(1), until=at(2) - 1)) == kept
        assert store.verify().problems == ()


@pytest.mark.parametrize("before", [datetime(2026, 1, 3), "2026-01-03", 5, None])  # noqa: DTZ001
def test_a_day_is_a_date(log_store: ns.LogStore, before: Any) -> None:
    with pytest.raises(TypeError):
        log_store.expire_archive(before=before)


def test_another_job_is_in_the_way(data_dir: Path) -> None:
    prepared(data_dir)
    with ns.LogStore(data_dir / "logs.db") as store:
        append(store, at(1))
        refused: list[Exception] = []

        def progress(done: int, total: int) -> None:
            del done, total
            with pytest.raises(ns.ArchiveBusyError) as raised:
                store.expire_archive(before=BEFORE)
            refused.append(raised.value)

        store.archive_logs(now=NOW, progress=progress)
        assert refused


def test_an_iterator_passes_over_days_that_expire_meanwhile(data_dir: Path) -> None:
    rows = prepared(data_dir)
    with ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        reading = store.iter(archived=True)
        first = next(reading)
        with ns.LogStore(data_dir / "logs.db") as other:
            other.expire_archive(before=BEFORE)
        seen = [as_row(first), *map(as_row, reading)]
        assert set(left(rows)) <= set(seen) <= set(rows)


# --- cut short ----------------------------------------------------------------------------------------------------


def check(directory: Path, rows: list[Row], run: Run) -> None:
    path = directory / "logs.db"
    days = {row.id: ns.utc_day(row.timestamp) for row in rows}
    with ns.LogStore(path, segment_rows=SEGMENT_ROWS) as store:
        listed = {item.day for item in store.archived_days()}
        found = list(map(as_row, store.query(archived=True)))
        # Whole days, the oldest first.
        gone = [day(number) for number in range(DAYS) if day(number) not in listed]
        assert gone == [day(number) for number in range(len(gone))]
        assert len(gone) <= 3
        if any("expired" in said for said in run.acknowledged):
            assert len(gone) == 3
        assert found == [row for row in rows if days[row.id] not in gone]
        assert store.verify().problems == ()
        store.archive_logs(now=NOW)
        assert set(file_rows(Path(store.archive_dir)).values()) == {row for row in found if days[row.id] <= day(60)}
        store.expire_archive(before=BEFORE)
        assert list(map(as_row, store.query(archived=True))) == left(rows)
        assert store.get_thread_round_count(RUN) == DAYS + 1
        assert store.verify().problems == ()
        assert {name for name in content_of(Path(store.archive_dir)) if name.startswith(".")} <= {MARK}


SCENARIO = Scenario(
    expire,
    check,
    prepare=prepared,
    arguments={"before": str(BEFORE), "segment_rows": SEGMENT_ROWS},
)


def test_killed_anywhere(tmp_path: Path) -> None:
    assert len(sweep(SCENARIO, tmp_path, KILL)) >= 10


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_failed_anywhere(tmp_path: Path, fault: int) -> None:
    sweep(SCENARIO, tmp_path, fault, per_call=4)
