"""Moving days to the archive and reading through to it: the files are the same bytes on every backend."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
import reference
from contract.backends import Backend
from nerve_store.protocols import Log
from reference import DAY_MS, MAX_TIMESTAMP, Row
from support import as_row, as_rows
from support.archive import NOW, at, day, gained

IS_ABOUT_ARCHIVES = True


def fill(log: Log, *, days: int = 10, per_day: int = 7) -> list[Row]:
    log.append_many(
        ("system", "tick", f"ref-{n % 3}", f'{n} "ü\u2028🧠\\\0\x1f"', at(n % days, n)) for n in range(days * per_day)
    )
    return as_rows(log.query())


def append(log: Log, timestamp: int, ref_id: str | None = None, payload: str | None = "x") -> Row:
    return as_row(log.append("workflow", "thread_workflow_message", ref_id, payload, timestamp))


def put_run(log: Log, status: str, run_id: str = "run-1") -> Row:
    run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus(status), NOW)
    return as_row(log.upsert_workflow_run(("workflow", status, run_id, None, NOW), run, force=True))


def assert_union(backend: Backend, log: Log, expected: list[Row]) -> None:
    """Every row is in the database or in a file, as it was, and none is in both."""
    database = {row.id: row for row in as_rows(log.iter())}
    files = {row.id: row for row in backend.rows()}
    assert not database.keys() & files.keys()
    assert {**database, **files} == {row.id: row for row in expected}


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_files_are_those_of_the_log_on_one_machine(backend: Backend, tmp_path: Path, compression: Any) -> None:
    def work(log: Log) -> None:
        fill(log, days=3, per_day=2_000)
        log.append_many([("system", "empty", None, None, at(4))])
        log.archive_logs(now=NOW, compression=compression)
        # Late rows, and a file that becomes compressed or stays so.
        log.append_many([("system", "late", "ref-1", "x" * 100, at(n % 2, n)) for n in range(3_000)])
        log.archive_logs(now=NOW, max_days=1, compression="zstd")
        log.archive_logs(now=NOW)

    other = Backend("sqlite", tmp_path / "other")
    with other.stack:
        work(backend.open())
        work(other.open())
    assert backend.files() == other.files()


def test_old_days_move_to_their_files(backend: Backend, log: Log) -> None:
    rows = fill(log)
    recent = append(log, NOW)
    result = log.archive_logs(now=NOW)
    assert gained(result) == {day(n): 7 for n in range(10)}
    assert [item.day for item in result.days] == sorted(item.day for item in result.days)
    assert (result.vacuumed, result.dry_run, result.pinned_rows, result.unarchivable_rows) == (False, False, 0, 0)
    assert as_rows(log.query()) == [recent]
    assert_union(backend, log, [*rows, recent])
    assert log.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"
    listed = log.archived_days()
    assert [(item.day, item.row_count, item.path, item.size, item.sha256) for item in listed] == [
        (item.day, item.row_count, item.path, item.size, item.sha256) for item in result.days
    ]
    assert log.verify().ok


@pytest.mark.parametrize(
    ("now", "retention", "last"),
    [
        (at(31), timedelta(days=30), day(0)),
        (at(31, -1), timedelta(days=30), None),
        (at(1), timedelta(0), day(0)),
        (at(0, DAY_MS - 1), timedelta(0), None),
        (at(5, 12 * 3_600_000), timedelta(hours=60), day(2)),
        (at(5, 12 * 3_600_000 - 1), timedelta(hours=60), day(1)),
        (NOW, timedelta.max, None),
    ],
)
def test_only_days_that_ended_before_the_retention_go(
    backend: Backend, log: Log, now: int, retention: timedelta, last: date | None
) -> None:
    rows = [append(log, at(n, offset)) for n in range(4) for offset in (0, DAY_MS - 1)]
    result = log.archive_logs(now=now, retention=retention)
    expected = [] if last is None else [day(n) for n in range(4) if day(n) <= last]
    assert list(gained(result)) == expected
    assert_union(backend, log, rows)
    assert log.get_meta(ns.ARCHIVED_UP_TO) == (None if last is None else last.isoformat())


def test_first_and_last_day_of_all_can_be_archived(backend: Backend, log: Log) -> None:
    rows = [append(log, 0), append(log, MAX_TIMESTAMP - DAY_MS), append(log, MAX_TIMESTAMP)]
    result = log.archive_logs(now=MAX_TIMESTAMP, retention=timedelta(0))
    assert list(gained(result)) == [date(1970, 1, 1), date(9999, 12, 30)]
    assert_union(backend, log, rows)
    assert as_rows(log.read_archive(date(9999, 12, 30))) == [rows[1]]


def test_rows_of_active_runs_stay_until_they_end(log: Log) -> None:
    put_run(log, "started")
    pinned = append(log, at(0), "run-1")
    free = append(log, at(0), "run-2")
    result = log.archive_logs(now=NOW)
    assert (gained(result), result.pinned_rows) == ({day(0): 1}, 1)
    assert pinned in as_rows(log.query())
    assert as_rows(log.read_archive(day(0))) == [free]
    put_run(log, "completed")
    assert gained(log.archive_logs(now=NOW)) == {day(0): 1}
    assert as_rows(log.read_archive(day(0))) == [pinned, free]


def test_max_days_takes_the_oldest_days_first_and_the_watermark_follows(backend: Backend, log: Log) -> None:
    rows = fill(log)
    expected = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9], []]
    watermarks = [day(2), day(5), day(8), date(2026, 3, 1), date(2026, 3, 1)]
    for days, watermark in zip(expected, watermarks, strict=True):
        assert list(gained(log.archive_logs(now=NOW, max_days=3))) == [day(n) for n in days]
        assert log.get_meta(ns.ARCHIVED_UP_TO) == watermark.isoformat()
        assert_union(backend, log, rows)
    append(log, at(0))
    log.archive_logs(now=at(40))
    assert log.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"


def test_dry_run_changes_nothing_and_tells_all(backend: Backend, log: Log) -> None:
    rows = fill(log)
    told = log.archive_logs(now=NOW, dry_run=True)
    assert told.dry_run
    assert not backend.archive.exists()
    assert backend.files() == {}
    assert as_rows(log.query()) == rows
    assert log.get_meta(ns.ARCHIVED_UP_TO) is None
    done = log.archive_logs(now=NOW)
    assert [(d.day, d.row_count, d.size, d.sha256) for d in told.days] == [
        (d.day, d.row_count, d.size, d.sha256) for d in done.days
    ]


def test_dry_runs_need_no_right_to_write(backend: Backend) -> None:
    with backend.open() as log:
        fill(log, days=2)
        log.archive_logs(now=NOW, max_days=1)
    log = backend.open(read_only=True)
    assert gained(log.archive_logs(now=NOW, dry_run=True)) == {day(1): 7}
    assert [item.day for item in log.expire_archive(before=day(5), dry_run=True)] == [day(0)]
    for call in (lambda: log.archive_logs(now=NOW), lambda: log.expire_archive(before=day(5))):
        with pytest.raises(ns.StoreIOError):
            call()


def test_ids_go_on_after_everything_was_archived(backend: Backend) -> None:
    with backend.open() as log:
        rows = fill(log)
        log.archive_logs(now=NOW, vacuum=True)
        assert log.count() == 0
    log = backend.open()
    entry = append(log, at(0))
    assert entry.id > rows[-1].id
    assert [row.id for row in as_rows(log.query(archived=True))][-1] == entry.id


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_pages_cross_the_border_unnoticed(log: Log, compression: Any) -> None:
    rows = fill(log, days=6, per_day=40)
    log.archive_logs(now=at(33), compression=compression)
    assert 0 < log.count() < len(rows)
    model = reference.Log(database={row.id: row for row in rows})
    filters: list[dict[str, Any]] = [
        {},
        {"ref_id": "ref-1"},
        {"since": at(1), "until": at(4)},
        {"source": "system", "type": "tick"},
        {"type": "tock"},
    ]
    for options in filters:
        expected = model.query(**options)
        assert as_rows(log.query(archived=True, **options)) == expected
        assert as_rows(log.iter(archived=True, **options, descending=True)) == expected[::-1]
        assert log.count(archived=True, **options) == len(expected)
        for size in (1, 7, 64):
            found: list[Row] = []
            last = None
            while page := log.query(archived=True, after_id=last, limit=size, **options):
                found += as_rows(page)
                last = page[-1].id
            assert found == expected


def test_follower_from_an_old_id_reads_the_archive_first(log: Log) -> None:
    rows = fill(log, days=3)
    log.archive_logs(now=NOW)
    rows += [append(log, NOW), append(log, at(0))]
    follower = log.follow(after_id=0)
    assert [as_row(next(follower)) for _ in rows] == rows
    late = append(log, at(1))
    assert as_row(next(follower)) == late


def test_restored_day_is_read_and_archived_again(backend: Backend, log: Log) -> None:
    rows = fill(log, days=4)
    log.archive_logs(now=NOW)
    before = backend.files()
    assert log.restore_archive(day(1)) == 7
    assert log.restore_archive(day(1)) == 0
    restored = [row for row in rows if at(1) <= row.timestamp < at(2)]
    assert as_rows(log.query()) == restored
    assert as_rows(log.query(archived=True)) == rows
    assert log.archive_logs(now=NOW).days == ()
    assert as_rows(log.query()) == []
    assert backend.files() == before
    assert log.verify().ok


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damaged_file_is_refused_and_reported(backend: Backend, log: Log, compression: Any) -> None:
    fill(log, days=2)
    log.archive_logs(now=NOW, compression=compression)
    name, whole = next(iter(backend.files().items()))
    content = bytearray(whole)
    content[len(content) // 2] ^= 0xFF
    backend.replace(day(0), bytes(content))
    calls: list[Callable[[], object]] = [
        lambda: log.restore_archive(day(0)),
        lambda: list(log.read_archive(day(0))),
    ]
    for call in calls:
        with pytest.raises(ns.ArchiveCorruptError) as refused:
            call()
        assert name in str(refused.value)
    report = log.verify()
    assert not report.ok
    assert [Path(problem.path).name for problem in report.problems] == [name]
    assert len(as_rows(log.read_archive(day(1)))) == 7
    assert log.count() == 0


def test_missing_file_is_reported(backend: Backend, log: Log) -> None:
    fill(log, days=2)
    log.archive_logs(now=NOW)
    backend.replace(day(0), None)
    assert not log.verify().ok
    with pytest.raises(ns.ArchiveError):
        list(log.read_archive(day(0)))
    with pytest.raises(ns.ArchiveError):
        log.query(archived=True)


def test_day_that_is_not_there(log: Log) -> None:
    for missing in (day(0), date.max):
        with pytest.raises(ns.ArchiveError) as refused:
            list(log.read_archive(missing))
        assert missing.isoformat() in str(refused.value)
        assert not isinstance(refused.value, ns.ArchiveCorruptError)
        with pytest.raises(ns.ArchiveError):
            log.restore_archive(missing)


def test_progress_that_raises_stops_the_job_and_loses_nothing(backend: Backend, log: Log) -> None:
    rows = fill(log, days=2, per_day=1_500)
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))
        if done >= 2_000:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        log.archive_logs(now=NOW, progress=progress)
    assert 1 < len(calls) < 100
    assert as_rows(log.query(archived=True)) == rows
    log.archive_logs(now=NOW)
    assert_union(backend, log, rows)


def test_another_job_is_waited_for_or_refused(backend: Backend) -> None:
    log, other = backend.open(), backend.open()
    rows = fill(log, days=2, per_day=1_500)

    def progress(done: int, total: int) -> None:
        with pytest.raises(ns.ArchiveBusyError):
            other.archive_logs(now=NOW)

    log.archive_logs(now=NOW, progress=progress)
    assert other.archive_logs(now=NOW, wait=5.0).days == ()
    assert_union(backend, log, rows)


def test_files_of_another_archive_job_are_adopted(backend: Backend) -> None:
    """As after a crash between publishing a file and deleting its rows."""
    log = backend.open()
    rows = fill(log, days=2)
    log.archive_logs(now=NOW)
    for number in range(2):
        log.restore_archive(day(number))
    late = append(log, at(0))
    assert gained(log.archive_logs(now=NOW)) == {day(0): 1}
    assert_union(backend, log, [*rows, late])


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("taken", [0, 1, 6])
@pytest.mark.parametrize("descending", [False, True])
def test_rows_that_join_days_while_they_are_read_come_once_and_in_order(
    log: Log, descending: bool, taken: int, compression: Any
) -> None:
    put_run(log, "started")
    pinned = [append(log, at(n), "run-1") for n in (2, 1, 0)]
    rows = fill(log, days=3, per_day=3)
    log.archive_logs(now=NOW)
    # Some are before the first row of their day, and some after its last one.
    rows += [append(log, at(n)) for n in (2, 0, 1)]
    expected = [row for row in rows if row.timestamp < NOW]
    reads: list[tuple[Any, list[Row]]] = []
    for source in (None, "workflow", "system"):
        found = log.iter(archived=True, until=at(9), descending=descending, source=source)
        reads.append((found, as_rows(next(found) for _ in range(min(taken, 6 if source is None else 1)))))
    put_run(log, "completed")
    assert gained(log.archive_logs(now=NOW, compression=compression)) == {day(n): 2 for n in range(3)}
    wanted = [expected, *([row for row in expected if row.source == source] for source in ("workflow", "system"))]
    for (found, first), right in zip(reads, wanted, strict=True):
        assert [*first, *as_rows(found)] == (right[::-1] if descending else right)
    assert set(pinned) <= set(expected)
