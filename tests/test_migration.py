"""From upstream's schema to the segment index: in place, with progress, killed at any point, and back again."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs.logs import append
from support import (
    INSERT_ROW,
    UPSTREAM,
    UPSTREAM_SCHEMA,
    Stop,
    StopAfter,
    as_rows,
    child_environment,
    foreign_many,
    foreign_script,
    foreign_sql,
    tree,
    without_sidecars,
)
from support.counts import note
from support.faults import FAULTS, KILL, Run, Scenario, kind_of, sweep

UPSTREAM_INDEXES = ("idx_logs_source_type", "idx_logs_timestamp", "idx_logs_ref_id")
ROWS = 50_000
RUNS = 50
COLUMNS = "id, source, type, ref_id, payload, timestamp"
MESSAGE = "thread_workflow_message"


def generate(path: Path, rows: int) -> None:
    """An upstream database, as upstream's own statements make it; for a process of its own."""
    dice = random.Random(rows)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(UPSTREAM_SCHEMA)
    connection.execute("BEGIN")
    for number in range(rows):
        source, kind = dice.choice(
            [("workflow", MESSAGE), ("workflow", "thread_command_event"), ("system", "tick"), ("sense", "reading")]
        )
        payload = json.dumps({"role": "coder", "content": f"message {number}", "type": "tool_call"})
        run_id = f"run-{dice.randrange(RUNS)}" if source == "workflow" else None
        timestamp = 1_700_000_000_000 + number + dice.randrange(-50, 50)
        connection.execute(INSERT_ROW, (source, kind, run_id, payload, timestamp))
    connection.execute("COMMIT")
    connection.close()


def migrate_dying(path: Path, at: int) -> None:
    """Open the database and die in the `at`th call of the progress callback; for a process of its own."""
    calls: list[int] = []

    def progress(_done: int, _total: int) -> None:
        calls.append(1)
        if len(calls) == at:
            os._exit(9)

    ns.LogStore(path, progress=progress, segment_rows=256).close()


def in_a_process(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, __file__, program, *arguments],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "logs.db"
    done = in_a_process("generate", str(path), str(ROWS))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def big(generated: Path, data_dir: Path) -> Path:
    """A writable copy of the generated database."""
    data_dir.mkdir()
    return Path(shutil.copy(generated, data_dir / "logs.db"))


def plain(path: Path, where: str = "true", *params: Any) -> list[tuple[Any, ...]]:
    return foreign_sql(path, f"SELECT {COLUMNS} FROM logs WHERE {where} ORDER BY id", params)


READS: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "true"),
    ({"ref_id": "run-7"}, "ref_id = 'run-7'"),
    ({"source": "system", "type": "tick"}, "source = 'system' AND type = 'tick'"),
    ({"source": "workflow", "since": 1_700_000_030_000}, "source = 'workflow' AND timestamp >= 1700000030000"),
    (
        {"since": 1_700_000_010_000, "until": 1_700_000_010_400},
        "timestamp BETWEEN 1700000010000 AND 1700000010400",
    ),
)


def all_reads(path: Path) -> list[list[tuple[Any, ...]]]:
    return [plain(path, where) for _, where in READS]


def assert_answers(store: ns.LogStore, expected: list[list[tuple[Any, ...]]]) -> None:
    for (options, _), rows in zip(READS, expected, strict=True):
        assert as_rows(store.query(**options)) == rows, options
        assert store.count(**options) == len(rows)


def indexes(path: Path) -> set[str]:
    return {name for (name,) in foreign_sql(path, "SELECT name FROM sqlite_schema WHERE type = 'index'")}


def fold(path: Path) -> None:
    """Fold the write-ahead log into the database, as a last close does."""
    foreign_sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")


# --- opening -----------------------------------------------------------------------------------------------------


def test_upstream_database_is_migrated_with_progress(big: Path) -> None:
    expected = all_reads(big)
    assert len(expected[0]) == ROWS
    assert set(UPSTREAM_INDEXES) <= indexes(big)
    calls: list[tuple[int, int]] = []
    with ns.LogStore(big, progress=lambda done, total: calls.append((done, total)), segment_rows=256) as store:
        assert_answers(store, expected)
        rounds = len(plain(big, "ref_id = 'run-7'"))
        assert store.get_thread_round_count("run-7") == rounds
        newest = [entry.id for entry in store.query(ref_id="run-7", descending=True, limit=20)]
        assert [item.log_id for item in store.get_thread_rounds("run-7", limit=20)] == newest
    assert calls[0] == (0, ROWS)
    assert calls[-1] == (ROWS, ROWS)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert {total for _, total in calls} == {ROWS}
    assert len(calls) >= 5
    assert not set(UPSTREAM_INDEXES) & indexes(big)
    assert {"idx_workflow_runs_active", "idx_workflow_runs_ended"} <= indexes(big)
    assert not {"idx_workflow_runs_status", "idx_workflow_runs_workflow"} & indexes(big)
    assert foreign_sql(big, "PRAGMA integrity_check") == [("ok",)]


def test_second_opening_has_nothing_to_do(big: Path) -> None:
    ns.LogStore(big).close()
    before = tree(big.parent)
    calls: list[tuple[int, int]] = []
    ns.LogStore(big, progress=lambda done, total: calls.append((done, total))).close()
    assert calls == []
    assert tree(big.parent) == before


def test_migration_is_quick(big: Path) -> None:
    """At most 5 s a million rows; here with a wide margin for a busy machine."""
    begun = time.perf_counter()
    ns.LogStore(big).close()
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("segment_rows", [2, 100, 4096])
def test_upstreams_own_database_answers_as_before(upstream_data: Path, segment_rows: int) -> None:
    path = upstream_data / "logs.db"
    expected = plain(path)
    runs = {ref for *_, ref, _, _ in expected if ref is not None}
    of_run = {run: plain(path, "ref_id = ?", run) for run in runs}
    with ns.LogStore(path, segment_rows=segment_rows) as store:
        assert as_rows(store.query()) == expected
        for run, rows in of_run.items():
            assert as_rows(store.query(ref_id=run)) == rows
    assert not set(UPSTREAM_INDEXES) & indexes(path)


def test_progress_may_stop_it_and_the_next_opening_goes_on(big: Path) -> None:
    expected = all_reads(big)
    progress = StopAfter(2)
    with pytest.raises(Stop):
        ns.LogStore(big, progress=progress, segment_rows=256)
    assert progress.calls == 3
    with ns.LogStore(big, segment_rows=256) as store:
        assert_answers(store, expected)


# --- upstream again, and ours after it ---------------------------------------------------------------------------


def test_upstream_opens_reads_and_appends_and_we_open_it_again(big: Path) -> None:
    expected = all_reads(big)
    last = ROWS
    for _ in range(3):
        with ns.LogStore(big, segment_rows=256) as store:
            assert_answers(store, expected)
            assert store.append("system", "ours", "run-7", None, 1_700_000_010_000).id == last + 1
        foreign_script(big, UPSTREAM_SCHEMA)
        assert set(UPSTREAM_INDEXES) <= indexes(big)
        rows = [("workflow", MESSAGE, "run-7", '{"role":"a","content":"b"}', 1_700_000_010_001)] * 700
        foreign_many(big, INSERT_ROW, rows)
        last += 701
        expected = all_reads(big)
        assert len(expected[0]) == last
        assert foreign_sql(big, "SELECT count(*) FROM logs INDEXED BY idx_logs_ref_id WHERE ref_id = 'run-7'") == [
            (len(expected[1]),)
        ]
    with ns.LogStore(big, segment_rows=256) as store:
        assert_answers(store, expected)
        assert store.get_thread_round_count("run-7") == len([row for row in expected[1] if row[1] == "workflow"])
    assert not set(UPSTREAM_INDEXES) & indexes(big)


def test_upstream_appends_while_ours_is_open(upstream_data: Path) -> None:
    path = upstream_data / "logs.db"
    with ns.LogStore(path, segment_rows=50) as store:
        foreign_script(path, UPSTREAM_SCHEMA)
        for number in range(5):
            rows = [("system", "tick", f"run-{number}", None, 5)] * 40
            foreign_many(path, INSERT_ROW, rows)
            store.append("system", "ours", f"run-{number}", None, 5)
            assert as_rows(store.query()) == plain(path)
            assert store.count(ref_id=f"run-{number}") == 41
    with ns.LogStore(path) as store:
        assert as_rows(store.query()) == plain(path)
    assert not set(UPSTREAM_INDEXES) & indexes(path)


# --- killed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 4])
def test_process_that_dies_between_two_steps(big: Path, at: int) -> None:
    expected = all_reads(big)
    assert in_a_process("migrate_dying", str(big), str(at)).returncode == 9
    assert all_reads(big) == expected
    with ns.LogStore(big, read_only=True) as store:
        assert_answers(store, expected)
    with ns.LogStore(big, segment_rows=256) as store:
        assert_answers(store, expected)
        assert store.sql("SELECT sum(row_count) FROM log_segments")[0][0] == ROWS - ROWS % 256
    assert not set(UPSTREAM_INDEXES) & indexes(big)


def cut_migration_short(tmp_path: Path, fault: int, size: int | None) -> int:
    """Cut an append short that has to migrate first; nothing is lost, and the next opening ends the migration.

    Returns at how many calls.
    """

    def prepare(directory: Path) -> list[tuple[Any, ...]]:
        shutil.copytree(UPSTREAM / "data", directory, dirs_exist_ok=True)
        return plain(directory / "logs.db")

    def check(directory: Path, expected: list[tuple[Any, ...]], _run: Run) -> None:
        path = directory / "logs.db"
        with ns.LogStore(path, segment_rows=50) as store:
            rows = as_rows(store.query(before_id=expected[-1][0] + 1))
            assert rows == expected
            for ref_id in sorted({row.ref_id for row in rows if row.ref_id is not None})[:5]:
                assert as_rows(store.query(ref_id=ref_id)) == [
                    row for row in as_rows(store.query()) if row.ref_id == ref_id
                ]
        assert not set(UPSTREAM_INDEXES) & indexes(path)
        assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]

    scenario = Scenario(append, check, prepare=prepare, arguments={"caller": "late", "count": 1})
    runs = sweep(scenario, tmp_path, fault, size=size)
    assert runs[0].undisturbed.count("pwrite64") > 10
    assert all(run.killed for run in runs) or fault != KILL
    return len(runs)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_cut_short_while_it_migrates(tmp_path: Path, fault: int) -> None:
    cut_migration_short(tmp_path, fault, 16)


@pytest.mark.torture
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_cut_short_at_every_call_of_a_migration(tmp_path: Path, fault: int) -> None:
    points = cut_migration_short(tmp_path, fault, None)
    note("faults of migration", "0.5.0", points=points, **{kind_of(fault): points})


# --- read-only ---------------------------------------------------------------------------------------------------


def test_read_only_opening_answers_without_changing_a_byte(big: Path) -> None:
    fold(big)
    expected = all_reads(big)
    before = tree(big.parent)
    with ns.LogStore(big, read_only=True) as store:
        assert_answers(store, expected)
        assert store.get_thread_round_count("run-7") == len(expected[1])
        assert store.get_thread_rounds("run-7", limit=3)[0].log_id == expected[1][-1][0]
        with pytest.raises((ns.NerveStoreError, OSError)):
            store.append("system", "refused")
    assert without_sidecars(tree(big.parent)) == without_sidecars(before)
    assert set(UPSTREAM_INDEXES) <= indexes(big)


if __name__ == "__main__":
    if sys.argv[1] == "generate":
        generate(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        migrate_dying(Path(sys.argv[2]), int(sys.argv[3]))
