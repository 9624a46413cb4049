"""A read whose system calls fail gives a right answer or an error of ours, and the next read is right."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs.faulted import BLOB_READS, DAY, LOG_READS, NEW, read_carelessly, read_twice
from support.archive import NOW, at, fill, message
from support.counts import note
from support.faults import NONE, Run, Scenario, SweepError, sweep


@dataclass
class Expected:
    """What the undisturbed run said."""

    result: Any = field(default=None)


def prepare_logs(directory: Path) -> Expected:
    """Days in both formats, days in the database, sealed segments, a run with rounds."""
    with ns.LogStore(directory / "logs.db", segment_rows=8) as logs:
        fill(logs, days=5, per_day=6)
        started = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, NOW)
        logs.upsert_workflow_run(("workflow", "started", "run-1", '{"prompt":"go"}', NOW), started)
        logs.append_many(("workflow", "thread_workflow_message", "run-1", message(n), at(0)) for n in range(4))
        logs.transition("run-1", "completed", timestamp=at(1))
        logs.set_meta("key", "value")
        logs.archive_logs(now=NOW, max_days=1)
        assert logs.archived_days()[0].day == DAY
        logs.archive_logs(now=NOW, max_days=2, compression="zstd")
        fill(logs, days=5, per_day=2)
    return Expected()


def prepare_long(directory: Path) -> Expected:
    """So many rows that they are taken from pages, the newest of which are in the write-ahead log alone."""
    rows = [("system", "tick", None, message(n), at(n // 2_000)) for n in range(5_000)]
    with ns.LogStore(directory / "open" / "logs.db", durability="normal") as logs:
        logs.append_many(rows)
    with ns.LogStore(directory / "open" / "logs.db", durability="normal") as logs:
        for n in range(60):
            logs.append_many(rows[n * 20 : n * 20 + 20])
        for name in ("logs.db", "logs.db-wal"):
            shutil.copy(directory / "open" / name, directory / name)
    shutil.rmtree(directory / "open")
    return Expected()


def prepare_blobs(directory: Path) -> Expected:
    blobs = ns.BlobStore(directory / "blobs")
    for blob_hash in blobs.write_many(NEW):
        os.utime(directory / "blobs" / blob_hash[:2] / blob_hash[2:], (0, 0))
    return Expected()


def prepare_files(directory: Path) -> Expected:
    for name in ("a", "b"):
        (directory / "files").mkdir(exist_ok=True)
        (directory / "files" / name).write_text(name)
    return Expected()


def check(_directory: Path, expected: Expected, run: Run) -> None:
    results = [said["result"] for said in run.acknowledged]
    if run.fault == NONE:
        assert len(results) == 2
        expected.result = results[0]
    assert all(failure["is_ours"] for failure in run.failures), run.failures
    # A device that fails is no damage, for which a backup would be put back.
    assert not any("Corrupt" in failure["error"] for failure in run.failures), run.failures
    assert all(result == expected.result for result in results), "a wrong answer"
    assert len(run.failures) <= 1, "one failing call, and two reads failed"
    assert len(results) + len(run.failures) == 2


SWEEPS = [*(("logs", name) for name in LOG_READS), *(("blobs", name) for name in BLOB_READS)]


def swept(tmp_path: Path, of: str, name: str, fault: int, per_call: int | None) -> Counter[str]:
    prepare, store = (prepare_logs, "logs.db") if of == "logs" else (prepare_blobs, "blobs")
    arguments = {"name": name, "of": of}
    scenario = Scenario(read_twice, check, prepare=prepare, arguments=arguments, name=store, reads=True)
    runs = sweep(scenario, tmp_path, fault, per_call=per_call)
    calls = Counter(run.call for run in runs)
    refused = sum(bool(run.failures) for run in runs)
    note("faults of reads", f"{of} {name}", points=calls.total(), refused=refused, **calls)
    return calls


@pytest.mark.parametrize(("of", "name"), SWEEPS)
def test_read_that_fails_is_right_or_refused(tmp_path: Path, of: str, name: str) -> None:
    assert swept(tmp_path, of, name, errno.EIO, 2).total() >= 5


@pytest.mark.parametrize("size", [60, pytest.param(1_500, marks=pytest.mark.torture)])
@pytest.mark.parametrize("name", ["query", "iter", "count"])
def test_long_read_that_fails_is_right_or_refused(tmp_path: Path, name: str, size: int) -> None:
    arguments = {"name": name, "of": "logs"}
    scenario = Scenario(read_twice, check, prepare=prepare_long, arguments=arguments, reads=True)
    runs = sweep(scenario, tmp_path, errno.EIO, size=size)
    note("faults of long reads", name, points=len(runs), refused=sum(bool(run.failures) for run in runs))


@pytest.mark.torture
@pytest.mark.parametrize("fault", [errno.EIO, errno.EMFILE, errno.ENOMEM], ids=["EIO", "EMFILE", "ENOMEM"])
@pytest.mark.parametrize(("of", "name"), SWEEPS)
def test_read_that_fails_at_any_call_is_right_or_refused(tmp_path: Path, of: str, name: str, fault: int) -> None:
    # Capped by name: listing blobs opens 256 directories.
    assert swept(tmp_path, of, name, fault, 60 if fault == errno.EIO else 15).total() >= 10


def test_sweep_catches_a_reader_that_takes_an_error_for_an_absent_file(tmp_path: Path) -> None:
    careless = Scenario(read_carelessly, check, prepare=prepare_files, name="files", reads=True)
    with pytest.raises(SweepError, match="a wrong answer"):
        sweep(careless, tmp_path, errno.EIO)
