"""Threads, processes and forks: every acknowledged row is there, once."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import DAY_MS, Row, day_start, utc_day
from support import (
    acknowledged_ids,
    as_row,
    assert_union,
    database_rows,
    foreign_sql,
    read_union,
    run_child,
    start_child,
)

NOW = 1_800_000_000_000
OLD = NOW - 100 * DAY_MS


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """Run each job in a thread of its own, all starting at once; their results."""
    barrier = threading.Barrier(len(jobs))

    def begin(job: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(begin, job) for job in jobs]]


# --- threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_threads_append_at_once(log_store: ns.LogStore, durability: Any) -> None:
    def appender(name: str) -> Callable[[], list[Row]]:
        return lambda: [
            as_row(log_store.append("system", "tick", name, str(n), n, durability=durability)) for n in range(100)
        ]

    results = together(*(appender(f"caller-{n}") for n in range(8)))
    for rows in results:
        assert [row.id for row in rows] == sorted(row.id for row in rows)
    acknowledged = {row.id: row for rows in results for row in rows}
    assert len(acknowledged) == 800
    assert {row.id: row for row in database_rows(log_store)} == acknowledged


def test_batches_of_threads_stay_together(log_store: ns.LogStore) -> None:
    def appender(name: str) -> Callable[[], list[range]]:
        return lambda: [log_store.append_many([("system", "tick", name, f"{n}", n)] * 25) for n in range(20)]

    results = together(*(appender(f"caller-{n}") for n in range(6)))
    ranges = [ids for result in results for ids in result]
    assert sorted(row_id for ids in ranges for row_id in ids) == list(range(1, 6 * 20 * 25 + 1))
    rows = {row.id: row for row in database_rows(log_store)}
    for number, result in enumerate(results):
        for batch, ids in enumerate(result):
            assert {(rows[row_id].ref_id, rows[row_id].payload) for row_id in ids} == {(f"caller-{number}", f"{batch}")}
        assert [ids.start for ids in result] == sorted(ids.start for ids in result)


def test_one_callers_bad_row_does_not_fail_anothers(log_store: ns.LogStore) -> None:
    def good() -> int:
        return len([log_store.append("system", "good", None, None, n) for n in range(100)])

    def bad() -> int:
        refused = 0
        for number in range(100):
            with pytest.raises(ValueError, match=r"."):
                log_store.append_many([("system", "bad", None, None, 0), ("system", "bad\ud800", None, None, number)])
            refused += 1
        return refused

    assert together(good, bad, good, bad) == [100] * 4
    assert Counter(row.type for row in database_rows(log_store)) == {"good": 200}


def test_reader_sees_ids_in_commit_order_without_gaps(log_store: ns.LogStore) -> None:
    """A reader that goes on after the last id it saw misses nothing: no smaller id becomes visible later."""
    stop = threading.Event()

    def write() -> int:
        for number in range(150):
            log_store.append("system", "tick", None, None, number)
        return 150

    def read() -> list[int]:
        seen: list[int] = []
        while True:
            finished = stop.is_set()
            seen += [entry.id for entry in log_store.query(after_id=seen[-1] if seen else 0)]
            if finished:
                return seen

    def write_then_stop() -> int:
        try:
            return sum(together(write, write, write))
        finally:
            stop.set()

    total, seen, also_seen = together(write_then_stop, read, read)
    assert seen == also_seen == list(range(1, total + 1))


def test_reads_of_threads_do_not_disturb_each_other(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", f"type-{n % 5}", f"run-{n % 7}", str(n), n) for n in range(2_000)])

    def reader(number: int) -> Callable[[], bool]:
        def read() -> bool:
            for _ in range(20):
                assert [entry.timestamp for entry in log_store.query(ref_id=f"run-{number}")] == list(
                    range(number, 2_000, 7)
                )
                assert log_store.count(type=f"type-{number % 5}") == 400
                assert sum(1 for _ in log_store.iter(type=f"type-{number % 5}")) == 400
                assert log_store.sql("SELECT count(*) FROM logs") == [(2_000,)]
            return True

        return read

    assert all(together(*(reader(number) for number in range(6))))


def test_one_iterator_shared_by_threads_gives_each_row_once(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, None, n) for n in range(5_000)])
    rows = log_store.iter()
    taken = together(*([lambda: [entry.id for entry in rows]] * 4))
    assert sorted(row_id for ids in taken for row_id in ids) == list(range(1, 5_001))


def test_only_one_of_many_threads_makes_a_transition(log_store: ns.LogStore) -> None:
    """Compare-and-set: eight dispatchers, one of them starts the run."""
    for number in range(20):
        run_id = f"run-{number}"
        run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus.QUEUED, 1)
        log_store.upsert_workflow_run(("workflow", "queued", run_id, None, 1), run)

        def start(run_id: str = run_id) -> bool:
            try:
                log_store.transition(run_id, "started", expect="queued", timestamp=2)
            except ns.IllegalTransitionError:
                return False
            return True

        assert sum(together(*([start] * 8))) == 1
        assert log_store.count(type="started", ref_id=run_id) == 1


def test_close_waits_for_calls_under_way(data_dir: Path) -> None:
    """Each append is either acknowledged and there, or refused as closed; nothing in between."""
    for attempt in range(10):
        path = data_dir / f"{attempt}.db"
        store = ns.LogStore(path)
        started = threading.Event()

        def appender(store: ns.LogStore = store, started: threading.Event = started) -> list[int]:
            ids: list[int] = []
            while True:
                try:
                    ids.append(store.append("system", "tick").id)
                except ns.StoreClosedError:
                    return ids
                started.set()

        def closer(store: ns.LogStore = store, started: threading.Event = started) -> list[int]:
            assert started.wait(timeout=30)
            store.close()
            return []

        acknowledged = sorted(row_id for ids in together(appender, appender, appender, closer) for row_id in ids)
        with ns.LogStore(path) as reopened:
            assert [entry.id for entry in reopened.query()] == acknowledged
            assert acknowledged


def test_appends_and_archive_runs_at_once_lose_nothing(log_store: ns.LogStore) -> None:
    def append_all(name: str) -> Callable[[], list[Row]]:
        def append() -> list[Row]:
            rows: list[Row] = []
            for number in range(60):
                timestamp = OLD + (number % 5) * DAY_MS
                ids = log_store.append_many([("system", "tick", name, str(number), timestamp)] * 5, durability="normal")
                rows += [Row(row_id, "system", "tick", name, str(number), timestamp) for row_id in ids]
            return rows

        return append

    def archive() -> list[Row]:
        for _ in range(15):
            log_store.archive_logs(now=NOW)
        return []

    rows = [row for result in together(append_all("a"), append_all("b"), append_all("c"), archive) for row in result]
    assert len(rows) == 900
    assert_union(log_store, rows)
    log_store.archive_logs(now=NOW)
    assert assert_union(log_store, rows).database == {}


# --- one archiver at a time --------------------------------------------------------------------------------------


def archive_in_a_thread(store: ns.LogStore, stack: ExitStack) -> tuple[threading.Event, threading.Thread]:
    """An archive job that stands still in its progress callback until the event that is returned is set."""
    holding, go_on = threading.Event(), threading.Event()

    def hold(_done: int, _total: int) -> None:
        holding.set()
        assert go_on.wait(timeout=60)

    thread = threading.Thread(target=store.archive_logs, kwargs={"now": NOW, "progress": hold})
    thread.start()
    stack.callback(thread.join, 60)
    stack.callback(go_on.set)
    assert holding.wait(timeout=30)
    return go_on, thread


@pytest.fixture
def old_rows(log_store: ns.LogStore) -> list[Row]:
    log_store.append_many([("system", "tick", None, str(n), OLD + n % 3 * DAY_MS) for n in range(30)])
    return database_rows(log_store)


def test_second_archiver_is_refused(log_store: ns.LogStore, old_rows: list[Row]) -> None:
    with ExitStack() as stack:
        go_on, thread = archive_in_a_thread(log_store, stack)
        with pytest.raises(ns.ArchiveBusyError) as refused:
            log_store.archive_logs(now=NOW)
        assert isinstance(refused.value, ns.StoreBusyError | TimeoutError)
        with ns.LogStore(log_store.path) as other, pytest.raises(ns.ArchiveBusyError):
            other.archive_logs(now=NOW)
        said = json.loads(run_child("archive", path=log_store.path, now=NOW).stdout)
        assert said["error"] == "ArchiveBusyError"
        assert_union(log_store, old_rows)
        go_on.set()
        thread.join(60)
    assert assert_union(log_store, old_rows).database == {}
    assert log_store.archive_logs(now=NOW).days == ()


def test_archiver_of_another_process_is_respected(log_store: ns.LogStore, old_rows: list[Row]) -> None:
    with start_child("hold_archive", path=log_store.path, now=NOW) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == "holding"
        with pytest.raises(ns.ArchiveBusyError):
            log_store.archive_logs(now=NOW)
        assert_union(log_store, old_rows)
        out, _ = child.communicate("go on\n", timeout=60)
        assert sum(json.loads(out)["days"].values()) == 30
    assert assert_union(log_store, old_rows).database == {}
    assert log_store.archive_logs(now=NOW).days == ()


def test_archiver_that_died_does_not_stand_in_the_way(log_store: ns.LogStore, old_rows: list[Row]) -> None:
    with start_child("hold_archive", path=log_store.path, now=NOW) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == "holding"
        child.kill()
        child.wait(timeout=30)
    assert len(log_store.archive_logs(now=NOW).days) == 3
    assert assert_union(log_store, old_rows).database == {}


def test_dry_run_is_possible_beside_an_archiver(log_store: ns.LogStore, old_rows: list[Row]) -> None:
    with ExitStack() as stack:
        archive_in_a_thread(log_store, stack)
        assert len(log_store.archive_logs(now=NOW, dry_run=True).days) == 3
        assert_union(log_store, old_rows)


def test_others_read_and_write_while_an_archiver_stands_still(log_store: ns.LogStore, old_rows: list[Row]) -> None:
    with ExitStack() as stack:
        archive_in_a_thread(log_store, stack)
        entry = log_store.append("system", "meanwhile", None, None, OLD)
        with ns.LogStore(log_store.path, busy_timeout=0.5) as other:
            other.set_meta("key", "value")
            assert other.count() == 31
        foreign_sql(log_store.path, "INSERT INTO meta VALUES ('foreign', 'value')")
        assert log_store.get_meta("foreign") == "value"
    log_store.archive_logs(now=NOW)
    assert assert_union(log_store, [*old_rows, as_row(entry)]).database == {}
    assert {utc_day(row.timestamp) for row in old_rows} == read_union(log_store).files.keys()
    assert day_start(utc_day(OLD)) <= OLD


# --- processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_per_call", [1, 20])
def test_processes_append_at_once(log_store: ns.LogStore, rows_per_call: int) -> None:
    count = 100 * rows_per_call
    options = {"path": log_store.path, "count": count, "rows_per_call": rows_per_call}
    with ExitStack() as stack:
        children = [stack.enter_context(start_child("append", caller=f"child-{n}", **options)) for n in range(3)]
        own = [log_store.append("system", "tick", "parent", str(n), n).id for n in range(100)]
        said = [child.communicate(timeout=120)[0] for child in children]
        assert [child.returncode for child in children] == [0] * 3
    callers = {"parent": own, **{f"child-{n}": acknowledged_ids(out) for n, out in enumerate(said)}}
    rows = {row.id: row for row in database_rows(log_store)}
    assert len(rows) == sum(map(len, callers.values())) == 100 + 3 * count
    for caller, ids in callers.items():
        assert ids == sorted(set(ids))
        assert [(rows[i].ref_id, rows[i].payload) for i in ids] == [(caller, str(n)) for n in range(len(ids))]


def test_processes_open_a_new_database_at_once(data_dir: Path) -> None:
    """All of them find nothing, and one creates it."""
    path = str(data_dir / "logs.db")
    with ExitStack() as stack:
        children = [
            stack.enter_context(start_child("append", path=path, caller=f"child-{n}", count=10)) for n in range(6)
        ]
        said = [child.communicate(timeout=120)[0] for child in children]
        assert [child.returncode for child in children] == [0] * 6
    ids = sorted(row_id for out in said for row_id in acknowledged_ids(out))
    assert ids == list(range(1, 61))
    with ns.LogStore(path) as store:
        assert [entry.id for entry in store.query()] == ids


def test_busy_database_is_reported_after_the_timeout(data_dir: Path) -> None:
    """Another program holds the write lock; reads go on, and the write comes through when it lets go."""
    with ns.LogStore(data_dir / "logs.db", busy_timeout=0.2) as store:
        store.append("system", "tick", timestamp=0)
        with start_child("hold_lock", path=store.path) as child:
            assert child.stdout is not None
            assert json.loads(child.stdout.readline()) == "holding"
            with pytest.raises(ns.StoreBusyError) as refused:
                store.append("system", "refused", timestamp=0)
            assert isinstance(refused.value, TimeoutError)
            with pytest.raises(ns.StoreBusyError):
                store.set_meta("key", "value")
            assert [entry.type for entry in store.query()] == ["tick"]
            child.communicate("go on\n", timeout=30)
        assert store.append("system", "accepted", timestamp=0).id == 2
        assert [entry.type for entry in store.query()] == ["tick", "accepted"]
        assert store.get_meta("key") is None


# --- forks -------------------------------------------------------------------------------------------------------


def test_forked_child_is_refused_and_its_parent_unharmed(data_dir: Path) -> None:
    """In a process of its own, because a fork of the test process would copy its threads' locks too."""
    done = run_child("call_forked", path=str(data_dir / "logs.db"))
    assert done.returncode == 0, done.stderr
    child, parent = [json.loads(line) for line in done.stdout.splitlines()]
    assert child["status"] == 0
    closed = child["seen"].pop("close")
    assert closed in ("no error", "ForkedStoreError")
    assert set(child["seen"].values()) == {"ForkedStoreError"}
    assert len(child["seen"]) == 5
    assert parent == ["before", "own", "after"]
    with ns.LogStore(data_dir / "logs.db") as store:
        assert [entry.type for entry in store.query()] == ["before", "own", "after"]


def test_forked_child_that_ends_takes_nothing_with_it(data_dir: Path) -> None:
    """Its copy of the store is dropped on the way out: no lock is released, no file folded in or removed."""
    done = run_child("drop_forked", path=str(data_dir / "logs.db"))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"status": 0}, 2, 3, 4]
    with ns.LogStore(data_dir / "logs.db") as store:
        assert store.count() == 4
    assert [path.name for path in data_dir.iterdir()] == ["logs.db"]
