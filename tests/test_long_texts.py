"""Long sources, types and references: refused beyond 64 KiB; indexed and archived where another program put them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import Row
from support import (
    INSERT_ROW,
    INSERT_RUN,
    as_rows,
    child_environment,
    foreign_many,
    foreign_script,
    foreign_sql,
    refused,
)

LIMIT = 64 << 10
DAY_MS = 86_400_000
MESSAGE = "thread_workflow_message"
PAYLOAD = json.dumps({"role": "assistant", "content": "hello"})
MARK = "\U0010ffffsha256:"

NAMES = ("source", "type", "ref_id")


def rows_with(store: ns.LogStore, name: str, text: str) -> list[ns.LogEntry]:
    options: dict[str, Any] = {name: text}
    return store.query(**options)


def fields(name: str, text: str) -> dict[str, Any]:
    return {"source": "workflow", "type": "started", "ref_id": "run-1", name: text}


def appending(store: ns.LogStore, row: dict[str, Any]) -> None:
    store.append(**row)


def appending_many(store: ns.LogStore, row: dict[str, Any]) -> None:
    store.append_many([("s", "t", None, None, 1), ns.NewLogEntry(**row)])


def upserting(store: ns.LogStore, row: dict[str, Any]) -> None:
    run = ns.WorkflowRun(row["ref_id"], "deploy", ns.WorkflowRunStatus.STARTED, 1)
    store.upsert_workflow_run(ns.NewLogEntry(**row), run)


def async_call(
    name: str, as_argument: Callable[[dict[str, Any]], Any]
) -> Callable[[ns.LogStore, dict[str, Any]], None]:
    def call(store: ns.LogStore, row: dict[str, Any]) -> None:
        async def main() -> None:
            async with ns.AsyncLogStore(store.path) as logs:
                await getattr(logs, name)(*as_argument(row)[0], **as_argument(row)[1])

        asyncio.run(main())

    return call


CALLS = {
    "append": appending,
    "append_many": appending_many,
    "upsert_workflow_run": upserting,
    "AsyncLogStore.append": async_call("append", lambda row: ((), row)),
    "AsyncLogStore.append_many": async_call(
        "append_many", lambda row: (([("s", "t", None, None, 1), ns.NewLogEntry(**row)],), {})
    ),
}


@pytest.mark.parametrize("unit", ["x", "é", "🧠"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", CALLS)
def test_text_over_64_kib_is_refused_by_name_before_anything_is_written(
    log_store: ns.LogStore, call: str, name: str, unit: str
) -> None:
    fits = unit * (LIMIT // len(unit.encode()))
    error = refused(ValueError, lambda: CALLS[call](log_store, fields(name, fits + "x")))
    assert name in str(error)
    assert str(LIMIT) in str(error)
    assert str(LIMIT + 1) in str(error)
    assert log_store.count() == 0
    assert log_store.get_all_workflow_runs() == []
    CALLS[call](log_store, fields(name, fits))
    found = rows_with(log_store, name, fits)
    assert [getattr(row, name) for row in found] == [fits]


def test_run_whose_id_is_too_long_does_not_change(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    run_id = "x" * (LIMIT + 1)
    foreign_sql(path, INSERT_RUN, [run_id, "deploy", "queued", 1, None])
    with ns.LogStore(path) as store:
        error = refused(ValueError, lambda: store.transition(run_id, "started"))
        assert "run_id has" in str(error)
        assert [run.status for run in store.get_all_workflow_runs()] == ["queued"]
        assert store.count() == 0


# --- what another program stored ---------------------------------------------------------------------------------


def long_texts() -> list[str]:
    """Texts on both sides of what the index names by digest, with long beginnings and ends in common."""
    texts = [
        "x" * 512,
        "x" * 513,
        "x" * 514,
        "é" * 256,
        "é" * 257,
        "x" * 70_000,
        "x" * 70_000 + "y",
        "a" + "x" * 70_000,
    ]
    texts.append("x" * 100_000)
    digest = MARK + hashlib.sha256(("x" * 513).encode()).hexdigest()
    return [*texts, digest, MARK, MARK + "x", "\U0010ffff"]


def put_long_texts(path: Path) -> list[Row]:
    ns.LogStore(path).close()
    texts = long_texts()
    rows: list[Row] = []
    for turn in range(4):
        for text in texts:
            rows.append(Row(len(rows) + 1, "workflow", MESSAGE, text, PAYLOAD, turn * DAY_MS))
            rows.append(Row(len(rows) + 1, text, "type", "short", None, turn * DAY_MS))
            rows.append(Row(len(rows) + 1, "source", text, None, None, turn * DAY_MS))
    foreign_many(path, INSERT_ROW, [row[1:] for row in rows])
    return rows


def assert_found(store: ns.LogStore, rows: list[Row], *, archived: bool = False) -> None:
    every = [(name, text) for name in NAMES for text in [*long_texts(), "short", "source", "type", "x" * 600]]
    for name, text in every:
        expected = [row for row in rows if getattr(row, name) == text]
        options: Any = {name: text, "archived": archived}
        assert as_rows(store.query(**options)) == expected
        assert as_rows(store.query(**options, descending=True, limit=2)) == expected[::-1][:2]
        assert store.count(**options) == len(expected)
    pair: Any = {"source": long_texts()[5], "type": "type", "archived": archived}
    assert as_rows(store.query(**pair)) == [row for row in rows if row.source == long_texts()[5]]
    for text in long_texts():
        assert store.get_thread_round_count(text) == sum(row.ref_id == text for row in rows)
        assert len(store.get_thread_messages(text)) == sum(row.ref_id == text for row in rows)


@pytest.mark.parametrize("segment_rows", [2, 3, 40, 4096])
def test_long_texts_of_another_program_are_sealed_archived_restored_and_found(
    data_dir: Path, segment_rows: int
) -> None:
    path = data_dir / "logs.db"
    rows = put_long_texts(path)
    with ns.LogStore(path, segment_rows=segment_rows) as store:
        assert_found(store, rows)
        more = [Row(len(rows) + 1 + n, "s", "t", "x" * 600, None, 2 * DAY_MS) for n in range(segment_rows)]
        store.append_many([row[1:] for row in more])
        rows += more
        assert_found(store, rows)
        for boundary in (33, 34):
            store.archive_logs(now=boundary * DAY_MS, retention=timedelta(days=30), compression="zstd")
            assert_found(store, rows, archived=True)
            assert store.verify().ok
        store.reindex()
        assert_found(store, rows, archived=True)
        store.restore_archive(store.archived_days()[0].day)
        assert_found(store, rows, archived=True)
        assert store.verify().ok


def test_index_of_an_older_schema_is_renamed_when_it_is_opened(data_dir: Path) -> None:
    """Schema 3 named every text by itself."""
    path = data_dir / "logs.db"
    rows = put_long_texts(path)
    with ns.LogStore(path, segment_rows=3) as store:
        store.append_many([("s", "t", "x" * 600, None, 2 * DAY_MS)] * 3)
        rows += [Row(len(rows) + 1 + n, "s", "t", "x" * 600, None, 2 * DAY_MS) for n in range(3)]
        store.archive_logs(now=32 * DAY_MS, retention=timedelta(days=30))
        assert_found(store, rows, archived=True)
        fresh = store.sql("SELECT segment, postings FROM log_fresh")
    texts = [*long_texts(), "x" * 600]
    by_key = {MARK + hashlib.sha256(text.encode()).hexdigest(): text for text in texts}
    for key, text in by_key.items():
        for table, column in [
            ("log_postings", "ref_id"),
            ("log_kinds", "source"),
            ("log_kinds", "type"),
            ("archive_refs", "ref_id"),
        ]:
            foreign_sql(path, f"UPDATE {table} SET {column} = ? WHERE {column} = ?", [text, key])
    is_changed = False
    for segment, postings in fresh:
        assert isinstance(postings, bytes)
        old = postings
        for key, text in by_key.items():
            one, other = key.encode(), text.encode()
            old = old.replace(struct.pack("<I", len(one)) + one, struct.pack("<I", len(other)) + other)
        is_changed |= old != postings
        foreign_sql(path, "UPDATE log_fresh SET postings = ? WHERE segment = ?", [old, segment])
    assert is_changed
    foreign_script(path, "PRAGMA user_version = 3; ALTER TABLE log_kinds DROP COLUMN row_count")
    with ns.LogStore(path, read_only=True) as store:
        assert_found(store, rows, archived=True)
        for text in by_key.values():
            assert store.count(ref_id=text, archived=True) == sum(row.ref_id == text for row in rows)
    assert foreign_sql(path, "PRAGMA user_version") == [(3,)]
    with ns.LogStore(path, segment_rows=3) as store:
        assert_found(store, rows, archived=True)
        assert store.sql("SELECT max(octet_length(ref_id)) <= 512 FROM log_postings") == [(1,)]
        assert store.verify().ok
    assert foreign_sql(path, "PRAGMA user_version") == [(5,)]


HUGE = """
import json, resource, sys
import nerve_store as ns
path = sys.argv[1]
def ref(n): return chr(97 + n) * (63 << 20)
with ns.LogStore(path) as store:
    def look(archived):
        for n in (0, 7, 15):
            rows = store.query(ref_id=ref(n), archived=archived)
            assert [(row.id, row.payload, len(row.ref_id)) for row in rows] == [(n + 1, "huge", 63 << 20)], n
        assert store.count(ref_id="run-3", archived=archived) == 500
        assert store.get_thread_round_count("run-3") == 500
    look(False)
    store.append_many([("s", "t", None, None, 200 * 86_400_000)] * 5000)
    look(False)
    result = store.archive_logs(now=100 * 86_400_000)
    assert sum(day.added_rows for day in result.days) == 5016, result
    look(True)
    store.reindex()
    look(True)
    assert store.verify().ok
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
"""


@pytest.mark.torture
def test_references_of_63_mebibytes_do_not_wedge_a_store(data_dir: Path) -> None:
    """What is stored of a segment's references would not fit into a blob of SQLite."""
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    huge = "replace(hex(zeroblob(33030144)), '0', char(96 + value))"
    numbers = "WITH RECURSIVE numbers(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < {})"
    foreign_script(
        path,
        f"""
        INSERT INTO logs (source, type, ref_id, payload, timestamp)
        {numbers.format(16)} SELECT 's', 't', {huge}, 'huge', 1 FROM numbers;
        INSERT INTO logs (source, type, ref_id, payload, timestamp)
        {numbers.format(5000)} SELECT 'workflow', '{MESSAGE}', 'run-' || (value % 10), '{PAYLOAD}', 2 FROM numbers;
        """,
    )
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(path)], capture_output=True, text=True, check=False, env=child_environment()
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) < 1 << 30
