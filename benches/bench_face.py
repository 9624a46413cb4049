"""Blobs from asyncio tasks, records of `logging`, and columns for data tools."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import statistics
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from bench_archive import FORMATS, NOW, Compression
from columns import Way
from databases import Databases, copy
from figures import NO_TARGET, Figure, Target
from nerve_store.logging import StoreHandler
from turns import Compare, Seconds

BLOBS = 1000
RECORDS = 1000
THREADS = 8


def bench_async_blob_writes(compare: Compare, tmp_path: Path) -> None:
    plain = ns.BlobStore(tmp_path / "plain")
    with asyncio.Runner() as runner:

        async def opened() -> ns.AsyncBlobStore:
            return ns.AsyncBlobStore(tmp_path / "async")

        blobs = runner.run(opened())

        async def write(items: list[bytes]) -> None:
            await asyncio.gather(*map(blobs.write, items))

        compare(
            f"AsyncBlobStore.write, {BLOBS:,} of 4 KiB at once, full",
            ours=lambda items: runner.run(write(items)),
            peers={"write_many": plain.write_many},
            work=lambda: [os.urandom(4096) for _ in range(BLOBS)],
            rounds=7,
            target=Target(bound=0.9),
        )
        runner.run(blobs.close())


class AppendEach(logging.Handler):
    """What a user writes: one append a record."""

    def __init__(self, store: ns.LogStore) -> None:
        super().__init__()
        self.store = store

    def emit(self, record: logging.LogRecord) -> None:
        payload = {"message": record.getMessage(), "path": record.pathname, "line": record.lineno}
        self.store.append("logging", record.levelname, record.name, json.dumps(payload))


def bench_records_of_logging(compare: Compare, tmp_path: Path) -> None:
    numbers = itertools.count()

    def logged(make: Callable[[ns.LogStore], logging.Handler]) -> Callable[[object], None]:
        def run(_: object) -> None:
            with ns.LogStore(tmp_path / f"{next(numbers)}" / "logs.db", durability="normal") as store:
                logger = logging.Logger("bench")  # noqa: LOG001 - it is not to stay
                handler = make(store)
                logger.addHandler(handler)

                def log() -> None:
                    for number in range(RECORDS):
                        logger.warning("record %d of %s", number, "a thread")

                threads = [threading.Thread(target=log) for _ in range(THREADS)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                handler.close()
                assert store.count() == RECORDS * THREADS

        return run

    compare(
        f"StoreHandler, {THREADS} threads, {RECORDS * THREADS:,} records, normal",
        ours=logged(StoreHandler),
        peers={"append each": logged(AppendEach)},
        work=lambda: None,
        rows=RECORDS * THREADS,
        rounds=5,
        target=Target(bound=5),
    )


@pytest.mark.parametrize(
    ("ours", "peers", "bound"),
    [
        ("arrow, pyarrow", ["query, pyarrow.table"], 8),
        ("arrow, polars", ["query, pyarrow.table"], 8),
        ("arrow, pyarrow", ["ADBC", "connectorx"], 3),
    ],
)
def bench_arrow(
    compare: Compare, record: Callable[[Figure], None], databases: Databases, ours: str, peers: list[str], bound: float
) -> None:
    """All live rows."""
    for module in ("pyarrow", "polars", "adbc_driver_sqlite", "connectorx"):
        pytest.importorskip(module)
    compare_ways(compare, record, databases.ours, databases.rows, "all live rows", ours, peers, bound)


@pytest.mark.parametrize("compression", [None, "zstd"])
def bench_arrow_of_the_archive(
    compare: Compare,
    record: Callable[[Figure], None],
    databases: Databases,
    tmp_path: Path,
    compression: Compression,
) -> None:
    """All rows, archived. DuckDB neither looks whether a file is what was written, nor for rows of the database."""
    for module in ("pyarrow", "duckdb"):
        pytest.importorskip(module)
    path = copy(databases.ours, tmp_path / "logs.db")
    with ns.LogStore(path, durability="normal") as store:
        store.archive_logs(now=NOW, retention=timedelta(0), compression=compression)
    case = f"ten archived days, {FORMATS[compression]}"
    compare_ways(compare, record, path, databases.rows, case, "arrow of the archive, pyarrow", ["DuckDB"], 1.5)


def compare_ways(
    compare: Compare,
    record: Callable[[Figure], None],
    path: Path,
    rows: int,
    what: str,
    ours: str,
    peers: list[str],
    bound: float,
) -> None:
    """Each way in a process of its own. Processor time, too: the times of a busy machine say little."""

    def timed(way: Way) -> Callable[[object], Seconds]:
        return lambda _: Seconds(way.read())

    with ExitStack() as opened:
        ways = {name: opened.enter_context(closing(Way(name, path))) for name in (ours, *peers)}
        assert {way.rows for way in ways.values()} == {rows}
        case = f"{ours} beside {', '.join(peers)}, {what}"
        compare(
            case,
            ours=timed(ways[ours]),
            peers={name: timed(ways[name]) for name in peers},
            work=lambda: None,
            rows=rows,
            rounds=7,
            target=Target(bound=bound),
        )
        seconds = {name: statistics.median(way.processor_times[1:]) for name, way in ways.items()}
        best = min(peers, key=lambda name: seconds[name])
        record(Figure(f"{case}: processor time", "s", seconds[ours], NO_TARGET, seconds[best], best))
