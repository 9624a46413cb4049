"""Misuse that costs rows, and that is told before it does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nerve_store as ns
from support.processes import child_environment


@pytest.mark.parametrize("read_only", [False, True])
def test_a_database_with_two_names_is_refused_by_both(tmp_path: Path, read_only: bool) -> None:
    first, second = tmp_path / "logs.db", tmp_path / "second.db"
    with ns.LogStore(first) as store:
        store.append("a", "b")
    second.hardlink_to(first)
    before = {path.name for path in tmp_path.iterdir()}
    for path in (first, second):
        with pytest.raises(ns.StoreIOError, match="2 names") as raised:
            ns.LogStore(path, read_only=read_only)
        assert raised.value.errno == errno.EMLINK
    assert {path.name for path in tmp_path.iterdir()} == before
    second.unlink()
    with ns.LogStore(first, read_only=read_only) as store:
        assert store.count() == 1


def test_a_second_name_given_to_an_open_database_stops_its_writes(tmp_path: Path) -> None:
    first, second = tmp_path / "logs.db", tmp_path / "second.db"
    with ns.LogStore(first) as store:
        store.append("a", "b")
        second.hardlink_to(first)
        for _ in range(2):
            with pytest.raises(ns.StoreIOError, match="2 names"):
                store.append("a", "b")
        second.unlink()
        store.append("a", "b")
        assert store.count() == 2


DROPS = {
    "plain_open": "open(path, 'rb').close()",
    "sqlite3": "import sqlite3; c = sqlite3.connect(path); c.execute('SELECT 1 FROM logs').fetchone(); c.close()",
    "sqlite3_write": "import sqlite3; c = sqlite3.connect(path); c.execute('CREATE TABLE x (y)'); c.close()",
    "index_of_the_log": "open(path + '-shm', 'rb').close()",
    "copy": "import shutil; shutil.copyfile(path, path + '.copy')",
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its own locks")
@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("drop", DROPS)
def test_locks_that_something_else_dropped_are_missed_at_the_next_commit(
    tmp_path: Path, drop: str, durability: str
) -> None:
    """What was acknowledged is there afterwards, and a store that is opened anew works."""
    script = f"""
import sys
import nerve_store as ns
path, durability = sys.argv[1:]
store = ns.LogStore(path, durability=durability)
for number in range(20):
    store.append("kept", "row")
{DROPS[drop]}
for _ in range(2):
    try:
        print("acknowledged", store.append("late", "row").id)
    except ns.StoreIOError as error:
        print(error.errno)
store.close()
with ns.LogStore(path) as store:
    store.append("again", "row")
"""
    path = tmp_path / "logs.db"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), durability],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert {int(line) for line in done.stdout.splitlines()} <= {errno.ENOLCK, errno.ESTALE}
    with ns.LogStore(path) as store:
        kept = [entry.source for entry in store.query()]
        assert (kept.count("kept"), kept.count("again")) == (20, 1)
        assert store.verify().ok


def test_what_the_store_itself_does_drops_no_lock(tmp_path: Path) -> None:
    """Other handles of the process come and go, also ones that fail to open, and read, vacuum, archive and check."""
    path = tmp_path / "logs.db"
    with ns.LogStore(path, durability="normal") as store:
        for number in range(200):
            with ns.LogStore(path, read_only=number % 2 == 0) as other:
                other.query(limit=1)
                if number % 2:
                    other.append("other", "row")
            if number % 50 == 0:
                store.archive_logs(vacuum=number % 100 == 0)
                assert store.verify().ok
                store.reindex()
                store.stats()
            with pytest.raises(ns.NerveStoreError):
                ns.LogStore(tmp_path / "missing.db", read_only=True)
            store.append("own", "row")
        assert store.count() == 300
        assert os.stat(path).st_nlink == 1
