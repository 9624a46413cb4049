"""Appending, beside Python's sqlite3 with the predecessor's schema and indexes, WAL, the same durability."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import nerve_store as ns
from conftest import Compare
from peers import Sqlite3Log
from workload import Row, Workload


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ns.LogStore]:
    with ns.LogStore(tmp_path / "ours" / "logs.db") as opened:
        yield opened


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Sqlite3Log]:
    log = Sqlite3Log(tmp_path / "peer.db", synchronous="FULL")
    yield log
    log.close()


@pytest.mark.parametrize(("rows_per_commit", "commits"), [(1000, 10), (100, 50)])
def bench_append_many(
    store: ns.LogStore, peer: Sqlite3Log, compare: Compare, rows_per_commit: int, commits: int
) -> None:
    workload = Workload()

    def batches() -> list[list[Row]]:
        return [workload.rows(rows_per_commit) for _ in range(commits)]

    def ours(prepared: list[list[Row]]) -> None:
        for batch in prepared:
            store.append_many(batch)

    def theirs(prepared: list[list[Row]]) -> None:
        for batch in prepared:
            peer.append_many(batch)

    case = f"append_many, {rows_per_commit:,} rows a commit, full"
    compare(case, ours=ours, peer=theirs, work=batches, rows=rows_per_commit * commits, rounds=20)
    assert store.count() == peer.count()


def bench_append(store: ns.LogStore, peer: Sqlite3Log, compare: Compare) -> None:
    workload = Workload()
    calls = 200

    def ours(rows: list[Row]) -> None:
        for row in rows:
            store.append(*row)

    def theirs(rows: list[Row]) -> None:
        for row in rows:
            peer.append(row)

    compare(
        "append, one thread, full", ours=ours, peer=theirs, work=lambda: workload.rows(calls), rows=calls, rounds=20
    )
    assert store.count() == peer.count()
