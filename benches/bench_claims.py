"""Claiming queued runs and completing them, beside `UPDATE … RETURNING` and libraries for queues."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import nerve_store as ns
from claimant import OURS, Claimants, take_and_complete
from figures import Target
from queue_peers import SHARED, Locked, WorkQueue, open_queue
from turns import Compare

QUEUED = 20_000
THREADS = 8
PROCESSES = 4
EACH = 25
"""Runs that a thread or process completes in a round."""

NUMBERS = itertools.count()


def some(count: int) -> list[str]:
    """Names that are in no queue yet."""
    return [f"run-{number:08}" for number in itertools.islice(NUMBERS, count)]


def queue_runs(store: ns.LogStore, run_ids: Sequence[str]) -> None:
    with store.batch() as batch:
        for run_id in run_ids:
            batch.create_workflow_run(run_id, "w", timestamp=1)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as executor:
        yield executor


def filled(store: ns.LogStore, queues: dict[str, WorkQueue], workers: int) -> Callable[[], None]:
    """Fills the queues; returns what puts in anew what a round takes out."""

    def fill(count: int) -> None:
        names = some(count)
        queue_runs(store, names)
        for queue in queues.values():
            queue.put(names)

    fill(QUEUED)
    return lambda: fill(workers * EACH)


def bench_claims_of_threads(store: ns.LogStore, pool: ThreadPoolExecutor, compare: Compare, tmp_path: Path) -> None:
    queues = {name: open_queue(name, tmp_path / name) for name in (*SHARED, "persist-queue")}

    def at_once(work: Callable[[], object]) -> Callable[[None], None]:
        def run(_: None) -> None:
            for future in [pool.submit(work) for _ in range(THREADS)]:
                future.result()

        return run

    def peer(queue: WorkQueue) -> Callable[[], None]:
        locked = Locked(queue)

        def work() -> None:
            for _ in range(EACH):
                locked.complete(locked.take())

        return work

    compare(
        f"claim and complete, {THREADS} threads, {QUEUED:,} queued, full",
        ours=at_once(lambda: take_and_complete(store, EACH)),
        peers={name: at_once(peer(queue)) for name, queue in queues.items()},
        work=filled(store, queues, THREADS),
        rows=2 * THREADS * EACH,
        rounds=8,
        target=Target(bound=8),
    )


def bench_claims_of_processes(store: ns.LogStore, compare: Compare, tmp_path: Path) -> None:
    queues = {name: open_queue(name, tmp_path / name) for name in SHARED}
    refill = filled(store, queues, PROCESSES)
    with ExitStack() as opened:

        def claimants(name: str) -> Callable[[None], None]:
            processes = opened.enter_context(closing(Claimants(name, tmp_path / name, PROCESSES)))
            return lambda _: processes.work(EACH)

        compare(
            f"claim and complete, {PROCESSES} processes, {QUEUED:,} queued, full",
            ours=claimants(OURS),
            peers={name: claimants(name) for name in queues},
            work=refill,
            rows=2 * PROCESSES * EACH,
            rounds=12,
            target=Target(bound=2),
        )
