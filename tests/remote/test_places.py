"""Whose days lie under a prefix: databases that are older than their days, lost marks, wrong prefixes."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from nerve_store.moving import copy
from support import as_row, as_rows, day_files
from support.archive import NOW, at, day, fill
from support.flaky import conflicts_each, flaky
from support.objects import S3Server

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote import bucket as bucket_file
from nerve_store.remote.bucket import Bucket

DAYS = 3
MARK = ".nerve-store"


@pytest.fixture(params=["memory", "file", "s3-moto"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    return made(request.param, tmp_path / "place")


def opened(place: Place, data: Path, **options: Any) -> ns.Store:
    return ns.Store(data, durability="normal", remote=place.url, remote_options=place.options or None, **options)


def open_and_close(kind: Any, place: Place, data: Path, **options: Any) -> None:
    """Open a store of either kind."""
    store = kind(data, remote=place.url, remote_options=place.options or None, **options)
    if kind is ns.Store:
        store.close()
    else:
        asyncio.run(store.close())


OPENINGS: list[Any] = [
    pytest.param(kind, options, id=f"{kind.__name__}{options or ''}")
    for kind in (ns.Store, ns.AsyncStore)
    for options in ({}, {"read_only": True})
]


def bucket(place: Place) -> Bucket:
    return Bucket(f"{place.url}/logs", place.options)


def objects(place: Place) -> dict[str, bytes]:
    found = bucket(place)
    contents = {one.key: found.get(one.key, longest=1 << 30) for page in found.list() for one in page}
    return {key: content for key, content in contents.items() if isinstance(content, bytes)}


def days(place: Place) -> list[str]:
    return sorted(key for key in objects(place) if key != MARK)


def copy_home(place: Place, data: Path) -> None:
    """As the message says."""
    directory = data / "archive" / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    for key, content in sorted(objects(place).items()):
        (directory / key.replace(".1.", ".")).write_bytes(content)


def late(store: ns.Store, number: int) -> Any:
    return as_row(store.logs.append("system", "late", None, None, at(number)))


def aged(place: Place, tmp_path: Path, restored: str, compression: Any = None) -> tuple[Path, list[Any]]:
    """A data directory that was restored from a backup, and all rows; two days have gained some since."""
    with opened(place, tmp_path / "data") as store:
        rows = fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW, compression=compression)
        store.backup(tmp_path / "backup")
        rows += [late(store, 0), late(store, 1)]
        store.logs.archive_logs(now=NOW)
        rows.sort()
        assert as_rows(store.logs.query(archived=True)) == rows
    if restored == "with files":
        return tmp_path / "backup", rows
    (tmp_path / "plain").mkdir()
    shutil.copy(tmp_path / "backup" / "logs.db", tmp_path / "plain" / "logs.db")
    return tmp_path / "plain", rows


@pytest.mark.parametrize(("kind", "options"), OPENINGS)
@pytest.mark.parametrize("mark", ["marked", "mark lost"])
@pytest.mark.parametrize("restored", ["with files", "database alone"])
def test_database_whose_days_have_grown_is_refused(
    place: Place, tmp_path: Path, restored: str, mark: str, kind: Any, options: Any
) -> None:
    older, _ = aged(place, tmp_path, restored)
    if mark == "mark lost":
        bucket(place).delete([MARK])
    before = objects(place)
    with pytest.raises(ns.ArchiveError, match=r"not all of its rows.*Copy what is there") as caught:
        open_and_close(kind, place, older, **options)
    assert caught.value.path == f"{place.url}/logs/{day(0)}.1.jsonl"
    assert objects(place) == before


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("restored", ["with files", "database alone"])
def test_database_that_was_given_its_days_goes_on(
    place: Place, tmp_path: Path, restored: str, compression: Any
) -> None:
    older, rows = aged(place, tmp_path, restored, compression)
    before = days(place)
    copy_home(place, older)
    for options in ({"read_only": True}, {}):
        with opened(place, older, **options) as store:
            assert as_rows(store.logs.query(archived=True)) == rows
    with opened(place, older) as store:
        rows.append(as_row(store.logs.append("system", "new", None, None, at(DAYS))))
        assert rows[-1].id == max(row.id for row in rows)
        store.logs.archive_logs(now=NOW)
        assert days(place) == [*before, f"{day(DAYS)}.jsonl"]
        assert not day_files(store.archive_dir)
        assert as_rows(store.logs.query(archived=True)) == sorted(rows)
        assert store.logs.verify().ok


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_days_that_gained_rows_before_they_moved_again_are_not_taken_for_older(
    memory: Place, tmp_path: Path, compression: Any
) -> None:
    """A file has all rows of the object, and further ones."""
    older, rows = aged(memory, tmp_path, "with files", compression)
    copy_home(memory, older)
    with ns.Store(older) as store:
        rows.append(late(store, 0))
        store.logs.archive_logs(now=NOW)
    with opened(memory, older) as store:
        assert as_rows(store.logs.query(archived=True)) == sorted(rows)


@pytest.mark.parametrize(("kind", "options"), OPENINGS[::2])
@pytest.mark.parametrize("found", ["database lost", "database of another", "archive lost"])
def test_days_without_a_mark_are_not_taken_for_none(
    place: Place, tmp_path: Path, found: str, kind: Any, options: Any
) -> None:
    with opened(place, tmp_path / "data") as store:
        fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW)
    bucket(place).delete([MARK])
    before = objects(place)
    if found == "database lost":
        (tmp_path / "data" / "logs.db").unlink()
    elif found == "archive lost":
        shutil.rmtree(tmp_path / "data")
    elif found == "database of another":
        shutil.rmtree(tmp_path / "data")
        with ns.Store(tmp_path / "data") as store:
            store.logs.append("system", "tick", None, None, at(0))
            store.logs.archive_logs(now=NOW)
    for _ in range(2):
        with pytest.raises(ns.ArchiveError, match=f"{day(0)}.*does not know this day"):
            open_and_close(kind, place, tmp_path / "data", **options)
    assert objects(place) == before


def test_lost_mark_is_put_back_by_the_next_job(place: Place, tmp_path: Path) -> None:
    with opened(place, tmp_path / "data") as store:
        rows = fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW)
    mark = objects(place)[MARK]
    bucket(place).delete([MARK])
    with opened(place, tmp_path / "data") as store:
        assert as_rows(store.logs.query(archived=True)) == rows
        store.logs.archive_logs(now=NOW)
        assert objects(place)[MARK] == mark


def test_message_of_another_database_does_not_advise_to_remove_the_mark(memory: Place, tmp_path: Path) -> None:
    with opened(memory, tmp_path / "data") as store:
        fill(store.logs, days=1)
        store.logs.archive_logs(now=NOW)
    with pytest.raises(ns.ArchiveError, match=r"another database.*Leave this object where it is") as caught:
        opened(memory, tmp_path / "other")
    assert "remove" not in str(caught.value)


@pytest.mark.parametrize(("kind", "options"), OPENINGS)
def test_another_prefix_is_refused(place: Place, tmp_path: Path, kind: Any, options: Any) -> None:
    with opened(place, tmp_path / "data") as store:
        fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW)
        late(store, DAYS)
    wrong = Place(place.name, place.path, f"{place.url}x", place.options)
    with pytest.raises(ns.StoreUnavailableError, match=f"open the store with remote='{place.url}'") as caught:
        open_and_close(kind, wrong, tmp_path / "data", **options)
    assert caught.value.path == f"{place.url}/logs/{day(0)}.jsonl"
    assert objects(wrong) == {}


def test_job_sends_nothing_to_another_prefix_than_that_of_the_days(place: Place, tmp_path: Path) -> None:
    """Both were opened before there were days."""
    wrong = Place(place.name, place.path, f"{place.url}x", place.options)
    with opened(place, tmp_path / "data") as store, opened(wrong, tmp_path / "data") as other:
        late(store, 0)
        store.logs.archive_logs(now=NOW)
        row = late(other, 1)
        with pytest.raises(ns.StoreUnavailableError, match=f"remote='{place.url}'"):
            other.logs.archive_logs(now=NOW)
        assert objects(wrong) == {}
        store.logs.archive_logs(now=NOW)
        assert as_rows(store.logs.query(archived=True))[-1] == row
        assert days(place) == [f"{day(0)}.jsonl", f"{day(1)}.jsonl"]


@pytest.mark.parametrize("is_marked", [True, False])
def test_copied_bucket_may_have_another_name(place: Place, tmp_path: Path, is_marked: bool) -> None:
    with opened(place, tmp_path / "data") as store:
        rows = fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW)
    renamed = Place(place.name, place.path, f"{place.url}-renamed", place.options)
    for key, content in objects(place).items():
        if is_marked or key != MARK:
            bucket(renamed).put(key, content)
    shutil.rmtree(tmp_path / "data" / "cache", ignore_errors=True)
    with opened(renamed, tmp_path / "data") as store:
        assert as_rows(store.logs.query(archived=True)) == rows
        rows.append(late(store, 0))
        store.logs.archive_logs(now=NOW)
        assert as_rows(store.logs.query(archived=True)) == sorted(rows)
        assert days(renamed)[0] == f"{day(0)}.1.jsonl"
        assert MARK in objects(renamed)


@pytest.mark.parametrize("count", [1, 4])
def test_conflict_that_stored_nothing_is_tried_again(s3: Place, tmp_path: Path, count: int) -> None:
    """Of the mark, of days, and of what a copy stores: none of them is said to be another one's."""
    with flaky(int(s3.options["endpoint"].rpartition(":")[2])) as proxy:
        shaky = Place(s3.name, s3.path, s3.url, S3Server.options(proxy.port))
        with opened(shaky, tmp_path / "data") as store:
            rows = fill(store.logs, days=DAYS)
            proxy.fault = conflicts_each(count)
            assert len(store.logs.archive_logs(now=NOW).days) == DAYS
            rows.append(late(store, 0))
            store.logs.archive_logs(now=NOW)
            assert as_rows(store.logs.query(archived=True)) == sorted(rows)
            assert not day_files(store.archive_dir)
        there = f"{s3.url}-copy"
        copy(
            str(tmp_path / "data"), str(tmp_path / "there"), remote=there, remote_options=shaky.options,
            source_remote=s3.url, source_remote_options=s3.options, finish=True,
        )  # fmt: skip
        with opened(Place(s3.name, s3.path, there, s3.options), tmp_path / "there") as store:
            assert as_rows(store.logs.query(archived=True)) == sorted(rows)


def test_conflicts_without_end_are_no_answer(s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_file, "_PAUSE", 0)
    with flaky(int(s3.options["endpoint"].rpartition(":")[2])) as proxy:
        shaky = Place(s3.name, s3.path, s3.url, S3Server.options(proxy.port))
        with opened(shaky, tmp_path / "data") as store:
            rows = fill(store.logs, days=DAYS)
            for what in (MARK, f"{day(1)}.jsonl"):
                proxy.fault = lambda request, what=what: (
                    "conflict" if request.method == "PUT" and request.path.endswith(what) else None
                )
                with pytest.raises(ns.StoreUnavailableError, match="there is none") as caught:
                    store.logs.archive_logs(now=NOW)
                assert caught.value.path == f"{s3.url}/logs/{what}"
                assert as_rows(store.logs.query(archived=True)) == rows
            proxy.fault = None
            store.logs.archive_logs(now=NOW)
            assert as_rows(store.logs.query(archived=True)) == rows
            assert not day_files(store.archive_dir)
