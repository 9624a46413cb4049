"""Days of a log on PostgreSQL in an object store: every answer is that of a log whose files are in a directory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place, made
from contract.stored_days import compare, content, days, log_of, options, rows_of, store_of
from contract.test_remote_days import DAYS, READS, filled, keys
from support import as_row, as_rows
from support.archive import NOW, at, day


def test_answers_are_those_of_a_log_with_a_directory(object_place: Place, server: Backend, other: Backend) -> None:
    with log_of(server, object_place) as log, other.open() as home:
        filled(log)
        home.append_many(rows_of(log))
        for compression in (None, "zstd"):
            result = log.archive_logs(now=NOW, compression=cast(Any, compression), max_days=3)
            assert [item.path for item in result.days] == [
                f"{object_place.url}/logs/{item.day}.{item.format}" for item in result.days
            ]
            home.archive_logs(now=NOW, compression=cast(Any, compression), max_days=3)
        assert keys(object_place) == [f"{day(n)}.jsonl" for n in range(3)] + [
            f"{day(n)}.jsonl.zst" for n in range(3, 6)
        ]
        compare(log, home)
        # Restored rows leave again, and late ones are added: the day gets another object.
        for each in (log, home):
            each.append("system", "late", "ref-1", "x", at(3))
            each.archive_logs(now=NOW)
        assert f"{day(3)}.1.jsonl.zst" in keys(object_place)
        assert len(keys(object_place)) == DAYS
        compare(log, home)
        assert log.stats(exact=True).archived_up_to == home.stats(exact=True).archived_up_to
        expired = [[item.day for item in each.expire_archive(before=day(2))] for each in (log, home)]
        assert expired[0] == expired[1] == [day(0), day(1)]
        assert len(keys(object_place)) == DAYS - 2
        compare(log, home)
        log.reindex()
        home.reindex()
        compare(log, home)
        # A name that was used is not used again.
        for each in (log, home):
            each.append("system", "late", "ref-1", "x", at(0))
            each.archive_logs(now=NOW)
        assert keys(object_place)[0] == f"{day(0)}.1.jsonl"
        compare(log, home)


def test_objects_are_those_of_a_store_on_one_machine(
    object_place: Place, server: Backend, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "place" / "2").mkdir()
    second = made(object_place.name, tmp_path / "place" / "2")
    with (
        log_of(server, object_place) as log,
        ns.Store(tmp_path / "data", remote=second.url, remote_options=second.options or None) as store,
    ):
        for each in (log, store.logs):
            filled(each)
            each.archive_logs(now=NOW, max_days=3)
            each.archive_logs(now=NOW, compression="zstd")
            each.append("system", "late", "ref-1", "x", at(1))
            each.append("system", "late", "ref-1", "x", at(5))
            each.archive_logs(now=NOW)
    assert keys(object_place) == keys(second)
    for key in keys(object_place):
        assert content(object_place, key) == content(second, key), key


def test_store_has_the_log_there_and_days_and_blobs_in_the_place(object_place: Place, server: Backend) -> None:
    with store_of(server, object_place) as store:
        row = store.logs.append("system", "tick", timestamp=at(0))
        hash = store.blobs.write("x")
        store.logs.archive_logs(now=NOW)
        assert keys(object_place) == [f"{day(0)}.jsonl"]
        assert store.archive_dir == f"{object_place.url}/logs"
        assert store.path == store.logs.path
        assert "tester" in repr(store)
        with pytest.raises(ns.NerveStoreError, match="own means"):
            store.backup("anywhere")
    assert store.closed
    with store_of(server, object_place, read_only=True) as store:
        assert store.logs.query(archived=True) == [row]
        assert store.blobs.read(hash) == b"x"
        with pytest.raises(ns.StoreIOError):
            store.logs.append("system", "tick")


def test_asyncio(object_place: Place, server: Backend) -> None:
    async def work() -> None:
        async with ns.AsyncStore(
            server.url, schema=server.schema, remote=object_place.url, remote_options=object_place.options or None
        ) as store:
            logs: Any = store.logs
            row = await logs.append("system", "tick", timestamp=at(0))
            result = await logs.archive_logs(now=NOW)
            assert [item.path for item in result.days] == [f"{object_place.url}/logs/{day(0)}.jsonl"]
            assert await logs.query(archived=True) == [row]
            assert [item async for item in logs.iter(archived=True)] == [row]
            assert [item async for item in logs.read_archive(day(0))] == [row]
            assert (await logs.verify()).ok
            assert await store.blobs.read(await store.blobs.write("x")) == b"x"
            assert await logs.restore_archive(day(0)) == 1
            with pytest.raises(ns.NerveStoreError, match="own means"):
                await store.backup("anywhere")
            assert [item.day for item in await logs.expire_archive(before=day(1))] == [day(0)]
            assert keys(object_place) == []
        assert store.closed
        async with ns.AsyncPostgresLogStore(server.url, schema=server.schema, **options(object_place)) as log:
            assert await log.query(archived=True) == [row]

    asyncio.run(work())


def test_large_day_goes_in_parts(object_place: Place, server: Backend) -> None:
    log = log_of(server, object_place)
    log.append_many([("system", "large", None, chr(97 + n % 26) * (1 << 20), at(0, n)) for n in range(20)])
    rows = log.query()
    (item,) = log.archive_logs(now=NOW).days
    assert item.size > 16 << 20
    assert log.query(archived=True) == rows


@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "other"])
def test_damaged_object_is_told_and_no_wrong_row_is_read(object_place: Place, server: Backend, damage: str) -> None:
    log = log_of(server, object_place)
    filled(log)
    log.archive_logs(now=NOW)
    key = f"{day(1)}.jsonl"
    good = content(object_place, key)
    if damage == "missing":
        days(object_place).delete([key])
    else:
        days(object_place).put(
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
        assert caught.value.path == f"{object_place.url}/logs/{key}"
    report = log.verify()
    assert [problem.path for problem in report.problems] == [f"{object_place.url}/logs/{key}"]
    assert log.query() == [late]
    assert len(log.query(archived=True, since=at(2))) > 0
    days(object_place).put(key, good)
    assert log.verify().ok
    log.archive_logs(now=NOW)
    assert late in log.query(archived=True)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_verify_looks_at_objects_whose_copy_is_in_the_cache(object_place: Place, server: Backend, damage: str) -> None:
    log = log_of(server, object_place)
    rows = filled(log)
    log.archive_logs(now=NOW)
    assert log.verify().ok
    key = f"{day(1)}.jsonl"
    if damage == "missing":
        days(object_place).delete([key])
    else:
        days(object_place).put(key, content(object_place, key)[:-1])
    report = log.verify()
    assert [(problem.path, problem.day) for problem in report.problems] == [(f"{object_place.url}/logs/{key}", day(1))]
    assert as_rows(log.query(archived=True)) == rows


def test_object_of_others_is_left_alone_and_the_other_days_are_moved(object_place: Place, server: Backend) -> None:
    log = log_of(server, object_place)
    rows = filled(log)
    key = f"{day(1)}.jsonl"
    days(object_place).put(key, b"precious")
    for _ in range(2):
        with pytest.raises(ns.ArchiveError, match=key) as caught:
            log.archive_logs(now=NOW)
        assert caught.value.path == f"{object_place.url}/logs/{key}"
    assert content(object_place, key) == b"precious"
    assert {ns.utc_day(row.timestamp) for row in log.query()} == {day(1)}
    assert len(keys(object_place)) == DAYS
    assert as_rows(log.query(archived=True)) == rows
    assert log.get_meta(ns.ARCHIVED_UP_TO) in {None, day(0).isoformat()}
    rows.append(as_row(log.append("system", "late", None, None, at(1))))
    with pytest.raises(ns.ArchiveError, match=key):
        log.archive_logs(now=NOW)
    assert content(object_place, key) == b"precious"
    days(object_place).delete([key])
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == sorted(rows)
    assert log.query() == []
    assert len(keys(object_place)) == DAYS
    assert log.get_meta(ns.ARCHIVED_UP_TO) == "2026-03-01"
