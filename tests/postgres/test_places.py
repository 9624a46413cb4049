"""Directories and prefixes of a log on PostgreSQL whose days lie in an object store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place, made
from postgres.stored import assert_whole, bucket, keys
from remote.test_cache import put_foreign_things
from support import as_rows
from support.archive import NOW, at, day, fill
from support.flaky import conflicts_each, flaky
from support.objects import S3Server

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

from nerve_store.remote.bucket import Bucket

DAYS = 4
MARK = ".nerve-store"


def test_what_the_cache_has_not_made_is_neither_removed_nor_counted(opened: Any, memory: Place, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    theirs = put_foreign_things(shared)
    log = opened(memory, cache=shared, max_cache_bytes=1 << 16)
    rows = fill(log, days=DAYS)
    log.archive_logs(now=NOW)
    for _ in range(2):
        assert as_rows(log.query(archived=True)) == rows
    assert set(os.listdir(shared)) == theirs | {item.sha256 for item in log.archived_days()}


@pytest.mark.parametrize("kind", [ns.PostgresLogStore, ns.AsyncPostgresLogStore])
@pytest.mark.parametrize("below", ["", "logs", "blobs"])
def test_cache_that_is_not_apart_is_refused(place: Backend, files: Place, kind: Any, below: str) -> None:
    with pytest.raises(ValueError, match=r"^cache must be a directory of its own"):
        kind(place.url, schema=place.schema, archive=files.url, cache=files.path / below)
    assert not files.path.exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_days_without_a_mark_are_not_taken_for_none(
    place: Backend, opened: Any, files: Place, tmp_path: Path, read_only: bool
) -> None:
    """A new schema in place of a lost one: it would give the ids of the days out again."""
    with opened(files) as log:
        rows = fill(log, days=DAYS)
        log.archive_logs(now=NOW, max_days=DAYS - 1)
        log.append("system", "late", None, None, at(0))
        log.archive_logs(now=NOW)
        rows = as_rows(log.query(archived=True))
    bucket(files).delete([MARK])
    before = keys(files)
    place.execute(f"DROP SCHEMA {place.schema} CASCADE")
    ns.PostgresLogStore(place.url, schema=place.schema).close()
    with pytest.raises(ns.ArchiveError, match=f"{day(0)}.*does not know this day.*copy what is there"):
        opened(files, read_only=read_only)
    with pytest.raises(ns.ArchiveError, match="does not know this day"):
        ns.AsyncPostgresLogStore(place.url, schema=place.schema, archive=files.url, read_only=read_only)
    assert keys(files) == before
    # As the message says, and from there to an object store again, as docs/beyond-one-machine.md says.
    home = tmp_path / "home"
    home.mkdir()
    for key in before:
        (home / key.replace(".1.", ".")).write_bytes(bucket(files).get(key, longest=1 << 30))
    with ns.PostgresLogStore(place.url, schema=place.schema, archive=home) as log:
        log.reindex()
        assert log.append("system", "new", timestamp=NOW).id > max(row.id for row in rows)
        assert as_rows(log.query(archived=True))[: len(rows)] == rows
    with opened(files) as log:
        log.reindex()
        assert as_rows(log.query(archived=True))[: len(rows)] == rows
        assert log.verify().ok
        assert keys(files) == before


@pytest.mark.parametrize("what", ["days of another log", "unreadable mark", "days without a mark", "no answer"])
def test_opening_that_raises_makes_no_schema(
    place: Backend, opened: Any, files: Place, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(files) as log:
        fill(log, days=DAYS)
        log.archive_logs(now=NOW)
    place.execute(f"DROP SCHEMA {place.schema} CASCADE")
    expected: type[ns.NerveStoreError] = ns.ArchiveError
    if what == "unreadable mark":
        bucket(files).put(MARK, b"?")
    elif what == "days without a mark":
        bucket(files).delete([MARK])
    elif what == "no answer":
        expected = ns.StoreUnavailableError

        def unanswered(*_arguments: object, **_options: object) -> None:
            raise expected("no answer")

        monkeypatch.setattr(Bucket, "get", unanswered)
    for kind in (ns.PostgresLogStore, ns.AsyncPostgresLogStore):
        with pytest.raises(expected):
            kind(place.url, schema=place.schema, archive=files.url)
    place.execute(f"CREATE SCHEMA {place.schema}")  # there is none


def test_lost_mark_is_put_back_by_the_next_job(opened: Any, files: Place) -> None:
    with opened(files) as log:
        rows = fill(log, days=DAYS)
        log.archive_logs(now=NOW)
    mark = bucket(files).get(MARK, longest=1 << 20)
    bucket(files).delete([MARK])
    with opened(files, read_only=True) as log:
        assert as_rows(log.query(archived=True)) == rows
    with opened(files) as log:
        log.archive_logs(now=NOW)
        assert bucket(files).get(MARK, longest=1 << 20) == mark


def test_older_database_without_a_mark_takes_its_days_in(place: Backend, opened: Any, files: Place) -> None:
    with opened(files) as log:
        fill(log, days=1)
        log.archive_logs(now=NOW)
        tables = ("logs", "archive_days", "archive_refs", "archive_objects", "meta")
        for table in tables:
            place.execute(f"CREATE TABLE {place.schema}.copy_{table} AS TABLE {place.schema}.{table}")
        log.append("system", "late", None, None, at(0))
        log.append("system", "late", None, None, at(1))
        log.archive_logs(now=NOW)
        rows = log.query(archived=True)
    for table in tables:
        place.execute(f"DELETE FROM {place.schema}.{table}")
        place.execute(f"INSERT INTO {place.schema}.{table} SELECT * FROM {place.schema}.copy_{table}")
    bucket(files).delete([MARK])
    with pytest.raises(ns.ArchiveError, match="does not know this day"):
        opened(files, read_only=True)
    with opened(files) as log:
        assert log.query(archived=True) == rows
        assert log.append("system", "new").id > rows[-1].id
        assert log.verify().ok


def test_conflict_that_stored_nothing_is_tried_again(opened: Any, tmp_path: Path) -> None:
    s3 = made("s3-moto", tmp_path)
    with flaky(int(s3.options["endpoint"].rpartition(":")[2])) as proxy:
        log = opened(Place(s3.name, s3.path, s3.url, S3Server.options(proxy.port)))
        rows = fill(log, days=DAYS)
        proxy.fault = conflicts_each(2)
        log.archive_logs(now=NOW)
        assert_whole(log, s3, rows)
