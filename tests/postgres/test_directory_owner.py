"""The directory of a log's days is marked as its own: another log is told whose it is, and changes nothing there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.test_archive_damage import READS, archived
from nerve_store.moving import copy
from postgres.stored import late
from reference import Row
from support import as_row, as_rows, day_files
from support.archive import MARK, NOW, at, content_of, day

pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")


@pytest.fixture
def other(place: Backend) -> Iterator[Callable[..., Any]]:
    """Opens another log on the server with the same directory."""
    schema = f"{place.schema}_other"

    def open_log(**options: Any) -> Any:
        return place.stack.enter_context(
            ns.PostgresLogStore(place.url, schema=schema, archive=place.archive, **options)
        )

    yield open_log
    place.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


REFUSED: dict[str, Callable[[Any], Any]] = {
    "read_archive": READS["read_archive"],
    "restore_archive": READS["restore_archive"],
    "archive_logs": READS["archive_logs"],
    "archive_logs, dry": READS["archive_logs, dry"],
    "archived_days": lambda log: log.archived_days(),
    "expire_archive": lambda log: log.expire_archive(before=day(9)),
    "reindex": lambda log: log.reindex(),
}


@pytest.mark.parametrize("call", [*REFUSED, "verify"])
def test_another_log_is_told_whose_archive_it_is(place: Backend, other: Callable[..., Any], call: str) -> None:
    log: Any = place.open()
    rows = archived(log)
    before = content_of(place.archive)
    writing = other()
    theirs = [as_row(writing.append("system", "tick", timestamp=at(0, n))) for n in range(3)]
    for second in (writing, other(read_only=True)):
        if call == "verify":
            (problem,) = second.verify().problems
            told = f"{problem.path}: {problem.reason}"
        else:
            with pytest.raises((ns.ArchiveError, ns.StoreIOError)) as refused:
                REFUSED[call](second)
            told = str(refused.value)
        assert f"#{place.schema}:" in told or "read_only" in told
        assert str(place.archive) in told or "read_only" in told
        # What does not need the archive goes on, and what is read is its own.
        assert as_rows(second.query(archived=True)) == theirs
    assert content_of(place.archive) == before
    assert as_rows(log.query(archived=True)) == rows
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == rows
    assert log.verify().ok


@pytest.mark.parametrize("call", [*READS, "verify"])
def test_log_that_has_days_elsewhere_is_told_by_all_that_read_them(
    place: Backend, other: Callable[..., Any], call: str
) -> None:
    """It was opened with the wrong directory, in which there are days of the same name."""
    second = other()
    archived(second)
    place.archive.rename(place.archive.with_name("theirs"))
    archived(place.open())
    before = content_of(place.archive)
    if call == "verify":
        assert place.schema in second.verify().problems[0].reason
    else:
        with pytest.raises(ns.ArchiveError, match=f"#{place.schema}: ") as refused:
            READS[call](second)
        assert not isinstance(refused.value, ns.ArchiveCorruptError)
    assert content_of(place.archive) == before


def test_data_directory_and_server_tell_each_other(place: Backend, tmp_path: Path) -> None:
    with ns.LogStore(tmp_path / "logs.db", archive_dir=place.archive) as log:
        log.append("system", "tick", timestamp=at(0))
        log.archive_logs(now=NOW)
        there: Any = place.open()
        there.append("system", "tick", timestamp=at(0))
        with pytest.raises(ns.ArchiveError, match=r"logs\.db"):
            there.archive_logs(now=NOW)
        (place.archive / MARK).unlink()
        for file in day_files(place.archive).values():
            file.unlink()
        there.archive_logs(now=NOW)
        log.append("system", "tick", timestamp=at(1))
        with pytest.raises(ns.ArchiveError, match=f"#{place.schema}"):
            log.archive_logs(now=NOW)


def test_mark_is_written_by_the_first_job_that_moves_rows(place: Backend) -> None:
    log: Any = place.open()
    log.archive_logs(now=NOW)
    log.append("system", "tick", timestamp=at(0))
    log.archive_logs(now=NOW, dry_run=True)
    assert not place.archive.exists()
    log.archive_logs(now=NOW)
    mark = place.archive / MARK
    ((identity,),) = log.sql("SELECT store_id::text FROM state")
    assert json.loads(mark.read_bytes()) == {"id": identity, "database": log.path}
    assert mark.stat().st_mode & 0o777 == 0o600
    assert len(content_of(place.archive)) == 2
    before = mark.stat()
    late(log, 0)
    log.archive_logs(now=NOW)
    assert mark.stat() == before


@pytest.mark.parametrize("has_links", [True, False])
def test_directory_without_a_mark_is_that_of_the_log_that_knows_its_days(
    place: Backend, other: Callable[..., Any], has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = unmarked(place)
    if not has_links:
        monkeypatch.setattr("os.link", refusing)
    other()
    place.open(read_only=True)
    assert not (place.archive / MARK).exists()
    log: Any = place.open()
    assert (place.archive / MARK).exists()
    second = other()
    second.append("system", "tick", timestamp=at(0))
    with pytest.raises(ns.ArchiveError, match=f"#{place.schema}"):
        second.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == rows
    log.archive_logs(now=NOW)
    assert log.verify().ok
    assert len(content_of(place.archive)) == 3


def refusing(source: object, target: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def unmarked(place: Backend) -> list[Row]:
    """A directory as an earlier version left it."""
    with place.open() as log:
        rows = archived(log)
    (place.archive / MARK).unlink()
    return rows


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json", b"[" * 100_000, b"x" * 100_000])
def test_mark_that_cannot_be_read_is_named(place: Backend, content: bytes) -> None:
    log: Any = place.open()
    rows = archived(log)
    mark = place.archive / MARK
    mark.write_bytes(content)
    for each in (log, place.open()):
        for call in (READS["query"], READS["archive_logs"]):
            with pytest.raises(ns.ArchiveError, match=rf"{MARK}: .*remove it"):
                call(each)
    assert not log.verify().ok
    mark.unlink()
    assert as_rows(log.query(archived=True)) == rows
    log.archive_logs(now=NOW)
    assert mark.exists()
    assert log.verify().ok


@pytest.mark.parametrize("has_mark", [True, False])
def test_copy_from_and_to_directories_with_and_without_marks(place: Backend, tmp_path: Path, has_mark: bool) -> None:
    rows = unmarked(place)
    if has_mark:
        with place.open():
            assert (place.archive / MARK).exists()
    source = f"{place.direct_url}?schema={place.schema}&archive={place.archive}"
    target = f"{place.direct_url}?schema={place.schema}_two&archive={tmp_path / 'two'}"
    try:
        copy(source, target, finish=True)
        with ns.PostgresLogStore(place.direct_url, schema=f"{place.schema}_two", archive=tmp_path / "two") as log:
            assert as_rows(log.query(archived=True)) == rows
            log.archive_logs(now=NOW)
            assert log.verify().ok
            # By the name that it has by now.
            assert json.loads((tmp_path / "two" / MARK).read_bytes())["database"] == log.path
            place.archive.rename(tmp_path / "away")
            (tmp_path / "two").rename(place.archive)
            late(place.open(), 1)
            with pytest.raises(ns.ArchiveError, match=f"#{place.schema}_two"):
                place.open().archive_logs(now=NOW)
            place.archive.rename(tmp_path / "two")
            (tmp_path / "away").rename(place.archive)
        copy(target, str(tmp_path / "back"), finish=True)
        with ns.LogStore(tmp_path / "back" / "logs.db") as back:
            assert as_rows(back.query(archived=True)) == rows
            assert back.verify().ok
    finally:
        place.execute(f"DROP SCHEMA IF EXISTS {place.schema}_two CASCADE")


def test_directory_that_another_log_marks_meanwhile_is_left_to_it(place: Backend, tmp_path: Path) -> None:
    log: Any = place.open()
    archived(log)
    source = f"{place.direct_url}?schema={place.schema}&archive={place.archive}"
    target = f"{place.direct_url}?schema={place.schema}_two&archive={tmp_path / 'two'}"
    mark = json.dumps({"id": "of another", "database": "x#y"})
    try:
        copy(source, target)
        (tmp_path / "two" / MARK).write_text(mark)
        with pytest.raises(ns.ArchiveError, match="archive of another log"):
            copy(source, target, finish=True)
        assert (tmp_path / "two" / MARK).read_text() == mark
    finally:
        place.execute(f"DROP SCHEMA IF EXISTS {place.schema}_two_copying CASCADE")


def test_copy_refuses_the_archive_of_a_log_that_has_no_day_left(place: Backend, tmp_path: Path) -> None:
    log: Any = place.open()
    archived(log)
    log.archive_logs(now=NOW)
    log.expire_archive(before=day(9))
    assert list(content_of(place.archive)) == [MARK]
    with ns.LogStore(tmp_path / "data" / "logs.db") as source:
        source.append("system", "tick")
    with pytest.raises(ns.NerveStoreError, match="another log"):
        copy(str(tmp_path / "data"), f"{place.direct_url}?schema={place.schema}_two&archive={place.archive}")
    place.execute(f"DROP SCHEMA IF EXISTS {place.schema}_two_copying CASCADE")
