"""How often an append returns, from many threads and processes at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from nerve_store.postgres import PostgresLogStore
from remote.peers import PAYLOAD, EventSourcing, LockedThroughFlush, Unordered

SECONDS = float(os.environ.get("NERVE_BENCH_SECONDS", "3"))


def per_second(make: Callable[[], Any], threads: int, seconds: float = SECONDS) -> float:
    """How often `append` returns, from so many threads of this process."""
    target = make()
    with contextlib.closing(target):
        counts = [0] * threads
        begin, ending = threading.Barrier(threads + 1), threading.Event()

        def work(number: int) -> None:
            target.append()
            begin.wait()
            while not ending.is_set():
                target.append()
                counts[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        begin.wait()
        started = time.perf_counter()
        time.sleep(seconds)
        ending.set()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - started)


class Ours:
    """The log, and the append that is measured."""

    def __init__(self, url: str, **options: Any) -> None:
        self.log = PostgresLogStore(url, **options)

    def append(self) -> None:
        self.log.append("system", "tick", "run-1", PAYLOAD, 5)

    def close(self) -> None:
        self.log.close()


MAKERS: dict[str, Callable[[str], Any]] = {
    "ours": Ours,
    "unordered": Unordered,
    "lock through the flush": LockedThroughFlush,
    "eventsourcing": EventSourcing,
}


def _process(name: str, url: str, threads: int, results: Any) -> None:
    results.put(per_second(lambda: MAKERS[name](url), threads))


def daemons(name: str, url: str, *, processes: int = 8, threads: int = 4) -> float:
    """The same from several processes at once."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    children = [context.Process(target=_process, args=(name, url, threads, results)) for _ in range(processes)]
    for child in children:
        child.start()
    total = sum(results.get(timeout=SECONDS + 30) for _ in children)
    for child in children:
        child.join()
    return float(total)
