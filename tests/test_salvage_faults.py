"""A salvage that is killed or failed at any call leaves a whole new database or none, and the damaged one as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs import say
from support import database_rows, foreign_sql, tree
from support.archive import NOW, append, at, fill, message, put_run
from support.backups import let_grow_old
from support.counts import note
from support.faults import FAULTS, NONE, Run, Scenario, kind_of, sweep

PAGE = 4096


def salvage(*, path: str) -> None:
    """Save a database to a directory beside its own."""
    say(ns.salvage(path, Path(path).parents[1] / "new/logs.db").row_count)


@dataclass
class Files:
    """The damaged store, and what can be saved of it."""

    damaged: Any
    saved: Any = field(default=None)


def prepare(directory: Path) -> Files:
    """Archived days, sealed rows, a run, and a page of zeros in the middle."""
    database = directory / "old/logs.db"
    with ns.LogStore(database, segment_rows=8) as store:
        fill(store, days=4, per_day=40)
        put_run(store, "started")
        append(store, at(0), "run-1", message(1))
        store.archive_logs(now=NOW, max_days=2)
        store.append_many(("system", "tick", None, "x" * 90, NOW + n) for n in range(100))
    content = bytearray(database.read_bytes())
    middle = len(content) // PAGE // 2 * PAGE
    content[middle : middle + PAGE] = bytes(PAGE)
    database.write_bytes(content)
    return Files(tree(directory / "old"))


def state(database: Path) -> Any:
    with ns.LogStore(database, read_only=True) as store:
        return database_rows(store), store.get_all_workflow_runs()


def check(directory: Path, files: Files, run: Run) -> None:
    new = directory / "new/logs.db"
    left = set(new.parent.iterdir()) - {new} if new.parent.exists() else set()
    assert all(failure["is_ours"] for failure in run.failures), run.failures
    assert not left or run.killed or run.call == "unlink", left
    let_grow_old(left)
    assert tree(directory / "old") == files.damaged
    assert not run.acknowledged or new.exists()
    if new.exists():
        found = state(new)
        if run.fault == NONE:
            files.saved = found
        assert found == files.saved
        for path in new.parent.glob("logs.db*"):
            path.unlink()
    ns.salvage(directory / "old/logs.db", new)
    assert foreign_sql(new, "PRAGMA integrity_check") == [("ok",)]
    with ns.LogStore(new) as store:
        store.append("system", "next")
    assert [path.name for path in new.parent.iterdir()] == ["logs.db"]


SCENARIO = Scenario(salvage, check, prepare=prepare, name="old/logs.db")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_salvage_that_is_cut_short_leaves_a_whole_database_or_none(tmp_path: Path, fault: int) -> None:
    assert len(sweep(SCENARIO, tmp_path, fault, per_call=3)) >= 15


@pytest.mark.torture
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_salvage_that_is_cut_short_anywhere_leaves_a_whole_database_or_none(tmp_path: Path, fault: int) -> None:
    points = len(sweep(SCENARIO, tmp_path, fault))
    note("faults of salvage", "database", points=points, **{kind_of(fault): points})
