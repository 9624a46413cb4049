"""Reading where nothing can be written: media mounted read-only, and files of another user."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support.processes import run_child

NOBODY = 65_534
OLD = 5
"""A timestamp whose row is archived."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting, and becoming another user, is root's")


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory that every user can reach, with rows in the database and in the archive."""
    parent = Path(tempfile.mkdtemp(prefix="nerve-read-only-"))
    parent.chmod(0o755)
    path = parent / "dätä %41?#"
    with ns.Store(path) as store:
        fill(store)
    yield path
    shutil.rmtree(parent)


def fill(store: ns.Store) -> None:
    store.logs.append("s", "old", None, None, OLD)
    run = ns.WorkflowRun("run-1", "w", ns.WorkflowRunStatus.STARTED, 1)
    store.logs.upsert_workflow_run(ns.NewLogEntry("workflow", "started", "run-1"), run)
    store.logs.append("workflow", "thread_workflow_message", "run-1", '{"role":"a","content":"b"}')
    store.blobs.write("x")
    store.logs.archive_logs()


EXPECTED = {
    "count": 3,
    "query": ["old", "started", "thread_workflow_message"],
    "sql": 2,
    "runs": ["run-1"],
    "rounds": 1,
    "stats": 2,
    "verified": True,
    "blobs": 1,
    "days": 1,
    "writes": "StoreIOError",
}


@pytest.fixture
def mounted(data: Path) -> Iterator[Path]:
    """The same directory again, mounted read-only."""
    target = data.parent / "mounted"
    target.mkdir()
    bound = subprocess.run(["mount", "--bind", data, target], check=False, capture_output=True)
    if bound.returncode:
        pytest.skip(f"no mounts here: {bound.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", target], check=True)
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def read(path: Path, user: int | None = None) -> dict[str, Any]:
    done = run_child("read_only", path=str(path), user=user)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def share(data: Path) -> None:
    """Let every user read."""
    subprocess.run(["chmod", "-R", "a+rX,go-w", data], check=True)


def test_a_store_closed_cleanly_is_read_from_read_only_media(mounted: Path) -> None:
    before = names(mounted)
    assert not any(name.endswith(("-wal", "-shm")) for name in before)
    assert read(mounted) == EXPECTED
    assert names(mounted) == before


def test_a_store_is_read_by_a_user_who_may_only_read(data: Path) -> None:
    share(data)
    before = names(data)
    assert read(data, NOBODY) == EXPECTED
    assert names(data) == before


def test_an_empty_write_ahead_log_is_no_obstacle(mounted: Path, data: Path) -> None:
    (data / "logs.db-wal").touch()
    assert read(mounted) == EXPECTED


def test_an_open_store_is_read_with_its_newest_rows(mounted: Path, data: Path) -> None:
    with ns.LogStore(data / "logs.db") as writer:
        writer.append("s", "newest")
        assert read(mounted)["query"] == [*EXPECTED["query"], "newest"]  # type: ignore[misc]
        share(data)
        assert read(data, NOBODY)["query"] == [*EXPECTED["query"], "newest"]  # type: ignore[misc]


def test_a_write_ahead_log_that_holds_commits_is_never_ignored(mounted: Path, data: Path) -> None:
    """As a copy of the files of a killed process leaves it: the log without its index."""
    killed = run_child("leave_open", path=str(data), row_type="newest")
    assert killed.returncode == 0, killed.stderr
    assert (data / "logs.db-wal").stat().st_size > 0
    (data / "logs.db-shm").unlink()
    share(data)
    for said, expected in ((read(mounted), errno.EROFS), (read(data, NOBODY), errno.EACCES)):
        assert (said["error"], said["errno"]) == ("StoreIOError", expected), said
        assert "logs.db-wal" in said["message"]
        assert "copy" in said["message"]
        assert "\n" not in said["message"]
    with ns.LogStore(data / "logs.db") as writable:
        assert writable.query()[-1].type == "newest"


CUT_OFF = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
database.execute("PRAGMA cache_size = 1")
if sys.argv[3] == "over":
    database.execute("UPDATE logs SET type = type")
    database.close()
    sys.exit()
database.execute("BEGIN")
database.execute("UPDATE logs SET type = 'uncommitted', payload = hex(zeroblob(20000))")
os.kill(os.getpid(), 9)
"""
"""What another program does to a database in one of the modes that have a rollback journal."""


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_change_that_was_cut_off_is_never_read(mounted: Path, data: Path, mode: str) -> None:
    """The journal that undoes it can be played back only where something can be written."""
    done = subprocess.run([sys.executable, "-c", CUT_OFF, data / "logs.db", mode, "cut off"], check=False)
    assert done.returncode == -signal.SIGKILL
    share(data)
    for said, expected in ((read(mounted), errno.EROFS), (read(data, NOBODY), errno.EACCES)):
        assert (said["error"], said["errno"]) == ("StoreIOError", expected), said
        assert "logs.db-journal" in said["message"]
        assert "copy" in said["message"]
        assert "\n" not in said["message"]
    with ns.LogStore(data / "logs.db") as writable:
        assert [entry.type for entry in writable.query(archived=True)] == EXPECTED["query"]
    assert read(mounted) == EXPECTED


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_journal_that_is_over_is_no_obstacle(mounted: Path, data: Path, mode: str) -> None:
    subprocess.run([sys.executable, "-c", CUT_OFF, data / "logs.db", mode, "over"], check=True)
    assert (data / "logs.db-journal").exists() is (mode != "delete")
    assert read(mounted) == EXPECTED


@pytest.mark.parametrize("is_open", [True, False], ids=["with its log", "alone"])
def test_a_write_is_refused_as_what_stands_in_its_way(mounted: Path, data: Path, is_open: bool) -> None:
    with ns.LogStore(data / "logs.db") as writer:
        if not is_open:
            writer.close()
        share(data)
        for path, user, expected in ((data, NOBODY, errno.EACCES), (mounted, None, errno.EROFS)):
            done = run_child("append_as", path=str(path), user=user)
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout)
            assert (said["error"], said["errno"]) == ("StoreIOError", expected), said


def test_a_killed_store_is_salvaged_from_read_only_media(mounted: Path, data: Path) -> None:
    """As when the system mounts a failing disk anew."""
    killed = run_child("leave_open", path=str(data), row_type="newest")
    assert killed.returncode == 0, killed.stderr
    assert (data / "logs.db-ids").exists()
    before = names(mounted)
    saved = data.parent / "saved" / "logs.db"
    report = ns.salvage(mounted / "logs.db", saved)
    assert (report.row_count, report.last_id) == (3, 4)
    assert names(mounted) == before
    assert names(saved.parent) == {"logs.db"}
    with ns.LogStore(saved, read_only=True, archive_dir=data / "archive/logs") as logs:
        assert [entry.type for entry in logs.query(archived=True)] == [*EXPECTED["query"], "newest"]  # type: ignore[misc]


def test_a_killed_store_is_salvaged_while_its_files_may_only_be_read(data: Path) -> None:
    killed = run_child("leave_open", path=str(data), row_type="newest")
    assert killed.returncode == 0, killed.stderr
    subprocess.run(["chmod", "-R", "a+rX,go-w", data], check=True)
    saved = Path(tempfile.mkdtemp(dir=data.parent)) / "logs.db"
    os.chown(saved.parent, NOBODY, NOBODY)
    done = run_child("salvage_as", path=str(data / "logs.db"), target=str(saved), user=NOBODY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == 3


def test_no_permission_to_read_is_told_as_such(data: Path) -> None:
    share(data)
    (data / "logs.db").chmod(0o600)
    said = read(data, NOBODY)
    assert (said["error"], said["errno"]) == ("StoreIOError", errno.EACCES)
    assert "readable" in said["message"]


@pytest.mark.parametrize("how", ["appended and closed", "appended and open", "archived and closed"])
def test_a_file_that_begins_to_change_is_noticed(data: Path, how: str) -> None:
    """A reader without locks meets a writer: its read fails or is right, and the next one is right."""
    share(data)
    done = run_child("read_beside_a_writer", path=str(data), user=NOBODY, how=how)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said[0] == {"before": 3}
    rows = 3 if how.startswith("appended") else 2
    assert {"2", str(rows)} & set(said[1]["during"])
    assert set(said[1]["during"]) <= {"2", str(rows), "StoreIOError"}
    assert said[2] == {"after": 4 if how.startswith("appended") else 3, "sql": rows}
