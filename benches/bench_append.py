"""Appending, beside the predecessor's schema and indexes in sqlite3 and apsw, WAL, the same durability."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import cycle
from pathlib import Path

import pytest

import nerve_store as ns
from conftest import OpenPeers
from figures import Kind, Target
from limit import ROWS_PER_ROUND, Limit
from peers import PEERS, Durability, PeerLog, Sqlite3Log, on_each
from turns import Compare, Seconds
from workload import SCALE, Row, Workload

Batches = list[list[Row]]

THREADS = 32
THREAD_CALLS = 20


def batches(workload: Workload, rows_per_commit: int, commits: int) -> Callable[[], Batches]:
    """Makes the work of a round."""
    return lambda: [workload.rows(rows_per_commit) for _ in range(commits)]


def each_many(append_many: Callable[[list[Row]], object]) -> Callable[[Batches], None]:
    """Does the work of a round."""

    def run(prepared: Batches) -> None:
        for batch in prepared:
            append_many(batch)

    return run


@pytest.mark.parametrize(
    ("rows_per_commit", "commits", "runs", "note", "bound"),
    [
        (1000, 10, 200, "", 4.5),
        (100, 50, 200, "", 5),
        (1000, 10, 20_000, ", 20,000 runs", 3),
        (1000, 10, 400_000, ", 400,000 runs", 3),
    ],
)
def bench_append_many(
    store: ns.LogStore,
    open_peers: OpenPeers,
    compare: Compare,
    rows_per_commit: int,
    commits: int,
    runs: int,
    note: str,
    bound: float,
) -> None:
    peers = open_peers("full")
    compare(
        f"append_many, {rows_per_commit:,} rows a commit, full{note}",
        ours=each_many(store.append_many),
        peers={name: each_many(log.append_many) for name, log in peers.items()},
        work=batches(Workload(runs=runs), rows_per_commit, commits),
        rows=rows_per_commit * commits,
        rounds=20,
        target=Target(bound=bound),
    )
    assert all(log.count() == store.count() for log in peers.values())


def bench_append_many_beside_the_limit(store: ns.LogStore, compare: Compare, tmp_path: Path) -> None:
    limit = Limit.build(tmp_path)
    if limit is None:
        pytest.skip("no cargo to build benches/limit.rs")
    compare(
        "append_many, 1,000 rows a commit, full, of the limit",
        ours=each_many(store.append_many),
        peers={"Rust, no index": lambda _: Seconds(limit.seconds_per_round())},
        work=batches(Workload(), 1000, ROWS_PER_ROUND // 1000),
        rows=ROWS_PER_ROUND,
        rounds=15,
        target=Target(bound=0.7),
    )


@pytest.mark.skipif("NERVE_BENCH_LONG" not in os.environ, reason="NERVE_BENCH_LONG=1 fills a store for some minutes")
def bench_append_many_to_a_full_store(store: ns.LogStore, compare: Compare, tmp_path: Path) -> None:
    rows = 10 * SCALE
    workload = Workload()
    with ns.LogStore(tmp_path / "full" / "logs.db") as full:
        for _ in range(rows // 1000):
            full.append_many(workload.rows(1000), durability="normal")
        compare(
            f"append_many, 1,000 rows a commit, full, {rows:,} there",
            ours=each_many(full.append_many),
            peers={"empty store": each_many(store.append_many)},
            work=batches(workload, 1000, 10),
            rows=10_000,
            rounds=20,
            target=Target(Kind.SHARE, 1.15),
        )


@pytest.mark.parametrize(("durability", "calls", "bound"), [("full", 200, 1.1), ("normal", 2000, 2)])
def bench_append(
    store: ns.LogStore, open_peers: OpenPeers, compare: Compare, durability: Durability, calls: int, bound: float
) -> None:
    workload = Workload()
    peers = open_peers(durability)

    def ours(rows: list[Row]) -> None:
        for source, kind, ref_id, payload, timestamp in rows:
            store.append(source, kind, ref_id, payload, timestamp, durability=durability)

    compare(
        f"append, one thread, {durability}",
        ours=ours,
        peers=on_each(peers, PeerLog.append_each),
        work=lambda: workload.rows(calls),
        rows=calls,
        rounds=20,
        target=Target(bound=bound),
    )
    assert all(log.count() == store.count() for log in peers.values())


def bench_append_in_turns(store: ns.LogStore, compare: Compare, tmp_path: Path) -> None:
    """Two stores of one directory, as two processes have them, each of which finds what the other wrote."""
    path = tmp_path / "sqlite3.db"
    with (
        ns.LogStore(store.path) as other,
        closing(Sqlite3Log(path, durability="normal")) as peer,
        closing(Sqlite3Log(path, durability="normal")) as other_peer,
    ):

        def ours(rows: list[Row]) -> None:
            for appending, (source, kind, ref_id, payload, timestamp) in zip(cycle((store, other)), rows, strict=False):
                appending.append(source, kind, ref_id, payload, timestamp, durability="normal")

        def peers(rows: list[Row]) -> None:
            for appending, row in zip(cycle((peer, other_peer)), rows, strict=False):
                appending.append(row)

        workload = Workload()
        # In the middle of a segment.
        store.append_many(workload.rows(2_000))
        compare(
            "append, two stores in turns, normal",
            ours=ours,
            peers={"sqlite3": peers},
            work=lambda: workload.rows(1_000),
            rows=1_000,
            rounds=20,
            target=Target(bound=1.1),
        )


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that have been started."""
    with ThreadPoolExecutor(THREADS) as executor:
        barrier = threading.Barrier(THREADS)
        for future in [executor.submit(barrier.wait) for _ in range(THREADS)]:
            future.result()
        yield executor


def bench_append_from_threads(store: ns.LogStore, pool: ThreadPoolExecutor, compare: Compare, tmp_path: Path) -> None:
    workload = Workload()

    def on_threads(appends: list[Callable[[Row], object]]) -> Callable[[Batches], None]:
        def one(append: Callable[[Row], object], rows: list[Row]) -> None:
            for row in rows:
                append(row)

        def run(prepared: Batches) -> None:
            for future in [pool.submit(one, *work) for work in zip(appends, prepared, strict=True)]:
                future.result()

        return run

    with ExitStack() as opened:

        def open_log(peer: type[PeerLog], name: str) -> PeerLog:
            return opened.enter_context(closing(peer(tmp_path / f"{peer.name}-{name}.db")))

        peers = {}
        for peer in PEERS:
            peers[f"{peer.name}, own connections"] = on_threads([open_log(peer, "own").append for _ in range(THREADS)])
            peers[f"{peer.name}, one connection"] = on_threads([locked(open_log(peer, "one").append)] * THREADS)
        compare(
            f"append, {THREADS} threads, full",
            ours=on_threads([lambda row: store.append(*row)] * THREADS),
            peers=peers,
            work=lambda: [workload.rows(THREAD_CALLS) for _ in range(THREADS)],
            rows=THREADS * THREAD_CALLS,
            rounds=10,
            target=Target(bound=8),
        )


def locked(append: Callable[[Row], object]) -> Callable[[Row], None]:
    """One caller at a time."""
    lock = threading.Lock()

    def run(row: Row) -> None:
        with lock:
            append(row)

    return run
