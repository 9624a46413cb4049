"""Programs that vacuum, and look at what that takes."""

from __future__ import annotations

import os
import threading

import nerve_store as ns
from programs import say


def _fill(store: ns.LogStore, rows: int, timestamp: int | None) -> None:
    for _ in range(0, rows, 500):
        store.append_many([("s", "t", None, "x" * 4_000, timestamp)] * 500)


def _resident(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) * 1024


def vacuum_memory(*, path: str, live_rows: int) -> None:
    """Vacuum a database with so many live rows, and say by how much the peak of the memory grew."""
    with ns.LogStore(path, durability="normal") as store:
        _fill(store, live_rows, None)
        _fill(store, 500, 5)
        store.archive_logs()
        with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
            clear.write("5")
        before = _resident("VmHWM")
        vacuumed = store.archive_logs(vacuum=True).vacuumed
        grown = _resident("VmHWM") - before
        say(
            {
                "vacuumed": vacuumed,
                "grown": grown,
                "database": os.path.getsize(path),
                "verified": store.verify().ok and store.count() == live_rows,
            }
        )


def vacuum_watched(*, path: str, rows: int) -> None:
    """Vacuum, and say which files the process had open meanwhile."""
    with ns.LogStore(path, durability="normal") as store:
        _fill(store, rows, None)
        opened: set[str] = set()
        is_done = threading.Event()

        def watch() -> None:
            while not is_done.is_set():
                for descriptor in os.listdir("/proc/self/fd"):
                    try:
                        opened.add(os.readlink(f"/proc/self/fd/{descriptor}"))
                    except OSError:
                        continue

        thread = threading.Thread(target=watch)
        thread.start()
        vacuumed = store.archive_logs(vacuum=True).vacuumed
        is_done.set()
        thread.join()
        say({"vacuumed": vacuumed, "opened": sorted(opened)})
