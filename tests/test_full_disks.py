"""A disk that is full or read-only: a clear error, nothing acknowledged that is not there, and reads go on."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_sql, is_one_line, refused, tree
from support.disks import read_only_directory, tiny_disk


def test_read_only_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ns.Store(data) as store:
        row = store.logs.append("system", "tick", timestamp=0)
        digest = store.blobs.write("text")
    with read_only_directory(data):
        before = tree(data)
        error = refused(ns.StoreIOError, lambda: ns.LogStore(data / "new.db"))
        assert isinstance(error, OSError)
        assert error.errno == errno.EROFS
        error = refused(ns.StoreIOError, lambda: ns.LogStore(data / "logs.db"))
        assert isinstance(error, OSError)
        assert error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        blobs = ns.BlobStore(data / "blobs")
        assert blobs.read(digest) == b"text"
        error = refused(ns.StoreIOError, lambda: blobs.write("other"))
        assert isinstance(error, OSError)
        assert error.errno == errno.EROFS
        assert tree(data) == before
    with ns.LogStore(data / "logs.db") as logs:
        assert logs.query() == [row]
        assert logs.append("system", "tick").id == 2


def test_directory_that_becomes_read_only_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ns.LogStore(data / "logs.db") as store:
        row = store.append("system", "tick", timestamp=0)
    with read_only_directory(data):
        try:
            reader = ns.LogStore(data / "logs.db", read_only=True)
        except ns.StoreIOError:
            return  # SQLite cannot share memory there; the error says so
        with reader:
            assert reader.query() == [row]


def fill_up(store: ns.LogStore, *, rows_per_call: int) -> tuple[list[int], Exception]:
    """Append until the disk is full: the acknowledged ids and the error."""
    acknowledged: list[int] = []
    for number in range(10_000):
        try:
            rows = [("system", "tick", None, f"{number} {'x' * 2000}", n) for n in range(rows_per_call)]
            acknowledged += store.append_many(rows) if rows_per_call > 1 else [store.append(*rows[0]).id]
        except ns.NerveStoreError as error:
            return acknowledged, error
    pytest.fail("the disk did not fill up")


@pytest.mark.parametrize("rows_per_call", [1, 30])
def test_full_disk_acknowledges_nothing_and_reads_go_on(tmp_path: Path, rows_per_call: int) -> None:
    with tiny_disk(tmp_path / "disk", "1m") as resize:
        path = tmp_path / "disk" / "logs.db"
        with ns.LogStore(path) as store:
            run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
            store.upsert_workflow_run(("workflow", "started", "run-1", None, 1), run)
            acknowledged, error = fill_up(store, rows_per_call=rows_per_call)
            assert isinstance(error, ns.StoreFullError)
            assert error.errno == errno.ENOSPC
            assert error.path is not None
            assert is_one_line(error)
            for _ in range(3):
                refused(ns.StoreFullError, lambda: store.append("system", "big", None, "x" * 100_000, 1))
                refused(ns.StoreFullError, lambda: store.transition("run-1", "failed", payload="x" * 100_000))
                assert [entry.id for entry in store.query()] == [1, *acknowledged]
                assert store.count(type="tick") == len(acknowledged)
                assert store.get_workflow_run("run-1") == run
            resize("8m")
            assert store.append("system", "after", timestamp=0).id == len(acknowledged) + 2
            assert store.transition("run-1", "completed").status == "completed"
        with ns.LogStore(path) as store:
            ids = [entry.id for entry in store.query()]
            assert ids == list(range(1, len(acknowledged) + 4))
        assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_full_disk_refuses_a_new_store(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "64k"):
        (tmp_path / "disk" / "filler").write_bytes(b"x" * 60_000)
        refused(ns.StoreFullError, lambda: ns.LogStore(tmp_path / "disk" / "logs.db"))
        (tmp_path / "disk" / "filler").unlink()


def test_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """`ulimit -f`, in a process of its own: the limit would hold for the test process too."""
    script = (
        "import resource, signal, sys, nerve_store as ns\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = ns.LogStore(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "done = 0\n"
        "try:\n"
        "    while done < 1000:\n"
        "        store.append('system', 'tick', None, 'x' * 5000, 0)\n"
        "        done += 1\n"
        "except ns.StoreFullError:\n"
        "    pass\n"
        "assert 0 < done < 1000, done\n"
        "assert store.count() == done\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "logs.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
