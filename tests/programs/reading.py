"""A program that reads a store which it may not write to."""

from __future__ import annotations

import ctypes
import os
import sys
import time

import nerve_store as ns
import nerve_store.records
from nerve_store.cli import main
from programs import failure, say

SLOW = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT (SELECT count(*) FROM n), (SELECT count(*) FROM logs)"  # noqa: E501

_CAPABILITY_VERSION = 0x20080522


def read_only(*, path: str, user: int | None = None) -> None:
    """Read the data directory in many ways, as another user if one is given."""
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    try:
        with ns.Store(path, read_only=True) as store:
            logs = store.logs
            say(
                {
                    "count": logs.count(archived=True),
                    "query": [entry.type for entry in logs.query(archived=True)],
                    "sql": logs.sql("SELECT count(*) FROM logs")[0][0],
                    "runs": [run.run_id for run in logs.get_all_workflow_runs()],
                    "rounds": logs.get_thread_round_count("run-1"),
                    "stats": logs.stats().row_count,
                    "verified": logs.verify().ok,
                    "blobs": store.blobs.stats().blob_count,
                    "days": len(logs.archived_days()),
                    "writes": _refused(logs),
                }
            )
    except Exception as error:  # noqa: BLE001 - it is said
        say(failure(error))


def _refused(logs: ns.LogStore) -> str:
    try:
        logs.append("s", "t")
    except ns.StoreIOError as error:
        return type(error).__name__
    return "accepted"


def command(*, words: list[str]) -> None:
    """Run the command line as root without its privileges, to whom files of others are closed as to anybody.

    It is still the user to whom the interpreter's own files belong.
    """
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    sys.exit(main(words))


def leave_open(*, path: str, row_type: str) -> None:
    """Append a row and end as a killed process does: nothing is closed."""
    store = ns.Store(path)
    store.logs.append("s", row_type)
    os._exit(0)


def read_beside_a_writer(*, path: str, user: int, how: str) -> None:
    """Read without locks as `user`, while root writes; each read is said."""
    to_reader, to_writer = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        _write_when_told(path, how, to_writer[0], to_reader[1])
        os._exit(0)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    with ns.Store(path, read_only=True) as store:
        logs = store.logs
        say({"before": logs.count(archived=True)})
        os.write(to_writer[1], b".")
        deadline = time.monotonic() + 2
        seen: list[str] = []
        while time.monotonic() < deadline:
            try:
                seen.append(str(logs.sql(SLOW)[0][1]))
            except ns.StoreIOError as error:
                seen.append(type(error).__name__)
        os.read(to_reader[0], 1)
        say({"during": sorted(set(seen))})
        say({"after": logs.count(archived=True), "sql": logs.sql(SLOW)[0][1]})
    os.write(to_writer[1], b".")
    os.waitpid(child, 0)


def _write_when_told(path: str, how: str, told: int, tell: int) -> None:
    os.read(told, 1)
    time.sleep(0.5)
    store = ns.Store(path)
    if how.startswith("appended"):
        store.logs.append("s", "newest")
        os.chmod(os.path.join(path, "logs.db-wal"), 0o644)
        os.chmod(os.path.join(path, "logs.db-shm"), 0o644)
    else:
        store.logs.archive_logs(vacuum=True)
    if how.endswith("closed"):
        store.close()
    os.write(tell, b".")
    os.read(told, 1)
