"""Changes of runs, batches, keys and claims, beside `sqlite3` and apsw in the predecessor's schema."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import nerve_store as ns
from conftest import OpenPeers
from figures import Target
from peers import PEERS, Durability, PeerLog
from run_peers import Runs
from turns import Compare

THREADS = 32
LIVES = 4
"""Runs that each of the threads takes through their lives in a round; a life is three changes."""

Work = Callable[[list[str]], object]


class Names:
    """Ids of runs that are in no store yet."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def some(self, count: int) -> list[str]:
        return [f"run-{number:08}" for number in itertools.islice(self._numbers, count)]


def lives(store: ns.LogStore, run_ids: list[str], durability: Durability) -> None:
    for run_id in run_ids:
        queued = ns.WorkflowRun(run_id, "w", ns.WorkflowRunStatus.QUEUED, 1)
        store.upsert_workflow_run(("workflow", "queued", run_id, None, 1), queued, durability=durability)
        store.transition(run_id, "started", durability=durability)
        store.transition(run_id, "completed", exit_code=0, durability=durability)


def of_each(peers: Mapping[str, PeerLog], use: Callable[[Runs, list[str]], object]) -> dict[str, Work]:
    def with_runs(runs: Runs) -> Work:
        return lambda run_ids: use(runs, run_ids)

    return {name: with_runs(Runs(log)) for name, log in peers.items()}


@pytest.mark.parametrize(("durability", "runs", "bound"), [("normal", 500, 2.5), ("full", 60, 1.2)])
def bench_changes(
    store: ns.LogStore, open_peers: OpenPeers, compare: Compare, durability: Durability, runs: int, bound: float
) -> None:
    names = Names()
    compare(
        f"upsert and transition, one thread, {durability}",
        ours=lambda run_ids: lives(store, run_ids, durability),
        peers=of_each(open_peers(durability), Runs.lives),
        work=lambda: names.some(runs),
        rows=3 * runs,
        rounds=12,
        target=Target(bound=bound),
    )


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that have been started."""
    with ThreadPoolExecutor(THREADS) as executor:
        barrier = threading.Barrier(THREADS)
        for future in [executor.submit(barrier.wait) for _ in range(THREADS)]:
            future.result()
        yield executor


def on_threads(pool: ThreadPoolExecutor, works: list[Work]) -> Callable[[list[list[str]]], None]:
    def run(prepared: list[list[str]]) -> None:
        for future in [pool.submit(work, run_ids) for work, run_ids in zip(works, prepared, strict=True)]:
            future.result()

    return run


def in_turns(runs: Runs) -> Work:
    """One connection for all threads, with a lock."""
    lock = threading.Lock()

    def work(run_ids: list[str]) -> None:
        for run_id in run_ids:
            for status in ("queued", "started", "completed"):
                with lock:
                    runs.change(run_id, status)

    return work


def bench_changes_from_threads(store: ns.LogStore, pool: ThreadPoolExecutor, compare: Compare, tmp_path: Path) -> None:
    names = Names()
    with ExitStack() as opened:

        def open_runs(peer: type[PeerLog], name: str) -> Runs:
            return Runs(opened.enter_context(closing(peer(tmp_path / f"{peer.name}-{name}.db"))))

        peers = {}
        for peer in PEERS:
            own = [open_runs(peer, "own") for _ in range(THREADS)]
            peers[f"{peer.name}, own connections"] = on_threads(pool, [runs.lives for runs in own])
            peers[f"{peer.name}, one connection"] = on_threads(pool, [in_turns(open_runs(peer, "one"))] * THREADS)
        compare(
            f"upsert and transition, {THREADS} threads, full",
            ours=on_threads(pool, [lambda run_ids: lives(store, run_ids, "full")] * THREADS),
            peers=peers,
            work=lambda: [names.some(LIVES) for _ in range(THREADS)],
            rows=3 * THREADS * LIVES,
            rounds=8,
            target=Target(bound=10),
        )


def bench_changes_from_tasks(open_peers: OpenPeers, compare: Compare, tmp_path: Path) -> None:
    names = Names()
    with asyncio.Runner() as runner:

        async def opened() -> ns.AsyncLogStore:
            return ns.AsyncLogStore(tmp_path / "ours" / "logs.db")

        store = runner.run(opened())

        async def one(run_id: str) -> None:
            queued = ns.WorkflowRun(run_id, "w", ns.WorkflowRunStatus.QUEUED, 1)
            await store.upsert_workflow_run(("workflow", "queued", run_id, None, 1), queued)
            await store.transition(run_id, "started")
            await store.transition(run_id, "completed", exit_code=0)

        async def each(run_ids: list[str]) -> None:
            await asyncio.gather(*map(one, run_ids))

        compare(
            "upsert and transition, 1,000 tasks at once, full",
            ours=lambda run_ids: runner.run(each(run_ids)),
            peers=of_each(open_peers("full"), Runs.lives),
            work=lambda: names.some(1000),
            rows=3000,
            rounds=6,
            target=Target(bound=15),
        )
        runner.run(store.close())


def bench_batch(store: ns.LogStore, open_peers: OpenPeers, compare: Compare) -> None:
    """Ten batches of a hundred changes: half of them rows, half changes of runs."""
    names = Names()

    def ours(run_ids: list[str]) -> None:
        for first in range(0, len(run_ids), 25):
            with store.batch() as batch:
                for run_id in run_ids[first : first + 25]:
                    batch.append("s", "t", run_id)
                    batch.create_workflow_run(run_id, "w")
                    batch.append("s", "t", run_id)
                    batch.transition(run_id, "started")

    def peer(runs: Runs, run_ids: list[str]) -> None:
        for first in range(0, len(run_ids), 25):
            runs.begin()
            for run_id in run_ids[first : first + 25]:
                runs.row(run_id)
                runs.put(run_id, "queued")
                runs.row(run_id)
                runs.put(run_id, "started")
            runs.commit()

    compare(
        "batch of 100 mixed changes, full",
        ours=ours,
        peers=of_each(open_peers("full"), peer),
        work=lambda: names.some(250),
        rows=1000,
        rounds=12,
        target=Target(bound=4),
    )


@pytest.mark.parametrize(("at_once", "bound"), [(1000, 3), (1, 1.1)])
def bench_append_with_key(
    store: ns.LogStore, open_peers: OpenPeers, compare: Compare, at_once: int, bound: float
) -> None:
    names = Names()

    def ours(keys: list[str]) -> None:
        if at_once == 1:
            for key in keys:
                store.append("s", "t", None, key, key=key)
            return
        with store.batch() as batch:
            for key in keys:
                batch.append("s", "t", None, key, key=key)

    def peer(runs: Runs, keys: list[str]) -> None:
        for first in range(0, len(keys), at_once):
            runs.begin()
            for key in keys[first : first + at_once]:
                runs.append_once(key)
            runs.commit()

    compare(
        f"append with a key, {at_once:,} a commit, full",
        ours=ours,
        peers=of_each(open_peers("full"), peer),
        work=lambda: names.some(1000 if at_once > 1 else 100),
        rows=1000 if at_once > 1 else 100,
        rounds=12,
        target=Target(bound=bound),
    )
