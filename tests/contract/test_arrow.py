"""`arrow()`: the rows of `query`, for data tools; `test_arrow.py` tries all the readers on SQLite."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from support import child_environment
from test_arrow import COLUMNS, DAY, EPOCH, NAMES, READERS, expected

IS_ABOUT_ARCHIVES = True

pyarrow: Any = pytest.importorskip("pyarrow")


@pytest.fixture
def filled(log: Log) -> Log:
    """Rows of ten days, of which eight are archived, some of them as zstd."""
    log.append_many(
        [
            (
                f"s{n % 3}",
                ("tick", "größe", "")[n % 3] + ("" if n % 50 else f"-{n}"),
                None if n % 4 else f"run-{n % 9}",
                None if n % 5 else "p\0ü\U0010ffff" * (n % 7),
                n * DAY // 100 + 7,
            )
            for n in range(1_000)
        ]
    )
    log.archive_logs(now=3 * DAY, retention=timedelta(0), compression="zstd")
    log.archive_logs(now=8 * DAY, retention=timedelta(0))
    return log


@pytest.mark.parametrize("archived", [False, True])
def test_readers_read_what_query_returns(filled: Log, archived: bool) -> None:
    entries = filled.query(archived=archived)
    assert len(entries) == (1_000 if archived else 200)
    for batch_rows in (1, 7, 65_536):
        for reader in READERS:
            assert reader(filled.arrow(batch_rows=batch_rows, archived=archived)) == expected(entries)


def test_filters_are_those_of_query(filled: Log) -> None:
    filters: list[dict[str, Any]] = [
        {"source": "s1"},
        {"type": "größe", "archived": True},
        {"ref_id": "run-0", "archived": True},
        {"since": 2 * DAY, "until": EPOCH + timedelta(days=4), "archived": True},
        {"after_id": 100, "before_id": 900, "limit": 333, "archived": True},
        {"descending": True, "limit": 50},
        {"descending": True, "limit": 50, "archived": True},
        {"source": "nobody"},
        {"limit": 0},
    ]
    for options in filters:
        found = pyarrow.table(filled.arrow(batch_rows=13, **options)).to_pylist()
        assert found == expected(filled.query(**options)), options


def test_the_schema_is_the_same_everywhere(filled: Log) -> None:
    name = pyarrow.dictionary(pyarrow.int32(), pyarrow.utf8())
    types = [pyarrow.int64(), name, name, pyarrow.utf8(), pyarrow.utf8(), pyarrow.timestamp("ms", "UTC")]
    stream = filled.arrow(archived=True)
    for schema in (pyarrow.schema(stream), pyarrow.table(stream).schema):
        assert (schema.names, schema.types) == (NAMES, types)
        assert [schema.field(n).nullable for n in NAMES] == [False, False, False, True, True, False]
    pyarrow.table(stream).validate(full=True)


def test_each_reading_begins_anew_and_ends_where_it_began(log: Log) -> None:
    stream = log.arrow(batch_rows=10)
    log.append_many([("s", "t", None, None, n) for n in range(3_000)])
    reader = pyarrow.RecordBatchReader.from_stream(stream)
    assert reader.read_next_batch().num_rows == 10
    log.append("s", "later")
    assert sum(batch.num_rows for batch in reader) == 2_990
    assert pyarrow.table(stream).num_rows == 3_001


def test_long_texts_and_short_ones_come_through(log: Log) -> None:
    rows = [("s", "t", None, "x" * (3_000_000 if n % 100 == 99 else n), n) for n in range(900)]
    log.append_many(rows)
    reader = pyarrow.RecordBatchReader.from_stream(log.arrow())
    found = [row for batch in reader for row in zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True)]
    assert found == [row[:4] for row in rows]


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_batch_rows_is_a_number_from_1(log: Log, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="batch_rows"):
        log.arrow(batch_rows=value)


def test_a_closed_store_is_an_error_of_the_reader(backend: Backend) -> None:
    with backend.open() as log:
        log.append_many([("s", "t", None, None, n) for n in range(3_000)])
        stream = log.arrow(batch_rows=10)
        reader = pyarrow.RecordBatchReader.from_stream(stream)
        reader.read_next_batch()
    with pytest.raises(OSError, match="closed"):
        for _ in reader:
            pass
    assert list(reader) == [], "an error is the end"
    with pytest.raises(ns.StoreClosedError):
        pyarrow.table(stream)
    with pytest.raises(ns.StoreClosedError):
        log.arrow()


def test_damage_in_the_archive_is_an_error_of_the_reader(backend: Backend, filled: Log) -> None:
    day = filled.archived_days()[4]
    damaged = bytearray(backend.files()[Path(day.path).name])
    damaged[len(damaged) // 2] ^= 0x80
    backend.replace(day.day, bytes(damaged))
    reader = pyarrow.RecordBatchReader.from_stream(filled.arrow(batch_rows=10, archived=True))
    with pytest.raises(OSError, match=day.day.isoformat()):
        list(reader)


def test_what_is_not_read_to_its_end_is_freed(filled: Log) -> None:
    batches: list[Any] = []
    for taken in (0, 1, 2):
        stream = filled.arrow(batch_rows=10, archived=True)
        capsule = stream.__arrow_c_stream__()
        reader = pyarrow.RecordBatchReader.from_stream(stream)
        batches = [reader.read_next_batch() for _ in range(taken)]
        del stream, capsule, reader
        gc.collect()
        assert sum(batch.num_rows for batch in batches) == 10 * taken
    assert all(batch.column("id").to_pylist() for batch in batches)


MEMORY = """
import resource, sys, pyarrow, nerve_store as ns
if sys.argv[1].startswith("postgresql:"):
    from nerve_store.postgres import PostgresLogStore
    store = PostgresLogStore(sys.argv[1], schema=sys.argv[2])
else:
    store = ns.LogStore(sys.argv[1])
def peak(rows):
    reader = pyarrow.RecordBatchReader.from_stream(store.arrow(batch_rows=2_000, limit=rows))
    assert sum(batch.num_rows for batch in reader) == rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = peak(20_000)
print(peak(160_000) - first)
"""


def test_memory_is_constant(backend: Backend) -> None:
    with backend.open(durability="normal") as log:
        for _ in range(16):
            log.append_many([("s", "t", "r", "x" * 400, n) for n in range(10_000)])
    place = str(backend.directory / "logs.db") if backend.is_sqlite else backend.url
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, place, backend.schema],
        env=child_environment(), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    # 64 MB of payloads.
    assert int(done.stdout) < 20_000, "KiB"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_is_refused(filled: Log) -> None:
    stream = filled.arrow()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            stream.__arrow_c_stream__()
        except ns.ForkedStoreError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
