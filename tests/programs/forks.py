"""Programs that fork with an open store."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

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


def counted_by_another_program(path: str) -> int:
    script = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM logs').fetchone())"
    return int(subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True).stdout)
