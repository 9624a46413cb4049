"""Files that are moved, removed or replaced under an open store: noticed before anything is acknowledged."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from support.processes import child_environment

DAY = 86_400_000
SUFFIXES = ("", "-wal", "-shm")


def in_another_process(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def sources(path: Path) -> list[str]:
    """The rows that a process finds that knows nothing of this one."""
    script = "import nerve_store as ns, sys\nwith ns.LogStore(sys.argv[1]) as s: print(*[e.source for e in s.query()])"
    return in_another_process(script, path).split()


def other_store(path: Path) -> None:
    """Makes a store at `path` whose rows are in its write-ahead log alone, as a killed process leaves it."""
    script = """
import nerve_store as ns, os, signal, sys
store = ns.LogStore(sys.argv[1])
store.append("other", "row")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, str(path)], env=child_environment(), check=False, timeout=60)


def remove_directory(data: Path) -> None:
    shutil.rmtree(data)


def remove_database(data: Path) -> None:
    (data / "logs.db").unlink()


def move_directory(data: Path) -> None:
    data.rename(data.with_name("moved"))


def move_database(data: Path) -> None:
    (data / "logs.db").rename(data / "moved.db")


def replace_by_other(data: Path) -> None:
    for suffix in SUFFIXES:
        (data / f"logs.db{suffix}").unlink()
    other_store(data / "logs.db")


def replace_by_copy(data: Path) -> None:
    shutil.copyfile(data / "logs.db", data / "copy")
    (data / "copy").replace(data / "logs.db")


def put_other_directory(data: Path) -> None:
    move_directory(data)
    data.mkdir()
    other_store(data / "logs.db")


def remove_log(data: Path) -> None:
    (data / "logs.db-wal").unlink()


def replace_log(data: Path) -> None:
    remove_log(data)
    (data / "logs.db-wal").touch()


OF_DATABASE = [
    remove_directory,
    remove_database,
    move_directory,
    move_database,
    replace_by_other,
    replace_by_copy,
    put_other_directory,
]
OF_LOG = [remove_log, replace_log]

RUN = ns.WorkflowRun(run_id="new", workflow="w", status=ns.WorkflowRunStatus("started"), timestamp=0)
WRITES: dict[str, Callable[[ns.LogStore], object]] = {
    "append": lambda store: store.append("after", "row"),
    "append_normal": lambda store: store.append("after", "row", durability="normal"),
    "append_many": lambda store: store.append_many([("after", "row", None, None, None)] * 3),
    "set_meta": lambda store: store.set_meta("key", "value"),
    "upsert": lambda store: store.upsert_workflow_run(("after", "row", "new", None, 0), RUN),
    "transition": lambda store: store.transition("run", "completed"),
    "archive": lambda store: store.archive_logs(retention=timedelta(days=1)),
    "restore": lambda store: store.restore_archive(date(1970, 1, 1)),
    "reindex": lambda store: store.reindex(),
}
READS: dict[str, Callable[[ns.LogStore], object]] = {
    "query": lambda store: store.query(),
    "query_archived": lambda store: store.query(archived=True),
    "count": lambda store: store.count(),
    "iter": lambda store: list(store.iter()),
    "follow": lambda store: next(store.follow(after_id=0)),
    "sql": lambda store: store.sql("SELECT 1"),
    "get_meta": lambda store: store.get_meta("key"),
    "runs": lambda store: store.get_all_workflow_runs(),
    "stats": lambda store: store.stats(),
    "verify": lambda store: store.verify(),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def filled(data: Path) -> ns.LogStore:
    store = ns.LogStore(data / "logs.db")
    store.append_many([("before", "row", None, None, number) for number in range(10)])
    store.archive_logs(retention=timedelta(days=1))
    run = ns.WorkflowRun(run_id="run", workflow="w", status=ns.WorkflowRunStatus("started"), timestamp=0)
    store.upsert_workflow_run(("before", "row", "run", None, None), run)
    return store


@pytest.mark.parametrize("happening", [*OF_DATABASE, *OF_LOG])
def test_no_write_is_acknowledged(data: Path, happening: Callable[[Path], None]) -> None:
    store = filled(data)
    happening(data)
    for name, write in WRITES.items():
        with pytest.raises(ns.StoreMovedError) as raised:
            pytest.fail(f"{name}: {write(store)!r}")
        assert raised.value.errno == errno.ESTALE, name
        assert "logs.db" in str(raised.value.path), name
    store.close()


@pytest.mark.parametrize("happening", OF_DATABASE)
def test_no_read_tells_of_files_that_are_gone(data: Path, happening: Callable[[Path], None]) -> None:
    store = filled(data)
    happening(data)
    for name, read in READS.items():
        with pytest.raises(ns.StoreMovedError):
            pytest.fail(f"{name}: {read(store)!r}")
    store.close()


@pytest.mark.parametrize("happening", OF_DATABASE)
def test_a_read_only_store_notices_too(data: Path, happening: Callable[[Path], None]) -> None:
    with filled(data), ns.LogStore(data / "logs.db", read_only=True) as reader:
        assert reader.count() == 1
        happening(data)
        with pytest.raises(ns.StoreMovedError):
            reader.query()


@pytest.mark.parametrize("happening", [remove_database, move_directory, remove_log])
def test_event_loops_are_told(data: Path, happening: Callable[[Path], None]) -> None:
    async def appended() -> list[object]:
        async with ns.AsyncLogStore(data / "logs.db") as store:
            await store.append("before", "row")
            happening(data)
            calls = [store.append("after", "row") for _ in range(5)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

    assert {type(outcome) for outcome in asyncio.run(appended())} == {ns.StoreMovedError}


@pytest.mark.parametrize("happening", [move_directory, move_database])
def test_a_store_that_is_put_back_goes_on(data: Path, happening: Callable[[Path], None]) -> None:
    store = filled(data)
    happening(data)
    with pytest.raises(ns.StoreMovedError):
        store.append("lost", "row")
    if happening is move_directory:
        data.with_name("moved").rename(data)
    else:
        (data / "moved.db").rename(data / "logs.db")
    store.append("after", "row")
    store.close()
    assert sources(data / "logs.db") == ["before", "after"]


def test_another_way_to_the_same_files_is_no_move(data: Path) -> None:
    store = filled(data)
    move_directory(data)
    data.symlink_to(data.with_name("moved"))
    store.append("after", "row")
    store.close()
    assert sources(data.with_name("moved") / "logs.db") == ["before", "after"]


@pytest.mark.parametrize("happening", OF_LOG)
def test_rows_of_a_removed_log_are_kept_by_the_close(data: Path, happening: Callable[[Path], None]) -> None:
    """As long as no other log has taken its place, in which case the close leaves that alone."""
    store = filled(data)
    happening(data)
    with pytest.raises(ns.StoreMovedError):
        store.append("after", "row")
    store.close()
    if happening is remove_log:
        assert sources(data / "logs.db")[:1] == ["before"]
    else:
        assert (data / "logs.db-wal").exists()


@pytest.mark.parametrize("happening", [replace_by_other, put_other_directory])
def test_the_close_leaves_the_files_of_another_store_alone(data: Path, happening: Callable[[Path], None]) -> None:
    store = filled(data)
    happening(data)
    with pytest.raises(ns.StoreMovedError):
        store.append("after", "row")
    store.close()
    assert (data / "logs.db-wal").stat().st_size > 0
    assert sources(data / "logs.db") == ["other"]


def test_no_append_that_begins_after_a_move_is_acknowledged(data: Path) -> None:
    """Whatever the moment of the move in a commit, and of those that share it."""
    for _ in range(20):
        store = filled(data)
        moved_at: list[float] = []
        begun: list[float] = []
        outcomes: list[BaseException] = []

        def append(store: ns.LogStore = store, begun: list[float] = begun, out: list[BaseException] = outcomes) -> None:
            try:
                while True:
                    began = time.monotonic()
                    store.append("row", "row")
                    begun.append(began)
            except ns.NerveStoreError as error:
                out.append(error)

        threads = [threading.Thread(target=append) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.02)
        data.rename(data.with_name("moved"))
        moved_at.append(time.monotonic())
        for thread in threads:
            thread.join()
        assert [type(outcome) for outcome in outcomes] == [ns.StoreMovedError] * 3
        assert max(begun, default=0) < moved_at[0]
        store.close()
        assert len(sources(data.with_name("moved") / "logs.db")) >= 1 + len(begun)
        shutil.rmtree(data.with_name("moved"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_mount_over_the_directory_and_an_unmount_are_noticed(tmp_path: Path) -> None:
    script = """
import errno, os, subprocess, sys
import nerve_store as ns
data = sys.argv[1]
def run(*command): subprocess.run(command, check=True)
def refused(store):
    try:
        store.append("after", "row")
    except ns.StoreMovedError:
        return True
    return False
os.makedirs(data)
store = ns.LogStore(data + "/logs.db")
store.append("before", "row")
run("mount", "-t", "tmpfs", "none", data)
print(refused(store))
with ns.LogStore(data + "/logs.db") as other:
    other.append("other", "row")
print(refused(store))
mounted = ns.LogStore(data + "/logs.db")
mounted.append("mounted", "row")
run("umount", "--lazy", data)
print(refused(mounted), not refused(store), store.count())
"""
    command = ["unshare", "--mount", sys.executable, "-c", script, str(tmp_path / "data")]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=60, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.split() == ["True", "True", "True", "True", "2"], done.stderr
