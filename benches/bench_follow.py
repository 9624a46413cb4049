"""How soon a follower has a row after its commit, and what followers cost that wait."""

from __future__ import annotations

import asyncio
import queue
import random
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import nerve_store as ns
from figures import Figure, Kind, Target
from follower import POLLING, Follower

ROWS = 300
IDLE = 400

Record = Callable[[Figure], None]


def delays(store: ns.LogStore, seen: Callable[[], float]) -> list[float]:
    """From the commit of each of `ROWS` rows until it was seen, in seconds. They come at random times, in pace with
    nothing that polls."""
    pauses = random.Random(7)
    found = []
    for _ in range(ROWS):
        time.sleep(pauses.uniform(0.005, 0.06))
        store.append("s", "t")
        committed = time.monotonic()
        # A follower may have it before the caller of `append` knows.
        found.append(max(seen() - committed, 1e-6))
    return found


def record_delays(
    record: Record, case: str, seconds: list[float], bounds: tuple[float, float], polling: list[float] | None = None
) -> None:
    polled = [None, None] if polling is None else [statistics.median(polling), p99(polling)]
    for name, ours, bound, peer in zip(
        ("p50", "p99"), (statistics.median(seconds), p99(seconds)), bounds, polled, strict=True
    ):
        record(Figure(f"{case}, {name}", "s", ours, Target(Kind.COST, bound), peer, POLLING if polling else ""))


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


@pytest.mark.parametrize("way", ["follow", "async follow"])
def bench_follow_of_another_process(record: Record, tmp_path: Path, way: str) -> None:
    def measured(name: str) -> list[float]:
        path = tmp_path / name / "logs.db"
        with ns.LogStore(path, durability="normal") as store, closing(Follower(name, path)) as follower:
            return delays(store, follower.seen)

    record_delays(record, f"{way}, another process", measured(way), (0.001, 0.005), measured(POLLING))


def bench_follow(record: Record, tmp_path: Path) -> None:
    seen: queue.Queue[float] = queue.Queue()
    with ns.LogStore(tmp_path / "logs.db", durability="normal") as store:
        follower = store.follow()

        def wait() -> None:
            for _ in follower:
                seen.put(time.monotonic())

        thread = threading.Thread(target=wait)
        thread.start()
        seconds = delays(store, seen.get)
        follower.close()
        thread.join()
    record_delays(record, "follow, same process", seconds, (0.0003, 0.002))


def bench_async_follow(record: Record, tmp_path: Path) -> None:
    async def run() -> list[float]:
        pauses = random.Random(7)
        found = []
        async with ns.AsyncLogStore(tmp_path / "logs.db", durability="normal") as logs:
            seen: asyncio.Queue[float] = asyncio.Queue()

            async def wait() -> None:
                async for _ in logs.follow():
                    seen.put_nowait(time.monotonic())

            task = asyncio.create_task(wait())
            for _ in range(ROWS):
                await asyncio.sleep(pauses.uniform(0.005, 0.06))
                await logs.append("s", "t")
                committed = time.monotonic()
                found.append(max(await seen.get() - committed, 1e-6))
            task.cancel()
        return found

    record_delays(record, "async follow, same process", asyncio.run(run()), (0.0003, 0.002))


def bench_idle_followers(record: Record, tmp_path: Path) -> None:
    """The share of a core that followers take which wait, over some seconds."""
    seconds = 5.0

    async def run() -> float:
        async with ns.AsyncLogStore(tmp_path / "logs.db") as logs:

            async def wait() -> None:
                async for _ in logs.follow():
                    pass

            tasks = [asyncio.create_task(wait()) for _ in range(IDLE)]
            await asyncio.sleep(1)
            before = time.process_time()
            await asyncio.sleep(seconds)
            used = time.process_time() - before
            for task in tasks:
                task.cancel()
        return used

    used = asyncio.run(run())
    record(Figure(f"{IDLE} idle followers, processor time of a second", "s", used / seconds, Target(Kind.COST, 0.01)))
