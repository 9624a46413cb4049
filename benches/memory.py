"""Prints by how many bytes the memory of a process grows, at most, while it goes over all rows.

    python benches/memory.py ours|sqlite3 PATH

Counted is memory of its own, not what it maps of files, looked at once in ten thousand rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import nerve_store as ns
from peers import COLUMNS, Sqlite3Log

ROWS_BETWEEN_LOOKS = 10_000


def own_bytes() -> int:
    """Anonymous memory that is resident."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def ours(path: Path) -> Iterator[object]:
    with ns.LogStore(path, read_only=True) as store:
        yield from store.iter()


def theirs(path: Path) -> Iterator[object]:
    with closing(Sqlite3Log(path, create=False)) as log:
        yield from log.fetch(f"SELECT {COLUMNS} FROM logs ORDER BY id")


def growth(rows: Iterable[object]) -> int:
    """The peak while `rows` are gone over, less what was there before."""
    before = peak = own_bytes()
    for number, _ in enumerate(rows):
        if number % ROWS_BETWEEN_LOOKS == 0:
            peak = max(peak, own_bytes())
    return peak - before


if __name__ == "__main__":
    kind, path = sys.argv[1:]
    print(growth({"ours": ours, "sqlite3": theirs}[kind](Path(path))))
