"""Poolers: what needs a session of its own is refused on one that others get as well, and on no other session."""

from __future__ import annotations

import asyncio
import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend, available
from contract.backends import opened as opened_backend
from contract.blob_places import made
from nerve_store.cli import main
from nerve_store.moving import copy
from nerve_store.postgres import PostgresLogStore, listener, locks, schema
from nerve_store.postgres.archive import job
from nerve_store.postgres.connections import Connections
from postgres.conftest import VERSIONS
from support import servers
from support.archive import NOW, at, day, fill
from support.servers import Server

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

SHARED: dict[str, dict[str, str]] = {
    "transaction": {},
    "one session": {"default_pool_size": "1"},
    "round robin": {"server_round_robin": "1"},
}
"""Poolers in transaction mode."""
ARCHIVES = ("directory", "file")

JOBS: dict[str, Callable[[Any], Any]] = {
    "archive": lambda log: log.archive_logs(now=NOW),
    "dry run": lambda log: log.archive_logs(now=NOW, dry_run=True),
    "restore": lambda log: log.restore_archive(day(0)),
    "expire": lambda log: log.expire_archive(before=day(9)),
    "reindex": lambda log: log.reindex(),
}


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A place for one log on a server before which there are poolers."""
    reason = available(f"postgresql-{request.param}-pgbouncer")
    if reason is not None:
        pytest.skip(reason)
    yield from opened_backend(f"postgresql-{request.param}", tmp_path)


def bouncer(place: Backend, mode: str = "transaction", **settings: str) -> str:
    return servers.shared_bouncer(place.name.split("-")[1], mode, **settings)


@pytest.fixture(params=ARCHIVES)
def archive(request: pytest.FixtureRequest, place: Backend) -> str:
    if request.param == "directory":
        return str(place.archive)
    return str(made("file", place.directory).url)


def opened(place: Backend, url: str, archive: str | None = None, **options: Any) -> Any:
    return place.stack.enter_context(PostgresLogStore(url, schema=place.schema, archive=archive, **options))


def half_archived(place: Backend, archive: str) -> None:
    """Days in the archive, and days that could go there."""
    with opened(place, place.direct_url, archive) as log:
        fill(log, days=4)
        log.archive_logs(now=NOW, max_days=2)


def state(place: Backend, archive: str) -> tuple[Any, ...]:
    with PostgresLogStore(place.direct_url, schema=place.schema, archive=archive) as log:
        return log.query(), log.query(archived=True), log.archived_days()


@pytest.mark.parametrize("pooler", SHARED)
@pytest.mark.parametrize("name", JOBS)
def test_job_on_a_shared_session_is_refused_and_changes_nothing(
    place: Backend, archive: str, name: str, pooler: str
) -> None:
    half_archived(place, archive)
    before = state(place, archive)
    url = bouncer(place, **SHARED[pooler])
    with pytest.raises(ns.ArchiveError, match="listen_url") as caught:
        JOBS[name](opened(place, url, archive))
    assert not isinstance(caught.value, ns.ArchiveBusyError)
    # An address that is given for it, and that does not go around the pooler.
    with pytest.raises(ns.ArchiveError, match="listen_url"):
        JOBS[name](opened(place, place.direct_url, archive, listen_url=url))
    assert state(place, archive) == before
    JOBS[name](opened(place, url, archive, listen_url=place.direct_url))


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("end", [Server.stop, Server.crash], ids=["restart", "crash"])
def test_calls_behind_a_pooler_wait_for_a_server_that_is_away(
    own_server: Server, mode: str, end: Callable[[Server], None], tmp_path: Path
) -> None:
    """The pooler takes logins all the while, and refuses the first statement."""
    if servers.pgbouncer() is None:
        pytest.skip("pgbouncer is not installed; make services installs it")
    url = servers.bouncer(own_server, mode, server_login_retry="3", query_wait_timeout="1")
    options: dict[str, Any] = {"archive": tmp_path, "busy_timeout": 60, "listen_url": own_server.url}
    calls: dict[str, Callable[[Any], Any]] = {
        "append": lambda log: log.append("system", "tock"),
        "append many": lambda log: log.append_many([("system", "tick", None, None, 1)] * 200),
        "key": lambda log: log.append("system", "once", key="key"),
        "meta": lambda log: log.set_meta("app.cursor", "1"),
        "claim": lambda log: log.claim_workflow_run("worker"),
        "query": lambda log: log.query(type="tick", limit=1),
        "get_meta": lambda log: log.get_meta("app.none"),
        "archive": lambda log: log.archive_logs(now=NOW),
        "open": lambda _: PostgresLogStore(url, **options).close(),
    }
    with PostgresLogStore(url, **options) as log, ThreadPoolExecutor(len(calls)) as pool:
        log.append("system", "tick")
        log.query()
        end(own_server)
        with pytest.raises(psycopg.errors.ProtocolViolation), closing(psycopg.connect(url)) as session:
            session.execute("SELECT 1")
        results = {name: pool.submit(call, log) for name, call in calls.items()}
        time.sleep(1)
        assert not any(result.done() for result in results.values())
        own_server.start()
        for result in results.values():
            result.result()
        assert log.count(type="tock") == log.count(type="once") == 1


@pytest.mark.parametrize("is_made", [False, True], ids=["no log", "a log"])
def test_pooler_in_statement_mode_is_named(place: Backend, is_made: bool) -> None:
    if is_made:
        with opened(place, place.direct_url) as log:
            log.append("system", "tick")
    with pytest.raises(ns.StoreIOError, match="transaction or session mode") as caught:
        opened(place, bouncer(place, "statement"), busy_timeout=60)
    assert caught.value.errno == errno.ENOTSUP
    if is_made:
        assert opened(place, bouncer(place, "statement"), read_only=True).count() == 1


@pytest.mark.parametrize("name", JOBS)
def test_async_job_on_a_shared_session_is_refused(place: Backend, archive: str, name: str) -> None:
    half_archived(place, archive)

    async def call() -> None:
        async with ns.AsyncPostgresLogStore(bouncer(place), schema=place.schema, archive=archive) as log:
            await JOBS[name](log)

    before = state(place, archive)
    with pytest.raises(ns.ArchiveError, match="listen_url"):
        asyncio.run(call())
    assert state(place, archive) == before


@pytest.mark.parametrize("name", JOBS)
def test_job_behind_a_pooler_in_session_mode_is_done(place: Backend, archive: str, name: str) -> None:
    half_archived(place, archive)
    log = opened(place, bouncer(place, "session"), archive)
    done = threading.Event()

    def others() -> None:
        while not done.is_set():
            with psycopg.connect(bouncer(place, "session")) as session:
                session.execute("SELECT 1")

    thread = threading.Thread(target=others)
    thread.start()
    try:
        JOBS[name](log)
    finally:
        done.set()
        thread.join()
    assert log.verify().ok


def test_opening_on_a_shared_session_is_refused_only_if_days_are_to_be_taken_in(place: Backend) -> None:
    """As where the database was restored from a backup that is older than the object store."""
    archive = str(made("file", place.directory).url)
    with opened(place, place.direct_url, archive) as log:
        rows = fill(log, days=2)
        log.archive_logs(now=NOW)
        tables = ("archive_days", "archive_objects", "archive_refs")
        kept = {name: log.sql(f"SELECT * FROM {name}") for name in tables}
    assert all(kept[name] for name in tables[:2])
    opened(place, bouncer(place), archive).append("system", "tick")
    for name in tables:
        place.execute(f"DELETE FROM {name}")
    with pytest.raises(ns.ArchiveError, match="listen_url"):
        opened(place, bouncer(place), archive)
    # Who appends and reads what is in the database needs no archive.
    opened(place, bouncer(place)).append("system", "tick")
    log = opened(place, bouncer(place), archive, listen_url=place.direct_url)
    assert log.count(archived=True) == len(rows) + 2
    assert opened(place, bouncer(place), archive).count(archived=True) == len(rows) + 2


@pytest.mark.parametrize("pooler", SHARED)
def test_session_is_told_to_be_shared_whatever_others_do(place: Backend, pooler: str) -> None:
    url = bouncer(place, **SHARED[pooler])
    done = threading.Event()

    def others() -> None:
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as session:
            while not done.is_set():
                session.execute("SELECT 1")

    threads = [threading.Thread(target=others) for _ in range(3)]
    for thread in threads:
        thread.start()
    connections = Connections(url, place="place", busy_timeout=30, max_connections=1)
    try:
        for _ in range(5):
            with closing(connections.connect()) as session:
                assert connections.is_shared(session)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for own in (place.direct_url, bouncer(place, "session")):
        with closing(connections.connect(own)) as session:
            assert not connections.is_shared(session, own)


def test_lock_of_jobs_is_not_given_twice_to_one_session(place: Backend) -> None:
    """The server's own locks are, so that a pooler which nothing tells apart would let two jobs in."""
    connections = Connections(place.direct_url, place="place", busy_timeout=30, max_connections=1)
    with closing(connections.connect()) as session, closing(connections.connect()) as other:
        for purpose in ("archive", "copy", "a", "b", "c"):  # keys below and above zero
            key = schema.lock_key(place.schema, purpose)
            assert locks.take_lock(session, key)
            assert not locks.take_lock(session, key)
            assert not locks.take_lock(other, key)
            assert locks.take_lock(session, key ^ 1)
            assert locks.take_lock(session, key ^ (1 << 40))
            locks.release_lock(session, key)
            assert locks.take_lock(other, key)


@pytest.mark.parametrize("pooler", SHARED)
def test_nothing_listens_on_a_shared_session_and_followers_look_by_themselves(
    place: Backend, pooler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bouncer(place, **SHARED[pooler])
    looked = threading.Event()
    original = listener.Listener._run

    def run(self: Any, *arguments: Any) -> None:
        looked.set()
        original(self, *arguments)

    monkeypatch.setattr(listener.Listener, "_run", run)
    log = opened(place, url)
    first = log.append("system", "first")
    with log.follow(after_id=0) as follower:
        assert next(follower) == first
        threading.Timer(0.5, log.append, ("system", "second")).start()
        assert next(follower).type == "second"
    assert log.claim_workflow_run("worker", wait=0.2) is None
    assert looked.is_set()
    assert log.append("system", "third").id == 3
    with ExitStack() as stack:
        direct = stack.enter_context(psycopg.connect(place.direct_url))
        assert direct.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE %s",
            (f"LISTEN%{place.schema}%",),
        ).fetchone() == (0,)
        for _ in range(1 if pooler == "one session" else 15):
            session = stack.enter_context(psycopg.connect(url))
            found = session.execute("SELECT pg_listening_channels()").fetchall()
            assert not [channel for (channel,) in found if place.schema in channel]


def test_copy_to_a_pooler_in_session_mode(place: Backend, tmp_path: Path) -> None:
    with ns.LogStore(tmp_path / "data" / "logs.db") as log:
        log.append("system", "tick", timestamp=at(0))
    target = f"{bouncer(place, 'session')}?schema={place.schema}&archive={tmp_path / 'days'}"
    assert copy(str(tmp_path / "data"), target, finish=True).is_finished
    assert opened(place, place.direct_url).count() == 1


def test_doctor_tells_of_a_shared_session(place: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    opened(place, place.direct_url).append("system", "tick")
    around = f"&listen_url={place.direct_url}"
    for url, more, level in (
        (bouncer(place), "", "warning"),
        (bouncer(place), around, "ok"),
        (place.direct_url, "", "ok"),
        (bouncer(place, "session"), "", "ok"),
    ):
        main(["--data", f"{url}?schema={place.schema}&archive={place.archive}{more}", "doctor", "--json", "--quick"])
        findings = json.loads(capsys.readouterr().out)["findings"]
        (found,) = [item for item in findings if item["check"] == "pooler"]
        assert found["level"] == level
        assert (level == "ok") == ("listen_url" not in (found["action"] or ""))


def test_two_jobs_lose_no_row(place: Backend, archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one once deleted rows that the first did not bring into its file."""
    url = bouncer(place)
    log = opened(place, url, archive)
    rows = [log.append("system", "early", timestamp=at(0)) for _ in range(10)]
    original = job.ArchiveJob._rows
    is_first = True

    def read(self: Any, when: Any) -> Any:
        nonlocal is_first
        found = original(self, when)
        if is_first:
            is_first = False
            with found as copied:
                list(copied)
            rows.append(log.append("system", "late", timestamp=at(0)))
            with pytest.raises(ns.ArchiveError):
                opened(place, url, archive).archive_logs(now=NOW)
            return original(self, when)
        return found

    monkeypatch.setattr(job.ArchiveJob, "_rows", read)
    with pytest.raises(ns.ArchiveError):
        log.archive_logs(now=NOW)
    assert log.query(archived=True) == rows
