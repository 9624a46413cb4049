"""A day file that cannot be read stops what needs it, by name, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
import reference
from reference import Row
from support import as_row, as_rows, database_rows
from support.archive import NOW, append, at, day, message

BAD_DAY = day(2)


def line(row: Row) -> bytes:
    return reference.archive_line(row).encode() + b"\n"


def rows_of(ref_id: str | None) -> list[Row]:
    return [Row(9_000 + n, "workflow", "thread_workflow_message", ref_id, message(n), at(2, n)) for n in range(3)]


OTHERS = b"".join(line(row) for row in rows_of("other"))
FRACTION = OTHERS.replace(f'"timestamp":{at(2, 1)}'.encode(), f'"timestamp":{at(2, 1)}.5'.encode())

BAD_FILES: dict[str, bytes] = {
    "torn in the payload": OTHERS[:-40],
    "torn in the reference": OTHERS[: OTHERS.rindex(b'"refId":') + 12],
    "torn in the id": OTHERS[: OTHERS.rindex(b'{"id":') + 9],
    "torn at once": b"{",
    "no newline": OTHERS[:-1],
    "fraction": FRACTION,
    "zeros": OTHERS + b"\0" * 4096,
    "zeros alone": b"\0" * 4096,
    "text": b"not a row\n" + OTHERS,
    "out of order": OTHERS + line(rows_of("other")[0]),
    "another day": OTHERS.replace(f'"timestamp":{at(2)}'.encode(), f'"timestamp":{at(3)}'.encode()),
}


def put(store: ns.LogStore, content: bytes, suffix: str = "jsonl") -> Path:
    directory = Path(store.archive_dir)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{BAD_DAY}.{suffix}"
    path.write_bytes(content)
    return path


def live_run(store: ns.LogStore, run_id: str = "run-1") -> list[Row]:
    """A run that is wholly in the database: later than the bad file."""
    run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus.STARTED, at(5))
    entry = ("workflow", "started", run_id, '{"prompt": "p", "maxRounds": 3}', at(5))
    return [
        as_row(store.upsert_workflow_run(entry, run)),
        *(append(store, at(5, n), run_id, message(n)) for n in range(3)),
    ]


@pytest.mark.parametrize("known", [False, True], ids=["unlisted", "listed"])
@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_run_that_is_wholly_in_the_database_is_read(log_store: ns.LogStore, content: bytes, known: bool) -> None:
    if known:
        append(log_store, at(2), "other")
        log_store.archive_logs(now=NOW)
    path = put(log_store, content)
    rows = live_run(log_store)
    assert log_store.get_trigger_payload("run-1") == {"prompt": "p", "maxRounds": 3, "dryRun": False}
    assert [found.content for found in log_store.get_thread_messages("run-1")] == [f"message {n}" for n in range(3)]
    assert log_store.get_thread_events("run-1") == []
    assert log_store.get_thread_round_count("run-1") == 3
    assert [found.log_id for found in log_store.get_thread_rounds("run-1", limit=9)] == [r.id for r in rows[:0:-1]]
    assert as_rows(log_store.query(ref_id="run-1", archived=True)) == rows
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        log_store.get_thread_messages("other")


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_other_days_are_listed_read_and_archived(
    log_store: ns.LogStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [append(log_store, at(n), "run-1") for n in (0, 1, 3, 4)]
    log_store.archive_logs(now=NOW, max_days=2)
    path = put(log_store, content)
    assert [item.day for item in log_store.archived_days()] == [day(0), day(1)]
    assert as_rows(log_store.query(archived=True, until=at(2) - 1)) == rows[:2]
    assert as_rows(log_store.query(archived=True, since=at(3))) == rows[2:]
    assert log_store.count(archived=True, since=at(3)) == 2
    result = log_store.archive_logs(now=NOW)
    assert [item.day for item in result.days] == [day(3), day(4)]
    assert [Path(problem.path) for problem in result.problems] == [path]
    assert path.name in caplog.text
    assert as_rows(log_store.query(archived=True, since=at(3))) == rows[2:]
    assert path.name in {Path(problem.path).name for problem in log_store.verify().problems}
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        log_store.query(archived=True)
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        list(log_store.read_archive(BAD_DAY))
    path.unlink()
    assert as_rows(log_store.query(archived=True)) == rows


@pytest.mark.parametrize("kind", ["directory", "dangling link"])
def test_what_is_no_file_stops_nothing_else(log_store: ns.LogStore, kind: str) -> None:
    Path(log_store.archive_dir).mkdir(parents=True)
    path = Path(log_store.archive_dir) / f"{BAD_DAY}.jsonl"
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("nowhere"))
    rows = live_run(log_store)
    assert len(log_store.get_thread_messages("run-1")) == 3
    assert log_store.archived_days() == []
    assert as_rows(log_store.query(archived=True, since=at(3))) == rows
    with pytest.raises(OSError, match=path.name):
        log_store.query(archived=True)


READS: dict[str, Callable[[ns.LogStore], Any]] = {
    "run": lambda store: store.get_thread_messages("other"),
    "ids": lambda store: store.query(archived=True, after_id=8_999),
    "type": lambda store: store.query(archived=True, type="thread_workflow_message"),
    "all": lambda store: store.count(archived=True),
    "iter": lambda store: list(store.iter(archived=True)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_what_needs_the_file_names_it(log_store: ns.LogStore, read: Callable[[ns.LogStore], Any]) -> None:
    live_run(log_store)
    path = put(log_store, FRACTION)
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        read(log_store)


def test_ids_that_can_be_read_keep_other_pages_free_of_the_file(log_store: ns.LogStore) -> None:
    rows = [append(log_store, at(4, n)) for n in range(5)]
    put(log_store, FRACTION)
    assert as_rows(log_store.query(archived=True, before_id=9_000)) == rows
    assert as_rows(log_store.query(archived=True, limit=5)) == rows
    follower = log_store.follow(after_id=0, archived=True)
    assert [as_row(next(follower)) for _ in rows] == rows
    with pytest.raises(ns.ArchiveCorruptError):
        next(follower)


# --- files that are being rewritten ------------------------------------------------------------------------------


def rewrite_slowly(path: Path, content: bytes, stop: threading.Event) -> None:
    """As the predecessor writes: truncated, then written piece by piece."""
    while not stop.is_set():
        with path.open("wb") as file:
            for begin in range(0, len(content), 500):
                file.write(content[begin : begin + 500])
                file.flush()
                time.sleep(0.002)
        time.sleep(0.02)


@pytest.mark.parametrize("known", [False, True], ids=["unlisted", "listed"])
def test_readers_wait_for_a_file_that_is_being_rewritten(log_store: ns.LogStore, known: bool) -> None:
    """The predecessor deletes a day's rows after it has written its file: they are in the database meanwhile."""
    rows = [append(log_store, at(2, n), "run", "x" * 50) for n in range(20)]
    content = b"".join(line(row) for row in rows)
    path = put(log_store, content)
    if known:
        log_store.archive_logs(now=NOW)
        log_store.restore_archive(BAD_DAY)
    stop = threading.Event()
    writer = threading.Thread(target=rewrite_slowly, args=(path, content, stop))
    follower = log_store.follow(after_id=0, archived=True)
    writer.start()
    try:
        for _ in range(10):
            assert as_rows(log_store.query(archived=True)) == rows
            assert len(log_store.query(ref_id="run", archived=True)) == len(rows)
        seen = [as_row(next(follower)) for _ in rows]
        fresh = append(log_store, at(50))
        seen.append(as_row(next(follower)))
    finally:
        stop.set()
        writer.join()
    assert seen == [*rows, fresh]
    assert database_rows(log_store) == [*rows, fresh]


def test_a_torn_file_is_reported_within_a_bounded_time(log_store: ns.LogStore) -> None:
    put(log_store, OTHERS[:-40])
    began = time.monotonic()
    with pytest.raises(ns.ArchiveCorruptError):
        log_store.query(archived=True)
    assert time.monotonic() - began < 15
