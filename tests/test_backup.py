"""Backups: whole while others write, only what is new, never taken for whole when they are not."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

import nerve_store as ns
from support import as_rows, foreign_script, foreign_sql
from support.archive import NOW, append, at, content_of, day, message
from support.backups import assert_whole, blobs_of, change, stored
from support.disks import tiny_disk

MARK = ".nerve-store-unfinished"


def test_a_backup_is_a_store_of_its_own(tmp_path: Path) -> None:
    rows = stored(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        report = store.backup(tmp_path / "backup")
    assert report.ok
    assert (report.path, report.last_id) == (str(tmp_path / "backup"), rows[-1].id)
    assert (report.day_count, report.new_day_count) == (4, 4)
    assert (report.blob_count, report.new_blob_count) == (40, 40)
    assert report.database_bytes == (tmp_path / "backup/logs.db").stat().st_size
    assert_whole(tmp_path / "backup", rows, blobs_of(tmp_path / "store"))
    # It goes on as the original would.
    with ns.Store(tmp_path / "backup") as restored:
        assert restored.logs.append("system", "tick").id == rows[-1].id + 1
        restored.logs.archive_logs(now=NOW)
        assert restored.logs.verify().ok


def test_a_second_backup_copies_what_is_new(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        store.backup(tmp_path / "backup")
        again = store.backup(tmp_path / "backup")
    assert (again.new_day_count, again.new_blob_count, again.copied_bytes, again.shared_bytes) == (0, 0, 0, 0)
    rows = change(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        report = store.backup(tmp_path / "backup")
    assert (report.blob_count, report.new_blob_count) == (41, 1)
    assert 0 < report.new_day_count <= report.day_count == 6
    assert_whole(tmp_path / "backup", rows, blobs_of(tmp_path / "store"))
    files = content_of(tmp_path / "backup/archive/logs")
    assert files == content_of(tmp_path / "store/archive/logs")


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.zst"])
def test_a_backup_does_not_change_with_a_file_that_is_written_in_place(tmp_path: Path, suffix: str) -> None:
    """The predecessor writes plain files in place; no program writes to compressed ones."""
    stored(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        store.backup(tmp_path / "backup")
    path = next((tmp_path / "store/archive/logs").glob(f"*-??.{suffix}"))
    copy = tmp_path / "backup/archive/logs" / path.name
    if suffix == "jsonl":
        before = copy.read_bytes()
        with path.open("r+b") as file:
            file.truncate(10)
        assert copy.read_bytes() == before
    else:
        assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns


def damage(path: Path) -> None:
    """One bit, under a new name and with a time of its own, as a copy of a damaged disk would have."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    written = path.stat().st_mtime + 3600
    path.unlink()
    path.write_bytes(content)
    os.utime(path, (written, written))


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.zst"])
def test_a_damaged_file_does_not_replace_a_good_one(tmp_path: Path, suffix: str, is_first: bool) -> None:
    stored(tmp_path / "store")
    path = next((tmp_path / "store/archive/logs").glob(f"*-??.{suffix}"))
    copy = tmp_path / "backup/archive/logs" / path.name
    blob = sorted(blobs_of(tmp_path / "store"))[3]
    blob_path = tmp_path / "store/blobs" / blob[:2] / blob[2:]
    with ns.Store(tmp_path / "store") as store:
        if not is_first:
            store.backup(tmp_path / "backup")
        good = path.read_bytes()
        damage(path)
        damage(blob_path)
        report = store.backup(tmp_path / "backup")
    assert {problem.path for problem in report.problems} == {str(path), str(blob_path)}
    assert not report.ok
    assert copy.read_bytes() == good if not is_first else not copy.exists()
    if not is_first:
        with ns.Store(tmp_path / "backup", read_only=True) as store:
            assert store.logs.verify().ok
            assert store.blobs.verify().ok


def test_a_blob_that_was_written_once_more_is_not_copied_again(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        store.backup(tmp_path / "backup")
        blob = min(store.blobs)
        original, copy = (tmp_path / place / "blobs" / blob[:2] / blob[2:] for place in ("store", "backup"))
        apart(copy)
        os.utime(original, (10**9, 10**9))
        report = store.backup(tmp_path / "backup")
        assert (report.problems, report.new_blob_count, report.copied_bytes, report.shared_bytes) == ((), 0, 0, 0)
        assert copy.stat().st_mtime == 10**9


@pytest.mark.parametrize("spoil", [damage, lambda path: path.write_bytes(b""), Path.unlink])
def test_a_copy_that_was_changed_is_made_anew(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    stored(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        rows = as_rows(store.logs.iter(archived=True))
        store.backup(tmp_path / "backup")
        blobs, days = blobs_of(tmp_path / "store"), tmp_path / "backup/archive/logs"
        for copy in [*(tmp_path / "backup/blobs").glob("[0-9a-f]?/*"), *days.glob("2*")]:
            apart(copy)
            spoil(copy)
        report = store.backup(tmp_path / "backup")
        assert (report.problems, report.new_blob_count, report.new_day_count) == ((), 40, 4)
    assert_whole(tmp_path / "backup", rows, blobs)


def apart(copy: Path) -> None:
    """Make it a file of its own, as on another file system."""
    shutil.copy2(copy, copy.with_name("own"))
    copy.with_name("own").rename(copy)


def test_a_missing_day_is_reported(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    (tmp_path / "store/archive/logs" / f"{day(0)}.jsonl").unlink()
    with ns.Store(tmp_path / "store") as store:
        report = store.backup(tmp_path / "backup")
    assert [Path(problem.path).name for problem in report.problems] == [f"{day(0)}.jsonl"]


def test_a_damaged_database_leaves_the_backup_that_is_there(tmp_path: Path) -> None:
    rows = stored(tmp_path / "store")
    blobs = blobs_of(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        store.logs.reindex()
        store.logs.append_many(("s", "t", None, "a" * 50, 5) for _ in range(5000))
        store.backup(tmp_path / "backup")
        rows = as_rows(store.logs.iter(archived=True))
    # A row that its segment's checksum knows differently: SQLite itself finds nothing wrong.
    foreign_sql(tmp_path / "store/logs.db", "UPDATE logs SET payload = 'b' WHERE id = 1000")
    with ns.Store(tmp_path / "store") as store, pytest.raises(ns.CorruptStoreError, match="no backup was made"):
        store.backup(tmp_path / "backup")
    assert_whole(tmp_path / "backup", rows, blobs)
    assert not list((tmp_path / "backup").glob(".stage*"))


def test_a_restored_backup_beside_newer_files_goes_on(tmp_path: Path) -> None:
    """The database is that of the backup, the archive is the one that has gone on."""
    stored(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        store.backup(tmp_path / "backup")
    rows = change(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        store.logs.archive_logs(now=NOW)
    archived = {row.id for row in rows} - {row.id for row in as_rows(ns.LogStore(tmp_path / "store/logs.db").iter())}
    shutil.copy(tmp_path / "backup/logs.db", tmp_path / "store/logs.db")
    for suffix in ("-wal", "-shm", "-ids"):
        (tmp_path / f"store/logs.db{suffix}").unlink(missing_ok=True)
    with ns.Store(tmp_path / "store") as store:
        found = {row.id: row for row in as_rows(store.logs.iter(archived=True))}
        assert archived <= found.keys()
        assert all(found[row.id] == row for row in rows if row.id in found)
        new = store.logs.append("system", "tick")
        assert new.id > max(archived)
        store.logs.archive_logs(now=NOW)
        assert store.logs.verify().ok


@pytest.mark.parametrize("first", [None, "zstd"])
@pytest.mark.parametrize("then", [None, "zstd"])
def test_a_restored_backup_beside_days_with_new_rounds_is_whole(
    tmp_path: Path, first: Literal["zstd"] | None, then: Literal["zstd"] | None
) -> None:
    """Also before a job has adopted the files that have gained rounds since."""
    with ns.Store(tmp_path / "store") as store:
        for number in range(40):
            append(store.logs, at(number % 4, number), f"run-{number % 3}", message(number))
        store.logs.archive_logs(now=NOW, compression=first)
        store.backup(tmp_path / "backup")
        for number in range(20):
            append(store.logs, at(number % 6, 100 + number), f"run-{number % 5}", message(number))
        store.logs.archive_logs(now=NOW, compression=then)
        rounds = {run: store.logs.get_thread_rounds(run, limit=100) for run in ("run-0", "run-1", "run-4")}
    for path in (tmp_path / "store").glob("logs.db*"):
        path.unlink()
    shutil.copy(tmp_path / "backup/logs.db", tmp_path / "store/logs.db")
    with ns.Store(tmp_path / "store") as store:
        for _ in range(2):
            assert store.logs.verify().problems == ()
            assert {run: store.logs.get_thread_rounds(run, limit=100) for run in rounds} == rounds
            store.logs.archive_logs(now=NOW)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_restored_backup_is_backed_up_with_newer_files(tmp_path: Path, compression: Literal["zstd"] | None) -> None:
    """Before a job has adopted them: days that have gained rows since, and days that the backup knows nothing of."""
    with ns.Store(tmp_path / "store") as store:
        for number in range(40):
            append(store.logs, at(number % 4, number), f"ref-{number % 3}")
        store.logs.archive_logs(now=NOW, compression=compression)
        store.backup(tmp_path / "backup")
        for number in range(20):
            append(store.logs, at(number % 6, 100 + number), f"ref-{number % 3}")
        store.logs.archive_logs(now=NOW, compression=compression)
    for path in (tmp_path / "store").glob("logs.db*"):
        path.unlink()
    shutil.copy(tmp_path / "backup/logs.db", tmp_path / "store/logs.db")
    with ns.Store(tmp_path / "store") as store:
        store.logs.append("system", "tick")
        rows = as_rows(store.logs.iter(archived=True))
        assert len(rows) == 61
        report = store.backup(tmp_path / "next")
        assert report.problems == ()
        with ns.Store(tmp_path / "next", read_only=True) as backup:
            assert as_rows(backup.logs.iter(archived=True)) == rows
            assert backup.logs.verify().ok
        # A damaged one among them is none of these.
        damage(tmp_path / f"store/archive/logs/{day(1)}.{'jsonl.zst' if compression else 'jsonl'}")
        assert len(store.backup(tmp_path / "last").problems) == 1


def test_from_an_event_loop(tmp_path: Path) -> None:
    rows = stored(tmp_path / "store")

    async def back_up_beside_appends() -> None:
        async with ns.AsyncStore(tmp_path / "store") as store:
            appended = asyncio.gather(*(store.logs.append("system", "tick") for _ in range(50)))
            report = await store.backup(tmp_path / "backup")
            await appended
            assert report.ok
            assert (await store.logs.backup(tmp_path / "one.db")).last_id == rows[-1].id + 50

    asyncio.run(back_up_beside_appends())
    with ns.Store(tmp_path / "backup", read_only=True) as backup:
        assert as_rows(backup.logs.iter(archived=True))[: len(rows)] == rows
        assert backup.logs.verify().ok


# --- where a backup may go ---------------------------------------------------------------------------------------


def refuse(store: ns.Store, target: Path) -> None:
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} if target.is_dir() else None
    with pytest.raises((ns.StoreIOError, ValueError)) as caught:
        store.backup(target)
    assert str(target) in str(caught.value)
    assert "target" in str(caught.value)
    if before is not None:
        after = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
        assert {path: after.get(path) for path in before if not path.name.endswith("-shm")} == {
            path: content for path, content in before.items() if not path.name.endswith("-shm")
        }


def in_use(directory: Path) -> None:
    with ns.Store(directory):
        pass


def of_another_store(directory: Path) -> None:
    with ns.Store(directory.with_name("other")) as other:
        other.backup(directory)


def foreign_database(directory: Path) -> None:
    directory.mkdir()
    foreign_script(directory / "logs.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1);")


def no_database(directory: Path) -> None:
    directory.mkdir()
    (directory / "logs.db").write_text("notes" * 1000)


def newer_backup(directory: Path) -> None:
    """A backup of the copy that went on."""
    with ns.Store(directory.with_name("store")) as store:
        store.backup(directory.with_name("earlier"))
    with ns.Store(directory.with_name("earlier")) as store:
        store.logs.append("system", "tick")
        store.backup(directory)


@pytest.mark.parametrize(
    "occupy", [in_use, of_another_store, foreign_database, no_database, newer_backup], ids=lambda value: value.__name__
)
def test_what_is_no_older_backup_of_it_is_left_alone(tmp_path: Path, occupy: Callable[[Path], None]) -> None:
    stored(tmp_path / "store")
    occupy(tmp_path / "target")
    with ns.Store(tmp_path / "store") as store:
        refuse(store, tmp_path / "target")


def test_a_backup_that_was_put_to_use_is_left_alone(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    with ns.Store(tmp_path / "store") as store:
        store.backup(tmp_path / "backup")
        in_use(tmp_path / "backup")
        refuse(store, tmp_path / "backup")
        refuse(store, tmp_path / "store")


def test_the_database_alone(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    with ns.LogStore(tmp_path / "store/logs.db") as store:
        rows = as_rows(store.iter())
        first = store.backup(tmp_path / "sub/copy.db")
        store.append("system", "tick", None, None, 3)
        second = store.backup(tmp_path / "sub/copy.db")
        assert second.last_id == (first.last_id or 0) + 1
        assert [path.name for path in (tmp_path / "sub").iterdir()] == ["copy.db"]
        for wrong in (tmp_path / "store/logs.db", tmp_path / "store"):
            with pytest.raises((ns.StoreIOError, ValueError)):
                store.backup(wrong)
    with ns.LogStore(tmp_path / "sub/copy.db", read_only=True) as copy:
        assert as_rows(copy.iter())[:-1] == rows
    # Nothing lies beside it: it needs no log to be read.
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["copy.db"]


def test_a_full_disk_leaves_the_backup_that_is_there(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    disk = tmp_path / "disk"
    with tiny_disk(disk), ns.Store(tmp_path / "store") as store:
        store.backup(disk / "backup")
        before = content_of(disk / "backup/archive/logs")
        store.logs.append_many(("s", "t", None, os.urandom(3000).hex(), 5) for _ in range(300))
        with pytest.raises(ns.StoreFullError):
            store.backup(disk / "backup")
        assert content_of(disk / "backup/archive/logs") == before
        with ns.Store(disk / "backup", read_only=True) as backup:
            assert backup.logs.verify().ok


def test_an_exception_of_progress_stops_it_and_the_next_call_goes_on(tmp_path: Path) -> None:
    rows = stored(tmp_path / "store")
    calls: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 20:
            raise KeyError

    with ns.Store(tmp_path / "store") as store:
        with pytest.raises(KeyError):
            store.backup(tmp_path / "backup", progress=report)
        with pytest.raises(ns.StoreIOError, match="not finished"):
            ns.Store(tmp_path / "backup")
        calls = [(0, 0)] * 20
        store.backup(tmp_path / "backup", progress=report)
    done = [done for done, _ in calls[20:]]
    assert done == sorted(done)
    assert calls[-1][0] == calls[-1][1] > 0
    assert_whole(tmp_path / "backup", rows, blobs_of(tmp_path / "store"))


@pytest.mark.parametrize("part", ["archive", "archive/logs", "archive/logs/new", "blobs", "blobs/a/b", "cache/x"])
@pytest.mark.parametrize("is_linked", [True, False])
def test_a_part_of_the_store_is_no_target(tmp_path: Path, part: str, is_linked: bool) -> None:
    stored(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    staged = tmp_path / "store/archive/logs/.export-of-a-job-at-work"
    staged.touch()
    before = {path for path in tmp_path.rglob("*") if not path.name.startswith("logs.db")}
    with ns.Store(tmp_path / "store") as store:
        target = tmp_path / ("link" if is_linked else "store") / part
        with pytest.raises(ValueError, match="a part of the store: choose another target"):
            store.backup(target)
        with pytest.raises(ValueError, match="a part of the store: choose another target"):
            store.logs.backup(target / "logs.db")
    assert {path for path in tmp_path.rglob("*") if not path.name.startswith("logs.db")} == before
    with ns.Store(tmp_path / "store") as store:
        assert store.backup(tmp_path / "store/backups/today").ok
