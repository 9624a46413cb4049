"""What a role, a database or a URL sets for its transactions: no row is lost or doubled by it, and nothing fails."""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from nerve_store.cli import main
from nerve_store.moving import copy
from nerve_store.postgres import schema
from nerve_store.postgres.archive.job import ArchiveJob
from nerve_store.postgres.schema import lock_key
from postgres.moved import claims, fill
from postgres.restores import Database
from support import as_rows, servers
from support.archive import NOW, at, day
from support.servers import Server

ISOLATIONS = ("repeatable read", "serializable")
WAYS = ("database", "role", "URL")


@pytest.fixture
def database(server: Server, tmp_path: Path) -> Iterator[Database]:
    """A database of its own on the server that all share."""
    made = Database(server, tmp_path, str(tmp_path / "days"))
    yield made
    made.remove()


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> str:
    """What transactions have that do not say theirs."""
    return str(request.param)


@pytest.fixture(params=WAYS)
def url(request: pytest.FixtureRequest, database: Database, isolation: str) -> Iterator[str]:
    """A URL by which they have it."""
    if request.param == "URL":
        option = "-cdefault_transaction_isolation=" + isolation.replace(" ", "\\ ")
        yield psycopg.conninfo.make_conninfo(database.url, options=option)
        return
    if request.param == "database":
        database.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation = '{isolation}'")
        yield database.url
        return
    role = f"{database.name}_role"
    database.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    database.execute(f"ALTER ROLE {role} SET default_transaction_isolation = '{isolation}'")
    yield database.url.replace("tester@", f"{role}@")
    database.drop()
    database.execute(f"DROP ROLE {role}", "postgres")


@contextmanager
def locked(database: Database) -> Iterator[Callable[[int], None]]:
    """While another session holds the append lock: gives what waits until so many wait for it."""
    with closing(psycopg.connect(database.url, autocommit=True)) as session:
        session.execute("SELECT pg_advisory_lock(%s)", (lock_key("nerve"),))

        def wait(count: int) -> None:
            while database.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ) != [(count,)]:
                time.sleep(0.01)

        yield wait


def test_late_row_that_commits_while_a_job_waits_for_the_lock_is_kept(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job looks once before it takes the lock, at a partition that has what it archived alone."""
    looked, found = ArchiveJob._has_only, list[ns.LogEntry]()
    with (
        ns.PostgresLogStore(url, archive=database.archive) as log,
        ns.PostgresLogStore(url) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        database.execute(f"SELECT nerve.ensure_day('{day(1)}')")
        rows = [log.append("system", "tick", timestamp=at(1, n)) for n in range(10)]
        other.append("system", "before")
        held = locked(database)

        def look(job: ArchiveJob, partition: str, count: int) -> bool:
            is_first = not found
            result = looked(job, partition, count)
            if is_first:
                found.append(rows[0])
                wait = held.__enter__()
                late = pool.submit(other.append, "system", "late", timestamp=at(1, 500))
                wait(1)

                def release() -> None:
                    # The job waits behind the append.
                    wait(2)
                    held.__exit__(None, None, None)
                    found.append(late.result())

                releasing.append(threading.Thread(target=release))
                releasing[0].start()
            return result

        releasing = list[threading.Thread]()
        monkeypatch.setattr(ArchiveJob, "_has_only", look)
        log.archive_logs(now=NOW)
        releasing[0].join()
        assert as_rows(log.query(archived=True, until=at(2))) == as_rows([*rows, found[1]])
        assert log.verify().ok


def test_claimant_whose_run_is_killed_while_it_waits_for_the_lock_is_refused(database: Database, url: str) -> None:
    with (
        ns.PostgresLogStore(url) as log,
        ns.PostgresLogStore(url) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        log.create_workflow_run("run", "deploy")
        claim = log.claim_workflow_run("worker")
        other.append("system", "before")
        with locked(database) as wait:
            killed = pool.submit(other.transition, "run", "killed")
            wait(1)
            refused = pool.submit(log.append, "system", "by the claimant", claim=claim)
            wait(2)
        assert killed.result().status == "killed"
        with pytest.raises(ns.ClaimLostError):
            refused.result()
        assert [row.type for row in log.query()] == ["queued", "started", "before", "killed"]


def test_calls_that_change_the_same_rows_wait_for_each_other(url: str) -> None:
    """Claims, keys and meta of several stores: each call is done, and none by two."""
    with ns.PostgresLogStore(url) as first, ns.PostgresLogStore(url) as second:
        first.append_many([("system", "before", None, None, 1)])
        for number in range(40):
            first.create_workflow_run(f"run-{number}", "deploy")

        def work(log: Any, worker: str) -> list[tuple[str, int]]:
            done = []
            for number in range(10):
                claim = log.claim_workflow_run(worker)
                done.append((claim.run.run_id, log.append("system", "once", key=f"key-{number}").id))
                log.set_meta("app.cursor", f"{worker}-{number}")
            return done

        with ThreadPoolExecutor(4) as pool:
            workers = [pool.submit(work, log, str(n)) for n, log in enumerate((first, second, first, second))]
        done = [item for worker in workers for item in worker.result()]
        assert len({run_id for run_id, _ in done}) == 40
        assert len({row_id for _, row_id in done}) == 10
        assert first.count(type="once") == 10


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooler"])
def test_whatever_writes_sees_what_was_committed_before_its_lock(
    database: Database, isolation: str, pooled: bool, tmp_path: Path
) -> None:
    """Every write of every kind: of calls, jobs and copies."""
    if pooled and servers.pgbouncer() is None:
        pytest.skip("pgbouncer is not installed; make services installs it")
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation = '{isolation}'")
    url = database.url
    if pooled:
        url = servers.shared_bouncer(database.server.version).replace("/postgres", f"/{database.name}")
    with ns.PostgresLogStore(url):
        pass
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF current_setting('transaction_isolation') <> 'read committed' THEN "
        "RAISE EXCEPTION '% of % is %', tg_op, tg_table_name, current_setting('transaction_isolation'); END IF; "
        "RETURN NULL; END $$"
    )
    for table in ("logs", "meta", "workflow_runs", "keys", "writers", "alive"):
        database.execute(
            f"CREATE TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON nerve.{table} EXECUTE FUNCTION refuse()"
        )
    with ns.PostgresLogStore(url, archive=database.archive, listen_url=database.url) as log:
        fill(log)
        claims(log)
        database.execute("BEGIN ISOLATION LEVEL READ COMMITTED; DELETE FROM nerve.alive; COMMIT")
        log.reindex()
        assert log.verify().ok
        rows = log.query(archived=True)
    copy(f"{url}?archive={database.archive}&listen_url={database.url}", tmp_path / "home", finish=True)
    target = f"{url}?schema=other&archive={tmp_path / 'other'}&listen_url={database.url}"
    copy(tmp_path / "home", target, finish=True)
    with ns.PostgresLogStore(url, schema="other", archive=tmp_path / "other") as log:
        assert log.query(archived=True) == rows


@pytest.mark.parametrize("is_made", [False, True], ids=["no log", "a log"])
def test_role_that_only_reads_is_refused_for_writing(database: Database, is_made: bool) -> None:
    if is_made:
        with ns.PostgresLogStore(database.url) as log:
            log.append("system", "tick")
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    with pytest.raises(ns.StoreIOError, match=r"default_transaction_read_only.*read_only=True") as caught:
        ns.PostgresLogStore(database.url, busy_timeout=60)
    assert caught.value.errno == errno.EROFS
    assert caught.value.path == f"{database.url}#nerve"
    if is_made:
        with ns.PostgresLogStore(database.url, read_only=True) as log:
            assert log.count() == 1


def test_log_that_becomes_read_only_says_so_after_busy_timeout(database: Database) -> None:
    with ns.PostgresLogStore(database.url, busy_timeout=0.5) as log:
        database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
        with pytest.raises(ns.StoreIOError, match="default_transaction_read_only") as caught:
            log.append("system", "tick")
        assert caught.value.errno == errno.EROFS
        assert log.query() == []


def test_doctor_names_the_settings(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with ns.PostgresLogStore(database.url):
        pass
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'serializable'")
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    main(["--data", database.url, "doctor", "--quick", "--json"])
    findings = {item["check"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["isolation"]["message"].startswith("serializable")
    assert findings["default_transaction_read_only"]["level"] == "warning"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_database_of_another_encoding_is_refused(server: Server, encoding: str, tmp_path: Path) -> None:
    database = Database(server, tmp_path, str(tmp_path / "days"))
    try:
        database.drop()
        database.execute(
            f"CREATE DATABASE {database.name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'", "postgres"
        )
        with pytest.raises(ns.StoreIOError, match=f"{encoding}.*UTF8") as caught:
            ns.PostgresLogStore(database.url)
        assert caught.value.errno == errno.EILSEQ
        with ns.LogStore(tmp_path / "home" / "logs.db") as log:
            log.append("system", "tick")
        with pytest.raises(ns.StoreIOError, match=f"{encoding}.*UTF8"):
            copy(tmp_path / "home", database.url)
        assert database.execute("SELECT FROM pg_namespace WHERE nspname LIKE 'nerve%'") == []
    finally:
        database.remove()


def test_log_that_is_in_a_database_of_another_encoding_is_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(server, tmp_path, str(tmp_path / "days"))
    try:
        database.drop()
        database.execute(f"CREATE DATABASE {database.name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'", "postgres")
        # As an earlier version made it.
        with monkeypatch.context() as earlier:
            earlier.setattr(schema, "_ENCODING", "LATIN1")
            ns.PostgresLogStore(database.url).close()
        with ns.PostgresLogStore(database.url) as log:
            log.append("system", "tick", payload="\xfc")
            with pytest.raises(ns.StoreIOError, match="UTF8") as caught:
                log.append("system", "tick", payload="\u2028")
            assert caught.value.errno == errno.EILSEQ
            assert [row.payload for row in log.query()] == ["\xfc"]
    finally:
        database.remove()
