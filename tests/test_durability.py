"""What was acknowledged survives: kills at any system call, failing flushes, power cuts, and the order of the calls."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

import nerve_store as ns
from programs.logs import append
from programs.logs import outcomes as outcomes_of_appends
from programs.logs import runs as take_runs
from reference import DAY_MS
from support import acknowledged_ids, assert_union, child_command, database_rows, foreign_sql, start_child
from support.disks import power_cut_disk
from support.faults import ACKNOWLEDGE, KILL, Run, Scenario, run_faulted, sweep
from support.strace import run_straced

NOW = 1_800_000_000_000
OLD = NOW - 100 * DAY_MS


# --- the order of the calls --------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A system call, with the paths that it names or whose descriptor it is given."""

    name: str
    arguments: str
    paths: list[str]

    @property
    def acknowledges(self) -> bool:
        """Whether the program says a line on its standard output."""
        return self.name == "write" and self.arguments.startswith("1<")

    def is_on(self, name: str, path: Path | str) -> bool:
        return self.name == name and str(path) in self.paths


def traced(tmp_path: Path, program: str, **arguments: Any) -> list[Call]:
    done, lines = run_straced(child_command(program, **arguments), tmp_path / "trace")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^\d+ +(\w+)\((.*)\) += \d", "\n".join(lines), re.MULTILINE)
    return [Call(name, rest, paths_in(rest)) for name, rest in found]


def paths_in(arguments: str) -> list[str]:
    """Absolute paths, those of descriptors, and names beside the descriptor of their directory."""
    beside = [f"{directory}/{name}" for directory, name in re.findall(r'<(/[^>]*)>, "([^"/][^"]*)"', arguments)]
    return re.findall(r'(?<=")/[^"]*(?=")|(?<=<)/[^>]*(?=>)', arguments) + beside


def is_flush(call: Call, path: Path | str) -> bool:
    return call.is_on("fsync", path) or call.is_on("fdatasync", path)


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_append_is_flushed_before_it_is_acknowledged(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "data" / "logs.db"
    calls = traced(tmp_path, "append", path=str(path), caller="a", count=20, durability=durability)
    wal = f"{path}-wal"
    acknowledged = 0
    dirty = False
    for call in calls:
        if call.is_on("pwrite64", wal):
            dirty = True
        elif is_flush(call, wal):
            dirty = False
        elif call.acknowledges:
            acknowledged += 1
            assert not dirty or durability == "normal", "acknowledged before the flush"
    assert acknowledged == 20
    flushes = sum(is_flush(call, wal) for call in calls)
    assert flushes >= 20 if durability == "full" else flushes < 10


def test_new_store_is_in_its_directory_before_anything_is_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "a" / "data" / "logs.db"
    calls = traced(tmp_path, "append", path=str(path), caller="a", count=1)
    (acknowledged,) = [n for n, call in enumerate(calls) if call.acknowledges]
    for created, parent in ((tmp_path / "a", tmp_path), (path.parent, tmp_path / "a")):
        made = next(n for n, call in enumerate(calls) if call.is_on("mkdir", created))
        assert any(is_flush(call, parent) for call in calls[made:acknowledged])
    for name in (path, f"{path}-wal"):
        first_write = next(n for n, call in enumerate(calls) if call.is_on("pwrite64", name))
        assert any(is_flush(call, path.parent) for call in calls[:acknowledged]), name
        assert any(is_flush(call, name) for call in calls[first_write:acknowledged]), name


def test_archive_run_flushes_and_publishes_before_it_deletes(tmp_path: Path) -> None:
    """Commit what will be, flush and rename the file, flush the directory, and only then touch the database.

    Of one day, because the next one is written while a day is published.
    """
    path = tmp_path / "data" / "logs.db"
    with ns.LogStore(path) as store:
        store.append_many([("system", "tick", None, str(n), OLD + n) for n in range(30)])
        directory = Path(store.archive_dir)
    calls = traced(tmp_path, "archive", path=str(path), now=NOW)
    renames = [n for n, call in enumerate(calls) if call.name in ("rename", "renameat", "renameat2")]
    # Another one is of the mark that says whose archive it is.
    (rename,) = [n for n in renames if any(name.endswith(".jsonl") for name in calls[n].paths)]
    staged, published = (name for name in calls[rename].paths if name.startswith(f"{directory}/"))
    assert published.endswith(".jsonl")
    assert ".jsonl" not in staged
    last_write = max(n for n, call in enumerate(calls) if call.is_on("write", staged))
    flush = next(n for n, call in enumerate(calls) if is_flush(call, staged))
    directory_flush = next(n for n, call in enumerate(calls) if n > rename and is_flush(call, directory))
    assert last_write < flush < rename < directory_flush
    wal = f"{path}-wal"
    commits = [n for n, call in enumerate(calls) if call.is_on("pwrite64", wal)]
    manifest = max(n for n in commits if n < rename)
    assert any(is_flush(call, wal) for call in calls[manifest:rename]), "published before the manifest was durable"
    assert not [n for n in commits if rename < n < directory_flush]
    assert [n for n in commits if n > directory_flush], "the rows are still to be deleted"


# --- kills and failing flushes -------------------------------------------------------------------------------------


def kill_appender(tmp_path: Path, kills_per_call: int | None, **options: Any) -> int:
    """Kill an appending process at its system calls; every acknowledged row must be there, and no torn one."""

    def check(directory: Path, _: None, run: Run) -> None:
        acknowledged = [row_id for ids in run.said for row_id in ids]
        with ns.LogStore(directory / "data" / "logs.db") as store:
            rows = database_rows(store)
            ids = [row.id for row in rows]
            per_call = options.get("rows_per_call", 1)
            assert ids[: len(acknowledged)] == acknowledged
            assert len(ids) - len(acknowledged) in (0, per_call), "half a call, or more than one, was kept"
            assert [row.payload for row in rows] == [str(n) for n in range(len(rows))]
            assert store.append("system", "after", timestamp=0).id == len(rows) + 1

    scenario = Scenario(append, check, arguments={"caller": "a", **options}, name="data/logs.db")
    runs = sweep(scenario, tmp_path, KILL, per_call=kills_per_call)
    assert sum(run.call == ACKNOWLEDGE for run in runs) > 1
    assert all(run.killed for run in runs)
    return len(runs)


@pytest.mark.parametrize("rows_per_call", [1, 7])
def test_killed_appender_loses_no_acknowledged_row(tmp_path: Path, rows_per_call: int) -> None:
    assert kill_appender(tmp_path, 2, count=21, rows_per_call=rows_per_call) >= 6


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("rows_per_call", [1, 7])
def test_appender_killed_at_any_call_loses_no_acknowledged_row(
    tmp_path: Path, rows_per_call: int, durability: str
) -> None:
    assert kill_appender(tmp_path, None, count=28, rows_per_call=rows_per_call, durability=durability) >= 30


def kill_runs(tmp_path: Path, kills_per_call: int | None) -> int:
    """Kill a process that takes runs through their life: a run's state and its last log row always agree."""

    def check(directory: Path, _: None, run: Run) -> None:
        said = dict(run.said)
        with ns.LogStore(directory / "logs.db") as store:
            runs = {run.run_id: run.status.value for run in store.get_all_workflow_runs()}
            logged = {row.ref_id: row.type for row in database_rows(store)}
            assert runs == logged
            order = ["queued", "started", "completed"]
            for run_id, status in said.items():
                assert order.index(runs[run_id]) >= order.index(status)

    runs = sweep(Scenario(take_runs, check, arguments={"count": 4}), tmp_path, KILL, per_call=kills_per_call)
    assert all(run.killed for run in runs)
    return len(runs)


def test_killed_transition_leaves_run_and_log_in_agreement(tmp_path: Path) -> None:
    assert kill_runs(tmp_path, 2) >= 4


@pytest.mark.torture
def test_transition_killed_at_any_call_leaves_run_and_log_in_agreement(tmp_path: Path) -> None:
    assert kill_runs(tmp_path, None) >= 20


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_failed_flush_is_reported_and_the_handle_refuses_further_writes(tmp_path: Path, extra: int) -> None:
    """Once a flush failed nobody knows what is on the disk: nothing is acknowledged until the store is reopened."""
    opening = run_faulted(outcomes_of_appends, path=str(tmp_path / "opened" / "logs.db"), count=0).calls
    calls = run_faulted(outcomes_of_appends, path=str(tmp_path / "counted" / "logs.db"), count=10).calls
    call = max(("fsync", "fdatasync"), key=calls.count)
    assert calls.count(call) >= 10
    # One flush an append, after those of the opening; some of what was counted belongs to the closing.
    flushes = [number for number, name in enumerate(calls, 1) if name == call]
    when = flushes[opening.count(call) + extra]
    path = tmp_path / "failing" / "logs.db"
    done = run_faulted(outcomes_of_appends, errno.EIO, when, path=str(path), count=10)
    assert done.returncode == 0, done.stderr
    said = done.said
    outcomes, read = said[:-1], said[-1]["read"]
    acknowledged = [outcome["id"] for outcome in outcomes if "id" in outcome]
    failures = [outcome for outcome in outcomes if "error" in outcome]
    assert 1 <= len(failures) < 10
    assert outcomes[-len(failures) :] == failures, "a write was acknowledged after the failure"
    assert {failure["error"] for failure in failures} == {"StoreIOError"}
    assert failures[0]["errno"] == 5
    assert all(failure["is_ours"] for failure in failures)
    assert set(acknowledged) <= set(read), "reads go on"
    with ns.LogStore(path) as store:
        ids = [entry.id for entry in store.query()]
        assert ids[: len(acknowledged)] == acknowledged
        # What the failed call wrote may be there; what was refused afterwards may not.
        assert len(ids) - len(acknowledged) <= 1
        assert database_rows(store)[0].payload == "0"
        assert store.append("system", "after", timestamp=0).id > len(acknowledged)


def first_flush_failed(file: Path, log: Path, **arguments: Any) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A run of appends whose first flush of `file` fails; also what it wrote to the file, and flushed."""
    fault = "fsync,fdatasync:error=EIO:when=1"
    return run_straced(child_command("outcomes", **arguments), log, "pwrite64,fsync,fdatasync", [fault], file=file)


def test_failed_flush_in_the_middle_of_a_transaction_ends_the_writing(tmp_path: Path) -> None:
    """A transaction that begins the write-ahead log, and is larger than the cache, flushes before its commit."""
    path = tmp_path / "data" / "logs.db"
    ns.LogStore(path).close()
    wal = path.with_name("logs.db-wal")
    done, calls = first_flush_failed(wal, tmp_path / "calls", path=str(path), count=3, payload_length=12_000_000)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(outcome["error"], outcome["errno"]) for outcome in said[:-1]] == [("StoreIOError", 5)] * 3
    assert said[-1] == {"read": []}
    assert sum("sync(" in call for call in calls) == 1, "flushed again"
    with ns.LogStore(path) as store:
        assert store.append("system", "after", timestamp=0).id == 1


def test_failed_flush_of_a_checkpoint_ends_the_writing(tmp_path: Path) -> None:
    """What was acknowledged lies in the write-ahead log; the database file is not touched again, nor by the closing."""
    path = tmp_path / "data" / "logs.db"
    ns.LogStore(path).close()
    done, calls = first_flush_failed(path, tmp_path / "calls", path=str(path), count=1_500)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes, read = said[:-1], said[-1]["read"]
    acknowledged = [outcome["id"] for outcome in outcomes if "id" in outcome]
    failures = [outcome for outcome in outcomes if "error" in outcome]
    assert len(acknowledged) > 100
    assert failures
    assert outcomes[-len(failures) :] == failures, "a write was acknowledged after the failure"
    assert {(failure["error"], failure["errno"]) for failure in failures} == {("StoreIOError", 5)}
    assert read == acknowledged
    failed = next(n for n, call in enumerate(calls) if "EIO" in call)
    assert any("pwrite64" in call for call in calls[:failed])
    assert calls[failed + 1 :] == []
    with ns.LogStore(path) as store:
        assert [entry.id for entry in store.query()] == acknowledged
    assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]


# --- power cuts --------------------------------------------------------------------------------------------------


def cut_power_while_appending(tmp_path: Path, rows: int, durability: Literal["full", "normal"]) -> tuple[int, int]:
    """How many rows were acknowledged when the power went, and how many of them were there afterwards."""
    with power_cut_disk(tmp_path) as disk:
        path = disk.directory / "data" / "logs.db"
        with start_child("append", path=str(path), caller="a", count=1_000_000, durability=durability) as child:
            assert child.stdout is not None
            said = "".join(child.stdout.readline() for _ in range(rows))
            disk.cut_power()
            child.kill()
            child.wait(timeout=30)
        acknowledged = acknowledged_ids(said)
        assert acknowledged == list(range(1, rows + 1))
        disk.power_up()
        if not path.exists():
            return rows, 0
        with ns.LogStore(path) as store:
            kept = database_rows(store)
            assert [row.id for row in kept] == list(range(1, len(kept) + 1))
            assert [row.payload for row in kept] == [str(n) for n in range(len(kept))]
            assert store.append("system", "after", timestamp=0).id > len(kept)
        assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]
        return rows, len(kept)


@pytest.mark.parametrize("rows", [1, 50])
def test_acknowledged_rows_survive_a_power_cut(tmp_path: Path, rows: int) -> None:
    acknowledged, kept = cut_power_while_appending(tmp_path, rows, "full")
    assert kept >= acknowledged


def test_power_cut_drops_only_the_newest_rows_of_normal_durability(tmp_path: Path) -> None:
    """Also the control of the test above: what was not flushed is really gone."""
    acknowledged, kept = cut_power_while_appending(tmp_path, 50, "normal")
    assert kept < acknowledged


def cut_power_while_archiving(tmp_path: Path, delay: float) -> bool:
    """Whether the cut came while the archive job was under way; nothing may be lost in either case."""
    with power_cut_disk(tmp_path) as disk:
        path = disk.directory / "data" / "logs.db"
        with ns.LogStore(path) as store:
            store.append_many(("system", "tick", None, f"{n} {'x' * 100}", OLD + n % 20 * DAY_MS) for n in range(4_000))
            rows = database_rows(store)
        with start_child("archive", path=str(path), now=NOW) as child:
            time.sleep(delay)
            disk.cut_power()
            child.kill()
            out, _ = child.communicate(timeout=30)
        disk.power_up()
        with ns.LogStore(path) as store:
            union = assert_union(store, rows, may_repeat={row.id for row in rows})
            under_way = bool(union.database and union.archived)
            store.archive_logs(now=NOW)
            assert assert_union(store, rows).database == {}
        assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]
        return under_way or "days" not in out


@pytest.mark.torture
def test_archive_run_survives_a_power_cut_at_any_moment(tmp_path: Path) -> None:
    under_way = [cut_power_while_archiving(tmp_path, 0.05 + 0.01 * step) for step in range(40)]
    assert sum(under_way) >= 5


def test_archive_run_survives_a_power_cut_at_its_end(tmp_path: Path) -> None:
    """The run has returned: what it moved is in the files, and stays there."""
    with power_cut_disk(tmp_path) as disk:
        path = disk.directory / "data" / "logs.db"
        with ns.LogStore(path) as store:
            store.append_many(("system", "tick", None, str(n), OLD + n % 5 * DAY_MS) for n in range(500))
            rows = database_rows(store)
        with start_child("hold_archived", path=str(path), now=NOW) as child:
            assert child.stdout is not None
            assert len(json.loads(child.stdout.readline())["days"]) == 5
            disk.cut_power()
            child.kill()
            child.wait(timeout=30)
        disk.power_up()
        with ns.LogStore(path) as store:
            assert assert_union(store, rows, may_repeat={row.id for row in rows}).archived.keys() == {
                row.id for row in rows
            }
            store.archive_logs(now=NOW)
            assert assert_union(store, rows).database == {}
