"""A process that waits for rows, and prints of each when it had it.

    python benches/follower.py WAY PATH

`time.monotonic` of Linux is the same clock in all processes. WAY: a name in `WAYS`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nerve_store as ns

Seen = Callable[[], None]
"""To be called once it waits, and for each row."""


def follow(store: ns.LogStore, seen: Seen) -> None:
    seen()
    for _ in store.follow():
        seen()


def follow_async(store: ns.LogStore, seen: Seen) -> None:
    path = store.path

    async def run() -> None:
        async with ns.AsyncLogStore(path) as logs:
            seen()
            async for _ in logs.follow():
                seen()

    asyncio.run(run())


def poll(store: ns.LogStore, seen: Seen) -> None:
    """What a user writes without `follow`."""
    seen()
    last = 0
    while True:
        for row in store.query(after_id=last):
            last = row.id
            seen()
        time.sleep(0.05)


POLLING = "query each 50 ms"
WAYS = {"follow": follow, "async follow": follow_async, POLLING: poll}


class Follower:
    """A process that waits for the rows of an empty log."""

    def __init__(self, way: str, path: Path) -> None:
        self._process = subprocess.Popen([sys.executable, __file__, way, str(path)], stdout=subprocess.PIPE, text=True)
        self.seen()

    def seen(self) -> float:
        """When it had the next row."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.kill()


def main(way: str, path: Path) -> None:
    with ns.LogStore(path) as store:
        WAYS[way](store, lambda: print(time.monotonic(), flush=True))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
