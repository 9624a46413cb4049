"""Forks in the middle of the parent's work: in a progress report, in an event loop, before a kill."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import nerve_store as ns
from programs import say
from programs.families import PATIENCE

DAY = 86_400_000


def fork_in_progress(*, path: str, operation: str, child_end: str) -> None:
    """Forks in a progress report. The child ends at once, raises, or goes on as if it were the parent; says what the
    operation came to in parent and child."""
    signal.alarm(PATIENCE)
    store = ns.Store(Path(path).parent)
    logs = store.logs
    logs.append_many([("s", "t", None, "x" * 100, day * DAY + number) for day in range(3) for number in range(2000)])
    for number in range(20):
        store.blobs.write(b"blob %d" % number)
    retention = timedelta(days=1)
    if operation == "restore":
        logs.archive_logs(retention=retention)
    parent = os.getpid()
    fork = ForkOnce(child_end)
    operations: dict[str, Callable[[], object]] = {
        "archive": lambda: sum(day.row_count for day in logs.archive_logs(retention=retention, progress=fork).days),
        "restore": lambda: logs.restore_archive(date(1970, 1, 2), progress=fork),
        "reindex": lambda: logs.reindex(progress=fork),
        "verify": lambda: logs.verify(progress=fork).ok,
        "blobs_verify": lambda: store.blobs.verify(progress=fork).ok,
        "blobs_collect": lambda: store.blobs.collect([], grace=timedelta(0), progress=fork).deleted_count,
    }
    outcome: object
    try:
        outcome = operations[operation]()
    except ns.ForkedStoreError:
        outcome = 3
    except SystemExit:
        outcome = 4
    if os.getpid() != parent:
        gc.collect()
        os._exit(outcome if isinstance(outcome, int) else 5)
    say({"outcome": outcome, "child": os.waitstatus_to_exitcode(os.waitpid(fork.child, 0)[1])})
    say({"verify": logs.verify().ok, "rows": logs.count(archived=True)})
    store.close()


class ForkOnce:
    """A progress report that forks once, in the middle of the work."""

    def __init__(self, child_end: str) -> None:
        self.child = 0
        self._child_end = child_end

    def __call__(self, done: int, total: int) -> None:
        if self.child or not done:
            return
        self.child = os.fork()
        if self.child == 0:
            self.child = -1
            signal.alarm(10)
            if self._child_end == "exit":
                os._exit(0)
            if self._child_end == "raise":
                sys.exit(0)


async def refused(store: ns.AsyncLogStore) -> int:
    calls: list[Callable[[], Any]] = [
        lambda: store.append("a", "b"),
        lambda: store.append_many([("a", "b", None, None, 0)]),
        store.query,
        store.archive_logs,
        lambda: store.set_meta("a", "b"),
    ]
    count = 0
    for call in calls:
        try:
            await asyncio.wait_for(call(), 5)
        except ns.ForkedStoreError:
            count += 1
    return count


async def own(path: str, inherited: ns.AsyncLogStore) -> int:
    async with ns.AsyncLogStore(path) as store:
        await asyncio.gather(*[store.append("child", "row") for _ in range(10)])
        await store.query()
    return await refused(inherited)


def fork_in_loop(*, path: str, child_end: str) -> None:
    """Forks inside a running event loop with an open store; says what the child met, and how the parent goes on."""
    signal.alarm(PATIENCE)

    async def main() -> None:
        store = ns.AsyncLogStore(path)
        tasks = [asyncio.create_task(store.append("parent", "row")) for _ in range(200)]
        await asyncio.sleep(random.uniform(0, 0.01))
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            if child_end == "exit":
                os._exit(0)
            if child_end == "raise":
                sys.exit(0)
            count: list[int] = []
            thread = threading.Thread(target=lambda: count.append(asyncio.run(own(path, store))))
            thread.start()
            thread.join()
            os._exit(count[0])
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        for _ in range(3):
            await asyncio.wait_for(store.append("parent", "row"), 10)
            await asyncio.wait_for(store.query(limit=1), 10)
            await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.05), 10)
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - the loop is to find its descriptors afterwards
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.05), 10)
        await asyncio.wait_for(store.append("parent", "row"), 10)
        await asyncio.wait_for(store.close(), 10)
        say(os.waitstatus_to_exitcode(status))

    try:
        asyncio.run(main())
    except SystemExit:
        os._exit(0)


def fork_with_streams(*, path: str) -> None:
    """Forks with streams of blobs that an event loop has open; says what each call of the child raised."""
    signal.alarm(PATIENCE)

    async def opened() -> tuple[ns.AsyncStore, Any, Any]:
        store = ns.AsyncStore(path)
        hash = await store.blobs.write(b"x" * 500_000)
        writer, reader = store.blobs.writer(), store.blobs.open(hash)
        await writer.write(b"a")
        await reader.read(5)
        return store, writer, reader

    async def outcome(call: Awaitable[object]) -> str:
        try:
            await asyncio.wait_for(call, 5)
        except Exception as error:  # noqa: BLE001 - the test compares it
            return type(error).__name__
        return "none"

    async def in_child(store: ns.AsyncStore, writer: Any, reader: Any) -> list[str]:
        calls = {
            "store.blobs.write": store.blobs.write("z"), "writer.write": writer.write(b"b"),
            "writer.close": writer.close(), "writer.discard": writer.discard(), "reader.read": reader.read(5),
            "reader.close": reader.close(), "logs.append": store.logs.append("s", "t"), "store.close": store.close(),
        }  # fmt: skip
        return [f"{name}: {await outcome(call)}" for name, call in calls.items()]

    async def closed(store: ns.AsyncStore, writer: Any, reader: Any) -> str:
        await writer.close()
        await reader.close()
        await store.close()
        return str(writer.hash)

    with asyncio.Runner() as runner:
        streams = runner.run(opened())
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, json.dumps(asyncio.run(in_child(*streams))).encode())
            os._exit(0)
        os.wait()
        say(json.loads(os.read(reading, 65536)))
        say(runner.run(closed(*streams)))


def killed_archiver(*, path: str) -> None:
    """Is killed in the middle of an archive job, while a child that knows nothing of the store lives on."""
    store = ns.LogStore(path, durability="normal")
    store.append_many([("s", "t", None, None, day * DAY + number) for day in range(3) for number in range(1000)])

    def progress(done: int, total: int) -> None:
        if done:
            pid = os.fork()
            if pid == 0:
                for descriptor in (1, 2):  # Whoever waits for the end of their pipes would wait for this process, too.
                    os.close(descriptor)
                time.sleep(PATIENCE)
                os._exit(0)
            say(pid)
            os.kill(os.getpid(), signal.SIGKILL)

    store.archive_logs(retention=timedelta(days=1), progress=progress)
