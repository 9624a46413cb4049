"""Programs that fork with an open store."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from io import BufferedReader
from typing import Any, cast

import nerve_store as ns
from programs import say


def call_forked(*, path: str) -> None:
    """Fork with an open store; the child uses it, the parent goes on. Says what the child saw, then what it sees."""
    store = ns.LogStore(path)
    store.append("system", "before", None, None, 0)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(20)
        seen: dict[str, str] = {}
        calls: dict[str, Callable[[], object]] = {
            "append": lambda: store.append("system", "child"),
            "query": store.query,
            "archive_logs": store.archive_logs,
            "set_meta": lambda: store.set_meta("a", "b"),
            "iter": lambda: list(store.iter()),
        }
        for name, call in calls.items():
            try:
                call()
                seen[name] = "no error"
            except ns.NerveStoreError as error:
                seen[name] = type(error).__name__
        try:
            store.close()
            seen["close"] = "no error"
        except ns.NerveStoreError as error:
            seen["close"] = type(error).__name__
        with ns.LogStore(path) as own:
            own.append("system", "own", None, None, 0)
        os.write(writer, json.dumps(seen).encode())
        os._exit(0)
    os.close(writer)
    seen_by_child = json.loads(os.read(reader, 65536) or b"{}")
    _, status = os.waitpid(child, 0)
    say({"status": status, "seen": seen_by_child})
    store.append("system", "after", None, None, 0)
    say([entry.type for entry in store.query()])
    store.close()


def drop_forked(*, path: str) -> None:
    """Fork with an open store; the child forgets it and ends as any program does. Says what the parent can still do."""
    store = ns.LogStore(path)
    rows = store.iter()
    store.append("system", "before", None, None, 0)
    if (child := os.fork()) == 0:
        signal.alarm(20)
        del store, rows
        gc.collect()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    say({"status": status})
    for _ in range(3):
        store.append("system", "after", None, None, 0)
        say(counted_by_another_program(path))
    store.close()


def refused_of(calls: dict[str, Callable[[], object]]) -> list[str]:
    """Which of the calls a child is refused."""
    refused = []
    for name, call in calls.items():
        try:
            call()
        except ns.ForkedStoreError:
            refused.append(name)
        else:
            os.write(2, f"child: {name} was not refused\n".encode())
    return refused


def inherited_streams(*, path: str) -> None:
    """What each method of inherited blob streams does in a child, while threads of the parent hold their locks."""
    blobs = ns.BlobStore(path, durability="normal")
    # So long that each step of a thread holds the lock for a while.
    content = bytes(8 << 20)
    blob_hash = blobs.write(content)
    writer, reader, hashes = blobs.writer(), blobs.open(blob_hash), iter(blobs)
    raw: Any = cast("BufferedReader", reader).raw
    buffer = bytearray(len(content))
    is_over = threading.Event()

    def again(step: Callable[[], object]) -> None:
        while not is_over.is_set():
            step()

    def read() -> None:
        if raw.readinto(buffer) == 0:
            # What has been read to its end is begun anew by none: the lock is taken all the same.
            raw.tell()

    threads = [threading.Thread(target=again, args=(step,)) for step in (lambda: writer.write(content), read)]
    for thread in threads:
        thread.start()
    refused_calls: dict[str, Callable[[], object]] = {
        "write": lambda: writer.write(b"x"),
        "close": writer.close,
        "hash": lambda: writer.hash,
        "tell": writer.tell,
        "readinto": lambda: raw.readinto(bytearray(1)),
        "readall": raw.readall,
        "tell of the reader": raw.tell,
        "next": lambda: next(hashes),
    }
    say(sorted(refused_calls))
    for _ in range(20):
        time.sleep(0.005)
        if (pid := os.fork()) == 0:
            signal.alarm(10)
            refused = refused_of(refused_calls)
            is_left_alone = writer.closed and raw.closed and "parent" in repr(writer)
            writer.discard()
            raw.close()
            os._exit(len(refused) if is_left_alone else 99)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    is_over.set()
    for thread in threads:
        thread.join()
    size = writer.tell()
    writer.close()
    say(size == blobs.size(writer.hash))


def counted_by_another_program(path: str) -> int:
    script = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM logs').fetchone())"
    return int(subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True).stdout)
