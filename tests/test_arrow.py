"""`arrow()`: rows for data tools, the same as `query` returns, by pyarrow, Polars, DuckDB and pandas."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from support import child_environment, foreign_sql
from support.event_loops import run

DAY = 86_400_000
NAMES = ["id", "source", "type", "ref_id", "payload", "timestamp"]


def by_pyarrow(stream: ns.ArrowStream) -> list[dict[str, Any]]:
    pyarrow: Any = pytest.importorskip("pyarrow")
    rows: list[dict[str, Any]] = pyarrow.table(stream).to_pylist()
    return rows


def by_polars(stream: ns.ArrowStream) -> list[dict[str, Any]]:
    polars: Any = pytest.importorskip("polars")
    rows: list[dict[str, Any]] = polars.DataFrame(stream).to_dicts()
    found = polars.from_arrow(stream)  # since Polars 2 a series of structs
    assert (found.struct.unnest() if isinstance(found, polars.Series) else found).to_dicts() == rows
    return rows


def by_duckdb(stream: ns.ArrowStream) -> list[dict[str, Any]]:
    duckdb: Any = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("rows", stream)
    found = connection.sql("SELECT id, source, type, ref_id, payload, epoch_ms(timestamp) FROM rows").fetchall()
    return [dict(zip(NAMES, (*row[:5], EPOCH + timedelta(milliseconds=row[5])), strict=True)) for row in found]


def by_pandas(stream: ns.ArrowStream) -> list[dict[str, Any]]:
    pandas: Any = pytest.importorskip("pandas")
    if hasattr(pandas.DataFrame, "from_arrow"):
        frame = pandas.DataFrame.from_arrow(stream)
    else:
        frame = pytest.importorskip("pyarrow").table(stream).to_pandas()
    frame = frame.astype({"source": object, "type": object, "ref_id": object, "payload": object})
    rows = [dict(row) for row in frame.to_dict("records")]
    for row in rows:
        row["timestamp"] = row["timestamp"].to_pydatetime()
        for name in ("ref_id", "payload"):
            row[name] = row[name] if isinstance(row[name], str) else None
    return rows


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
READERS: list[Callable[[ns.ArrowStream], list[dict[str, Any]]]] = [by_pyarrow, by_polars, by_duckdb, by_pandas]


def expected(entries: list[ns.LogEntry]) -> list[dict[str, Any]]:
    return [entry._asdict() | {"timestamp": entry.time} for entry in entries]


@pytest.fixture
def filled(data_dir: Path) -> ns.LogStore:
    """Rows of ten days, of which eight are archived, one of them as zstd."""
    store = ns.LogStore(data_dir / "logs.db", durability="normal", segment_rows=50)
    store.append_many(
        [
            (
                f"s{n % 3}",
                ("tick", "größe", "")[n % 3] + ("" if n % 50 else f"-{n}"),
                None if n % 4 else f"run-{n % 9}",
                None if n % 5 else "p\0ü" * (n % 7),
                n * DAY // 100 + 7,
            )
            for n in range(1_000)
        ]
    )
    store.archive_logs(now=3 * DAY, retention=timedelta(0), compression="zstd")
    store.archive_logs(now=8 * DAY, retention=timedelta(0))
    return store


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("batch_rows", [1, 7, 65_536])
def test_readers_read_what_query_returns(
    filled: ns.LogStore, reader: Callable[[Any], Any], archived: bool, batch_rows: int
) -> None:
    entries = filled.query(archived=archived)
    assert len(entries) == (1_000 if archived else 200)
    assert reader(filled.arrow(batch_rows=batch_rows, archived=archived)) == expected(entries)


@pytest.mark.parametrize(
    "filters",
    [
        {"source": "s1"},
        {"type": "größe", "archived": True},
        {"ref_id": "run-0", "archived": True},
        {"since": 2 * DAY, "until": EPOCH + timedelta(days=4), "archived": True},
        {"after_id": 100, "before_id": 900, "limit": 333, "archived": True},
        {"descending": True, "limit": 50, "archived": True},
        {"source": "nobody"},
        {"limit": 0},
    ],
    ids=str,
)
def test_filters_are_those_of_query(filled: ns.LogStore, filters: dict[str, Any]) -> None:
    assert by_pyarrow(filled.arrow(batch_rows=13, **filters)) == expected(filled.query(**filters))


def a_row(n: int, day: int) -> tuple[str, str, str | None, str | None, int]:
    payload = (None, "plain", 'quo"ted', "back\\slash\n", "größe \u2028 🧠", "")[n % 6]
    return (f"s{n % 3}", "tick", None if n % 4 else "run", payload, day * DAY + n)


def whole_days(store: ns.LogStore) -> None:
    store.append_many([a_row(n, n // 200) for n in range(1_000)])
    store.archive_logs(now=4 * DAY, retention=timedelta(0), compression="zstd")


def days_whose_ids_alternate(store: ns.LogStore) -> None:
    store.append_many([a_row(n, n % 5) for n in range(1_000)])
    store.archive_logs(now=4 * DAY, retention=timedelta(0))


def days_with_late_rows(store: ns.LogStore) -> None:
    store.append_many([a_row(n, n // 200) for n in range(800)])
    store.archive_logs(now=3 * DAY, retention=timedelta(0))
    store.append_many([a_row(n, n % 4) for n in range(800, 1_000)])
    store.archive_logs(now=3 * DAY, retention=timedelta(0))


def days_around_an_active_run(store: ns.LogStore) -> None:
    """Its rows stay in the database, between those of files."""
    run = ns.WorkflowRun("run", "work", ns.WorkflowRunStatus.STARTED, 1)
    store.upsert_workflow_run(("workflow", "started", "run", None, 1), run)
    whole_days(store)


def a_day_put_back(store: ns.LogStore) -> None:
    whole_days(store)
    store.restore_archive(ns.utc_day(2 * DAY))


LAYOUTS = [whole_days, days_whose_ids_alternate, days_with_late_rows, days_around_an_active_run, a_day_put_back]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_those_of_query_however_they_lie(data_dir: Path, layout: Callable[[ns.LogStore], None]) -> None:
    with ns.LogStore(data_dir / "logs.db", durability="normal") as store:
        layout(store)
        for filters in (
            {},
            {"source": "s1"},
            {"ref_id": "run", "limit": 37},
            {"after_id": 150, "before_id": 750},
            {"since": DAY, "until": 2 * DAY, "limit": 250},
            {"descending": True, "limit": 500},
        ):
            options: dict[str, Any] = {"archived": True, **filters}
            entries = expected(store.query(**options))
            assert entries
            for batch_rows in (1, 90, 65_536):
                assert by_pyarrow(store.arrow(batch_rows=batch_rows, **options)) == entries, filters


def test_the_schema_is_what_the_documentation_says(filled: ns.LogStore) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    stream = filled.arrow()
    name = pyarrow.dictionary(pyarrow.int32(), pyarrow.utf8())
    types = [pyarrow.int64(), name, name, pyarrow.utf8(), pyarrow.utf8(), pyarrow.timestamp("ms", "UTC")]
    for schema in (pyarrow.schema(stream), pyarrow.table(stream).schema):
        assert schema.names == NAMES
        assert schema.types == types
        assert [schema.field(n).nullable for n in NAMES] == [False, False, False, True, True, False]
    pyarrow.table(stream).validate(full=True)


TEXT = st.text(max_size=12)
ROWS = st.lists(st.tuples(TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.integers(10**12, 10**13)), max_size=40)


@given(ROWS, st.integers(1, 10))
def test_any_rows_come_through(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], batch_rows: int) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    with ns.LogStore(tmp_path_factory.mktemp("any") / "logs.db", durability="normal") as store:
        store.append_many(rows)
        table = pyarrow.table(store.arrow(batch_rows=batch_rows))
        table.validate(full=True)
        assert table.to_pylist() == expected(store.query())


@pytest.mark.parametrize(
    "filters",
    [{}, {"descending": True}, {"since": 20_000}, {"after_id": 1_000, "before_id": 99_000}, {"until": 30_000}],
    ids=str,
)
def test_many_rows_that_are_read_side_by_side_are_those_of_query(
    log_store: ns.LogStore, filters: dict[str, Any]
) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    rows = [(f"s{n % 5}", "t", f"r{n % 99}" if n % 3 else None, "x" * (n % 700), n) for n in range(100_000)]
    log_store.append_many(rows)
    table = pyarrow.table(log_store.arrow(**filters))
    table.validate(full=True)
    assert table.to_pylist() == expected(log_store.query(**filters))


@pytest.mark.parametrize(
    "day_of", [lambda n: n // 20_000, lambda n: n % 5], ids=["whole days", "days whose ids alternate"]
)
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_many_archived_rows_are_those_of_query(data_dir: Path, day_of: Callable[[int], int], compression: Any) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    with ns.LogStore(data_dir / "logs.db", durability="normal") as store:
        store.append_many([a_row(n, day_of(n)) for n in range(80_000)])
        store.archive_logs(now=3 * DAY, retention=timedelta(0), compression=compression)
        store.append_many([a_row(n, day_of(n)) for n in range(80_000, 100_000)])  # also of archived days
        for filters in ({}, {"descending": True}, {"after_id": 1_000, "before_id": 99_000}, {"since": DAY + 10_000}):
            options: dict[str, Any] = {"archived": True, **filters}
            table = pyarrow.table(store.arrow(**options))
            assert table.to_pylist() == expected(store.query(**options)), filters


def test_each_reading_begins_anew_and_ends_where_it_began(log_store: ns.LogStore) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    stream = log_store.arrow(batch_rows=10)
    log_store.append_many([("s", "t", None, None, n) for n in range(30)])
    reader = pyarrow.RecordBatchReader.from_stream(stream)
    assert reader.read_next_batch().num_rows == 10
    log_store.append("s", "later")
    assert sum(batch.num_rows for batch in reader) == 20
    assert pyarrow.table(stream).num_rows == 31


def test_a_batch_ends_where_its_texts_are_long(log_store: ns.LogStore) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    log_store.append_many([("s", "t", None, "x" * 10_000_000, n) for n in range(9)])
    reader = pyarrow.RecordBatchReader.from_stream(log_store.arrow())
    assert [batch.num_rows for batch in reader] == [4, 4, 1]


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_batch_rows_is_a_number_from_1(log_store: ns.LogStore, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="batch_rows"):
        log_store.arrow(batch_rows=value)


# --- its end -----------------------------------------------------------------------------------------------------


def test_a_closed_store_is_an_error_of_the_reader(data_dir: Path) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    with ns.LogStore(data_dir / "logs.db") as store:
        store.append_many([("s", "t", None, None, n) for n in range(30)])
        stream = store.arrow(batch_rows=10)
        reader = pyarrow.RecordBatchReader.from_stream(stream)
        reader.read_next_batch()
    with pytest.raises(OSError, match="closed"):
        reader.read_next_batch()
    with pytest.raises(ns.StoreClosedError):
        pyarrow.table(stream)
    with pytest.raises(ns.StoreClosedError):
        store.arrow()


def test_damage_in_the_archive_is_an_error_of_the_reader(filled: ns.LogStore) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    day = filled.archived_days()[4]
    path = Path(day.path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    reader = pyarrow.RecordBatchReader.from_stream(filled.arrow(batch_rows=10, archived=True))
    with pytest.raises(OSError, match=day.day.isoformat()):
        list(reader)


COLUMNS = ["source", "type", "ref_id", "payload"]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("split", [False, True])
def test_a_text_that_is_not_utf8_is_an_error_that_names_its_row(data_dir: Path, column: str, split: bool) -> None:
    """Another program wrote it; `split`: only together are the texts of two rows whole characters."""
    pyarrow: Any = pytest.importorskip("pyarrow")
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        ids = store.append_many([("s", "t", "r", "p", n) for n in range(50)])
        wrong = {ids[20]: "6ac3", ids[21]: "a46a"} if split else {ids[30]: "ff"}
        for id, text in wrong.items():
            foreign_sql(path, f"UPDATE logs SET {column} = CAST(x'{text}' AS TEXT) WHERE id = {id}")
        reader = pyarrow.RecordBatchReader.from_stream(store.arrow(batch_rows=10))
        whole = [reader.read_next_batch().num_rows for _ in range(2 if split else 3)]
        assert whole == [10] * len(whole)
        with pytest.raises(OSError, match=f"row {min(wrong)} of logs: {column} is not UTF-8"):
            reader.read_next_batch()
        assert list(reader) == [], "an error is the end"


def test_names_of_any_number_are_told_apart(log_store: ns.LogStore) -> None:
    """Of one length and with one end, too."""
    pyarrow: Any = pytest.importorskip("pyarrow")
    rows = [(f"a{n % 701:05}-source", f"{n % 613}", None, None, n) for n in range(5_000)]
    log_store.append_many(rows)
    table = pyarrow.table(log_store.arrow(batch_rows=3_000))
    table.validate(full=True)
    assert [tuple(row.values())[1:3] for row in table.to_pylist()] == [row[:2] for row in rows]


@pytest.mark.parametrize("descending", [False, True])
def test_rows_that_go_between_two_batches_are_passed_over(data_dir: Path, descending: bool) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("s", "t", None, None, n) for n in range(100)])
        ids = [entry.id for entry in store.query(descending=descending)]
        reader = pyarrow.RecordBatchReader.from_stream(store.arrow(batch_rows=10, limit=50, descending=descending))
        first = reader.read_next_batch().column("id").to_pylist()
        foreign_sql(path, f"DELETE FROM logs WHERE id IN ({ids[10]}, {ids[15]}, {ids[16]})")
        store.append("s", "later")
        left = [id for id in ids[10:] if id not in (ids[10], ids[15], ids[16])]
        assert first + [id for batch in reader for id in batch.column("id").to_pylist()] == (ids[:10] + left)[:50]


def test_what_is_not_read_to_its_end_is_freed(filled: ns.LogStore) -> None:
    pyarrow: Any = pytest.importorskip("pyarrow")
    batches: list[Any] = []
    for taken in (0, 1, 2):
        stream = filled.arrow(batch_rows=10, archived=True)
        capsule = stream.__arrow_c_stream__()
        reader = pyarrow.RecordBatchReader.from_stream(stream)
        batches = [reader.read_next_batch() for _ in range(taken)]
        del stream, capsule, reader
        gc.collect()
        assert sum(batch.num_rows for batch in batches) == 10 * taken
    filled.close()
    assert all(batch.column("id").to_pylist() for batch in batches)


def test_memory_is_constant(data_dir: Path) -> None:
    pytest.importorskip("pyarrow")
    path = data_dir / "logs.db"
    with ns.LogStore(path, durability="normal") as store:
        for _ in range(20):
            store.append_many([("s", "t", "r", "x" * 400, n) for n in range(10_000)])
    program = f"""
import resource, pyarrow, nerve_store as ns
store = ns.LogStore({str(path)!r})
def peak(rows):
    reader = pyarrow.RecordBatchReader.from_stream(store.arrow(batch_rows=2_000, limit=rows))
    assert sum(batch.num_rows for batch in reader) == rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
first = peak(20_000)
print(peak(200_000) - first)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    # 80 MB of payloads.
    assert int(done.stdout) < 20_000, "KiB"


def test_in_an_event_loop(data_dir: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db") as store:
            await store.append("s", "t", timestamp=5)
            rows = await asyncio.to_thread(by_pyarrow, store.arrow(source="s"))
            assert rows == expected(await store.query())
        with pytest.raises(ns.StoreClosedError):
            store.arrow()

    run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_refused(filled: ns.LogStore) -> None:
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
