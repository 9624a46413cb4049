"""Reads of the asynchronous store have threads of their own, and a cancelled call gives its thread back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support.event_loops import run
from support.signals import PROMPT, RUNAWAY, write_lock

DAY_MS = 86_400_000
MANY = 12
"""More calls than there are threads of one kind."""

CALLS: dict[str, Callable[[ns.AsyncLogStore], Any]] = {
    "query": lambda store: store.query(limit=1),
    "count": lambda store: store.count(),
    "sql": lambda store: store.sql("SELECT count(*) FROM logs"),
    "get_meta": lambda store: store.get_meta("key"),
    "get_workflow_run": lambda store: store.get_workflow_run("run-1"),
    "archived_days": lambda store: store.archived_days(),
    "iter": lambda store: all_of(store.iter(limit=3)),
}


async def all_of(rows: AsyncIterator[ns.LogEntry]) -> list[ns.LogEntry]:
    return [entry async for entry in rows]


async def endless(call: Callable[[], Any]) -> None:
    while True:
        await call()


async def seconds(awaitable: Any) -> float:
    began = time.monotonic()
    async with asyncio.timeout(20):
        await awaitable
    return time.monotonic() - began


@pytest.mark.parametrize("call", CALLS)
def test_reads_do_not_wait_for_writes(data_dir: Path, call: str) -> None:
    path = data_dir / "logs.db"

    async def main() -> None:
        async with ns.AsyncLogStore(path) as store:
            await store.append("system", "tick")
            with write_lock(path):
                writes = [asyncio.create_task(store.set_meta(f"key {n}", "value")) for n in range(MANY)]
                await asyncio.sleep(0.1)
                assert await seconds(CALLS[call](store)) < PROMPT
                assert not any(write.done() for write in writes)
            await asyncio.gather(*writes)
            assert await store.get_meta(f"key {MANY - 1}") == "value"

    run(main())


def test_archive_jobs_keep_neither_reads_nor_writes_waiting(data_dir: Path) -> None:
    path = data_dir / "logs.db"

    async def main() -> None:
        is_over = threading.Event()

        def progress(_done: int, _total: int) -> None:
            is_over.wait(20)

        async with ns.AsyncLogStore(path) as store:
            await store.append("system", "tick", timestamp=DAY_MS)
            jobs = [asyncio.create_task(store.verify(progress=progress)) for _ in range(MANY)]
            await asyncio.sleep(0.2)
            assert await seconds(store.count()) < PROMPT
            assert await seconds(store.set_meta("key", "value")) < PROMPT
            is_over.set()
            assert all(report.ok for report in await asyncio.gather(*jobs))

    run(main())


LONG: dict[str, Callable[[ns.AsyncLogStore], Any]] = {
    "sql": lambda store: store.sql(RUNAWAY),
    "query": lambda store: store.query(archived=True),
    "count": lambda store: endless(lambda: store.count(archived=True, source="system")),
    "iter": lambda store: all_of(store.iter(archived=True)),
    "verify": lambda store: store.verify(),
    "reindex": lambda store: store.reindex(),
    "stats": lambda store: store.stats(exact=True),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "logs.db"
    with ns.LogStore(path, durability="normal") as store:
        for day in range(4):
            store.append_many(
                [("system", "tick", f"run-{n % 9}", "x" * 40, (20_000 + day) * DAY_MS + n) for n in range(60_000)]
            )
        store.archive_logs(now=20_002 * DAY_MS, retention=timedelta(0), compression="zstd")
    return path


@pytest.mark.parametrize("call", LONG)
def test_cancelled_calls_are_interrupted(large: Path, call: str) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(large) as store:
            for _ in range(2):
                tasks = [asyncio.create_task(LONG[call](store)) for _ in range(MANY)]
                await asyncio.sleep(0.005 if call == "stats" else 0.1)
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
                assert await seconds(store.query(limit=1)) < 2 * PROMPT
                assert await seconds(LONG["verify" if call == "reindex" else "stats"](store)) < 20

    run(main())
    with ns.LogStore(large) as store:
        assert store.count(archived=True) == 240_000
        assert store.verify().ok


def test_a_cancelled_write_that_waits_changes_nothing(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    queued = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.QUEUED, 1)

    async def main() -> None:
        async with ns.AsyncLogStore(path) as store:
            await store.upsert_workflow_run(("workflow", "queued", "run-1", None, 1), queued)
            with write_lock(path):
                tasks: list[asyncio.Task[Any]] = [
                    asyncio.create_task(store.set_meta(f"key {n}", "value")) for n in range(MANY)
                ]
                tasks += [asyncio.create_task(store.reindex()), asyncio.create_task(store.archive_logs())]
                change = asyncio.create_task(store.transition("run-1", "started"))
                await asyncio.sleep(0.2)
                for task in [*tasks, change]:
                    task.cancel()
                await asyncio.gather(*tasks, change, return_exceptions=True)
                await asyncio.sleep(0.2)
            assert await seconds(store.set_meta("last", "value")) < PROMPT
            assert await store.sql("SELECT key FROM meta WHERE key LIKE 'key%' OR key = 'last'") == [("last",)]
            run_now = await store.get_workflow_run("run-1")
            assert run_now is not None
            assert run_now.status == "queued"
            assert await store.count() == 1

    run(main())


def test_a_timeout_of_asyncio_ends_a_statement(data_dir: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db") as store:
            began = time.monotonic()
            for _ in range(MANY):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await store.sql(RUNAWAY)
            with pytest.raises(ns.QueryTimeoutError):
                await store.sql(RUNAWAY, timeout=0.02)
            assert time.monotonic() - began < MANY * PROMPT

    run(main())
