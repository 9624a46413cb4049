"""Days in an object store: every answer is that of a store whose files are at home, on each kind of place."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import PLACES, Place, made
from reference import Row
from support import as_row, as_rows, day_files
from support.archive import NOW, at, day, fill, message

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote.days import mark

DAYS = 6
READS: dict[str, Callable[[ns.LogStore], Any]] = {
    "query": lambda log: log.query(archived=True),
    "query newest": lambda log: log.query(archived=True, descending=True, limit=9),
    "query filtered": lambda log: log.query(archived=True, ref_id="run-1", since=at(1), until=at(4)),
    "iter": lambda log: list(log.iter(archived=True, after_id=3)),
    "count": lambda log: log.count(archived=True, source="workflow"),
    "follow": lambda log: list(itertools.islice(log.follow(after_id=0), 12)),
    "messages": lambda log: log.get_thread_messages("run-1"),
    "rounds": lambda log: (log.get_thread_round_count("run-1"), log.get_thread_rounds("run-1", limit=3)),
    "trigger": lambda log: log.get_trigger_payload("run-1"),
    "events": lambda log: log.get_thread_events("run-1"),
    "read_archive": lambda log: [list(log.read_archive(item.day)) for item in log.archived_days()],
    "archived_days": lambda log: [
        (item.day, item.row_count, item.size, item.sha256, item.format, item.first_id, item.last_id)
        for item in log.archived_days()
    ],
    "verify": lambda log: log.verify(),
    "arrow": lambda log: sum(1 for _ in log.iter(archived=True)),
    "restore": lambda log: (log.restore_archive(day(2)), log.query(), log.query(archived=True)),
}


@pytest.fixture(params=[name for name in PLACES if name != "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place in an object store."""
    (tmp_path / "place").mkdir()
    return made(request.param, tmp_path / "place")


@pytest.fixture
def memory(tmp_path: Path) -> Place:
    return made("memory", tmp_path)


def opened(place: Place, directory: Path, **options: Any) -> ns.Store:
    return ns.Store(
        directory / "data", durability="normal", remote=place.url, remote_options=place.options or None, **options
    )


def filled(log: ns.LogStore) -> list[Row]:
    """Rows of some days, a run with rounds among them."""
    fill(log, days=DAYS, per_day=5)
    log.append("workflow", "queued", "run-1", '{"prompt":"go","maxRounds":3}', at(0, 50))
    for number in range(2 * DAYS):
        log.append("workflow", "thread_workflow_message", "run-1", message(number), at(number % DAYS, 100 + number))
    return as_rows(log.query())


def keys(place: Place) -> list[str]:
    """The objects of days."""
    bucket = Place(place.name, place.path, f"{place.url}/logs", place.options).bucket()
    return sorted(found.key for page in bucket.list() for found in page if not found.key.startswith("."))


def put(place: Place, key: str, content: bytes) -> None:
    Place(place.name, place.path, f"{place.url}/logs", place.options).bucket().put(key, content)


def content(place: Place, key: str) -> Any:
    return Place(place.name, place.path, f"{place.url}/logs", place.options).bucket().get(key, longest=1 << 20)


def test_answers_are_those_of_a_store_at_home(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store, ns.Store(tmp_path / "home", durability="normal") as home:
        rows = filled(store.logs)
        home.logs.append_many(rows_of(store.logs))
        for compression in (None, "zstd"):
            result = store.logs.archive_logs(now=NOW, compression=compression, max_days=3)
            assert [item.path for item in result.days] == [
                f"{place.url}/logs/{item.day}.{item.format}" for item in result.days
            ]
            home.logs.archive_logs(now=NOW, compression=compression, max_days=3)
        assert not day_files(store.archive_dir)
        assert keys(place) == [f"{day(n)}.jsonl" for n in range(3)] + [f"{day(n)}.jsonl.zst" for n in range(3, 6)]
        for name, read in READS.items():
            assert read(store.logs) == read(home.logs), name
        # Restored rows leave again, and late ones are added: the day gets another object.
        for log in (store.logs, home.logs):
            log.append("system", "late", "ref-1", "x", at(3))
            log.archive_logs(now=NOW)
        assert f"{day(3)}.1.jsonl.zst" in keys(place)
        assert len(keys(place)) == DAYS
        for name, read in READS.items():
            assert read(store.logs) == read(home.logs), name
        expired = [[item.day for item in log.expire_archive(before=day(2))] for log in (store.logs, home.logs)]
        assert expired[0] == expired[1] == [day(0), day(1)]
        assert len(keys(place)) == DAYS - 2
        for name, read in READS.items():
            assert read(store.logs) == read(home.logs), name
        store.logs.reindex()
        home.logs.reindex()
        for name, read in READS.items():
            assert read(store.logs) == read(home.logs), name
        report = store.backup(tmp_path / "backup")
        assert (report.day_count, report.problems) == (DAYS - 2, ())
        assert store.backup(tmp_path / "backup").new_day_count == 0
        with ns.Store(tmp_path / "backup") as copy:
            for name, read in READS.items():
                assert read(copy.logs) == read(home.logs), name
    assert len(rows) > DAYS


def rows_of(log: ns.LogStore) -> list[Any]:
    return [(row.source, row.type, row.ref_id, row.payload, row.timestamp) for row in log.query()]


def test_blobs_are_under_the_same_prefix(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store:
        hash = store.blobs.write("x")
        assert type(store.blobs).__name__ == "ObjectBlobStore"
    with ns.ObjectBlobStore(f"{place.url}/blobs", options=place.options) as blobs:
        assert blobs.read(hash) == b"x"


def test_asyncio(place: Place, tmp_path: Path) -> None:
    async def work() -> None:
        async with ns.AsyncStore(tmp_path / "data", remote=place.url, remote_options=place.options or None) as store:
            row = await store.logs.append("system", "tick", timestamp=at(0))
            result = await store.logs.archive_logs(now=NOW)
            assert [item.path for item in result.days] == [f"{place.url}/logs/{day(0)}.jsonl"]
            assert await store.logs.query(archived=True) == [row]
            assert await store.blobs.read(await store.blobs.write("x")) == b"x"
            assert (await store.backup(tmp_path / "backup")).day_count == 1
            assert [item.day for item in await store.logs.expire_archive(before=day(1))] == [day(0)]
            assert keys(place) == []

    asyncio.run(work())


def test_large_day_goes_in_parts(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store:
        store.logs.append_many([("system", "large", None, chr(97 + n % 26) * (1 << 20), at(0, n)) for n in range(20)])
        rows = store.logs.query()
        (item,) = store.logs.archive_logs(now=NOW).days
        assert item.size > 16 << 20
        assert store.logs.query(archived=True) == rows


@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "other"])
def test_damaged_object_is_told_and_no_wrong_row_is_read(place: Place, tmp_path: Path, damage: str) -> None:
    with opened(place, tmp_path) as store:
        filled(store.logs)
        store.logs.archive_logs(now=NOW)
        key = f"{day(1)}.jsonl"
        good = content(place, key)
        bucket = Place(place.name, place.path, f"{place.url}/logs", place.options).bucket()
        if damage == "missing":
            bucket.delete([key])
        else:
            bucket.put(key, {"cut": good[:-1], "longer": good + b"\n", "other": good.replace(b"tick", b"tock")}[damage])
        for read in (READS["query"], READS["read_archive"], READS["messages"]):
            with pytest.raises(ns.ArchiveCorruptError, match=key) as caught:
                read(store.logs)
            assert caught.value.path == f"{place.url}/logs/{key}"
        report = store.logs.verify()
        assert [problem.path for problem in report.problems] == [f"{place.url}/logs/{key}"]
        assert store.logs.query(archived=True, since=at(2)) == store.logs.query(archived=True, since=at(2))
        bucket.put(key, good)
        assert store.logs.verify().ok


def test_damaged_object_that_is_moved_away_is_sent_anew_from_a_backup(memory: Place, tmp_path: Path) -> None:
    """As the message says."""
    with opened(memory, tmp_path) as store:
        rows = filled(store.logs)
        store.logs.archive_logs(now=NOW)
        key = f"{day(1)}.jsonl"
        good = content(memory, key)
        bucket = Place(memory.name, memory.path, f"{memory.url}/logs", memory.options).bucket()
        bucket.put(key, good.replace(b"tick", b"tock"))
        with pytest.raises(ns.ArchiveCorruptError, match="move away the object, if it is there, and put a backup"):
            store.logs.query(archived=True)
        bucket.delete([key])
        directory = Path(store.archive_dir)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / key).write_bytes(good)
        assert as_rows(store.logs.query(archived=True)) == rows
        assert "in the cache or as a file" in store.logs.verify().problems[0].reason
        store.logs.archive_logs(now=NOW)
        assert content(memory, key) == good
        assert as_rows(store.logs.query(archived=True)) == rows
        assert store.logs.verify().ok


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_objects_whose_copy_is_in_the_cache_are_looked_at(
    place: Place, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(place, tmp_path) as store:
        rows = filled(store.logs)
        store.logs.archive_logs(now=NOW)
        assert store.logs.verify().ok
        key = f"{day(1)}.jsonl"
        bucket = Place(place.name, place.path, f"{place.url}/logs", place.options).bucket()
        if damage == "missing":
            bucket.delete([key])
        else:
            bucket.put(key, content(place, key)[:-1])
        told = [(f"{place.url}/logs/{key}", day(1))]
        assert [(problem.path, problem.day) for problem in store.logs.verify().problems] == told
        assert as_rows(store.logs.query(archived=True)) == rows
        # So do jobs, whether they have anything to move or not.
        for is_late in (False, True):
            if is_late:
                store.logs.append("system", "late", timestamp=at(3))
            result = store.logs.archive_logs(now=NOW)
            assert [(problem.path, problem.day) for problem in result.problems] == told
            assert [item.day for item in result.days] == [day(3)] * is_late
        assert len([record for record in caplog.records if key in record.message]) == 2


JOBS: dict[str, Callable[[ns.LogStore], Any]] = {
    "expire": lambda log: log.expire_archive(before=day(3)),
    "restore": lambda log: (log.restore_archive(day(1)), log.archive_logs(now=NOW)),
    "merge": lambda log: (log.append("system", "late", timestamp=at(1)), log.archive_logs(now=NOW)),
}


@pytest.mark.parametrize("job", JOBS)
def test_object_that_a_job_replaces_amid_a_verification_is_no_loss(
    memory: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    with opened(memory, tmp_path) as store, opened(memory, tmp_path) as other:
        filled(store.logs)
        store.logs.archive_logs(now=NOW)
        original = mark.listed

        def beside(bucket: Any) -> dict[str, int]:
            monkeypatch.setattr(mark, "listed", original)
            JOBS[job](other.logs)
            return original(bucket)

        monkeypatch.setattr(mark, "listed", beside)
        assert store.logs.verify().problems == ()
        assert mark.listed is original


def test_object_of_others_is_left_alone_and_the_other_days_are_moved(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store:
        rows = filled(store.logs)
        put(place, f"{day(1)}.jsonl", b"precious")
        for _ in range(2):
            with pytest.raises(ns.ArchiveError, match="other content") as caught:
                store.logs.archive_logs(now=NOW)
            assert caught.value.path == f"{place.url}/logs/{day(1)}.jsonl"
        assert content(place, f"{day(1)}.jsonl") == b"precious"
        assert list(day_files(store.archive_dir)) == [day(1)]
        assert len(keys(place)) == DAYS
        assert as_rows(store.logs.query(archived=True)) == rows
        # A late row makes the day another file; what is not ours is not deleted for that, either.
        rows.append(as_row(store.logs.append("system", "late", None, None, at(1))))
        with pytest.raises(ns.ArchiveError, match="other content"):
            store.logs.archive_logs(now=NOW)
        assert content(place, f"{day(1)}.jsonl") == b"precious"
        Place(place.name, place.path, f"{place.url}/logs", place.options).bucket().delete([f"{day(1)}.jsonl"])
        store.logs.archive_logs(now=NOW)
        assert as_rows(store.logs.query(archived=True)) == sorted(rows)
        assert not day_files(store.archive_dir)
        assert len(keys(place)) == DAYS


def test_days_of_another_database_are_refused(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store:
        filled(store.logs)
        store.logs.archive_logs(now=NOW)
        before = keys(place)
    with pytest.raises(ns.ArchiveError, match="another database"):
        opened(place, tmp_path / "other")
    assert keys(place) == before


def test_database_that_is_older_than_the_days_is_refused_until_it_has_them(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store:
        store.logs.append("system", "tick", timestamp=at(0))
        store.logs.archive_logs(now=NOW)
        store.backup(tmp_path / "older" / "data")
        store.logs.append("system", "tick", timestamp=at(1))
        store.logs.archive_logs(now=NOW)
        rows = store.logs.query(archived=True)
    with pytest.raises(ns.ArchiveError, match="does not know this day") as caught:
        opened(place, tmp_path / "older")
    assert caught.value.path == f"{place.url}/logs/{day(1)}.jsonl"
    directory = tmp_path / "older" / "data" / "archive" / "logs"
    (directory / f"{day(1)}.jsonl").write_bytes(content(place, f"{day(1)}.jsonl"))
    with opened(place, tmp_path / "older") as store:
        assert store.logs.query(archived=True) == rows
        assert store.logs.append("system", "tick").id > rows[-1].id
        store.logs.archive_logs(now=NOW)
        assert keys(place) == [f"{day(0)}.jsonl", f"{day(1)}.jsonl"]
        assert not day_files(store.archive_dir)
        assert store.logs.query(archived=True)[:2] == rows


def test_lost_database_is_made_anew_from_the_days(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store:
        rows = filled(store.logs)
        store.logs.archive_logs(now=NOW)
        rows.append(as_row(store.logs.append("system", "late", None, None, at(1))))
        store.logs.archive_logs(now=NOW)
    before = keys(place)
    directory = tmp_path / "new" / "data" / "archive" / "logs"
    directory.mkdir(parents=True)
    for key in [*before, ".nerve-store"]:
        (directory / key.replace(".1.", ".")).write_bytes(content(place, key))
    with opened(place, tmp_path / "new") as store:
        assert as_rows(store.logs.query(archived=True)) == sorted(rows)
        assert store.logs.append("system", "tick").id > max(row.id for row in rows)
        store.logs.archive_logs(now=NOW)
        assert keys(place) == before
        assert not day_files(store.archive_dir)
        assert as_rows(store.logs.query(archived=True))[: len(rows)] == sorted(rows)
        assert store.logs.verify().ok


def test_without_the_place_the_days_are_missed_and_never_forgotten(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path) as store:
        rows = filled(store.logs)
        store.logs.archive_logs(now=NOW)
    with ns.Store(tmp_path / "data") as store:
        assert len(store.logs.archived_days()) == DAYS
        late = store.logs.append("system", "late", None, None, at(1))
        calls: list[Callable[[], object]] = [
            *(lambda read=read: read(store.logs) for name, read in READS.items() if name != "archived_days"),
            store.logs.reindex,
            lambda: store.logs.archive_logs(now=NOW),
            lambda: store.backup(tmp_path / "backup"),
        ]
        names = [*(name for name in READS if name != "archived_days"), "reindex", "archive_logs", "backup"]
        for name, call in zip(names, calls, strict=True):
            if name in {
                "count",
                "rounds",
                "trigger",
                "events",
            }:  # what the manifest and the rows here say may be enough
                continue
            try:
                call()
            except ns.StoreUnavailableError as error:
                caught = error
            else:
                pytest.fail(f"{name} did not raise")
            assert "opened without it" in str(caught), name
            assert str(caught.path).startswith(f"{place.url}/logs/"), name
        assert store.logs.query() == [late]
    with opened(place, tmp_path) as store:
        assert as_rows(store.logs.query(archived=True)) == sorted([*rows, as_row(late)])


def test_manifest_that_is_emptied_is_read_anew(place: Place, tmp_path: Path) -> None:
    from support import foreign_script
    from support.archive import MANIFEST_TABLES

    with opened(place, tmp_path) as store:
        rows = filled(store.logs)
        store.logs.archive_logs(now=NOW)
        for mend in (store.logs.reindex, lambda: store.logs.archive_logs(now=NOW)):
            foreign_script(store.logs.path, "".join(f"DELETE FROM {table};" for table in MANIFEST_TABLES))
            with pytest.raises(ns.ArchiveCorruptError, match="lists it anew"):
                store.logs.query(archived=True)
            assert not store.logs.verify().ok
            mend()
            assert as_rows(store.logs.query(archived=True)) == rows
            assert store.logs.verify().ok
            assert len(keys(place)) == DAYS


def cached(directory: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in os.scandir(directory / "data" / "cache")}


def test_cache_keeps_what_was_used_last_within_its_bound(memory: Place, tmp_path: Path) -> None:
    with opened(memory, tmp_path) as store:
        filled(store.logs)
        sizes = {item.sha256: item.size for item in store.logs.archive_logs(now=NOW).days}
    most = 3 * max(sizes.values())
    with opened(memory, tmp_path, max_cache_bytes=most) as store:
        by_day = {item.day: item.sha256 for item in store.logs.archived_days()}
        for number in (0, 1, 0, 2, 0, 3):
            list(store.logs.read_archive(day(number)))
            assert sum(cached(tmp_path).values()) <= most
        assert by_day[day(0)] in cached(tmp_path)
        assert by_day[day(1)] not in cached(tmp_path)
        assert store.logs.verify().ok
        assert sum(cached(tmp_path).values()) <= most
        assert set(cached(tmp_path)) <= set(sizes)
    with opened(memory, tmp_path, max_cache_bytes=0) as store:
        assert len(store.logs.query(archived=True)) > 0
        assert len(cached(tmp_path)) == 1


def test_cache_can_lie_elsewhere(memory: Place, tmp_path: Path) -> None:
    with opened(memory, tmp_path, cache=tmp_path / "fast") as store:
        filled(store.logs)
        store.logs.archive_logs(now=NOW)
        store.logs.query(archived=True)
    assert len(list((tmp_path / "fast").iterdir())) == DAYS
    assert not (tmp_path / "data" / "cache").exists()


def test_damaged_file_of_the_cache_is_fetched_anew(memory: Place, tmp_path: Path) -> None:
    with opened(memory, tmp_path) as store:
        rows = filled(store.logs)
        store.logs.archive_logs(now=NOW)
        store.logs.query(archived=True)
    for number, name in enumerate(cached(tmp_path)):
        path = tmp_path / "data" / "cache" / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if number % 2 else data[:-1])
    with opened(memory, tmp_path) as store:
        assert as_rows(store.logs.query(archived=True)) == rows
        for name in cached(tmp_path):
            (tmp_path / "data" / "cache" / name).unlink()
        assert as_rows(store.logs.query(archived=True)) == rows


def test_options_are_checked(tmp_path: Path) -> None:
    for options, error in (
        ({"remote": 3}, TypeError),
        ({"remote": "https://x"}, ValueError),
        ({"remote_options": {}}, ValueError),
        ({"remote": "memory://x", "max_cache_bytes": -1}, ValueError),
        ({"remote": "memory://x", "max_cache_bytes": 1.5}, TypeError),
    ):
        with pytest.raises(error):
            ns.Store(tmp_path / "data", **options)
    assert not (tmp_path / "data").exists()
