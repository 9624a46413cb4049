"""A full vacuum: what memory it takes, where its temporary file lies, and that it keeps no append waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import nerve_store as ns
from support.processes import child_environment, run_child

DAY = 86_400_000
PAGE = 4_096


def fill(store: ns.LogStore, rows: int, timestamp: int | None) -> None:
    for _ in range(0, rows, 500):
        store.append_many([("s", "t", None, "x" * 4_000, timestamp)] * 500)


def run(program: str, **arguments: Any) -> list[Any]:
    done = run_child(program, **arguments)
    assert done.returncode == 0, done.stderr[-2_000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def open_read(path: Path) -> Iterator[None]:
    """Another process that has a read transaction open."""
    code = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "connection.execute('BEGIN'); connection.execute('SELECT count(*) FROM logs').fetchone();"
        "print('open', flush=True); sys.stdin.read(1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        try:
            yield
        finally:
            reader.stdin.close()
            reader.wait(timeout=30)


@pytest.mark.parametrize("live_rows", [5_000, 15_000])
def test_memory_does_not_grow_with_the_live_data(tmp_path: Path, live_rows: int) -> None:
    (said,) = run("vacuum_memory", path=str(tmp_path / "logs.db"), live_rows=live_rows)
    assert said["vacuumed"]
    assert said["database"] >= live_rows * 4_000
    assert said["grown"] < 24 << 20, "the caches, and not the 20 to 60 MB of rows"
    assert said["verified"]


def test_the_temporary_file_lies_beside_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in /tmp, which may be small, or memory."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("SQLITE_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, str(elsewhere))
    data = tmp_path / "it's here"
    (said,) = run("vacuum_watched", path=str(data / "logs.db"), rows=10_000)
    assert said["vacuumed"]
    temporary = [name for name in said["opened"] if name.endswith(" (deleted)")]
    assert temporary, said["opened"]
    assert all(name.startswith(f"{data}/") for name in temporary)
    assert not any("etilqs" in name for name in os.listdir(data))
    assert list(elsewhere.iterdir()) == []


def test_two_stores_are_vacuumed_at_once(tmp_path: Path) -> None:
    stores = [ns.LogStore(tmp_path / name / "logs.db") for name in ("a", "b", "c")]
    outcomes: list[bool] = []

    def work(store: ns.LogStore) -> None:
        fill(store, 2_000, 5)
        fill(store, 500, None)
        outcomes.append(store.archive_logs(vacuum=True).vacuumed)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 3
    for store in stores:
        assert store.count() == 500
        assert store.verify().ok
        store.close()
        assert os.path.getsize(store.path) < 600 * 2 * PAGE


@pytest.mark.parametrize("begun", ["before rows", "after a checkpoint"])
def test_appends_go_on_while_an_open_read_is_in_the_way(tmp_path: Path, begun: str) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path, busy_timeout=30) as store:
        fill(store, 2_000, 5)
        fill(store, 500, None)
        if begun == "after a checkpoint":
            store.close()
    with ns.LogStore(path, busy_timeout=30) as store, ns.LogStore(path, busy_timeout=30) as other:
        latencies: list[float] = []
        is_done = threading.Event()

        def append() -> None:
            while not is_done.is_set():
                for handle in (store, other):
                    start = time.perf_counter()
                    handle.append("s", "beside", durability="normal")
                    latencies.append(time.perf_counter() - start)

        with open_read(path):
            thread = threading.Thread(target=append)
            thread.start()
            began = time.monotonic()
            try:
                result = store.archive_logs(vacuum=True)
                took = time.monotonic() - began
            finally:
                is_done.set()
                thread.join()
            assert not result.vacuumed, "the file cannot become shorter yet"
            assert sum(day.added_rows for day in result.days) == 2_000, "the days are archived all the same"
            assert took < 15
            assert len(latencies) > 20
            assert max(latencies) < 5, "30 s before"
            assert median(latencies) < 0.5
        assert store.archive_logs(vacuum=True).vacuumed
        assert store.count(type="beside") == len(latencies)
        assert store.verify().ok
    assert path.stat().st_size < 1_500 * 2 * PAGE


def test_a_vacuum_in_slices_says_whether_the_file_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path) as store:
        fill(store, 1_000, 5)
        store.archive_logs()
        before = path.stat().st_size
        with open_read(path):
            assert not store.archive_logs(vacuum="incremental").vacuumed
        fill(store, 500, 5)
        assert store.archive_logs(vacuum="incremental").vacuumed
        assert path.stat().st_size < before / 2
        assert store.verify().ok


def test_a_read_that_soon_ends_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path) as store:
        fill(store, 1_000, 5)
        store.archive_logs()
        is_open, may_close = threading.Event(), threading.Event()

        def read() -> None:
            with open_read(path):
                is_open.set()
                may_close.wait(0.5)

        reader = threading.Thread(target=read)
        reader.start()
        assert is_open.wait(30)
        assert store.archive_logs(vacuum=True).vacuumed
        reader.join()


def test_a_lock_of_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path, busy_timeout=20) as store:
        fill(store, 1_000, 5)
        store.archive_logs()
        code = (
            "import sqlite3, sys, time; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "connection.execute('BEGIN IMMEDIATE'); print('locked', flush=True); time.sleep(1.0);"
            "connection.execute('ROLLBACK')"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as locker:
            assert locker.stdout is not None
            assert locker.stdout.readline() == "locked\n"
            assert store.archive_logs(vacuum=True).vacuumed
        assert store.verify().ok


def test_nothing_is_left_where_temporary_files_go(tmp_path: Path) -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    with ns.LogStore(tmp_path / "logs.db") as store:
        fill(store, 1_000, 5)
        fill(store, 1_000, None)
        assert store.archive_logs(vacuum=True).vacuumed
        assert {name for name in os.listdir(tmp_path) if "etilqs" in name} == set()
    assert not {name for name in set(os.listdir(tempfile.gettempdir())) - before if "etilqs" in name}
