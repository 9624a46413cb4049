"""Following the log: every row of every process, once, in id order, soon, and at no cost while nothing happens."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import INSERT_ROW, acknowledged_ids, as_rows, child_environment, foreign_many, foreign_sql, start_child
from support.strace import strace

SOON = 10.0
"""Seconds within which a row is seen that wakes its follower; far below `SLOW`, far above a busy machine's delays."""
SLOW = 20.0
"""A `poll_interval` that no test waits for."""


def say(value: Any) -> None:
    os.write(1, (json.dumps(value) + "\n").encode())


def follow_idly(path: str, seconds: str) -> None:
    """Follow where nothing happens, and say "done"; for a process of its own."""
    store = ns.LogStore(path)
    thread = threading.Thread(target=lambda: take(store.follow(), 1), daemon=True)
    thread.start()
    time.sleep(float(seconds))
    say("done")
    os._exit(0)


def follow_until_interrupted(path: str, poll_interval: str) -> None:
    """Wait for rows that never come until Ctrl-C; for a process of its own."""
    with ns.LogStore(path) as store:
        follower = store.follow(poll_interval=float(poll_interval))
        say("waiting")
        try:
            next(follower)
        except KeyboardInterrupt:
            say("interrupted")
        say(store.append("system", "after").id)


def take(follower: Iterator[ns.LogEntry], count: int) -> list[ns.LogEntry]:
    return list(itertools.islice(follower, count))


def start(program: str, *arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, __file__, program, *arguments],
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def begin(pool: ThreadPoolExecutor, follower: Iterator[ns.LogEntry], count: int) -> Future[list[ns.LogEntry]]:
    return pool.submit(take, follower, count)


# --- which rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_id", [0, -1, 3, 10])
def test_from_an_id(log_store: ns.LogStore, after_id: int) -> None:
    log_store.append_many([("system", "tick", None, None, n) for n in range(20)])
    expected = log_store.query(after_id=after_id)
    assert take(log_store.follow(after_id=after_id), len(expected)) == expected


def test_from_now_on(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "before", None, None, n) for n in range(20)])
    follower = log_store.follow()
    entry = log_store.append("system", "after")
    assert next(follower) == entry


def test_from_now_on_in_an_empty_log(log_store: ns.LogStore) -> None:
    follower = log_store.follow()
    entry = log_store.append("system", "first")
    assert next(follower) == entry


def test_from_an_id_that_is_not_there_yet(log_store: ns.LogStore) -> None:
    follower = log_store.follow(after_id=5)
    log_store.append_many([("system", "tick", None, None, n) for n in range(7)])
    assert [entry.id for entry in take(follower, 2)] == [6, 7]


@pytest.mark.parametrize(
    "filters",
    [
        {"source": "a"},
        {"type": "t1"},
        {"source": "a", "type": "t1"},
        {"ref_id": "r2"},
        {"since": 700},
        {"until": 300, "source": "b"},
        {"ref_id": "r1", "since": 100, "until": 900},
    ],
    ids=",".join,
)
@pytest.mark.parametrize("segment_rows", [3, 4096])
def test_with_filters(data_dir: Path, filters: dict[str, Any], segment_rows: int) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=segment_rows, durability="normal") as store:
        follower = store.follow(after_id=0, **filters)
        seen: list[ns.LogEntry] = []
        for first in range(0, 1_000, 125):
            store.append_many(
                [("ab"[n % 2], f"t{n % 3}", f"r{n % 5}", None, (n * 613) % 1_000) for n in range(first, first + 125)]
            )
            seen += take(follower, store.count(**filters) - len(seen))
        assert seen == store.query(**filters)
        assert seen


def test_more_rows_than_a_page(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, str(n), n) for n in range(5_000)])
    assert take(log_store.follow(after_id=0), 5_000) == log_store.query()


def test_rows_that_were_archived_or_deleted_are_not_waited_for(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, None, n) for n in range(10)])
    follower = log_store.follow(after_id=0)
    assert next(follower).id == 1
    foreign_sql(log_store.path, "DELETE FROM logs WHERE id < 9")
    log_store.append("system", "tick")
    seen = [entry.id for entry in take(log_store.follow(after_id=0), 3)]
    assert seen == [9, 10, 11]


# --- writers everywhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment_rows", [7, 4096])
def test_every_row_of_threads_and_processes_once_in_order(data_dir: Path, segment_rows: int) -> None:
    path = str(data_dir / "logs.db")
    with ns.LogStore(path, durability="normal", segment_rows=segment_rows) as store, ExitStack() as stack:
        total = 4 * 150 + 2 * 300 + 100
        pool = stack.enter_context(ThreadPoolExecutor(8))
        everything = [begin(pool, store.follow(), total) for _ in range(2)]
        filtered = begin(pool, store.follow(ref_id="child-0"), 300)
        options = {"path": path, "durability": "normal"}
        children = [
            stack.enter_context(
                start_child("append", caller=f"child-{n}", count=300, rows_per_call=1 + 9 * n, **options)
            )
            for n in range(2)
        ]

        def write(name: str) -> list[int]:
            return [store.append("system", "tick", name, str(n), n).id for n in range(150)]

        own = [pool.submit(write, f"thread-{n}") for n in range(4)]
        for _ in range(10):
            foreign_many(path, INSERT_ROW, [("system", "tick", "foreign", None, 5)] * 10)
        written = [future.result(timeout=60) for future in own]
        said = [acknowledged_ids(child.communicate(timeout=60)[0]) for child in children]
        rows = store.query()
        assert len(rows) == total
        for seen in everything:
            assert seen.result(timeout=60) == rows
        assert [entry.id for entry in filtered.result(timeout=60)] == said[0]
        assert {i for ids in [*written, *said] for i in ids} <= {row.id for row in rows}


def test_one_follower_shared_by_threads_gives_each_row_once(log_store: ns.LogStore) -> None:
    log_store.append_many([("system", "tick", None, None, n) for n in range(4_000)])
    follower = log_store.follow(after_id=0)
    with ThreadPoolExecutor(4) as pool:
        taken = [future.result(timeout=60) for future in [begin(pool, follower, 1_000) for _ in range(4)]]
    assert sorted(entry.id for entries in taken for entry in entries) == list(range(1, 4_001))


# --- when --------------------------------------------------------------------------------------------------------


def test_commit_of_this_process_wakes_at_once(log_store: ns.LogStore) -> None:
    follower = log_store.follow(poll_interval=SLOW)
    with ThreadPoolExecutor(1) as pool:
        for number in range(5):
            waiting = begin(pool, follower, 1)
            time.sleep(0.15)
            assert not waiting.done()
            begun = time.perf_counter()
            entry = log_store.append("system", "tick", None, str(number))
            assert waiting.result(timeout=SLOW) == [entry]
            assert time.perf_counter() - begun < SOON


def test_run_transitions_wake_too(log_store: ns.LogStore) -> None:
    follower = log_store.follow(poll_interval=SLOW)
    with ThreadPoolExecutor(1) as pool:
        waiting = begin(pool, follower, 2)
        time.sleep(0.1)
        begun = time.perf_counter()
        run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.QUEUED, 1)
        log_store.upsert_workflow_run(("workflow", "queued", "run-1", None, 1), run)
        log_store.transition("run-1", "started")
        assert [entry.type for entry in waiting.result(timeout=SLOW)] == ["queued", "started"]
        assert time.perf_counter() - begun < SOON


def test_commit_of_another_program_is_seen_within_the_interval(log_store: ns.LogStore) -> None:
    follower = log_store.follow(poll_interval=0.05)
    with ThreadPoolExecutor(1) as pool:
        waiting = begin(pool, follower, 1)
        time.sleep(0.1)
        begun = time.perf_counter()
        foreign_sql(log_store.path, INSERT_ROW, ("system", "foreign", None, None, 5))
        assert as_rows(waiting.result(timeout=SLOW))[0].type == "foreign"
        assert time.perf_counter() - begun < SOON


# --- its end -----------------------------------------------------------------------------------------------------


def test_closing_the_store_ends_a_waiting_follower(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    followers = [store.follow(poll_interval=SLOW) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        waiting = [begin(pool, follower, 1) for follower in followers]
        time.sleep(0.15)
        begun = time.perf_counter()
        store.close()
        for future in waiting:
            assert isinstance(future.exception(timeout=SLOW), ns.StoreClosedError)
        assert time.perf_counter() - begun < SOON
    for follower in followers:
        with pytest.raises(ns.StoreClosedError):
            next(follower)
    with pytest.raises(ns.StoreClosedError):
        store.follow()


def test_dropped_follower_leaves_the_store_as_it_was(log_store: ns.LogStore) -> None:
    for number in range(200):
        follower = log_store.follow(after_id=0)
        log_store.append("system", "tick", None, None, number)
        next(follower)
        del follower
    assert log_store.count() == 200


@pytest.mark.parametrize("poll_interval", ["0.05", "20"])
def test_interrupt_reaches_a_waiting_follower(data_dir: Path, poll_interval: str) -> None:
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    with start("follow_until_interrupted", str(path), poll_interval) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == "waiting"
        time.sleep(0.2)
        begun = time.perf_counter()
        child.send_signal(signal.SIGINT)
        assert json.loads(child.stdout.readline()) == "interrupted"
        assert time.perf_counter() - begun < SOON
        assert json.loads(child.stdout.readline()) == 1
        assert child.wait(timeout=30) == 0


@pytest.mark.parametrize("poll_interval", [0, -1.0, float("nan"), float("inf")])
def test_interval_is_a_number_of_seconds_above_0(log_store: ns.LogStore, poll_interval: float) -> None:
    with pytest.raises(ValueError, match="poll_interval"):
        log_store.follow(poll_interval=poll_interval)


# --- its cost ----------------------------------------------------------------------------------------------------


def disk_calls(tmp_path: Path, path: Path, seconds: float) -> int:
    """Reads and writes of files that a process makes that follows for so long."""
    log = tmp_path / f"trace-{seconds}"
    names = "pread64,preadv,preadv2,pwrite64,fsync,fdatasync"
    prefix = strace(log, names, (), "-c")
    with start("follow_idly", str(path), str(seconds), prefix=prefix) as child:
        out, _ = child.communicate(timeout=60)
    assert json.loads(out) == "done"
    summary = log.read_text("utf-8")
    return sum(
        int(calls)
        for calls in re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?p?\w+$", summary, re.MULTILINE)
    )


def test_waiting_reads_no_disk(tmp_path: Path, data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path, durability="normal", segment_rows=100) as store:
        store.append_many([("system", "tick", f"run-{n % 9}", "x" * 300, n) for n in range(20_000)])
    # Closed: another process that seals and checkpoints gives a follower something to look at.
    more = []
    for _ in range(4):
        short, long = disk_calls(tmp_path, path, 0.3), disk_calls(tmp_path, path, 1.5)
        assert short > 0
        # Opening reads some pages, on a busy machine now and then a few more; 24 more looks at the log read none.
        more.append(long - short)
        if long - short <= 4:
            return
    pytest.fail(f"{more} more calls")


if __name__ == "__main__":
    PROGRAMS = {"follow_idly": follow_idly, "follow_until_interrupted": follow_until_interrupted}
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
