"""A query that takes long in the main thread: it pauses for signals, and goes on after the rows it has read."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from support.signals import handler, signal_after

DAY_MS = 86_400_000

pytestmark = pytest.mark.thread_unsafe(reason="signals reach the main thread alone")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ns.LogStore]:
    """A store of which a query takes many pauses, half of it archived."""
    with ns.LogStore(tmp_path_factory.mktemp("long") / "logs.db", durability="normal") as opened:
        for day in range(4):
            first = (20_000 + day) * DAY_MS
            opened.append_many(
                [("system", f"type{n % 7}", f"run-{n % 50}", "x" * 40, first + n) for n in range(100_000)]
            )
        opened.archive_logs(now=20_002 * DAY_MS, retention=timedelta(0), compression="zstd")
        yield opened


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("limit", [None, 250_000])
def test_a_query_that_pauses_returns_what_one_that_does_not_pause_returns(
    store: ns.LogStore, descending: bool, archived: bool, limit: int | None
) -> None:
    """It pauses in the main thread alone, and handlers that use the store run in between."""

    def query() -> list[tuple[int, int]]:
        rows = store.query(descending=descending, archived=archived, limit=limit)
        return [(entry.id, entry.timestamp) for entry in rows]

    unpaused: list[list[tuple[int, int]]] = []
    reading = threading.Thread(target=lambda: unpaused.append(query()))
    reading.start()
    reading.join(60)
    used: list[int] = []
    with handler(lambda: used.append(store.count(after_id=0, before_id=2, archived=True))), signal_after(0.06):
        paused = query()
        time.sleep(0.1)
    assert used == [1]
    assert unpaused == [paused]


@pytest.mark.skipif(sys.platform != "linux", reason="the names of threads are looked up in /proc")
def test_a_query_that_pauses_goes_on_in_the_main_thread(store: ns.LogStore) -> None:
    """In a thread of its own it would begin anew, in memory of that thread's own."""
    names: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            for task in Path("/proc/self/task").iterdir():
                with suppress(OSError):
                    names.add((task / "comm").read_text().strip())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        began = time.monotonic()
        store.query()
        assert time.monotonic() - began > 0.05  # it was long enough for a pause
    finally:
        done.set()
        watching.join()
    assert names
    assert not [name for name in names if name.startswith("nerve_store-cal")]
