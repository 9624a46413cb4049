"""Roles that do not own the log: they do what the documentation's grants say, and are told what they may not do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nerve_store as ns
from nerve_store.cli import main
from postgres.restores import Database
from support.archive import NOW, at, day
from support.servers import Server

DOCUMENT = Path(__file__).parents[2] / "docs" / "beyond-one-machine.md"


@pytest.fixture
def database(server: Server, tmp_path: Path) -> Iterator[Database]:
    """A log with a day that has a partition and one that has none, and a role that has no rights."""
    made = Database(server, tmp_path, str(tmp_path / "days"))
    role = f"{made.name}_role"
    made.execute(f"CREATE ROLE {role} LOGIN")
    with made.open() as log:
        made.execute(f"SELECT nerve.ensure_day('{day(2)}')")
        log.append_many([("system", "tick", "run", None, at(1 + n % 2, n)) for n in range(20)])
    yield made
    made.drop()
    made.execute(f"DROP ROLE {role}", "postgres")


def grant(database: Database, name: str) -> str:
    """Give the rights that the documentation names for this role; returns the URL of the one that has them."""
    role = f"{database.name}_role"
    statements = re.findall(rf"^GRANT [^;]* TO {name};", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert statements
    for statement in statements:
        database.execute(statement.replace(f"TO {name};", f"TO {role}"))
    return database.url.replace("tester@", f"{role}@")


def said(url: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(["--data", url, "doctor", "--quick", "--json"])
    (found,) = [item for item in json.loads(capsys.readouterr().out)["findings"] if item["check"] == "role"]
    assert found["level"] == "ok"
    return str(found["message"])


def test_worker_writes_and_is_told_that_it_may_not_archive(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    url = grant(database, "worker")
    with ns.PostgresLogStore(url, archive=database.archive) as log:
        log.append("system", "worker")
        with pytest.raises(ns.StoreIOError, match="grant it to this role"):
            log.archive_logs(now=NOW)
        assert log.count() == 21
    assert "archive jobs need INSERT, UPDATE and DELETE" in said(url, capsys)


def test_archiver_archives_restores_and_expires(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    grant(database, "worker")
    url = grant(database, "archiver")
    with ns.PostgresLogStore(url, archive=database.archive) as log:
        rows = log.query()
        assert [item.row_count for item in log.archive_logs(now=NOW).days] == [10, 10]
        assert log.query() == []
        assert log.restore_archive(day(1)) == 10
        log.reindex()
        log.archive_logs(now=NOW)
        assert log.query(archived=True) == rows
        assert log.verify().ok
        assert len(log.expire_archive(before=day(9))) == 2
    assert "an archive job of it deletes rows" in said(url, capsys)
