"""Reading through to the archive: rows that left the database are read as if they had not, also while they leave."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

import nerve_store as ns
import reference
from reference import Row
from support import as_message, as_row, as_rows, database_rows, foreign_script, foreign_sql, start_child
from support.archive import MANIFEST_TABLES, NOW, append, archived_elsewhere, at, day, fill, message

DAYS = 6
ROWS_PER_DAY = 700
RUN = "run-7"


def fill_interleaved(store: ns.LogStore) -> list[Row]:
    """Rows of all days in turn, so that each day's file spans nearly all ids; messages of a run among them."""
    store.append_many(
        ("workflow", "thread_workflow_message", RUN if n % 50 == 0 else f"run-{n % 7}x", message(n), at(n % DAYS, n))
        for n in range(DAYS * ROWS_PER_DAY)
    )
    return database_rows(store)


@contextmanager
def watching(look: Callable[[], None], threads: int = 1) -> Iterator[list[int]]:
    """Calls `look` again and again in other threads until the block is left; what it raised is raised here."""
    stop, looks, raised = threading.Event(), [0] * threads, []

    def watch(number: int) -> None:
        try:
            while not stop.is_set():
                look()
                looks[number] += 1
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            raised.append(error)

    watchers = [threading.Thread(target=watch, args=(number,)) for number in range(threads)]
    for watcher in watchers:
        watcher.start()
    try:
        yield looks
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join(120)
    if raised:
        raise raised[0]
    assert all(looks), "nothing was seen meanwhile"


def archive_step_by_step(store: ns.LogStore) -> None:
    """Every day in a run of its own, then late rows into each, once plain and once compressed."""
    for _ in range(DAYS):
        store.archive_logs(now=NOW, max_days=1)
    store.archive_logs(now=NOW)


# --- while an archiver works -------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", ["query", "query descending", "iter", "iter descending", "count", "paging", "follow"])
def test_reader_sees_every_row_once_while_rows_leave(log_store: ns.LogStore, read: str) -> None:
    rows = fill_interleaved(log_store)
    reader = ns.LogStore(log_store.path, durability="normal")
    descending = read.endswith("descending")
    expected = rows[::-1] if descending else rows

    def paged() -> Iterator[ns.LogEntry]:
        last = 0
        while page := reader.query(archived=True, after_id=last, limit=97):
            yield from page
            last = page[-1].id

    reads: dict[str, Callable[[], list[Row]]] = {
        "query": lambda: as_rows(reader.query(archived=True, descending=descending)),
        "iter": lambda: as_rows(reader.iter(archived=True, descending=descending)),
        "paging": lambda: as_rows(paged()),
        "follow": lambda: as_rows(itertools.islice(reader.follow(after_id=0), len(rows))),
    }

    def look() -> None:
        if read == "count":
            assert reader.count(archived=True) == len(rows)
            assert reader.count(archived=True, ref_id=RUN) == sum(row.ref_id == RUN for row in rows)
        else:
            assert reads[read.split(maxsplit=1)[0]]() == expected

    try:
        with watching(look):
            archive_step_by_step(log_store)
            for number in range(DAYS):
                log_store.restore_archive(day(number))
            log_store.archive_logs(now=NOW)
    finally:
        reader.close()
    assert log_store.count() == 0


def test_messages_and_rounds_are_never_lost_while_rows_leave(log_store: ns.LogStore) -> None:
    rows = fill_interleaved(log_store)
    messages = reference.thread_messages(rows, RUN)
    rounds = reference.thread_round_count(rows, RUN)

    def look() -> None:
        assert [as_message(item) for item in log_store.get_thread_messages(RUN)] == messages
        assert log_store.get_thread_round_count(RUN) == rounds
        newest = log_store.get_thread_rounds(RUN, limit=5)
        assert [item.round for item in newest] == list(range(rounds, rounds - 5, -1))

    with watching(look, threads=2):
        archive_step_by_step(log_store)
        for number in range(DAYS):
            log_store.restore_archive(day(number))
        log_store.archive_logs(now=NOW)


@pytest.mark.parametrize("known", [False, True], ids=["unknown files", "known files"])
def test_reader_sees_every_row_once_while_files_become_compressed(data_dir: Path, known: bool) -> None:
    """Each day's plain file is replaced by a compressed one; of unknown files the reader's manifest says nothing."""
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = fill_interleaved(store)
        store.archive_logs(now=NOW)
        rows += [append(store, at(number), RUN, message(number)) for number in range(DAYS)]
    if not known:
        foreign_script(data_dir / "logs.db", "".join(f"DELETE FROM {table};" for table in MANIFEST_TABLES))
    messages = reference.thread_messages(rows, RUN)
    with ns.LogStore(data_dir / "logs.db") as store, ns.LogStore(data_dir / "logs.db") as reader:

        def look() -> None:
            assert as_rows(reader.query(archived=True)) == rows
            assert [as_message(item) for item in reader.get_thread_messages(RUN)] == messages
            assert as_rows(reader.read_archive(day(0)))[0] == rows[0]

        with watching(look):
            store.archive_logs(now=NOW, compression="zstd")
        look()
        assert {item.format for item in store.archived_days()} == {"jsonl.zst"}


def test_reader_sees_every_row_once_while_another_process_archives(log_store: ns.LogStore) -> None:
    rows = fill_interleaved(log_store)

    def look() -> None:
        assert as_rows(log_store.query(archived=True)) == rows
        assert as_rows(log_store.iter(archived=True)) == rows

    with watching(look), start_child("archive", path=log_store.path, now=NOW, compression="zstd") as child:
        out, _ = child.communicate(timeout=60)
        assert sum(json.loads(out)["days"].values()) == len(rows)
    assert log_store.count() == 0


def test_iterator_that_was_begun_before_the_run_goes_on_in_the_files(log_store: ns.LogStore) -> None:
    rows = fill_interleaved(log_store)
    for descending, steps in itertools.product([False, True], [0, 1, 1500]):
        entries = log_store.iter(archived=True, descending=descending)
        seen = as_rows(itertools.islice(entries, steps))
        log_store.archive_logs(now=NOW, max_days=1)
        expected = rows[::-1] if descending else rows
        assert [*seen, *as_rows(entries)] == expected


def test_verification_is_undisturbed_by_an_archive_run(log_store: ns.LogStore) -> None:
    rows = fill_interleaved(log_store)

    def look() -> None:
        report = log_store.verify()
        assert report.ok, report.problems

    with watching(look):
        archive_step_by_step(log_store)
    assert as_rows(log_store.query(archived=True)) == rows


# --- across the border -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_pages_cross_the_border_unnoticed(log_store: ns.LogStore, compression: Literal["zstd"] | None) -> None:
    rows = fill(log_store, days=DAYS, per_day=40)
    log_store.archive_logs(now=at(33), compression=compression)
    assert 0 < log_store.count() < len(rows)
    for filters in ({}, {"ref_id": "ref-1"}, {"since": at(1), "until": at(4)}, {"source": "system", "type": "tick"}):
        options: dict[str, Any] = filters
        expected = as_rows(log_store.query(archived=True, **options))
        assert expected == reference.Log(database={row.id: row for row in rows}).query(**options)
        for size in (1, 7, 64):
            found: list[Row] = []
            last = None
            while page := log_store.query(archived=True, after_id=last, limit=size, **options):
                found += as_rows(page)
                last = page[-1].id
            assert found == expected


def test_read_opens_only_the_files_that_can_match(log_store: ns.LogStore) -> None:
    """The others may be damaged beyond recognition."""
    for number in range(DAYS):
        log_store.append_many([("system", f"type-{number}", f"ref-{number}", None, at(number, n)) for n in range(5)])
    rows = database_rows(log_store)
    log_store.archive_logs(now=NOW)
    for number in range(DAYS):
        if number != 2:
            (Path(log_store.archive_dir) / f"{day(number)}.jsonl").write_bytes(b"damaged")
    of_day = [row for row in rows if at(2) <= row.timestamp < at(3)]
    filters: list[dict[str, Any]] = [
        {"ref_id": "ref-2"},
        {"type": "type-2"},
        {"since": at(2), "until": at(3, -1)},
        {"after_id": of_day[0].id - 1, "limit": 5},
        {"before_id": of_day[-1].id + 1, "limit": 5, "descending": True},
        {"after_id": of_day[0].id - 1, "before_id": of_day[-1].id + 1},
    ]
    for wanted in filters:
        expected = of_day[::-1] if wanted.get("descending") else of_day
        assert as_rows(log_store.query(archived=True, **wanted)) == expected, wanted
    with pytest.raises(ns.ArchiveCorruptError):
        log_store.query(archived=True, ref_id="ref-1")


def test_follower_from_an_old_id_reads_the_archive_first(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=3)
    log_store.archive_logs(now=NOW)
    rows += [append(log_store, NOW), append(log_store, at(0))]
    follower = log_store.follow(after_id=0)
    assert as_rows(itertools.islice(follower, len(rows))) == rows
    late = append(log_store, at(1))
    assert as_row(next(follower)) == late
    assert as_rows(log_store.follow(after_id=0, archived=False)._poll()) == [*rows[-2:], late]


def test_rows_are_not_read_from_the_archive_unless_asked(log_store: ns.LogStore) -> None:
    fill(log_store, days=2)
    log_store.archive_logs(now=NOW)
    assert log_store.query() == []
    assert list(log_store.iter()) == []
    assert log_store.count() == 0


# --- restored rows -----------------------------------------------------------------------------------------------


def test_restored_day_is_found_by_every_filter_and_archived_again(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=4)
    log_store.archive_logs(now=NOW)
    before = {path.name: path.read_bytes() for path in Path(log_store.archive_dir).iterdir()}
    assert log_store.restore_archive(day(1)) == 7
    assert log_store.restore_archive(day(1)) == 0
    restored = [row for row in rows if at(1) <= row.timestamp < at(2)]
    assert database_rows(log_store) == restored
    for filters in ({"ref_id": restored[0].ref_id}, {"type": "tick"}, {"since": at(1), "until": at(2)}, {"limit": 3}):
        options: dict[str, Any] = filters
        assert as_rows(log_store.query(**options)) == reference.Log({row.id: row for row in restored}).query(**options)
    assert as_rows(log_store.query(archived=True)) == rows
    assert log_store.archive_logs(now=NOW).days == ()
    assert database_rows(log_store) == []
    assert {path.name: path.read_bytes() for path in Path(log_store.archive_dir).iterdir()} == before
    assert log_store.verify().ok


def test_rows_of_a_lost_database_are_restored_from_the_files(data_dir: Path, tmp_path: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = fill(store)
    finished = archived_elsewhere(data_dir, tmp_path / "scratch")
    shutil.copytree(finished, tmp_path / "new" / "archive" / "logs")
    with ns.LogStore(tmp_path / "new" / "logs.db") as store:
        assert as_rows(store.query(archived=True)) == rows
        assert sum(store.restore_archive(item.day) for item in store.archived_days()) == len(rows)
        assert database_rows(store) == rows
        assert append(store, at(0)).id > rows[-1].id


# --- tables that are not there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_database_that_lacks_derived_tables_is_read_and_mended(data_dir: Path, read_only: bool) -> None:
    """Another program dropped them, or an earlier version had not invented them."""
    with ns.LogStore(data_dir / "logs.db", segment_rows=8) as store:
        rows = fill(store)
        store.archive_logs(now=at(33))
    tables = (*MANIFEST_TABLES, "log_restored", "log_gaps")
    foreign_script(data_dir / "logs.db", "".join(f"DROP TABLE {table};" for table in tables))
    with ns.LogStore(data_dir / "logs.db", read_only=read_only, segment_rows=8) as store:
        assert as_rows(store.query(archived=True)) == rows
        assert as_rows(store.query(ref_id="ref-1")) == [row for row in database_rows(store) if row.ref_id == "ref-1"]
        assert store.verify().ok
        if not read_only:
            store.archive_logs(now=NOW)
            assert as_rows(store.query(archived=True)) == rows
            assert store.verify().ok


def test_index_that_is_built_after_rows_were_archived_does_not_count_them(data_dir: Path) -> None:
    """Archived rows lie between those of a segment; more of the segment's rows join them later."""
    with ns.LogStore(data_dir / "logs.db", segment_rows=8) as store:
        rows = fill(store)
        store.archive_logs(now=NOW, max_days=4)
        store.reindex()
        assert store.verify().ok
        store.archive_logs(now=NOW, max_days=3)
        assert store.verify().ok
        foreign_sql(store.path, "DELETE FROM logs WHERE id = ?", (database_rows(store)[0].id,))
        (problem,) = store.verify().problems
        assert "neither" in problem.reason
        assert len(rows) - 1 == store.count(archived=True)
