"""The databases that the reads are timed on, the same rows in each; and a program that builds one of them.

    python benches/databases.py ours|upstream|small PATH ROWS

Each is built by a process of its own: the two at once, and what is to become ours is never open in two SQLites.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import nerve_store as ns
from peers import ApswLog, Sqlite3Log
from workload import SCALE, database_rows, day_rows

MESSAGES_OF_A_DAY = 50


@dataclass(frozen=True)
class Databases:
    """Where they are; closed and checkpointed."""

    rows: int
    ours: Path
    peers: dict[str, Path]


def build_databases(directory: Path, rows: int = SCALE) -> Databases:
    """Build ours and the peers' in `directory`."""
    ours = directory / "ours" / "logs.db"
    upstream = directory / "upstream.db"
    builders = [
        subprocess.Popen([sys.executable, __file__, kind, str(path), str(rows)])
        for kind, path in (("ours", ours), ("upstream", upstream))
    ]
    for builder in builders:
        if builder.wait() != 0:
            raise RuntimeError(f"{builder.args!r} failed")
    return Databases(
        rows, ours, {Sqlite3Log.name: upstream, ApswLog.name: copy(upstream, directory / "upstream-apsw.db")}
    )


def copy(source: Path, target: Path) -> Path:
    """Copy a database that no one has open, and leave the disk nothing to do."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return target


def build_ours(path: Path, rows: int) -> None:
    with ns.LogStore(path, durability="normal") as store:
        for batch in database_rows(rows):
            store.append_many(batch)


def build_day(path: Path, rows: int) -> None:
    """Ours, with rows of one day alone."""
    with ns.LogStore(path, durability="normal") as store:
        for batch in day_rows(rows, messages=MESSAGES_OF_A_DAY):
            store.append_many(batch)


def build_small(path: Path, rows: int) -> None:
    """Ours, with rows of few bytes."""
    with ns.LogStore(path, durability="normal") as store:
        for start in range(0, rows, 50_000):
            store.append_many(("system", "tick", None, None, start + n) for n in range(min(50_000, rows - start)))


def build_upstream(path: Path, rows: int) -> None:
    with closing(Sqlite3Log(path, durability="normal")) as log:
        for batch in database_rows(rows):
            log.append_many(batch)


if __name__ == "__main__":
    kind, path, rows = sys.argv[1:]
    {"ours": build_ours, "upstream": build_upstream, "small": build_small}[kind](Path(path), int(rows))
