"""An archive directory belongs to one database: the first job marks it, and another database is told whose it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import as_row, as_rows, database_rows, day_files, foreign_sql
from support.archive import MARK, NOW, append, at, day, message


def opened(path: Path, archive: Path, **options: Any) -> ns.LogStore:
    return ns.LogStore(path / "logs.db", archive_dir=archive, **options)


ARCHIVED_CALLS: dict[str, Callable[[ns.LogStore], Any]] = {
    "query": lambda store: store.query(archived=True),
    "count": lambda store: store.count(archived=True),
    "iter": lambda store: list(store.iter(archived=True)),
    "follow": lambda store: next(store.follow(after_id=0, archived=True)),
    "read_archive": lambda store: list(store.read_archive(day(0))),
    "restore_archive": lambda store: store.restore_archive(day(0)),
    "archive_logs": lambda store: store.archive_logs(now=NOW),
}


@pytest.mark.parametrize("call", ARCHIVED_CALLS.values(), ids=ARCHIVED_CALLS.keys())
def test_another_database_is_told_whose_archive_it_is(tmp_path: Path, call: Callable[[ns.LogStore], Any]) -> None:
    shared = tmp_path / "shared"
    with opened(tmp_path / "first", shared) as first, opened(tmp_path / "second", shared) as second:
        rows = [append(first, at(0, n)) for n in range(3)]
        others = [append(second, at(0, n), "run-2", message(n)) for n in range(3)]
        first.archive_logs(now=NOW)
        before = {path.name: path.read_bytes() for path in shared.iterdir()}
        with pytest.raises(ns.ArchiveError, match="archive_dir") as refused:
            call(second)
        assert str(tmp_path / "first" / "logs.db") in str(refused.value).replace("/shared/..", "")
        assert {path.name: path.read_bytes() for path in shared.iterdir()} == before
        # What does not need the archive goes on.
        others.append(append(second, at(0, 9), "run-2", message(9)))
        assert database_rows(second) == others
        assert len(second.get_thread_messages("run-2")) == 4
        assert second.get_thread_round_count("run-2") == 4
        assert as_rows(first.query(archived=True)) == rows
    with opened(tmp_path / "second", shared) as second:
        assert append(second, at(1)).id == others[-1].id + 1


def test_mark_is_written_by_the_first_job_that_moves_rows(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        store.archive_logs(now=NOW)
        assert not (Path(store.archive_dir) / MARK).exists()
        append(store, at(0))
        store.archive_logs(now=NOW, dry_run=True)
        assert not (Path(store.archive_dir) / MARK).exists()
        store.archive_logs(now=NOW)
        mark = json.loads((Path(store.archive_dir) / MARK).read_bytes())
        assert (Path(store.archive_dir) / mark["database"]).resolve() == data_dir / "logs.db"
        assert (Path(store.archive_dir) / MARK).stat().st_mode & 0o777 == 0o600
        assert not any(path.match("*.jsonl*") for path in [Path(store.archive_dir) / MARK])


@pytest.mark.parametrize("put_back", ["an older copy", "an empty file", "nothing"])
def test_the_same_database_and_an_empty_one_adopt_the_archive(data_dir: Path, put_back: str) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        rows = [append(store, at(0, n)) for n in range(3)]
    backup = path.read_bytes()
    with ns.LogStore(path) as store:
        rows += [append(store, at(1, n)) for n in range(3)]
        store.archive_logs(now=NOW)
    path.unlink()
    if put_back != "nothing":
        path.write_bytes(backup if put_back == "an older copy" else b"")
    with ns.LogStore(path) as store:
        assert as_rows(store.query(archived=True)) == rows
        rows.append(append(store, at(2)))
        store.archive_logs(now=NOW)
        assert as_rows(store.query(archived=True)) == rows
        assert store.verify().ok
    # It is its own by now.
    with ns.LogStore(path) as store:
        rows.append(append(store, at(3)))
        assert as_rows(store.query(archived=True)) == rows


def test_a_moved_and_a_copied_data_directory_stay_whole(data_dir: Path, tmp_path: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = [append(store, at(0, n)) for n in range(3)]
        store.archive_logs(now=NOW)
    copy = Path(shutil.copytree(data_dir, tmp_path / "copy"))
    data_dir.rename(tmp_path / "moved")
    for directory in (copy, tmp_path / "moved"):
        with ns.LogStore(directory / "logs.db") as store:
            assert as_rows(store.query(archived=True)) == rows
            append(store, at(0, 9))
            assert len(store.archive_logs(now=NOW).days) == 1
            assert store.verify().ok


def test_read_only_and_older_databases_are_not_refused(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        rows = [append(store, at(0, n)) for n in range(3)]
        store.archive_logs(now=NOW)
    foreign_sql(path, "DROP TABLE archive_owner")
    with ns.LogStore(path, read_only=True) as store:
        assert as_rows(store.query(archived=True)) == rows


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"x" * 100_000])
def test_a_mark_that_cannot_be_read_is_named(data_dir: Path, content: bytes) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        rows = [append(store, at(0, n)) for n in range(3)]
        store.archive_logs(now=NOW)
        mark = Path(store.archive_dir) / MARK
        mark.write_bytes(content)
        with pytest.raises(ns.ArchiveError, match=MARK):
            store.query(archived=True)
        late = append(store, at(1))
        with pytest.raises(ns.ArchiveError, match=MARK):
            store.archive_logs(now=NOW)
        mark.unlink()
        assert as_rows(store.query(archived=True)) == [*rows, late]
        store.archive_logs(now=NOW)
        assert mark.exists()
        assert len(day_files(store.archive_dir)) == 2


def test_processes_that_open_a_new_database_at_once_agree_on_its_identity(data_dir: Path) -> None:
    stores = [ns.LogStore(data_dir / "logs.db") for _ in range(4)]
    try:
        assert len(foreign_sql(data_dir / "logs.db", "SELECT id FROM archive_owner")) == 1
        for number, store in enumerate(stores):
            as_row(store.append("s", "t", None, None, at(number)))
            store.archive_logs(now=NOW)
    finally:
        for store in stores:
            store.close()
