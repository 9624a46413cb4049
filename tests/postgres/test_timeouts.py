"""How long a call waits for a lock: `busy_timeout`, also behind a pooler, and at no other client's cost."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend, opened
from nerve_store.postgres import PostgresLogStore, schema

FOREVER = 2_147_483_648


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Backend]:
    """A log behind a pooler in transaction mode."""
    yield from opened("postgresql-18-pgbouncer", tmp_path)


@contextmanager
def held(place: Backend, purpose: str = "append") -> Iterator[None]:
    with psycopg.connect(place.direct_url) as session:
        session.execute("SELECT pg_advisory_xact_lock(%s)", (schema.lock_key(place.schema, purpose),))
        yield


def busy_within(seconds: float, call: Any) -> None:
    begun = time.monotonic()
    with pytest.raises(ns.StoreBusyError):
        call()
    assert time.monotonic() - begun < seconds


def calls(log: Any) -> list[Any]:
    return [
        lambda: log.append("system", "tick"),
        lambda: log.create_workflow_run("run-1", "deploy"),
        lambda: log.claim_workflow_run("worker"),
        lambda: log.set_meta("a", "b"),
    ]


def test_wait_behind_a_pooler_is_bounded_on_every_session(pooled: Backend) -> None:
    log = pooled.open(busy_timeout=0.5)
    log.append("system", "tick")
    for call in calls(log):
        # Other clients of the pooler, so that it hands out another session each time.
        with ExitStack() as stack, held(pooled):
            for _ in range(2):
                stack.enter_context(psycopg.connect(pooled.url)).execute("SELECT 1")
            busy_within(5, call)
    assert log.append("system", "tick").id == 2


def test_store_leaves_no_setting_in_sessions_of_a_pooler(pooled: Backend) -> None:
    settings = ("lock_timeout", "synchronous_commit", "search_path", "statement_timeout", "transaction_read_only")
    with ExitStack() as stack:
        direct = stack.enter_context(psycopg.connect(pooled.direct_url))
        before = [direct.execute(f"SHOW {name}".encode()).fetchone() for name in settings]
        log: Any = pooled.open(busy_timeout=2)
        for call in (*calls(log), log.query, log.verify, log.stats, log.archive_logs, lambda: log.sql("SELECT 1")):
            call()
        clients = [stack.enter_context(psycopg.connect(pooled.url)) for _ in range(12)]
        after = [[client.execute(f"SHOW {name}".encode()).fetchone() for name in settings] for client in clients]
    assert after == [before] * len(clients)


@pytest.mark.parametrize("busy_timeout", [FOREVER / 1000 - 1, FOREVER / 1000, 1e9, 1e15])
def test_any_busy_timeout_serves(place: Backend, busy_timeout: float) -> None:
    log: Any = place.open(busy_timeout=busy_timeout)
    for call in (*calls(log), log.archive_logs):
        call()


@pytest.mark.parametrize("busy_timeout", [0, 0.0001])
def test_store_that_may_not_wait_does_not(place: Backend, busy_timeout: float) -> None:
    log = place.open(busy_timeout=busy_timeout)
    with held(place):
        for call in calls(log):
            busy_within(2, call)


def test_opening_waits_no_longer_than_it_may(place: Backend) -> None:
    """For another one that makes the schema, or brings it up to date."""
    with held(place, "schema"):
        busy_within(5, lambda: place.open(busy_timeout=0.3))
    place.open().close()
    place.execute("UPDATE state SET schema_version = 2")
    for purpose in ("schema", "append"):
        with held(place, purpose):
            busy_within(5, lambda: PostgresLogStore(place.url, schema=place.schema, busy_timeout=0.3))
    place.open().append("system", "tick")


@pytest.mark.parametrize(("busy_timeout", "milliseconds"), [(0, 2_000), (7.5, 7_500), (30, 25_000), (1e12, 25_000)])
def test_network_that_acknowledges_nothing_ends_a_call(place: Backend, busy_timeout: float, milliseconds: int) -> None:
    with place.open(busy_timeout=busy_timeout) as log:
        assert isinstance(log, PostgresLogStore)
        with log._connections.borrowed() as session, socket.socket(fileno=os.dup(session.fileno())) as own:
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
    url = f"{place.url}?tcp_user_timeout=123"
    with (
        PostgresLogStore(url, schema=place.schema) as log,
        log._connections.borrowed() as session,
        socket.socket(fileno=os.dup(session.fileno())) as own,
    ):
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 123
