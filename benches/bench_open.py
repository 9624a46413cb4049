"""What is there before the first call: the import, opening, migrating; and the size on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import nerve_store as ns
from conftest import Record
from databases import Databases, copy
from figures import Figure, Kind, Target
from turns import Compare


def bench_import(compare: Compare) -> None:
    # With a cache for the bytecode even where the variable forbids one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    compare(
        "import nerve_store",
        ours=lambda _: run("import nerve_store"),
        peers={"bare interpreter": lambda _: run("pass")},
        work=lambda: None,
        rounds=50,
        target=Target(Kind.EXTRA, 0.015),
    )


def bench_open(databases: Databases, compare: Compare) -> None:
    opened: list[ns.LogStore] = []

    def close() -> None:
        while opened:
            opened.pop().close()

    compare(
        f"opening a store of {databases.rows:,} rows",
        ours=lambda _: opened.append(ns.LogStore(databases.ours)),
        peers={},
        work=close,
        rounds=20,
        target=Target(Kind.COST, 0.010),
    )
    close()


def bench_migrate(databases: Databases, compare: Compare, tmp_path: Path) -> None:
    opened: list[ns.LogStore] = []

    def fresh() -> Path:
        while opened:
            store = opened.pop()
            store.close()
            Path(store.path).unlink()
        return copy(databases.peers["sqlite3"], tmp_path / uuid.uuid4().hex / "logs.db")

    compare(
        f"migrating an upstream database of {databases.rows:,} rows",
        ours=lambda path: opened.append(ns.LogStore(path)),
        peers={},
        work=fresh,
        rounds=3,
        target=Target(Kind.COST, 5),
    )
    with opened.pop() as store:
        assert store.count() == databases.rows


def bench_size(databases: Databases, record: Record) -> None:
    """Both were closed, which checkpoints them."""
    size = databases.ours.stat().st_size
    peer = databases.peers["sqlite3"].stat().st_size
    target = Target(Kind.SHARE, 0.85)
    record(Figure(f"database file, {databases.rows:,} rows", "B", size, target, peer, "sqlite3"))
