"""Schemas that were renamed, as where a restored log takes the place of another: no write lands in another log."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.cli import main
from nerve_store.postgres.schema import lock_key
from postgres.restores import Database
from support.archive import NOW, at, day
from support.servers import Server

WRITES: dict[str, Callable[[Any], Any]] = {
    "append": lambda log: log.append("system", "tick"),
    "append many": lambda log: log.append_many([("system", "tick", None, None, at(1))] * 200),
    "key": lambda log: log.append("system", "tick", key="key"),
    "meta": lambda log: log.set_meta("app.cursor", "1"),
    "create": lambda log: log.create_workflow_run("run", "deploy"),
    "claim": lambda log: log.claim_workflow_run("worker"),
    "delete runs": lambda log: log.delete_workflow_runs(before=NOW),
}


@pytest.fixture
def database(server: Server, tmp_path: Path) -> Iterator[Database]:
    """A database of its own on the server that all share."""
    made = Database(server, tmp_path, str(tmp_path / "days"))
    yield made
    made.remove()


def opened(database: Database, schema: str = "nerve", **options: Any) -> ns.PostgresLogStore:
    return database.open(schema=schema, archive=None, **{"busy_timeout": 10, **options})


def make(database: Database, schema: str) -> None:
    with opened(database, schema) as log:
        log.append("system", schema)


def rename(database: Database, name: str, new_name: str) -> None:
    database.execute(f"ALTER SCHEMA {name} RENAME TO {new_name}")


def content(database: Database, schema: str) -> list[Any]:
    """All that a log has."""
    tables = ("logs", "meta", "workflow_runs", "keys")
    found = [database.execute(f"SELECT t::text FROM {schema}.{table} t ORDER BY t::text") for table in tables]
    return [*found, database.execute(f"SELECT last_value FROM {schema}.log_id")]


def types(log: Any) -> list[str]:
    return [row.type for row in log.query()]


@pytest.mark.parametrize("is_taken", [False, True], ids=["free name", "taken name"])
def test_renamed_log_writes_to_itself(database: Database, is_taken: bool) -> None:
    make(database, "nerve")
    rename(database, "nerve", "tenant")
    if is_taken:
        make(database, "nerve")
    before = content(database, "nerve") if is_taken else None
    with opened(database, "tenant") as log:
        for write in WRITES.values():
            write(log)
        assert types(log) == ["nerve", *["tick"] * 202, "queued", "started"]
        assert log.list_meta() == {"app.cursor": "1"}
    if is_taken:
        assert content(database, "nerve") == before


def test_renamed_log_takes_its_own_locks_and_makes_its_own_partitions(database: Database) -> None:
    make(database, "nerve")
    rename(database, "nerve", "tenant")
    with opened(database, "tenant"):
        pass
    for function, purpose in (("lock_ids", "append"), ("ensure_day", "days")):
        source = database.execute(f"SELECT prosrc FROM pg_proc WHERE oid = 'tenant.{function}'::regproc")[0][0]
        assert str(lock_key("tenant", purpose)) in source
    database.execute(f"SELECT tenant.ensure_day('{day(1)}')")
    assert database.execute(f"SELECT to_regclass('tenant.logs_{day(1):%Y%m%d}') IS NOT NULL") == [(True,)]


def test_renamed_log_tells_its_followers(database: Database) -> None:
    make(database, "nerve")
    rename(database, "nerve", "tenant")
    with opened(database, "tenant") as log, opened(database, "tenant") as other:
        follower = log.follow(after_id=0)
        assert next(follower).type == "nerve"
        known = log._listener.notices()
        while not log._listener._is_settled:
            log._listener.wait(known, 0.05)
        known = log._listener.notices()
        other.append("system", "told")
        while log._listener.notices() == known:
            log._listener.wait(known, 0.05)
        assert next(follower).type == "told"


@pytest.mark.parametrize("is_lost", [False, True], ids=["connected", "disconnected"])
@pytest.mark.parametrize("heir", ["new", "renamed", "stale"])
def test_log_that_is_open_when_its_name_goes_to_another_one_writes_nothing_there(
    database: Database, heir: str, is_lost: bool
) -> None:
    """The one that inherits the name may be new, or renamed itself, with or without procedures for that name."""
    make(database, "nerve")
    if heir != "new":
        make(database, "other")
    with opened(database, busy_timeout=3) as log:
        log.append("system", "open")
        rename(database, "nerve", "former")
        if heir == "new":
            make(database, "nerve")
        else:
            rename(database, "other", "nerve")
        if heir == "renamed":
            make(database, "nerve")
        elif heir == "stale":
            make(database, "other")
        before = {schema: content(database, schema) for schema in ("nerve", "former")}
        if is_lost:
            database.end_sessions()
        with pytest.raises((ns.StoreMovedError, ns.StoreUnavailableError)) as caught:
            log.append("system", "first")
        if isinstance(caught.value, ns.StoreUnavailableError):
            assert is_lost
            assert "its outcome is unknown" in str(caught.value)
        for write in WRITES.values():
            with pytest.raises(ns.StoreMovedError, match="open it by the name it has") as moved:
                write(log)
            assert moved.value.errno == errno.ESTALE
            assert moved.value.path == f"{database.url}#nerve"
        assert {schema: content(database, schema) for schema in before} == before
        if heir == "stale":
            assert database.execute("SELECT count(*) FROM other.logs") == [(1,)]


def test_log_whose_name_is_gone_goes_on_once_it_is_back(database: Database) -> None:
    with opened(database, busy_timeout=3) as log:
        rename(database, "nerve", "former")
        for _ in range(2):
            with pytest.raises(ns.StoreMovedError, match="does not exist"):
                log.append("system", "tick")
        rename(database, "former", "nerve")
        log.append("system", "tock")
        assert types(log) == ["tock"]


@pytest.mark.parametrize("name", ["archive_logs", "restore_archive", "expire_archive", "reindex"])
def test_job_of_a_log_that_is_open_when_its_name_goes_to_another_one_is_refused(database: Database, name: str) -> None:
    arguments: dict[str, Any] = {
        "archive_logs": {"now": NOW},
        "restore_archive": {"day": day(1)},
        "expire_archive": {"before": day(9)},
        "reindex": {},
    }
    with database.open() as log:
        log.append("system", "old", timestamp=at(1))
        log.archive_logs(now=NOW)
        rename(database, "nerve", "former")
        with opened(database) as heir:
            heir.append("system", "new", timestamp=at(1))
        with pytest.raises(ns.StoreMovedError):
            getattr(log, name)(**arguments[name])
    with opened(database) as heir:
        assert types(heir) == ["new"]
    assert [path.name for path in Path(database.archive).glob("*.jsonl")] == [f"{day(1)}.jsonl"]


def test_role_that_does_not_own_a_renamed_log_is_told_and_reads(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    role = f"{database.name}_worker"
    make(database, "nerve")
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        database.execute(f"GRANT USAGE ON SCHEMA nerve TO {role}")
        database.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA nerve TO {role}")
        database.execute(f"GRANT SELECT, UPDATE ON SEQUENCE nerve.log_id, nerve.given_id TO {role}")
        rename(database, "nerve", "tenant")
        url = database.url.replace("tester@", f"{role}@")
        with pytest.raises(ns.SchemaVersionError, match="as the owner") as caught:
            ns.PostgresLogStore(url, schema="tenant")
        assert caught.value.path == f"{url}#tenant"
        with ns.PostgresLogStore(url, schema="tenant", read_only=True) as log:
            assert types(log) == ["nerve"]
        main(["--data", f"{url}?schema=tenant", "doctor", "--quick", "--json"])
        told = [item for item in json.loads(capsys.readouterr().out)["findings"] if item["check"] == "schema"]
        assert [item["level"] for item in told] == ["error"]
        assert "owner" in told[0]["action"]
        with opened(database, "tenant"):
            pass
        with ns.PostgresLogStore(url, schema="tenant") as log:
            log.append("system", "worker")
    finally:
        database.drop()
        database.execute(f"DROP ROLE {role}", "postgres")
