"""Reading a store of a million rows, beside the plain SQL on the predecessor's indexes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from conftest import Record
from databases import Databases
from figures import Figure, Kind, Target
from peers import COLUMNS, PEERS, Parameter, PeerLog, on_each
from turns import Compare
from workload import FIRST_TIMESTAMP, SCALE, SPAN_MS, THE_RUN

MIDDLE = FIRST_TIMESTAMP + SPAN_MS // 2
HOUR_MS = 3600 * 1000


@dataclass(frozen=True)
class Query:
    """A filter, and the SQL that a user would write for it."""

    case: str
    condition: str
    filter: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    bound: float | None = None
    rounds: int = 30

    @property
    def sql(self) -> str:
        limit = "" if self.limit is None else "LIMIT ?"
        return f"SELECT {COLUMNS} FROM logs {self.condition} ORDER BY id {limit}"

    @property
    def parameters(self) -> list[Parameter]:
        return [*self.filter.values(), *([] if self.limit is None else [self.limit])]


QUERIES = [
    Query("query(ref_id)", "WHERE ref_id = ?", {"ref_id": THE_RUN}, bound=2.5),
    Query(
        "query(source, type, since=<middle>, limit=100)",
        "WHERE source = ? AND type = ? AND timestamp >= ?",
        {"source": "reflex", "type": "fired", "since": MIDDLE},
        limit=100,
        bound=50,
    ),
    Query(
        "query(since, until), one hour of ten days",
        "WHERE timestamp >= ? AND timestamp <= ?",
        {"since": MIDDLE, "until": MIDDLE + HOUR_MS - 1},
        bound=2,
    ),
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.case)
def bench_query(large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare, query: Query) -> None:
    def ours(_: None) -> list[ns.LogEntry]:
        return large_store.query(**query.filter, limit=query.limit)

    def peer(log: PeerLog, _: None) -> list[Any]:
        return log.fetch(query.sql, query.parameters)

    peers = on_each(large_peers, peer)
    rows = list(map(as_tuple, ours(None)))
    assert rows
    assert all(run(None) == rows for run in peers.values())
    compare(
        f"{query.case}: {len(rows):,} rows",
        ours=ours,
        peers=peers,
        work=lambda: None,
        rounds=query.rounds,
        target=Target(bound=query.bound),
    )


def bench_query_and_look(large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare) -> None:
    """What a record puts off until it is asked counts here."""
    query = QUERIES[0]

    def ours(_: None) -> int:
        return sum(len(entry.payload or "") for entry in large_store.query(**query.filter))

    def peer(log: PeerLog, _: None) -> int:
        return sum(len(row[4] or "") for row in log.fetch(query.sql, query.parameters))

    peers = on_each(large_peers, peer)
    assert all(run(None) == ours(None) for run in peers.values())
    compare(f"{query.case}, payloads read", ours=ours, peers=peers, work=lambda: None, rounds=30)


def bench_open_and_query(compare: Compare, databases: Databases) -> None:
    """Nothing is in anybody's page cache but the system's."""
    query = QUERIES[0]

    def ours(_: None) -> int:
        with ns.LogStore(databases.ours, read_only=True) as store:
            return len(store.query(**query.filter))

    def peer(kind: type[PeerLog], _: None) -> int:
        with closing(kind(databases.peers[kind.name], create=False)) as log:
            return len(log.fetch(query.sql, query.parameters))

    peers = on_each({kind.name: kind for kind in PEERS}, peer)
    assert all(run(None) == ours(None) for run in peers.values())
    compare(
        f"{query.case}, opened for it", ours=ours, peers=peers, work=lambda: None, rounds=20, target=Target(bound=1)
    )


COUNTS = [
    Query("count()", "", bound=10),
    Query("count(source, type)", "WHERE source = ? AND type = ?", {"source": "reflex", "type": "fired"}, bound=10),
    Query("count(since, until), one hour", QUERIES[2].condition, QUERIES[2].filter, bound=2),
    Query("count(ref_id)", QUERIES[0].condition, QUERIES[0].filter, bound=5),
]


@pytest.mark.parametrize("query", COUNTS, ids=lambda query: query.case)
def bench_count(large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare, query: Query) -> None:
    """Where the peers' indexes serve best: they count without a look at the table."""

    def ours(_: None) -> int:
        return large_store.count(**query.filter)

    def peer(log: PeerLog, _: None) -> int:
        return int(log.fetch(f"SELECT count(*) FROM logs {query.condition}", query.parameters)[0][0])

    peers = on_each(large_peers, peer)
    assert all(run(None) == ours(None) for run in peers.values())
    compare(
        query.case, ours=ours, peers=peers, work=lambda: None, rounds=30, calls=20, target=Target(bound=query.bound)
    )


def bench_stats(tmp_path: Path, compare: Compare) -> None:
    """Ten times the rows of the other databases, small ones."""
    path, rows = tmp_path / "logs.db", 10 * SCALE
    # By a process of its own, whose memory and threads leave nothing behind.
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("databases.py")), "small", str(path), str(rows)], check=True
    )
    with ns.LogStore(path) as store:
        assert store.stats().row_count == rows
        compare(
            f"stats() of {rows:,} rows",
            ours=lambda _: store.stats(),
            peers={},
            work=lambda: None,
            rounds=30,
            target=Target(Kind.COST, 0.002),
        )


def bench_iter(
    large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare, databases: Databases
) -> None:
    def ours(_: None) -> None:
        for _entry in large_store.iter():
            pass

    def peer(log: PeerLog, _: None) -> None:
        for _row in log.fetch(f"SELECT {COLUMNS} FROM logs ORDER BY id"):
            pass

    compare(
        f"iter() over {databases.rows:,} rows; peer: fetchall",
        ours=ours,
        peers=on_each(large_peers, peer),
        work=lambda: None,
        rounds=3,
        target=Target(bound=2),
    )


def bench_iter_and_look(
    large_store: ns.LogStore, large_peers: dict[str, PeerLog], compare: Compare, databases: Databases
) -> None:
    """What a record puts off until it is asked counts here."""

    def ours(_: None) -> int:
        return sum(len(entry.payload or "") for entry in large_store.iter())

    def peer(log: PeerLog, _: None) -> int:
        return sum(len(row[4] or "") for row in log.fetch(f"SELECT {COLUMNS} FROM logs ORDER BY id"))

    compare(
        f"iter() over {databases.rows:,} rows, payloads read",
        ours=ours,
        peers=on_each(large_peers, peer),
        work=lambda: None,
        rounds=3,
    )


def bench_iter_memory(databases: Databases, record: Record) -> None:
    """In processes of their own, so that nothing else is in the figures."""

    def growth(kind: str, path: Path) -> float:
        program = Path(__file__).with_name("memory.py")
        command = [sys.executable, str(program), kind, str(path)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    record(
        Figure(
            f"iter() over {databases.rows:,} rows, peak memory",
            "B",
            growth("ours", databases.ours),
            Target(Kind.COST, 32e6),
            growth("sqlite3", databases.peers["sqlite3"]),
            "sqlite3",
        )
    )


def as_tuple(entry: ns.LogEntry) -> tuple[int, str, str, str | None, str | None, int]:
    return entry.id, entry.source, entry.type, entry.ref_id, entry.payload, entry.timestamp
