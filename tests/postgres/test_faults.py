"""Lost connections and crashes of the server: nothing acknowledged is lost, nothing is doubled, no id is given twice.

Each has a control that does the same without the measure under test, and that the same check finds wrong.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Self

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.postgres import PostgresLogStore
from postgres.faults import Losses, Writers, kill_connections, patiently
from postgres.restores import SKIPPED, tell_nothing
from support.counts import LONG, note, scaled
from support.servers import Server

KILLS = scaled(60, long=2_500)
FOLLOWER_KILLS = scaled(30, long=500)
CRASHES = scaled(3, long=50)


class Retrying:
    """The control: a plain INSERT on a connection of each thread, sent again when the connection was lost."""

    def __init__(self, url: str, schema: str) -> None:
        self._url, self._own = url, threading.local()
        self._stack = contextlib.ExitStack()
        self._insert = (
            f"INSERT INTO {schema}.logs (id, source, type, payload, timestamp, is_round) "
            f"VALUES (nextval('{schema}.log_id'), %s, %s, %s, 0, false) RETURNING id"
        ).encode()

    def append(self, source: str, type: str, ref_id: str | None = None, payload: str | None = None) -> Any:
        while True:
            try:
                session = getattr(self._own, "session", None)
                if session is None or session.closed:
                    session = self._own.session = self._stack.enter_context(psycopg.connect(self._url, autocommit=True))
                row: Any = session.execute(self._insert, (source, type, payload)).fetchone()
                return SimpleNamespace(id=row[0])
            except psycopg.OperationalError:
                self._own.session.close()
                self._own.session = None

    def close(self) -> None:
        self._stack.close()


def rows_of(log: Any) -> list[tuple[int, str | None]]:
    return [(entry.id, entry.payload) for entry in log.iter(type="tick")]


def test_killed_connections_lose_and_double_nothing(place: Backend) -> None:
    log = place.open()
    assert isinstance(log, PostgresLogStore)
    with Writers(log, 8) as writers:
        killed = kill_connections(place.direct_url, KILLS, application=r"^CALL .*\.write")
    assert killed >= (KILLS if LONG else KILLS // 2)
    assert writers.errors == []
    losses = Losses(writers, rows_of(log))
    note("lost connections", place.name, killed=killed, acknowledged=len(writers.acknowledged), **losses.counts())
    assert losses.none(), vars(losses)
    assert writers.acknowledged.keys() == writers.attempted
    ids = [row_id for row_id, _ in rows_of(log)]
    assert ids == sorted(ids)


def test_plain_retry_doubles_rows_and_the_check_sees_it(place: Backend) -> None:
    """The control of the test above."""
    log = place.open()
    doubled = 0
    for _ in range(20):
        control = Retrying(place.direct_url, place.schema)
        with contextlib.closing(control), Writers(control, 8) as writers:
            kill_connections(place.direct_url, 60, application="^INSERT")
        doubled += len(Losses(writers, rows_of(log)).doubled)
        if doubled:
            break
    note("lost connections, control", place.name, doubled=doubled)
    assert doubled


class Unflushed(PostgresLogStore):
    """The control: acknowledges what is committed and not flushed."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, durability="normal", **options)


@contextlib.contextmanager
def slow_wal_writer(server: Server) -> Iterator[None]:
    """Leave unflushed commits in the server's memory for long, so that a crash takes them."""
    server.stop()
    server.settings = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "wal_buffers": "64MB"}
    server.start()
    yield


def crash_while_writing(server: Server, make: Any, rounds: int) -> tuple[int, Losses, list[int]]:
    """Crash the server while eight threads append; what became of the acknowledged rows, and ids given twice."""
    acknowledged = 0
    seen: dict[int, str | None] = {}
    reused: list[int] = []
    writers: Writers | None = None
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(make(server.url, busy_timeout=30.0))
        reader = stack.enter_context(PostgresLogStore(server.url, durability="normal"))
        with Writers(log, 8) as writers:
            for _ in range(rounds):
                time.sleep(0.4)
                # A reader sees rows that may not be durable: their ids must not go to other rows.
                found = reader.query(type="tick")
                reused += [entry.id for entry in found if seen.setdefault(entry.id, entry.payload) != entry.payload]
                server.crash()
                server.start()
            patiently(lambda: log.append("system", "after"))
        acknowledged = len(writers.acknowledged)
        rows = rows_of(reader)
    reused += [row_id for row_id, payload in rows if seen.get(row_id, payload) != payload]
    return acknowledged, Losses(writers, rows), reused


def noted(sweep: str, server: Server, acknowledged: int, losses: Losses, reused: list[int], *, crashes: int) -> None:
    counts = losses.counts()
    counts["reused"] += len(reused)
    note(sweep, server.version, crashes=crashes, acknowledged=acknowledged, **counts)


def test_crash_of_the_server_keeps_what_was_acknowledged(own_server: Server) -> None:
    with slow_wal_writer(own_server):
        acknowledged, losses, reused = crash_while_writing(own_server, PostgresLogStore, CRASHES)
    noted("crashes", own_server, acknowledged, losses, reused, crashes=CRASHES)
    assert acknowledged > 100
    assert losses.none(), vars(losses)
    assert reused == []


def test_crash_takes_what_was_not_flushed_and_the_check_sees_it(own_server: Server) -> None:
    """The control of the test above."""
    with slow_wal_writer(own_server):
        acknowledged, losses, reused = crash_while_writing(own_server, Unflushed, 3)
    noted("crashes, control", own_server, acknowledged, losses, reused, crashes=3)
    assert acknowledged > 100
    assert losses.lost
    assert not losses.doubled
    # Ids of rows that a reader saw go to no other row, even if those rows are gone.
    assert reused == []


def test_without_the_skip_of_ids_a_crash_gives_an_id_twice(own_server: Server) -> None:
    with slow_wal_writer(own_server):
        with PostgresLogStore(own_server.url) as log:
            log.append("system", "first")
        assert crashed_and_append(own_server) == "another id"
        # The server flushes a commit at once that fills a page of its write-ahead log: rows of another length do not.
        assert any(
            crashed_and_append(own_server, length, before=lambda: tell_nothing(own_server.url)) == "the same id"
            for length in range(0, 8_000, 700)
        )


def crashed_and_append(server: Server, length: int = 0, before: Callable[[], object] = lambda: None) -> str:
    """Crash the server after a reader saw a row that was not flushed; which id the next row has."""
    with PostgresLogStore(server.url, durability="normal") as log:
        lost = log.append("system", "lost", payload="x" * length)
        assert log.query(after_id=lost.id - 1) == [lost]
        server.crash()
        server.start()
    before()
    with PostgresLogStore(server.url) as log:
        again = log.append("system", "again")
        assert again.id >= lost.id
        return "the same id" if again.id == lost.id else "another id"


def test_crash_of_one_backend_skips_ids_too(own_server: Server) -> None:
    """It empties the server's memory like a crash, and the postmaster lives on: its start time says nothing."""
    with slow_wal_writer(own_server), PostgresLogStore(own_server.url, durability="normal") as log:
        log.append("system", "first", durability="full")
        lost = log.append("system", "lost")
        with psycopg.connect(own_server.url, autocommit=True) as session:
            row = session.execute("SELECT pg_backend_pid(), pg_postmaster_start_time()").fetchone()
            assert row is not None
            os.kill(row[0], signal.SIGKILL)
        own_server.wait()
        time.sleep(0.5)
        again = patiently(lambda: log.append("system", "again"))
        started = patiently(lambda: log.sql("SELECT pg_postmaster_start_time()"))
        assert started == [(row[1],)]
        assert again.id > lost.id
        assert [entry.type for entry in log.query()] in (["first", "again"], ["first", "lost", "again"])


def test_each_restart_skips_ids_once(own_server: Server) -> None:
    """Nothing tells a server that was stopped from a copy of its files that was taken then, and is started later."""
    with PostgresLogStore(own_server.url) as log:
        last = log.append("system", "tick").id
        for _ in range(2):
            own_server.stop()
            own_server.start()
            patiently(log.count)
            with ThreadPoolExecutor(4) as pool:
                given = [entry.id for entry in pool.map(append_anew, [own_server.url] * 4)]
            assert last + SKIPPED < min(given)
            assert max(given) == min(given) + 3
            last = max(given)


def append_anew(url: str) -> ns.LogEntry:
    """What one of several processes that come back at once does."""
    with PostgresLogStore(url) as log:
        return log.append("system", "tick")


class Polling:
    """A reader that asks for what comes after the last row it has seen."""

    def __init__(self, log: PostgresLogStore) -> None:
        self.ids: list[int] = []
        self._log, self._is_over = log, False
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self._work = self._pool.submit(self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._pool.shutdown()
        self._work.result()

    def _read(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_over
            found = patiently(lambda: self._log.query(type="tick", after_id=self.ids[-1] if self.ids else 0))
            self.ids += [entry.id for entry in found]


def test_followers_live_through_lost_connections(place: Backend) -> None:
    log, reader = place.open(), place.open()
    assert isinstance(reader, PostgresLogStore)
    followers = [reader.follow() for _ in range(2)]

    def follow(number: int) -> list[int]:
        return [entry.id for entry in itertools.takewhile(lambda entry: entry.type != "end", followers[number])]

    with ThreadPoolExecutor(2) as pool:
        following = [pool.submit(follow, number) for number in range(2)]
        with Polling(reader) as polling:
            with Writers(log, 8) as writers:
                killed = kill_connections(place.direct_url, FOLLOWER_KILLS, application=r"write|LISTEN|SELECT id")
            log.append("system", "end")
        seen = [*(one.result(60) for one in following), polling.ids]
    acknowledged = sorted(writers.acknowledged.values())
    missed = sum(len(set(acknowledged) - set(ids)) for ids in seen)
    note("followers", place.name, killed=killed, rows=len(acknowledged), missed=missed)
    assert seen == [acknowledged] * 3


def test_ids_that_are_given_before_the_commit_are_missed_and_the_check_sees_it(place: Backend) -> None:
    """The control of the test above."""
    log = place.open()
    assert isinstance(log, PostgresLogStore)
    rows = missed = 0
    for _ in range(60):
        control = Retrying(place.direct_url, place.schema)
        with contextlib.closing(control), Polling(log) as polling, Writers(control, 8) as writers:
            time.sleep(1)
        acknowledged = set(writers.acknowledged.values())
        rows += len(acknowledged)
        missed += len(acknowledged - set(polling.ids))
        if missed:
            break
    note("followers, control", place.name, rows=rows, missed=missed)
    assert missed


def test_server_that_is_gone_is_an_error_and_comes_back(own_server: Server) -> None:
    with PostgresLogStore(own_server.url, busy_timeout=0.5) as log:
        log.append("system", "tick")
        own_server.stop()
        for call in (lambda: log.append("system", "tick"), log.query, log.count, lambda: log.sql("SELECT 1")):
            with pytest.raises(ns.StoreUnavailableError) as refused:
                call()
            assert isinstance(refused.value, ConnectionError)
            assert "\n" not in str(refused.value)
        with pytest.raises(ns.StoreUnavailableError):
            PostgresLogStore(own_server.url, busy_timeout=0.2)
        own_server.start()
        assert patiently(lambda: log.append("system", "tock")).type == "tock"
        assert log.count(type="tock") == 1
