"""Backups beside others: what was acknowledged is in the copy, and it lists nothing that it does not have."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

import nerve_store as ns
from support import as_rows
from support.archive import NOW, append, at, day
from support.backups import stored
from support.processes import start_child


def test_what_was_acknowledged_before_is_in_it_while_four_processes_write(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    children = [
        start_child(
            "write_all", path=str(tmp_path / "store"), caller=f"caller-{number}", seconds=6, archives=number == 0
        )
        for number in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
    with ns.Store(tmp_path / "store") as store:
        for count in range(3):
            before = as_rows(store.logs.iter(archived=True))
            blobs = set(store.blobs)
            target = tmp_path / ("backup" if count < 2 else "another")
            report = store.backup(target)
            assert report.ok, report.problems
            assert (report.last_id or 0) >= before[-1].id
            with ns.Store(target, read_only=True) as backup:
                verified = backup.logs.verify()
                assert verified.ok, verified.problems
                rows = as_rows(backup.logs.iter(archived=True))
                assert rows[: len(before)] == before
                assert blobs <= set(backup.blobs)
                # A row's blob was there before the row.
                kept = set(backup.blobs)
                assert all(
                    row.payload in kept for row in rows if row.source == "system" and "caller" in (row.ref_id or "")
                )
    for child in children:
        output, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        assert int(output) > 20


def expire(store: ns.Store) -> None:
    store.logs.expire_archive(before=day(3))


def expire_and_archive_late_rows(store: ns.Store) -> None:
    expire(store)
    for number in range(3):
        append(store.logs, at(number, 500), "ref-1")
    store.logs.archive_logs(now=NOW)


def forget_a_lost_day(store: ns.Store) -> None:
    os.remove(store.logs.archived_days()[0].path)
    store.logs.reindex()


@pytest.mark.parametrize("change", [expire, expire_and_archive_late_rows, forget_a_lost_day])
@pytest.mark.parametrize("is_first", [True, False])
def test_days_that_leave_after_the_database_was_copied(
    tmp_path: Path, change: Callable[[ns.Store], None], is_first: bool
) -> None:
    """The copy does not list what its archive does not have."""
    with ns.Store(tmp_path / "store") as store:
        for number in range(5):
            for offset in range(30):
                append(store.logs, at(number, offset), f"ref-{offset % 3}")
        store.logs.archive_logs(now=NOW)
        if not is_first:
            store.backup(tmp_path / "backup")
    changed: list[bool] = []
    with ns.Store(tmp_path / "store") as store, ns.Store(tmp_path / "store") as other:

        def report(done: int, total: int) -> None:
            # The transaction that reads the database has begun.
            if not changed:
                changed.append(True)
                change(other)

        before = store.logs.count(archived=True)
        assert store.backup(tmp_path / "backup", progress=report).ok
        rows = as_rows(store.logs.iter(archived=True))
        assert changed
        assert len(rows) < before
    with ns.Store(tmp_path / "backup", read_only=True) as backup:
        verified = backup.logs.verify()
        assert verified.ok, verified.problems
        found = as_rows(backup.logs.iter(archived=True))
        # Nothing is deleted from a backup that is there.
        assert found == rows if is_first else set(found) >= set(rows)


@pytest.mark.parametrize("is_compressed", [True, False])
def test_a_day_of_another_format_that_expires_once_it_was_copied(tmp_path: Path, is_compressed: bool) -> None:
    """Of the two files that the backup then has, one is older than what the database says."""
    compression: Literal["zstd"] | None = "zstd" if is_compressed else None
    with ns.Store(tmp_path / "store") as store:
        append(store.logs, at(0), "ref-1")
        store.logs.archive_logs(now=NOW, compression=None if is_compressed else "zstd")
        store.blobs.write_many([f"blob {number}" for number in range(40)])
        store.backup(tmp_path / "backup")
        if not is_compressed:
            expire(store)
        append(store.logs, at(0, 1), "ref-1")
        store.logs.archive_logs(now=NOW, compression=compression)
        store.blobs.write("another blob")
    suffix = "jsonl.zst" if is_compressed else "jsonl"
    copied = tmp_path / f"backup/archive/logs/{day(0)}.{suffix}"
    changed: list[bool] = []
    with ns.Store(tmp_path / "store") as store, ns.Store(tmp_path / "store") as other:

        def report(done: int, total: int) -> None:
            if not changed and copied.exists():
                changed.append(True)
                expire(other)

        rows = as_rows(store.logs.iter(archived=True))
        assert store.backup(tmp_path / "backup", progress=report).ok
        assert changed
    assert [path.name for path in (tmp_path / "backup/archive/logs").glob("2*")] == [copied.name]
    with ns.Store(tmp_path / "backup", read_only=True) as backup:
        assert backup.logs.verify().ok
        assert as_rows(backup.logs.iter(archived=True)) == rows


def test_retention_and_backups_of_a_daemon(tmp_path: Path) -> None:
    """A backup each day of a store whose archive jobs run meanwhile."""
    with ns.Store(tmp_path / "store") as store:
        for number in range(8):
            for offset in range(30):
                append(store.logs, at(number, offset), f"ref-{offset % 3}")
            store.logs.archive_logs(now=at(number), retention=timedelta(days=2))
            store.backup(tmp_path / "backup")
            with ns.Store(tmp_path / "backup", read_only=True) as backup:
                assert backup.logs.count(archived=True) == 30 * (number + 1)
