"""Parents and children that use one store at once, and what a child inherits."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import nerve_store as ns
from programs import say

PATIENCE = 110
"""Seconds after which a process that hangs is ended by its alarm."""
BUSY_TIMEOUT = 90.0
"""Long enough for a disk that others keep busy."""


class Acknowledged:
    """A file of the rows that were acknowledged, in one write each, so that it survives any kill."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, entry: ns.LogEntry) -> None:
        os.write(self._file, f"{entry.id} {entry.payload}\n".encode())


def append_rows(store: ns.LogStore, name: str, rows: int, acknowledged: Acknowledged, pause: float = 0.0) -> None:
    for number in range(rows):
        durability: Any = "full" if number % 4 == 0 else "normal"
        acknowledged.add(store.append("fork", "row", name, f"{name}-{number}", durability=durability))
        time.sleep(pause)


def be_child(path: str, acknowledged_path: str, name: str, rows: int, end: str) -> None:
    """Opens a store of its own and appends; `end`: whether it closes, is killed, or just ends."""
    signal.alarm(PATIENCE)
    acknowledged = Acknowledged(acknowledged_path)
    store = ns.LogStore(path, busy_timeout=BUSY_TIMEOUT)
    append_rows(store, name, rows, acknowledged, pause=0.002)
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "close":
        store.close()


def in_child(path: str, acknowledged_path: str, name: str, rows: int, end: str) -> None:
    """`be_child` in a child that was just forked."""
    status = 1
    try:
        be_child(path, acknowledged_path, name, rows, end)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the test reads it
        os.write(2, f"child: {error!r}\n".encode())
    finally:
        os._exit(status)


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        work()
    return pid


class Family:
    """Ways to start a child, and to wait for it."""

    def __init__(self, how: str) -> None:
        self.how = how
        self._waits: list[Callable[[], int]] = []

    def start(self, *arguments: Any) -> None:
        match self.how:
            case "fork":
                self._wait_for(forked(lambda: in_child(*arguments)))
            case "fork_from_thread":
                pids: list[int] = []
                thread = threading.Thread(target=lambda: pids.append(forked(lambda: in_child(*arguments))))
                thread.start()
                thread.join()
                self._wait_for(pids[0])
            case "grandchild":

                def middle() -> None:
                    # It opens a store itself, so that its child inherits two generations of connections.
                    signal.alarm(PATIENCE)
                    with ns.LogStore(arguments[0]) as store:
                        store.count()
                        _, status = os.waitpid(forked(lambda: in_child(*arguments)), 0)
                        store.count()
                    os._exit(status != 0 and arguments[4] != "kill")

                self._wait_for(forked(middle))
            case "daemon":
                reader, writer = os.pipe()

                def daemonize() -> None:
                    os.setsid()
                    if os.fork() == 0:
                        in_child(*arguments)
                    os._exit(0)

                self._wait_for(forked(daemonize))
                os.close(writer)
                # The pipe ends with the daemon.
                self._waits.append(lambda: len(os.read(reader, 1)))
            case _:  # "mp:" and a start method of multiprocessing
                context: Any = multiprocessing.get_context(self.how.removeprefix("mp:"))
                process = context.Process(target=be_child, args=arguments)
                process.start()

                def join() -> int:
                    process.join()
                    return int(process.exitcode)

                self._waits.append(join)

    def _wait_for(self, pid: int) -> None:
        self._waits.append(lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def wait(self) -> list[int]:
        return [wait() for wait in self._waits]


def busy_work(store: ns.LogStore, path: str, acknowledged: Acknowledged) -> dict[str, Callable[[], object]]:
    """What threads of the parent do over and over while it forks."""
    count = iter(range(10**9))

    def append() -> None:
        acknowledged.add(store.append("fork", "row", "parent", f"parent-{next(count)}", durability="normal"))

    def append_durably() -> None:
        acknowledged.add(store.append("fork", "row", "parent", f"parent-{next(count)}"))

    def archive() -> None:
        store.append_many([("old", "row", None, "x" * 50, number) for number in range(20)], durability="normal")
        with suppress(ns.ArchiveBusyError):
            store.archive_logs(retention=timedelta(days=1))

    def open_and_close() -> None:
        with ns.LogStore(path, read_only=random.random() < 0.5) as other:
            other.count(source="old")

    return {
        "append": append,
        "append_durably": append_durably,
        "archive": archive,
        "query": lambda: store.query(limit=100),
        "iterate": lambda: [entry.id for entry in store.iter(source="fork")],
        "open": open_and_close,
        "sql": lambda: store.sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT max(i) FROM n"
        ),
        "verify": store.verify,
    }


@contextmanager
def threads(work: list[Callable[[], object]]) -> Iterator[None]:
    is_over = threading.Event()
    failures: list[BaseException] = []

    def repeat(call: Callable[[], object]) -> None:
        try:
            while not is_over.is_set():
                call()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    running = [threading.Thread(target=repeat, args=(call,), daemon=True) for call in work]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in running:
            thread.join(PATIENCE)
    assert not failures, failures


def family(*, path: str, how: str, busy: list[str], children: int, rows: int, ends: list[str], parent_end: str) -> None:
    """Forks children at any moment of the parent's threads; says how they ended. `parent_end`: the parent closes before
    its children, after them, or is killed in the middle."""
    signal.alarm(2 * PATIENCE)
    acknowledged_path = path + ".acknowledged"
    store = ns.LogStore(path, busy_timeout=BUSY_TIMEOUT)
    acknowledged = Acknowledged(acknowledged_path)
    work = busy_work(store, path, acknowledged)
    started = Family(how)
    with threads([work[name] for name in busy]):
        for number in range(children):
            time.sleep(random.uniform(0, 0.01))
            started.start(path, acknowledged_path, f"child{number}", rows, ends[number % len(ends)])
        append_rows(store, "main", 5, acknowledged)
        if parent_end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    if parent_end == "before":
        store.close()
    statuses = started.wait()
    if parent_end == "after":
        append_rows(store, "last", 5, acknowledged)
        store.close()
    say(statuses)


def inherited(*, path: str) -> None:
    """What each method of an inherited store does in a child, while threads of the parent hold its locks."""
    signal.alarm(PATIENCE)
    store = ns.LogStore(path, durability="normal")
    store.append_many([("s", "t", "r", None, 0)] * 100)
    rows, follower = store.iter(), store.follow()
    run = ns.WorkflowRun(run_id="r", workflow="w", status=ns.WorkflowRunStatus("started"), timestamp=0)
    calls: dict[str, Callable[[], object]] = {
        "append": lambda: store.append("a", "b"),
        "append_many": lambda: store.append_many([("a", "b", None, None, 0)]),
        "query": store.query,
        "query_archived": lambda: store.query(archived=True),
        "count": store.count,
        "iter": lambda: list(store.iter()),
        "next": lambda: list(rows),
        "follow": lambda: next(follower),
        "sql": lambda: store.sql("SELECT 1"),
        "get_meta": lambda: store.get_meta("x"),
        "set_meta": lambda: store.set_meta("x", "y"),
        "upsert": lambda: store.upsert_workflow_run(("a", "b", "r", None, 0), run),
        "transition": lambda: store.transition("r", "completed"),
        "runs": store.get_all_workflow_runs,
        "rounds": lambda: store.get_thread_rounds("r", limit=1),
        "archive": store.archive_logs,
        "archive_dry": lambda: store.archive_logs(dry_run=True),
        "days": store.archived_days,
        "verify": store.verify,
        "reindex": store.reindex,
        "stats": store.stats,
        "close": store.close,
    }
    acknowledged = Acknowledged(path + ".acknowledged")
    work = busy_work(store, path, acknowledged)
    say(len(calls))
    with threads([work[name] for name in ("append", "query", "archive", "sql")]):
        for _ in range(30):
            time.sleep(random.uniform(0, 0.01))
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                refused = []
                for name, call in calls.items():
                    try:
                        call()
                    except ns.ForkedStoreError:
                        refused.append(name)
                    except BaseException as error:  # noqa: BLE001 - counted as not refused
                        os.write(2, f"{name}: {error!r}\n".encode())
                repr(store), store.closed, store.path, store.read_only
                del store, rows, follower, calls, work
                gc.collect()
                os._exit(len(refused))
            say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    store.close()


def open_files(*, path: str) -> None:
    """Whether a child still holds files of the stores that its parent has open."""
    store = ns.Store(path)
    store.logs.append("a", "b")
    writer = store.blobs.writer()
    writer.write(b"half")
    reader, parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        targets = []
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                targets.append(os.readlink(f"/proc/self/fd/{name}"))
        shared = Path("/proc/self/maps").read_text().splitlines()
        found = [target for target in targets if "logs.db" in target or ".stage" in target]
        found += [line for line in shared if "logs.db" in line]
        os.write(parent, json.dumps(found).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    say(json.loads(os.read(reader, 65536)))
    writer.write(b"whole")
    writer.close()
    say(writer.hash == ns.blob_hash(b"halfwhole"))
    store.close()
