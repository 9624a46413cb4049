"""Days of a log on PostgreSQL in an object store: every answer is that of a log whose files are in a directory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from contract.backends import Backend, opened
from contract.blob_places import PLACES, Place, made
from contract.test_remote_days import DAYS, READS, filled, keys
from support import as_row, as_rows, day_files
from support.archive import NOW, at, day

VERSIONS = ("15", "18")
TYPED = {"count", "rounds", "trigger", "events"}
"""Reads for which what the manifest and the rows in the database say may be enough."""


@pytest.fixture(params=[name for name in PLACES if name != "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place in an object store."""
    (tmp_path / "place").mkdir()
    return made(request.param, tmp_path / "place")


@pytest.fixture(params=VERSIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A schema of a server for a log."""
    yield from opened(f"postgresql-{request.param}", tmp_path / "one")


@pytest.fixture
def other(server: Backend, tmp_path: Path) -> Iterator[Backend]:
    """Another one on the same server."""
    yield from opened(server.name, tmp_path / "other")


def options(place: Place, **more: Any) -> dict[str, Any]:
    return {"archive": place.url, "archive_options": place.options or None, **more}


def log_of(server: Backend, place: Place, **more: Any) -> Any:
    """The log; it is closed at the end of the test."""
    log = ns.PostgresLogStore(server.url, schema=server.schema, **options(place, **more))
    return server.stack.enter_context(log)


def store_of(server: Backend, place: Place, **more: Any) -> Any:
    """The log and the blobs."""
    return ns.Store(
        server.url, schema=server.schema, remote=place.url, remote_options=place.options or None, **more
    )  # fmt: skip


def compare(one: Any, two: Any) -> None:
    for name, read in READS.items():
        assert read(one) == read(two), name


def rows_of(log: Any) -> list[Any]:
    return [(row.source, row.type, row.ref_id, row.payload, row.timestamp) for row in log.query()]


def test_answers_are_those_of_a_log_with_a_directory(place: Place, server: Backend, other: Backend) -> None:
    with log_of(server, place) as log, other.open() as home:
        filled(log)
        home.append_many(rows_of(log))
        for compression in (None, "zstd"):
            result = log.archive_logs(now=NOW, compression=cast(Any, compression), max_days=3)
            assert [item.path for item in result.days] == [
                f"{place.url}/logs/{item.day}.{item.format}" for item in result.days
            ]
            home.archive_logs(now=NOW, compression=cast(Any, compression), max_days=3)
        assert keys(place) == [f"{day(n)}.jsonl" for n in range(3)] + [f"{day(n)}.jsonl.zst" for n in range(3, 6)]
        compare(log, home)
        # Restored rows leave again, and late ones are added: the day gets another object.
        for each in (log, home):
            each.append("system", "late", "ref-1", "x", at(3))
            each.archive_logs(now=NOW)
        assert f"{day(3)}.1.jsonl.zst" in keys(place)
        assert len(keys(place)) == DAYS
        compare(log, home)
        assert log.stats(exact=True).archived_up_to == home.stats(exact=True).archived_up_to
        expired = [[item.day for item in each.expire_archive(before=day(2))] for each in (log, home)]
        assert expired[0] == expired[1] == [day(0), day(1)]
        assert len(keys(place)) == DAYS - 2
        compare(log, home)
        log.reindex()
        home.reindex()
        compare(log, home)
        # A name that was used is not used again.
        for each in (log, home):
            each.append("system", "late", "ref-1", "x", at(0))
            each.archive_logs(now=NOW)
        assert keys(place)[0] == f"{day(0)}.1.jsonl"
        compare(log, home)


def test_objects_are_those_of_a_store_on_one_machine(
    place: Place, server: Backend, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "place" / "2").mkdir()
    second = made(place.name, tmp_path / "place" / "2")
    with (
        log_of(server, place) as log,
        ns.Store(tmp_path / "data", remote=second.url, remote_options=second.options or None) as store,
    ):
        for each in (log, store.logs):
            filled(each)
            each.archive_logs(now=NOW, max_days=3)
            each.archive_logs(now=NOW, compression="zstd")
            each.append("system", "late", "ref-1", "x", at(1))
            each.append("system", "late", "ref-1", "x", at(5))
            each.archive_logs(now=NOW)
    assert keys(place) == keys(second)
    for key in keys(place):
        assert content(place, key) == content(second, key), key


def content(place: Place, key: str) -> Any:
    return days(place).get(key, longest=1 << 20)


def days(place: Place) -> Any:
    return Place(place.name, place.path, f"{place.url}/logs", place.options).bucket()


def test_store_has_the_log_there_and_days_and_blobs_in_the_place(place: Place, server: Backend) -> None:
    with store_of(server, place) as store:
        row = store.logs.append("system", "tick", timestamp=at(0))
        hash = store.blobs.write("x")
        store.logs.archive_logs(now=NOW)
        assert keys(place) == [f"{day(0)}.jsonl"]
        assert store.archive_dir == f"{place.url}/logs"
        assert store.path == store.logs.path
        assert "tester" in repr(store)
        with pytest.raises(ns.NerveStoreError, match="own means"):
            store.backup("anywhere")
    assert store.closed
    with store_of(server, place, read_only=True) as store:
        assert store.logs.query(archived=True) == [row]
        assert store.blobs.read(hash) == b"x"
        with pytest.raises(ns.StoreIOError):
            store.logs.append("system", "tick")


def test_asyncio(place: Place, server: Backend) -> None:
    async def work() -> None:
        async with ns.AsyncStore(
            server.url, schema=server.schema, remote=place.url, remote_options=place.options or None
        ) as store:
            logs: Any = store.logs
            row = await logs.append("system", "tick", timestamp=at(0))
            result = await logs.archive_logs(now=NOW)
            assert [item.path for item in result.days] == [f"{place.url}/logs/{day(0)}.jsonl"]
            assert await logs.query(archived=True) == [row]
            assert [item async for item in logs.iter(archived=True)] == [row]
            assert [item async for item in logs.read_archive(day(0))] == [row]
            assert (await logs.verify()).ok
            assert await store.blobs.read(await store.blobs.write("x")) == b"x"
            assert await logs.restore_archive(day(0)) == 1
            with pytest.raises(ns.NerveStoreError, match="own means"):
                await store.backup("anywhere")
            assert [item.day for item in await logs.expire_archive(before=day(1))] == [day(0)]
            assert keys(place) == []
        assert store.closed
        async with ns.AsyncPostgresLogStore(server.url, schema=server.schema, **options(place)) as log:
            assert await log.query(archived=True) == [row]

    asyncio.run(work())


def test_large_day_goes_in_parts(place: Place, server: Backend) -> None:
    log = log_of(server, place)
    log.append_many([("system", "large", None, chr(97 + n % 26) * (1 << 20), at(0, n)) for n in range(20)])
    rows = log.query()
    (item,) = log.archive_logs(now=NOW).days
    assert item.size > 16 << 20
    assert log.query(archived=True) == rows


@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "other"])
def test_damaged_object_is_told_and_no_wrong_row_is_read(place: Place, server: Backend, damage: str) -> None:
    log = log_of(server, place)
    filled(log)
    log.archive_logs(now=NOW)
    key = f"{day(1)}.jsonl"
    good = content(place, key)
    if damage == "missing":
        days(place).delete([key])
    else:
        days(place).put(
            key, {"cut": good[:-1], "longer": good + b"\n", "other": good.replace(b"tick", b"tock")}[damage]
        )  # fmt: skip
    late = log.append("system", "late", None, None, at(1))
    for read in (
        READS["query"],
        READS["read_archive"],
        READS["messages"],
        lambda log: log.restore_archive(day(1)),
        lambda log: log.archive_logs(now=NOW),
        lambda log: log.reindex(),
    ):
        with pytest.raises(ns.ArchiveCorruptError, match=key) as caught:
            read(log)
        assert caught.value.path == f"{place.url}/logs/{key}"
    report = log.verify()
    assert [problem.path for problem in report.problems] == [f"{place.url}/logs/{key}"]
    assert log.query() == [late]
    assert len(log.query(archived=True, since=at(2))) > 0
    days(place).put(key, good)
    assert log.verify().ok
    log.archive_logs(now=NOW)
    assert late in log.query(archived=True)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_verify_looks_at_objects_whose_copy_is_in_the_cache(place: Place, server: Backend, damage: str) -> None:
    log = log_of(server, place)
    rows = filled(log)
    log.archive_logs(now=NOW)
    assert log.verify().ok
    key = f"{day(1)}.jsonl"
    if damage == "missing":
        days(place).delete([key])
    else:
        days(place).put(key, content(place, key)[:-1])
    report = log.verify()
    assert [(problem.path, problem.day) for problem in report.problems] == [(f"{place.url}/logs/{key}", day(1))]
    assert as_rows(log.query(archived=True)) == rows


def test_object_of_others_is_left_alone_and_the_other_days_are_moved(place: Place, server: Backend) -> None:
    log = log_of(server, place)
    rows = filled(log)
    key = f"{day(1)}.jsonl"
    days(place).put(key, b"precious")
    for _ in range(2):
        with pytest.raises(ns.ArchiveError, match=key) as caught:
            log.archive_logs(now=NOW)
        assert caught.value.path == f"{place.url}/logs/{key}"
    assert content(place, key) == b"precious"
    assert {ns.utc_day(row.timestamp) for row in log.query()} == {day(1)}
    assert len(keys(place)) == DAYS
    assert as_rows(log.query(archived=True)) == rows
    assert log.get_meta(ns.ARCHIVED_UP_TO) in {None, day(0).isoformat()}
    rows.append(as_row(log.append("system", "late", None, None, at(1))))
    with pytest.raises(ns.ArchiveError, match=key):
        log.archive_logs(now=NOW)
    assert content(place, key) == b"precious"
    days(place).delete([key])
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == sorted(rows)
    assert log.query() == []
    assert len(keys(place)) == DAYS
    assert log.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"


def test_days_of_another_log_are_refused(place: Place, server: Backend, other: Backend, tmp_path: Path) -> None:
    log = log_of(server, place)
    filled(log)
    log.archive_logs(now=NOW)
    before = keys(place)
    for opening in (
        lambda: log_of(other, place),
        lambda: store_of(other, place),
        lambda: ns.Store(tmp_path / "data", remote=place.url, remote_options=place.options or None),
    ):
        with pytest.raises(ns.ArchiveError, match="another database"):
            opening()
    assert keys(place) == before


def test_without_the_place_the_days_are_missed_and_never_forgotten(
    place: Place, server: Backend, tmp_path: Path
) -> None:
    with log_of(server, place) as log:
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
            assert [item.path for item in log.archived_days()] == [f"{place.url}/logs/{key}" for key in keys(place)]
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
                assert str(caught.value.path).startswith(f"{place.url}/logs/"), name
            if not arguments:
                with pytest.raises(ns.ArchiveError):
                    log.archive_logs(now=NOW)
            assert log.query() == [late]
    assert len(keys(place)) == DAYS
    log = log_of(server, place)
    assert as_rows(log.query(archived=True)) == sorted([*rows, as_row(cast(Any, late))])
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == sorted([*rows, as_row(cast(Any, late))])
    assert log.verify().ok


def test_files_that_were_copied_to_the_place_are_taken_in(place: Place, server: Backend) -> None:
    """The way from a directory to an object store, and back."""
    with server.open() as log:
        rows = filled(cast(Any, log))
        log.archive_logs(now=NOW, compression="zstd")
    for path in day_files(server.archive).values():
        days(place).put(path.name, path.read_bytes())
    with log_of(server, place) as log:
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
        for key in keys(place):
            (server.archive / key.replace(".1.", ".")).write_bytes(content(place, key))
        log.reindex()
        assert as_rows(log.query(archived=True)) == rows
        assert log.verify().ok


def test_database_that_is_older_than_the_days_takes_them_in(place: Place, server: Backend) -> None:
    with log_of(server, place) as log:
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
        log_of(server, place, read_only=True)
    assert str(caught.value.path).startswith(f"{place.url}/logs/")
    with log_of(server, place) as log:
        assert log.query(archived=True) == rows
        assert log.append("system", "tick").id > rows[-1].id
        log.archive_logs(now=NOW)
        assert log.verify().ok
        assert keys(place) == [f"{day(0)}.1.jsonl", f"{day(1)}.jsonl"]


def test_manifest_that_is_emptied_is_read_anew(place: Place, server: Backend) -> None:
    log = log_of(server, place)
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
    assert len(keys(place)) == DAYS


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
