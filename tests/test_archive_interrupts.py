"""Archive jobs that are interrupted, and what comes in meanwhile: the next job completes them."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

import nerve_store as ns
from support import (
    INSERT_ROW_WITH_ID,
    Stop,
    StopAfter,
    as_row,
    as_rows,
    assert_union,
    database_rows,
    day_files,
    foreign_many,
    run_child,
    start_child,
)
from support.archive import MARK, NOW, append, archived_elsewhere, at, day, fill, gained, message, put_run


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
    progress = StopAfter(step)
    with pytest.raises(Stop):
        log_store.archive_logs(now=NOW, progress=progress)
    assert progress.calls == step + 1
    assert_union(log_store, rows)
    log_store.archive_logs(now=NOW)
    union = assert_union(log_store, rows)
    assert union.database == {}
    assert len(union.files) == 5
    # Nothing staged is left behind.
    assert {path.name for path in Path(log_store.archive_dir).iterdir() if not path.name.endswith(".jsonl")} <= {
        ".lock",
        MARK,
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


def test_second_archiver_waits_as_long_as_it_is_asked(log_store: ns.LogStore) -> None:
    rows = fill(log_store, days=2)
    with start_child("hold_archive", path=log_store.path, now=NOW) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == "holding"
        begin = time.monotonic()
        with pytest.raises(ns.ArchiveBusyError):
            log_store.archive_logs(now=NOW, wait=0.3)
        assert 0.3 <= time.monotonic() - begin < 20
        late = append(log_store, at(0))
        waiting = start_child("archive", path=log_store.path, now=NOW, wait=60)
        with waiting:
            time.sleep(0.2)
            assert waiting.poll() is None
            out, _ = child.communicate("go on\n", timeout=60)
            assert sum(json.loads(out)["days"].values()) in {len(rows), len(rows) + 1}
            said, _ = waiting.communicate(timeout=60)
            assert "error" not in json.loads(said)
    assert assert_union(log_store, [*rows, late]).database == {}
    assert log_store.verify().ok


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_late_rows_of_the_day_that_is_being_archived_are_not_lost(
    log_store: ns.LogStore, compression: Literal["zstd"] | None
) -> None:
    """Another thread appends to the very days that a run exports, publishes and deletes."""
    rows = fill(log_store, days=3, per_day=400)
    stop = threading.Event()
    with ns.LogStore(log_store.path, durability="normal") as writer:

        def write() -> None:
            while not stop.is_set():
                rows.extend(append(writer, at(number), "run-1", message(len(rows))) for number in range(3))

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(8):
            log_store.archive_logs(now=NOW, compression=compression)
        stop.set()
        thread.join(60)
    assert_union(log_store, rows)
    assert as_rows(log_store.query(archived=True)) == rows
    log_store.archive_logs(now=NOW, compression=compression)
    assert assert_union(log_store, rows).database == {}
    assert log_store.verify().ok


@pytest.mark.thread_unsafe(reason="signals reach the main thread alone")
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_ctrl_c_in_the_middle_leaves_nothing_staged(
    log_store: ns.LogStore, compression: Literal["zstd"] | None
) -> None:
    """A real signal, while the run is in the middle of a day."""
    log_store.append_many([("system", "tick", None, "x" * 100, at(n % 4)) for n in range(8_000)])
    rows = database_rows(log_store)
    interrupted = 0
    for step in range(8):

        def progress(done: int, _total: int, step: int = step) -> None:
            if done >= step * 1_000:
                signal.raise_signal(signal.SIGINT)

        try:
            log_store.archive_logs(now=NOW, compression=compression, progress=progress)
        except KeyboardInterrupt:
            interrupted += 1
        names = {path.name for path in Path(log_store.archive_dir).iterdir()} - {MARK}
        assert all(name.endswith((".jsonl", ".jsonl.zst")) for name in names), names
        assert as_rows(log_store.query(archived=True)) == rows
        assert log_store.verify().ok
    assert interrupted > 0
    log_store.archive_logs(now=NOW, compression=compression)
    assert assert_union(log_store, rows).database == {}


def test_ctrl_c_during_a_restore_is_completed_by_the_next(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, None, at(0, n)) for n in range(5_000)])
    rows = database_rows(log_store)
    log_store.archive_logs(now=NOW)

    def progress(done: int, _total: int) -> None:
        if done >= 2_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_store.restore_archive(day(0), progress=progress)
    assert 0 < log_store.count() < len(rows)
    assert as_rows(log_store.query(archived=True)) == rows
    assert log_store.verify().ok
    log_store.restore_archive(day(0))
    assert database_rows(log_store) == rows
