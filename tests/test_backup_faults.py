"""Backups that are killed or failed at any system call: whole, or none, and the next call completes them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs.backups import back_up
from reference import Row
from support import as_rows
from support.backups import assert_whole, blobs_of, change, stored
from support.faults import KILL, Run, Scenario, sweep

# --- cut short anywhere ------------------------------------------------------------------------------------------


def check_backup(directory: Path, prepared: tuple[list[Row], list[Row]], _run: Run) -> None:
    """The older backup or the newer one, whole; or none, which says so; and another call completes it."""
    older, newer = prepared
    backup = directory / "backup"
    blobs = blobs_of(directory / "store")
    if (backup / "logs.db").exists():
        with ns.Store(backup, read_only=True) as store:
            rows = as_rows(store.logs.iter(archived=True))
            found = {row.id: row for row in rows}
            report = store.logs.verify()
            # Files may be newer than the database; of the rows nothing is missing, and none is another.
            assert [row for row in older if found.get(row.id) != row] == []
            assert all(row in newer for row in rows)
            assert not [problem for problem in report.problems if "another file of this day" not in problem.reason]
    elif backup.exists() and any(backup.iterdir()):
        with pytest.raises(ns.StoreIOError, match="not finished"):
            ns.Store(backup)
    with ns.Store(directory / "store") as store:
        assert store.backup(backup).ok
    assert_whole(backup, newer, blobs)
    assert not list(backup.glob(".*"))
    assert not list((backup / "archive/logs").glob(".stage*"))


def prepare_first(directory: Path) -> tuple[list[Row], list[Row]]:
    rows = stored(directory / "store")
    return [], rows


def prepare_next(directory: Path) -> tuple[list[Row], list[Row]]:
    older = stored(directory / "store")
    with ns.Store(directory / "store") as store:
        store.backup(directory / "backup")
    return older, change(directory / "store")


FIRST = Scenario(back_up, check_backup, prepare=prepare_first, name="store")
NEXT = Scenario(back_up, check_backup, prepare=prepare_next, name="store")


@pytest.mark.parametrize("scenario", [FIRST, NEXT], ids=["first", "next"])
@pytest.mark.parametrize("fault", [KILL, errno.EIO, errno.ENOSPC], ids=["kill", "EIO", "ENOSPC"])
def test_cut_short(tmp_path: Path, scenario: Scenario[Any], fault: int) -> None:
    assert len(sweep(scenario, tmp_path, fault, per_call=2)) >= 10


@pytest.mark.torture
@pytest.mark.parametrize("scenario", [FIRST, NEXT], ids=["first", "next"])
@pytest.mark.parametrize("fault", [KILL, errno.EIO, errno.ENOSPC], ids=["kill", "EIO", "ENOSPC"])
def test_cut_short_anywhere(tmp_path: Path, scenario: Scenario[Any], fault: int) -> None:
    sweep(scenario, tmp_path, fault)
