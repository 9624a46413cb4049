"""Locks that cannot be had: the error says busy or I/O, and never that the database is damaged."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import nerve_store as ns
from support.strace import run_straced

STOPPED_IN_RECOVERY = """
import fcntl, os, struct, sys, time
shm = os.open(sys.argv[1], os.O_RDWR)
# As a process does that rebuilds the index of the log: the lock of the writer, and no header yet.
F_OFD_SETLK = 37
lock = struct.pack("hhllhh", fcntl.F_WRLCK, os.SEEK_SET, 120, 1, 0, 0)
fcntl.fcntl(shm, F_OFD_SETLK, lock)
os.pwrite(shm, bytes(96), 0)
print("locked", flush=True)
time.sleep(120)
"""


def test_a_process_that_stopped_in_a_recovery_is_no_damage(data_dir: Path) -> None:
    """SQLite reports this as a failure of the locking protocol, after ten seconds."""
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        store.append("system", "tick")
        command = [sys.executable, "-c", STOPPED_IN_RECOVERY, f"{path}-shm"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopped:
            assert stopped.stdout is not None
            assert stopped.stdout.readline() == "locked\n"
            began = time.monotonic()
            with pytest.raises(ns.StoreBusyError):
                ns.LogStore(path, read_only=True, busy_timeout=0.2).count()
            assert time.monotonic() - began < 60
            stopped.kill()
        assert store.count() == 1
    with ns.LogStore(path) as again:
        assert again.count() == 1
        assert again.verify().ok


APPENDS = """
import sys
import nerve_store as ns
try:
    with ns.LogStore(sys.argv[1], busy_timeout=0.2) as store:
        for number in range(4):
            try:
                print("id", store.append("system", "tick").id)
            except ns.NerveStoreError as error:
                print("error", type(error).__name__)
                break
        store.count()
except ns.NerveStoreError as error:
    print("error", type(error).__name__)
"""


@pytest.mark.parametrize("error", ["EIO", "ENOLCK", "EACCES"])
@pytest.mark.parametrize("when", [6, 9, 12, 15])
def test_a_lock_call_that_fails_is_busy_or_io(data_dir: Path, tmp_path: Path, error: str, when: int) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        store.append("system", "before")
    faults = [f"fcntl:error={error}:when={when}"]
    command = [sys.executable, "-c", APPENDS, str(path)]
    done, _ = run_straced(command, tmp_path / "log", "fcntl", faults)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    assert {name for kind, name in said if kind == "error"} <= {"StoreBusyError", "StoreIOError"}
    acknowledged = {int(row_id) for kind, row_id in said if kind == "id"}
    with ns.LogStore(path) as store:
        assert acknowledged <= {entry.id for entry in store.query()}
        assert store.verify().ok
