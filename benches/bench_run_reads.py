"""Reading runs, beside the plain SQL on the predecessor's indexes: a million that have ended and 50 that are active."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import nerve_store as ns
from databases import copy
from figures import Kind, Target
from peers import PEERS, PeerLog, Sqlite3Log, on_each
from turns import Compare
from workload import FIRST_TIMESTAMP, SCALE

ACTIVE = 50
ENDED = ("completed", "completed", "completed", "failed", "crashed", "killed")
WORKFLOWS = 10
INSERT = "INSERT INTO workflow_runs VALUES (?, ?, ?, ?, ?)"
COLUMNS = "run_id, workflow, status, timestamp, exit_code"
LISTED = f"""
SELECT {COLUMNS} FROM workflow_runs WHERE workflow = ? AND status = ? ORDER BY timestamp DESC, run_id DESC LIMIT 50
"""
IS_ACTIVE = f"SELECT {COLUMNS} FROM workflow_runs WHERE status IN ('queued', 'started') ORDER BY timestamp, run_id"


def put_runs(path: str, runs: int) -> None:
    """Put the runs into a database that no store has open."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            INSERT,
            (
                (f"{n:08x}-3b4a-4c5d-8e6f-708192a3b4c5", f"workflow-{n % WORKFLOWS}", status, FIRST_TIMESTAMP + n, 0)
                for n in range(runs)
                for status in [("queued", "started")[n % 2] if n >= runs - ACTIVE else ENDED[n % len(ENDED)]]
            ),
        )


@pytest.fixture(scope="module")
def run_databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("runs")
    paths = {"ours": directory / "ours" / "logs.db", Sqlite3Log.name: directory / "upstream.db"}
    ns.LogStore(paths["ours"]).close()
    Sqlite3Log(paths[Sqlite3Log.name]).close()
    for path in paths.values():
        subprocess.run([sys.executable, __file__, str(path), str(SCALE + ACTIVE)], check=True)
    paths["apsw"] = copy(paths[Sqlite3Log.name], directory / "upstream-apsw.db")
    return paths


@pytest.fixture(scope="module")
def run_store(run_databases: dict[str, Path]) -> Iterator[ns.LogStore]:
    with ns.LogStore(run_databases["ours"]) as opened:
        yield opened


@pytest.fixture(scope="module")
def run_peers(run_databases: dict[str, Path]) -> Iterator[dict[str, PeerLog]]:
    with ExitStack() as opened:
        logs = (kind(run_databases[kind.name], create=False) for kind in PEERS)
        yield {log.name: opened.enter_context(closing(log)) for log in logs}


def bench_active_runs(run_store: ns.LogStore, run_peers: dict[str, PeerLog], compare: Compare) -> None:
    def peer(log: PeerLog, _: None) -> int:
        return len(log.fetch(IS_ACTIVE))

    assert len(run_store.get_active_workflow_runs()) == ACTIVE
    compare(
        f"get_active_workflow_runs(): {ACTIVE} of {SCALE:,}",
        ours=lambda _: run_store.get_active_workflow_runs(),
        peers=on_each(run_peers, peer),
        work=lambda: None,
        rounds=100,
        calls=20,
        target=Target(Kind.COST, 0.0002),
    )


def bench_query_runs(run_store: ns.LogStore, run_peers: dict[str, PeerLog], compare: Compare) -> None:
    def peer(log: PeerLog, _: None) -> list[str]:
        return [run_id for run_id, *_ in log.fetch(LISTED, ("workflow-3", "failed"))]

    def ours(_: None) -> list[str]:
        return [run.run_id for run in run_store.query_workflow_runs(workflow="workflow-3", status="failed", limit=50)]

    peers = on_each(run_peers, peer)
    assert all(run(None) == ours(None) for run in peers.values())
    compare(
        f"query_workflow_runs(workflow, status, limit=50) of {SCALE:,}",
        ours=ours,
        peers=peers,
        work=lambda: None,
        rounds=20,
        calls=20,
        target=Target(Kind.COST, 0.0005),
    )


def bench_page_through_runs(run_store: ns.LogStore, compare: Compare) -> None:
    """The page in the middle costs what the first one does."""
    middle = ns.WorkflowRun("", "workflow-3", ns.WorkflowRunStatus.FAILED, FIRST_TIMESTAMP + SCALE // 2)
    compare(
        f"query_workflow_runs(limit=50, after=<the middle>) of {SCALE:,}",
        ours=lambda _: run_store.query_workflow_runs(limit=50, after=middle),
        peers={},
        work=lambda: None,
        rounds=20,
        calls=20,
        target=Target(Kind.COST),
    )


if __name__ == "__main__":
    put_runs(sys.argv[1], int(sys.argv[2]))
