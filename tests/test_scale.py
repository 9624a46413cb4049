"""Much of everything at once: many writers, readers and a follower, a slow reader, and millions of rows."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import nerve_store as ns
from support import acknowledged_ids, child_environment, start_child

THREADS = 32
PROCESSES = 4
MIB = 1 << 20


def memory(path: str, rows: str) -> None:
    """Append so many rows, and say the resident memory after each tenth, in bytes; for a process of its own."""
    batch = [("workflow", "tick", f"run-{n % 200}", "x" * 60, n) for n in range(1_000)]
    resident: list[int] = []
    with ns.LogStore(path, durability="normal") as store:
        for _ in range(10):
            for _ in range(int(rows) // 10 // len(batch)):
                store.append_many(batch)
            assert store.query(ref_id="run-7", limit=5)
            statm = Path("/proc/self/statm").read_text("ascii")
            resident.append(int(statm.split()[1]) * 4096)
        rows_there = store.sql("SELECT max(id) FROM logs")[0][0]
    print(json.dumps({"rows": rows_there, "resident": resident}))


# --- writers, readers and a follower -----------------------------------------------------------------------------


@pytest.mark.parametrize("total", [10_000, pytest.param(100_000, marks=pytest.mark.torture)])
@pytest.mark.parametrize("segment_rows", [64, 4096])
def test_threads_and_processes_append_while_others_read(data_dir: Path, total: int, segment_rows: int) -> None:
    """Every acknowledged row is there once, ids rise for each caller, and a follower sees each once, in order."""
    path = str(data_dir / "logs.db")
    by_process = total // 10
    by_thread = (total - PROCESSES * by_process) // THREADS
    total = THREADS * by_thread + PROCESSES * by_process
    finished = threading.Event()
    with ns.LogStore(path, segment_rows=segment_rows) as store, ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(THREADS + 3))
        stack.callback(finished.set)

        def write(name: str) -> Callable[[], list[int]]:
            return lambda: [store.append("system", "tick", name, str(n), n).id for n in range(by_thread)]

        def read() -> int:
            """Goes on after the last id, again and again; returns how many rows it saw."""
            seen = 0
            while not finished.is_set():
                ids = [entry.id for entry in store.query(after_id=seen, limit=500)]
                assert ids == list(range(seen + 1, seen + 1 + len(ids)))
                seen += len(ids)
                some = store.query(ref_id="thread-3", limit=50)
                assert [entry.payload for entry in some] == [str(n) for n in range(len(some))]
            return seen

        readers = [pool.submit(read) for _ in range(2)]
        followed = pool.submit(lambda: list(itertools.islice(store.follow(after_id=0), total)))
        children = [
            stack.enter_context(start_child("append", path=path, caller=f"process-{n}", count=by_process))
            for n in range(PROCESSES)
        ]
        threads = {f"thread-{n}": pool.submit(write(f"thread-{n}")) for n in range(THREADS)}
        callers = {name: future.result(timeout=250) for name, future in threads.items()}
        for number, child in enumerate(children):
            callers[f"process-{number}"] = acknowledged_ids(child.communicate(timeout=250)[0])
            assert child.returncode == 0
        seen = followed.result(timeout=60)
        finished.set()
        assert all(reader.result(timeout=60) > 0 for reader in readers)

        rows = store.query()
        assert [row.id for row in rows] == list(range(1, total + 1))
        assert seen == rows
        assert sorted(row_id for ids in callers.values() for row_id in ids) == list(range(1, total + 1))
        for name, ids in callers.items():
            assert ids == sorted(ids)
            assert [(rows[i - 1].ref_id, rows[i - 1].payload) for i in ids] == [(name, str(n)) for n in range(len(ids))]
            assert store.query(ref_id=name) == [rows[i - 1] for i in ids]


# --- a slow reader -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [{}, {"ref_id": "run-1"}, {"descending": True}], ids=["all", "run", "backwards"])
def test_write_ahead_log_stays_bounded_beside_a_slow_reader(data_dir: Path, filters: dict[str, object]) -> None:
    """An iterator holds no transaction between its steps, so that every checkpoint can begin the log anew."""
    log = data_dir / "logs.db-wal"
    with ns.LogStore(data_dir / "logs.db", durability="normal") as store:
        batch = [("system", "tick", f"run-{n % 3}", "x" * 1_000, n) for n in range(500)]
        for _ in range(6):
            store.append_many(batch)
        rows = store.iter(**filters)  # type: ignore[arg-type]
        follower = store.follow(after_id=0)
        largest = 0
        for _ in range(120):
            next(rows)
            next(follower)
            store.append_many(batch)
            largest = max(largest, log.stat().st_size)
        assert store.stats().row_count > 60_000
    # 70 MiB went through it; a checkpoint is due each 4 MiB.
    assert 4 * MIB < largest < 16 * MIB


# --- millions of rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [500_000, pytest.param(10_000_000, marks=pytest.mark.torture)])
def test_memory_stays_flat(data_dir: Path, rows: int) -> None:
    path = data_dir / "logs.db"
    done = subprocess.run(
        [sys.executable, __file__, "memory", str(path), str(rows)],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rows"] == rows
    resident: list[int] = said["resident"]
    # What the caches and the index of recent rows may hold; the rows of the last nine tenths alone have ten times that.
    assert max(resident) - resident[0] < 24 * MIB, resident
    assert resident[-1] - resident[4] < 16 * MIB, resident
    path.unlink()


if __name__ == "__main__":
    memory(*sys.argv[2:])
