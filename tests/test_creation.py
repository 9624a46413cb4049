"""A kill or an error while a store is being created: nothing staged is left for good, and the next one opens."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import nerve_store as ns
from programs import say
from reference import DAY_MS
from support.backups import let_grow_old
from support.counts import note
from support.faults import FAULTS, Run, Scenario, kind_of, sweep

NOW = 1_800_000_000_000


def create(*, path: str) -> None:
    """Everything that creates a file or directory of a store for the first time."""
    with ns.Store(path) as store:
        store.logs.append("system", "tick", None, None, NOW - 100 * DAY_MS)
        say("log")
        store.blobs.write("x")
        store.blobs.write_many(["y", "z" * 100_000])
        say("blobs")
        store.logs.archive_logs(now=NOW, compression="zstd")
        say("archive")


def staged(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.name.startswith(".stage-")]


def check(directory: Path, _prepared: None, run: Run) -> None:
    data = directory / "data"
    # The files that a kill leaves under a name are in the directories where files are staged for long.
    for path in staged(directory):
        assert path.parent in (data / "archive" / "logs", data / "blobs" / ".staging"), path
    let_grow_old(staged(directory))
    with ns.Store(data) as store:
        assert store.logs.count(archived=True) == 1 or "log" not in run.said
        store.logs.archive_logs(now=NOW)
        assert staged(directory) == []
        assert store.logs.verify().ok
        assert store.blobs.verify().ok
        assert store.blobs.read(ns.blob_hash("x")) == b"x" or "blobs" not in run.said


SCENARIO = Scenario(create, check, name="data")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_creation_that_is_cut_short_leaves_nothing_for_good(tmp_path: Path, fault: int) -> None:
    assert len(sweep(SCENARIO, tmp_path, fault, per_call=3)) >= 15


@pytest.mark.torture
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_creation_that_is_cut_short_at_any_call_leaves_nothing_for_good(tmp_path: Path, fault: int) -> None:
    points = len(sweep(SCENARIO, tmp_path, fault))
    assert points >= 40
    note("faults of creating", "store", points=points, **{kind_of(fault): points})


def test_orphan_of_a_dead_process_beside_the_database_is_swept_and_a_young_one_is_not(tmp_path: Path) -> None:
    for name, days in ((".stage-dead", 1.1), (".stage-alive", 0.9), ("foreign", 9.0)):
        path = tmp_path / name
        path.write_bytes(b"")
        at = time.time() - days * 24 * 60 * 60
        os.utime(path, (at, at))
    with ns.LogStore(tmp_path / "logs.db", read_only=False) as store:
        store.append("system", "tick")
    left = {path.name for path in tmp_path.iterdir()} - {"logs.db"}
    assert {".stage-alive", "foreign"} <= left
    assert ".stage-dead" not in left
