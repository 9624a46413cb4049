"""Stores to be backed up, and what a backup has to hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nerve_store as ns
from reference import Row
from support import as_rows
from support.archive import NOW, append, at, fill, message, put_run


def stored(directory: Path, **options: Any) -> list[Row]:
    """A data directory with days in files of both formats, an active run, and blobs."""
    with ns.Store(directory) as store:
        fill(store.logs, days=6)
        store.logs.archive_logs(now=NOW, max_days=2)
        store.logs.archive_logs(now=NOW, max_days=2, compression="zstd")
        put_run(store.logs, "started")
        for number in range(9):
            append(store.logs, at(number % 3, number), "run-1", message(number))
        store.logs.set_meta("key", "value")
        store.blobs.write_many([f"blob {number}" for number in range(40)])
        return as_rows(store.logs.iter(archived=True))


def change(directory: Path) -> list[Row]:
    """What a second backup finds new: rows, late rows of archived days, a day that is compressed now, blobs."""
    with ns.Store(directory) as store:
        for number in range(20):
            append(store.logs, at(number % 6, 100 + number), f"ref-{number % 3}")
        store.logs.archive_logs(now=NOW, compression="zstd")
        store.blobs.write("another blob")
        return as_rows(store.logs.iter(archived=True))


def assert_whole(backup: Path, rows: list[Row], blobs: set[str]) -> None:
    """The backup verifies as it is, and holds these rows, in order, and these blobs."""
    with ns.Store(backup, read_only=True) as store:
        report = store.logs.verify()
        assert report.ok, report.problems
        assert store.blobs.verify().ok
        assert as_rows(store.logs.iter(archived=True)) == rows
        assert set(store.blobs) >= blobs
        assert store.logs.get_meta("key") == "value"
        assert [run.run_id for run in store.logs.get_active_workflow_runs()] == ["run-1"]


def let_grow_old(staged: Iterable[Path]) -> None:
    """As if these had last been written two days ago, by a process that is dead."""
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    for path in staged:
        os.utime(path, (two_days_ago, two_days_ago))


def blobs_of(directory: Path) -> set[str]:
    return set(ns.BlobStore(directory / "blobs", read_only=True))
