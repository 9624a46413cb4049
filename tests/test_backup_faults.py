"""Backups that are killed or failed at any system call: whole, or none, and the next call completes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs.backups import back_up, back_up_async, copy_database, copy_database_async
from reference import Row
from support import as_rows, foreign_sql
from support.backups import assert_whole, blobs_of, change, let_grow_old, stored
from support.counts import note
from support.faults import FAULTS, Run, Scenario, kind_of, sweep

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
    elif backup.exists() and any(map(is_of_a_backup, backup.iterdir())):
        with pytest.raises(ns.StoreIOError, match="not finished"):
            ns.Store(backup)
    with ns.Store(directory / "store") as store:
        assert store.backup(backup).ok
    assert_whole(backup, newer, blobs)
    assert not list(backup.glob(".*"))
    assert not list((backup / "archive/logs").glob(".stage*"))


def is_of_a_backup(path: Path) -> bool:
    """Unless it is the mark of an unfinished one before it had its name: staged files have one on some systems."""
    return not path.name.startswith(".stage-") or path.stat().st_size > 0


def prepare_first(directory: Path) -> tuple[list[Row], list[Row]]:
    rows = stored(directory / "store")
    return [], rows


def prepare_next(directory: Path) -> tuple[list[Row], list[Row]]:
    older = stored(directory / "store")
    with ns.Store(directory / "store") as store:
        store.backup(directory / "backup")
    return older, change(directory / "store")


def live_rows(database: Path) -> list[Row]:
    with ns.LogStore(database, read_only=True) as logs:
        return as_rows(logs.iter())


def check_copy(directory: Path, prepared: tuple[list[Row], list[Row]], run: Run) -> None:
    """The older copy of the database or the newer one, whole, or none; and another call completes it."""
    older, newer = prepared
    copy = directory / "copy.db"
    found = live_rows(copy) if copy.exists() else []
    assert found == newer or (found == older and not run.acknowledged)
    left = set(directory.iterdir()) - {copy, directory / "store"}
    assert not left or run.killed or run.call == "unlink", left
    let_grow_old(left)
    with ns.LogStore(directory / "store/logs.db") as logs:
        logs.backup(copy)
    assert live_rows(copy) == newer
    assert {path.name for path in directory.iterdir()} == {"store", "copy.db"}
    assert foreign_sql(copy, "PRAGMA integrity_check") == [("ok",)]


def prepare_first_copy(directory: Path) -> tuple[list[Row], list[Row]]:
    stored(directory / "store")
    return [], live_rows(directory / "store/logs.db")


def prepare_next_copy(directory: Path) -> tuple[list[Row], list[Row]]:
    stored(directory / "store")
    with ns.LogStore(directory / "store/logs.db") as logs:
        logs.backup(directory / "copy.db")
        older = as_rows(logs.iter())
        logs.append_many(("system", "tick", None, "x" * 500, number) for number in range(50))
        return older, as_rows(logs.iter())


SCENARIOS: dict[str, Scenario[Any]] = {
    "first": Scenario(back_up, check_backup, prepare=prepare_first, name="store"),
    "next": Scenario(back_up, check_backup, prepare=prepare_next, name="store"),
    "asynchronous": Scenario(back_up_async, check_backup, prepare=prepare_next, name="store"),
    "first of the database": Scenario(copy_database, check_copy, prepare=prepare_first_copy, name="store"),
    "next of the database": Scenario(copy_database, check_copy, prepare=prepare_next_copy, name="store"),
    "asynchronous of the database": Scenario(copy_database_async, check_copy, prepare=prepare_next_copy, name="store"),
}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_cut_short(tmp_path: Path, name: str, fault: int) -> None:
    assert len(sweep(SCENARIOS[name], tmp_path, fault, per_call=2)) >= 10


@pytest.mark.torture
@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_cut_short_anywhere(tmp_path: Path, name: str, fault: int) -> None:
    points = len(sweep(SCENARIOS[name], tmp_path, fault))
    note("faults of backups", name, points=points, **{kind_of(fault): points})
