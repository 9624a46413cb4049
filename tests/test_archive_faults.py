"""Archive jobs that are killed or failed at any system call: nothing is lost, nothing is doubled."""

from __future__ import annotations

import errno
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
import reference
from programs.careless import archive_badly
from programs.logs import append as append_rows
from programs.logs import archive, reindex, restore
from reference import Row
from support import as_message, as_rows, assert_union, database_rows, foreign_script, foreign_sql, is_one_line
from support.archive import (
    MANIFEST_TABLES,
    MARK,
    NOW,
    append,
    archived_elsewhere,
    at,
    content_of,
    day,
    file_rows,
    fill,
    message,
    put_run,
)
from support.disks import tiny_disk
from support.faults import KILL, Run, Scenario, SweepError, run_faulted, sweep
from support.processes import run_command

SWEPT_DAYS, SWEPT_ROWS, SEGMENT_ROWS = 4, 12, 8
RUN = "run-2"


def prepared(directory: Path, **options: Any) -> list[Row]:
    """A store to be archived: two days that have a file already, late rows for them, and a run that pins."""
    with ns.LogStore(directory / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        rows = fill(store, days=SWEPT_DAYS, per_day=SWEPT_ROWS)
        rows += [append(store, at(n), RUN, message(n)) for n in range(SWEPT_DAYS)]
        store.archive_logs(now=NOW, max_days=2, **options)
        rows += [append(store, at(n), RUN, message(10 + n)) for n in range(SWEPT_DAYS + 1)]
        rows += [put_run(store, "started"), append(store, at(0), "run-1")]
    return rows


def without_manifest(directory: Path) -> list[Row]:
    """The same, with files that the manifest does not know, as the predecessor leaves them."""
    rows = prepared(directory)
    foreign_script(directory / "logs.db", "".join(f"DELETE FROM {table};" for table in MANIFEST_TABLES))
    return rows


def with_two_files(directory: Path) -> list[Row]:
    """The same, and each archived day has a file of both formats."""
    rows = without_manifest(directory)
    files = directory / "archive" / "logs"
    scratch = directory.with_name("scratch")
    for path in archived_elsewhere(directory, scratch, compression="zstd").glob("*.zst"):
        if (files / path.stem).exists():
            shutil.copy(path, files)
    shutil.rmtree(scratch)
    return rows


@dataclass(frozen=True)
class Case:
    """What is interrupted, and how the next run goes on."""

    prepare: Callable[[Path], list[Row]]
    program: Callable[..., None] = archive
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Of the archive job, both of the interrupted one and of the next."""
    is_doubled: bool = False
    """Whether a day has two files until the next run, as verification says."""

    def scenario(self, scratch: Path) -> Scenario[Prepared]:
        arguments = {"now": NOW, **self.options} if self.program is archive else self.arguments
        return Scenario(
            self.program,
            self.check,
            prepare=lambda directory: prepared_with_files(self.prepare, directory, scratch, self.options),
            arguments={"segment_rows": SEGMENT_ROWS, **arguments},
        )

    def check(self, directory: Path, prepared: Prepared, _run: Run) -> None:
        check(directory, prepared.rows, prepared.finished, is_doubled=self.is_doubled, **self.options)


@dataclass(frozen=True)
class Prepared:
    rows: list[Row]
    finished: dict[str, bytes]
    """The files after an undisturbed run."""


def prepared_with_files(
    prepare: Callable[[Path], list[Row]], directory: Path, scratch: Path, options: dict[str, Any]
) -> Prepared:
    rows = prepare(directory)
    return Prepared(rows, finished_files(directory, scratch / "finished", options))


ZSTD = {"compression": "zstd"}
CASES = {
    "plain": Case(prepared),
    "plain with vacuum": Case(prepared, options={"vacuum": True}),
    "compressed": Case(lambda directory: prepared(directory, **ZSTD), options=ZSTD),
    "plain run over compressed days": Case(lambda directory: prepared(directory, **ZSTD)),
    "plain days become compressed": Case(prepared, options=ZSTD),
    "unknown files": Case(without_manifest),
    "unknown files become compressed": Case(without_manifest, options=ZSTD),
    "two files of a day": Case(with_two_files, is_doubled=True),
    "restore": Case(prepared, restore, {"day": str(day(1))}),
    "reindex": Case(without_manifest, reindex),
}


def check(
    directory: Path, rows: Iterable[Row], finished: dict[str, bytes], *, is_doubled: bool = False, **options: Any
) -> None:
    """Nothing is lost or doubled, whoever looks; and the next run ends where an undisturbed one ends."""
    rows = sorted(rows)
    archive_dir = directory / "archive" / "logs"
    with ns.LogStore(directory / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        assert_reads(store, rows, may_be_doubled=is_doubled)
        found = file_rows(archive_dir)
        found.update({row.id: row for row in database_rows(store)})
        assert sorted(found.values()) == rows
        store.archive_logs(now=NOW, **options)
        assert_union(store, rows)
        assert_reads(store, rows)
        assert content_of(archive_dir) == finished
    assert foreign_sql(directory / "logs.db", "PRAGMA integrity_check") == [("ok",)]


def assert_reads(store: ns.LogStore, rows: list[Row], *, may_be_doubled: bool = False) -> None:
    """Every read that sees the archive sees exactly `rows`, and verification finds nothing."""
    assert as_rows(store.query(archived=True)) == rows
    assert as_rows(store.iter(archived=True, descending=True)) == rows[::-1]
    assert store.count(archived=True) == len(rows)
    messages = [as_message(item) for item in store.get_thread_messages(RUN)]
    assert messages == reference.thread_messages(rows, RUN)
    assert store.get_thread_round_count(RUN) == reference.thread_round_count(rows, RUN)
    report = store.verify()
    assert report.ok or (may_be_doubled and all("merges the two" in item.reason for item in report.problems)), report


def finished_files(template: Path, scratch: Path, options: dict[str, Any]) -> dict[str, bytes]:
    """The files after an undisturbed run."""
    files = content_of(archived_elsewhere(template, scratch, **options))
    shutil.rmtree(scratch)
    return files


def sweep_kills(case: Case, tmp_path: Path, size: int | None) -> Counter[str]:
    """Kills the case's program at `size` of its calls (None: all); how many at each kind."""
    return Counter(run.call for run in sweep(case.scenario(tmp_path), tmp_path, KILL, size=size) if run.killed)


def sweep_errors(case: Case, tmp_path: Path, number: int, size: int | None) -> Counter[str]:
    """Fails the case's program at `size` of its calls (None: all); how many of each kind it reported."""
    runs = sweep(case.scenario(tmp_path), tmp_path, number, size=size)
    assert all(failure["is_ours"] for run in runs for failure in run.failures)
    return Counter(run.call for run in runs if run.failures)


@pytest.mark.parametrize("name", CASES)
def test_run_that_is_killed_loses_nothing(tmp_path: Path, name: str) -> None:
    # Which thread writes a page decides how many calls that takes, so that the last of them may not come.
    assert sweep_kills(CASES[name], tmp_path, 7).total() >= 5


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_run_that_the_system_fails_loses_nothing(tmp_path: Path, name: str, number: int) -> None:
    assert sweep_errors(CASES[name], tmp_path, number, 3).total() > 0


@pytest.mark.torture
@pytest.mark.parametrize("name", CASES)
def test_run_that_is_killed_at_any_call_loses_nothing(
    tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    kills = sweep_kills(CASES[name], tmp_path, None)
    record_property("kills", dict(kills))
    print(name, "killed", kills.total(), dict(kills))
    assert kills.total() >= 15


@pytest.mark.torture
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_run_that_the_system_fails_at_any_call_loses_nothing(
    tmp_path: Path, name: str, number: int, record_property: Callable[[str, object], None]
) -> None:
    failures = sweep_errors(CASES[name], tmp_path, number, None)
    record_property("failures", dict(failures))
    print(name, errno.errorcode[number], failures.total(), dict(failures))
    assert failures.total() >= 10


# --- the controls: a sweep that cannot fail proves nothing -------------------------------------------------------


def test_sweep_catches_an_archiver_that_deletes_first(tmp_path: Path) -> None:
    def prepare(directory: Path) -> Prepared:
        def fill_days(directory: Path) -> list[Row]:
            with ns.LogStore(directory / "logs.db") as store:
                return fill(store, days=SWEPT_DAYS)

        return prepared_with_files(fill_days, directory, tmp_path, {})

    def check_plainly(directory: Path, prepared: Prepared, _run: Run) -> None:
        check(directory, prepared.rows, prepared.finished)

    with pytest.raises(SweepError):
        sweep(Scenario(archive_badly, check_plainly, prepare=prepare, arguments={"now": NOW}), tmp_path, KILL)


def published_first(directory: Path, scratch: Path) -> tuple[list[Row], dict[str, bytes]]:
    """The steps in the wrong order: the file is published and its rows are deleted, the manifest is behind."""
    rows = prepared(directory)
    finished = archived_elsewhere(directory, scratch)
    shutil.copy(finished / f"{day(0)}.jsonl", directory / "archive" / "logs")
    exported = {row.id for row in rows if at(0) <= row.timestamp < at(1) and row.ref_id != "run-1"}
    gone = ",".join(map(str, sorted(exported)))
    foreign_sql(directory / "logs.db", f"DELETE FROM logs WHERE id IN ({gone})")
    return rows, content_of(finished)


def test_a_manifest_that_is_behind_hides_nothing(tmp_path: Path) -> None:
    """As where the database is older than its archive: what the files hold counts, not the order of the steps."""
    rows, finished = published_first(tmp_path / "data", tmp_path / "finished")
    check(tmp_path / "data", rows, finished)


def test_check_catches_a_file_without_a_row_that_it_had(tmp_path: Path) -> None:
    rows, finished = published_first(tmp_path / "data", tmp_path / "finished")
    path = tmp_path / "data" / "archive" / "logs" / f"{day(0)}.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises((AssertionError, ns.ArchiveCorruptError)):
        check(tmp_path / "data", rows, finished)


def test_check_catches_rows_that_were_deleted_before_their_file_was_published(tmp_path: Path) -> None:
    rows = prepared(tmp_path / "data")
    finished = archived_elsewhere(tmp_path / "data", tmp_path / "finished")
    foreign_sql(tmp_path / "data" / "logs.db", "DELETE FROM logs WHERE timestamp < ? AND ref_id = ?", (at(1), RUN))
    with pytest.raises(AssertionError):
        check(tmp_path / "data", rows, content_of(finished))


def test_tracer_kills_at_the_call_and_before_it_happens(tmp_path: Path) -> None:
    path = tmp_path / "data" / "logs.db"
    calls = run_faulted(append_rows, path=str(path), caller="a", count=1).calls
    assert {"pwrite64", "fdatasync"} <= set(calls)
    shutil.rmtree(tmp_path / "data")
    done = run_faulted(append_rows, KILL, 1, path=str(path), caller="a", count=1)
    assert done.killed
    assert done.calls == calls[:1]
    assert not path.parent.exists()


# --- full disks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_full_disk_stops_the_run_and_nothing_is_lost(tmp_path: Path, compression: Any) -> None:
    noise = random.Random(1)
    payloads = [noise.randbytes(700).hex() for _ in range(2000)]
    with ns.LogStore(tmp_path / "data" / "logs.db") as store:
        store.append_many([("system", "tick", None, payload, at(n % 4, n)) for n, payload in enumerate(payloads)])
        rows = database_rows(store)
    archive_dir = tmp_path / "disk" / "logs"
    with (
        tiny_disk(tmp_path / "disk", "1200k" if compression is None else "600k") as resize,
        ns.LogStore(tmp_path / "data" / "logs.db", archive_dir=archive_dir) as store,
    ):
        with pytest.raises(ns.StoreFullError) as refused:
            store.archive_logs(now=NOW, compression=compression)
        assert is_one_line(refused.value)
        union = assert_union(store, rows)
        assert len(union.database) > 0
        assert as_rows(store.query(archived=True)) == rows
        assert not [path.name for path in archive_dir.iterdir() if path.name.startswith(".") and path.name != MARK]
        assert store.append("system", "tick", timestamp=NOW).id == len(rows) + 1
        resize("16m")
        store.archive_logs(now=NOW, compression=compression)
        assert len(assert_union(store, [*rows, *database_rows(store)]).database) == 1


def test_without_free_descriptors_a_job_says_so_and_loses_nothing(data_dir: Path) -> None:
    script = """
import os, resource, sys
from datetime import timedelta
import nerve_store as ns
DAY = 86_400_000
with ns.LogStore(sys.argv[1]) as store:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    for free in range(12):
        store.append_many([("source", "tick", None, None, free * DAY + n) for n in range(10)])
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + free, hard))
        try:
            days = store.archive_logs(now=(free + 1) * DAY, retention=timedelta(0)).days
            assert sum(day.added_rows for day in days) >= 10
        except ns.StoreIOError as error:
            assert error.errno == 24, error
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert store.count(archived=True) == 10 * (free + 1)
        assert store.verify().ok
    assert 2 <= refused <= 10, refused
    store.archive_logs(now=99 * DAY, retention=timedelta(0))
    assert store.count(archived=True) == 120 and store.count() == 0
"""
    done = run_command([sys.executable, "-c", script, str(data_dir / "logs.db")])
    assert done.returncode == 0, done.stderr
