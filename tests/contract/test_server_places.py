"""Whose days lie in a object_place, and what becomes of a log that is opened with another one: on PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from contract.stored_days import content, days, log_of, store_of
from contract.test_remote_days import DAYS, READS, filled, keys
from support import as_row, as_rows, day_files
from support.archive import NOW, at, day

TYPED = {"count", "rounds", "trigger", "events"}
"""Reads for which what the manifest and the rows in the database say may be enough."""


def test_days_of_another_log_are_refused(object_place: Place, server: Backend, other: Backend, tmp_path: Path) -> None:
    log = log_of(server, object_place)
    filled(log)
    log.archive_logs(now=NOW)
    before = keys(object_place)
    for opening in (
        lambda: log_of(other, object_place),
        lambda: store_of(other, object_place),
        lambda: ns.Store(tmp_path / "data", remote=object_place.url, remote_options=object_place.options or None),
    ):
        with pytest.raises(ns.ArchiveError, match="another database"):
            opening()
    assert keys(object_place) == before


def test_without_the_place_the_days_are_missed_and_never_forgotten(
    object_place: Place, server: Backend, tmp_path: Path
) -> None:
    with log_of(server, object_place) as log:
        rows = filled(log)
        log.archive_logs(now=NOW)
    late = None
    (tmp_path / "elsewhere").mkdir()
    archives: list[dict[str, Any]] = [
        {},
        {"archive": server.archive},
        {"archive": (tmp_path / "elsewhere").as_uri()},
    ]
    for arguments in archives:
        with ns.PostgresLogStore(server.url, schema=server.schema, **arguments) as log:
            late = late or log.append("system", "late", None, None, at(1))
            assert [item.path for item in log.archived_days()] == [
                f"{object_place.url}/logs/{key}" for key in keys(object_place)
            ]
            calls: dict[str, Any] = {
                **READS,
                "reindex": lambda log: log.reindex(),
                "archive_logs": lambda log: log.archive_logs(now=NOW),
                "expire": lambda log: log.expire_archive(before=day(3)),
            }
            for name, read in calls.items():
                if name in TYPED | {"archived_days"} or (name, arguments) == ("archive_logs", {}):
                    continue
                with pytest.raises(ns.StoreUnavailableError, match="opened without it") as caught:
                    read(log)
                assert str(caught.value.path).startswith(f"{object_place.url}/logs/"), name
            if not arguments:
                with pytest.raises(ns.ArchiveError):
                    log.archive_logs(now=NOW)
            assert log.query() == [late]
    assert len(keys(object_place)) == DAYS
    log = log_of(server, object_place)
    assert as_rows(log.query(archived=True)) == sorted([*rows, as_row(cast(Any, late))])
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == sorted([*rows, as_row(cast(Any, late))])
    assert log.verify().ok


def test_files_that_were_copied_to_the_place_are_taken_in(object_place: Place, server: Backend) -> None:
    """The way from a directory to an object store, and back."""
    with server.open() as log:
        rows = filled(cast(Any, log))
        log.archive_logs(now=NOW, compression="zstd")
    for path in day_files(server.archive).values():
        days(object_place).put(path.name, path.read_bytes())
    with log_of(server, object_place) as log:
        with pytest.raises(ns.ArchiveError, match="file in a directory"):
            log.query(archived=True)
        log.reindex()
        assert as_rows(log.query(archived=True)) == rows
        assert log.verify().ok
        late = log.append("system", "late", None, None, at(1))
        log.archive_logs(now=NOW)
        rows = sorted([*rows, as_row(late)])
        assert as_rows(log.query(archived=True)) == rows
    with server.open() as log:
        # What the directory has of a day that has grown since is not taken for it.
        with pytest.raises(ns.ArchiveError, match="not the content"):
            log.reindex()
        for key in keys(object_place):
            (server.archive / key.replace(".1.", ".")).write_bytes(content(object_place, key))
        log.reindex()
        assert as_rows(log.query(archived=True)) == rows
        assert log.verify().ok


def test_database_that_is_older_than_the_days_takes_them_in(object_place: Place, server: Backend) -> None:
    with log_of(server, object_place) as log:
        first = log.append("system", "tick", timestamp=at(0))
        log.archive_logs(now=NOW)
        tables = ("logs", "archive_days", "archive_refs", "archive_objects", "meta")
        copies = {table: f"copy_{table}" for table in tables}
        for table, copy in copies.items():
            server.execute(f"CREATE TABLE {copy} AS TABLE {table}")
        rows = [first, log.append("system", "late", timestamp=at(0)), log.append("system", "tick", timestamp=at(1))]
        log.archive_logs(now=NOW)
        assert log.query(archived=True) == rows
    # As a restored backup.
    for table, copy in copies.items():
        server.execute(f"DELETE FROM {table}")
        server.execute(f"INSERT INTO {table} SELECT * FROM {copy}")
    server.execute("SELECT setval('log_id', 1)")
    with pytest.raises(ns.ArchiveError, match="does not know this day") as caught:
        log_of(server, object_place, read_only=True)
    assert str(caught.value.path).startswith(f"{object_place.url}/logs/")
    with log_of(server, object_place) as log:
        assert log.query(archived=True) == rows
        assert log.append("system", "tick").id > rows[-1].id
        log.archive_logs(now=NOW)
        assert log.verify().ok
        assert keys(object_place) == [f"{day(0)}.1.jsonl", f"{day(1)}.jsonl"]


def test_manifest_that_is_emptied_is_read_anew(object_place: Place, server: Backend) -> None:
    log = log_of(server, object_place)
    rows = filled(log)
    log.archive_logs(now=NOW)
    for table in ("archive_days", "archive_refs"):
        server.execute(f"DELETE FROM {table}")
    rows.append(as_row(log.append("system", "late", None, None, at(1))))
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == sorted(rows)
    for table in ("archive_days", "archive_refs"):
        server.execute(f"DELETE FROM {table}")
    log.reindex()
    assert as_rows(log.query(archived=True)) == sorted(rows)
    assert log.verify().ok
    assert len(keys(object_place)) == DAYS


def test_options_are_checked(tmp_path: Path) -> None:
    url = "postgresql://tester@127.0.0.1:1/postgres"
    for arguments, error in (
        ({"archive": "https://x"}, ValueError),
        ({"archive": "ftp://x"}, ValueError),
        ({"archive": 3}, TypeError),
        ({"archive_options": {}}, ValueError),
        ({"archive": tmp_path, "archive_options": {}}, ValueError),
        ({"archive": "memory://x", "max_cache_bytes": -1}, ValueError),
        ({"archive": "memory://x", "max_cache_bytes": 1.5}, TypeError),
    ):
        with pytest.raises(error):
            ns.PostgresLogStore(url, busy_timeout=0.1, **cast(Any, arguments))
    for arguments in (
        {},
        {"remote": "memory://x", "archive_dir": tmp_path},
        {"remote": "memory://x", "segment_rows": 5},
        {"remote": "memory://x", "progress": print},
    ):
        for store in (ns.Store, ns.AsyncStore):
            with pytest.raises(ValueError, match=r"server|data directory"):
                store(url, **cast(Any, arguments))
    for arguments in ({"schema": "other"}, {"listen_url": url}):
        for store in (ns.Store, ns.AsyncStore):
            with pytest.raises(ValueError, match="server"):
                store(tmp_path / "data", **cast(Any, arguments))
    assert not (tmp_path / "data").exists()
