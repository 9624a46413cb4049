"""Forks: whatever parent and child do, and in whatever order they close, no acknowledged row is lost and none hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support.processes import child_environment, run_child

WAYS = ["fork", "fork_from_thread", "grandchild", "daemon", "multiprocessing", "spawn", "forkserver"]


def run_program(name: str, **arguments: Any) -> list[Any]:
    """What the program said."""
    done = run_child(name, **arguments)
    assert done.returncode in (0, -signal.SIGKILL), (done.returncode, done.stderr)
    assert "child:" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def acknowledged_rows(path: Path) -> dict[int, str]:
    rows: dict[int, str] = {}
    for line in Path(f"{path}.acknowledged").read_text().splitlines():
        number, payload = line.split(" ", 1)
        assert int(number) not in rows, f"{number} was given to {rows[int(number)]} and to {payload}"
        rows[int(number)] = payload
    return rows


def check_acknowledged(path: Path, *, at_least: int) -> None:
    """That each acknowledged row is there under its id, and that every structure is whole."""
    deadline = time.monotonic() + 30
    rows = acknowledged_rows(path)
    while len(rows) < at_least and time.monotonic() < deadline:  # a daemon may live on
        time.sleep(0.1)
        rows = acknowledged_rows(path)
    assert len(rows) >= at_least
    with ns.LogStore(path) as store:
        found = {entry.id: entry.payload for entry in store.iter(source="fork", archived=True)}
        assert {number: found.get(number) for number in rows} == rows
        assert store.verify().ok


@pytest.mark.parametrize("parent_end", ["before", "after"])
@pytest.mark.parametrize("how", WAYS)
def test_parent_and_children_keep_every_row(tmp_path: Path, how: str, parent_end: str) -> None:
    """The parent's threads append, archive and read at the moment of each fork."""
    path = tmp_path / "logs.db"
    how_started = {"multiprocessing": "fork"}.get(how, how)
    children = 4 if how in ("spawn", "forkserver") else 12
    busy = ["append", "append_durably", "archive", "query"]
    run_program(
        "family",
        path=str(path),
        how=f"mp:{how_started}" if how in ("multiprocessing", "spawn", "forkserver") else how,
        busy=busy,
        children=children,
        rows=12,
        ends=["close", "exit"],
        parent_end=parent_end,
    )
    check_acknowledged(path, at_least=12 * children + 5)


@pytest.mark.parametrize("busy", ["open", "iterate", "sql", "verify"])
def test_a_fork_amid_any_work_hangs_neither_side(tmp_path: Path, busy: str) -> None:
    path = tmp_path / "logs.db"
    (statuses,) = run_program(
        "family", path=str(path), how="fork", busy=[busy] * 3, children=40, rows=2, ends=["close"], parent_end="after"
    )
    assert statuses == [0] * 40
    check_acknowledged(path, at_least=90)


@pytest.mark.parametrize("killed", ["parent", "children", "all"])
def test_a_kill_of_either_side_loses_nothing(tmp_path: Path, killed: str) -> None:
    path = tmp_path / "logs.db"
    run_program(
        "family",
        path=str(path),
        how="fork",
        busy=["append", "archive"],
        children=10,
        rows=20,
        ends=["close"] if killed == "parent" else ["kill"],
        parent_end="after" if killed == "children" else "kill",
    )
    check_acknowledged(path, at_least=200)


def test_a_fork_during_a_long_statement_waits_for_nothing(tmp_path: Path) -> None:
    """The statement runs for seconds; the child opens its store at once, and the statement ends as ever."""
    script = f"""
import os, sys, threading, time
import nerve_store as ns
path = {str(tmp_path / "logs.db")!r}
store = ns.LogStore(path)
store.append("a", "b")
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40000000) SELECT max(i) FROM n"
found = []
thread = threading.Thread(target=lambda: found.append(store.sql(LONG)))
thread.start()
time.sleep(0.3)
began = time.monotonic()
if (pid := os.fork()) == 0:
    with ns.LogStore(path) as own:
        own.append("a", "c")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
took = time.monotonic() - began
assert thread.is_alive(), took
thread.join()
assert found == [[(40_000_000,)]]
"""
    subprocess.run([sys.executable, "-c", script], env=child_environment(), check=True, timeout=120)


def test_an_inherited_store_refuses_every_call_and_waits_for_no_lock(tmp_path: Path) -> None:
    calls, *refused = run_program("inherited", path=str(tmp_path / "logs.db"))
    assert refused == [calls] * 30


def test_inherited_blob_streams_refuse_every_call_and_wait_for_no_lock(tmp_path: Path) -> None:
    calls, *exits, is_whole = run_program("inherited_streams", path=str(tmp_path / "blobs"))
    assert exits == [len(calls)] * 20
    assert is_whole


def test_a_child_holds_no_file_of_its_parents_stores(tmp_path: Path) -> None:
    found, is_whole = run_program("open_files", path=str(tmp_path))
    assert found == []
    assert is_whole


@pytest.mark.parametrize("child_end", ["exit", "raise", "return"])
@pytest.mark.parametrize("operation", ["archive", "restore", "reindex", "verify", "blobs_verify", "blobs_collect"])
def test_a_fork_in_a_progress_report_leaves_the_work_to_the_parent(
    tmp_path: Path, operation: str, child_end: str
) -> None:
    done, after = run_program(
        "fork_in_progress", path=str(tmp_path / "logs.db"), operation=operation, child_end=child_end
    )
    expected = {"archive": 6000, "restore": 2000, "reindex": None, "verify": True, "blobs_verify": True}
    assert done["outcome"] == expected.get(operation, 20)
    assert done["child"] == {"exit": 0, "raise": 4, "return": 3}[child_end]
    assert after == {"verify": True, "rows": 6000}


@pytest.mark.parametrize("child_end", ["exit", "raise", "work"])
def test_a_child_of_a_running_event_loop_leaves_the_loop_alone(tmp_path: Path, child_end: str) -> None:
    if child_end == "raise" and sys.version_info >= (3, 14):
        pytest.skip("asyncio, which finds that its loop does not run in the child, loses what ends a task there")
    path = tmp_path / "logs.db"
    for _ in range(3):
        assert run_program("fork_in_loop", path=str(path), child_end=child_end) == [5 if child_end == "work" else 0]
    with ns.LogStore(path) as store:
        assert store.count(source="parent") == 3 * 204
        assert store.count(source="child") == (30 if child_end == "work" else 0)


def test_a_child_is_refused_the_streams_of_an_event_loop(tmp_path: Path) -> None:
    outcomes, hash = run_program("fork_with_streams", path=str(tmp_path / "store"))
    refused = {line.split(": ")[0] for line in outcomes if line.endswith(": ForkedStoreError")}
    assert {line.split(": ")[0] for line in outcomes} - refused == {"store.close"}, outcomes
    assert hash == ns.blob_hash("a")


def test_the_archive_is_free_once_its_owner_is_killed(tmp_path: Path) -> None:
    """A child of the owner that knows nothing of the store lives on."""
    path = tmp_path / "logs.db"
    (child,) = run_program("killed_archiver", path=str(path))
    try:
        with ns.LogStore(path) as store:
            result = store.archive_logs(retention=timedelta(days=1))
            assert store.count(archived=True) == 3000
            assert sum(day.row_count for day in store.archived_days()) == 3000
            assert not result.dry_run
            assert store.verify().ok
        assert not list((tmp_path / "archive/logs").glob(".stage*"))
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        assert state != "Z", "the child has ended"
    finally:
        os.kill(child, signal.SIGKILL)
