"""Calls in an event loop that are cancelled end at the server too, and leave nothing that the process waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.postgres.schema import lock_key
from support import child_environment, run_child

SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"

CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "sql": lambda log: log.sql("SELECT pg_sleep(60)"),
    "sql of several rows": lambda log: log.sql("SELECT n, pg_sleep(60) FROM generate_series(1, 3) AS n"),
    "claim_workflow_run": lambda log: log.claim_workflow_run("worker", wait=60),
    "follow": lambda log: anext(log.follow()),
    "archive_logs": lambda log: log.archive_logs(wait=60),
}


def opened(place: Backend) -> ns.AsyncPostgresLogStore:
    return ns.AsyncPostgresLogStore(place.url, schema=place.schema, archive=place.archive)


def sleeping(place: Backend) -> int:
    with psycopg.connect(place.url) as session:
        row = session.execute(SLEEPING, ("%pg_sleep(60)%",)).fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize("delay", [0, 0.001, 0.5])
@pytest.mark.parametrize("count", [1, 20])
def test_statement_that_is_cancelled_ends_at_the_server(place: Backend, delay: float, count: int) -> None:
    async def work() -> None:
        async with opened(place) as log:
            tasks = [asyncio.ensure_future(CALLS["sql"](log)) for _ in range(count)]
            await asyncio.sleep(delay)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            end = time.monotonic() + 10
            while sleeping(place):
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
            assert await log.sql("SELECT 1") == [(1,)]

    asyncio.run(work())


@pytest.mark.parametrize("name", CALLS)
def test_process_ends_at_once_after_a_cancelled_call(place: Backend, name: str) -> None:
    place.open().append("system", "tick")
    program = f"""
import asyncio, sys
sys.path[:0] = {sys.path!r}
import nerve_store as ns
from contextlib import suppress
from postgres.test_cancelled_calls import CALLS

async def main():
    log = ns.AsyncPostgresLogStore({place.url!r}, schema={place.schema!r}, archive={str(place.archive)!r})
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await CALLS[{name!r}](log)

asyncio.run(main())
"""
    with psycopg.connect(place.direct_url, autocommit=True) as session:
        # Another archive job has the lock.
        session.execute("SELECT pg_advisory_lock(%s)", (lock_key(place.schema, "archive"),))
        subprocess.run([sys.executable, "-c", program], check=True, timeout=20, env=child_environment())


@pytest.mark.parametrize("pool", ["read", "write", "job"])
def test_a_program_ends_whose_handler_raised_as_a_thread_began(place: Backend, pool: str) -> None:
    options = {"schema": place.schema, "archive": str(place.archive)}
    arguments = {"place": place.url, "options": options, "pool": f"postgres-{pool}", "error": "interrupt"}
    done = run_child("raise_as_a_thread_begins", kind="AsyncPostgresLogStore", **arguments)
    assert done.returncode == 3, done.stderr
