"""Days of a log on PostgreSQL as files of a directory: kills at each step, directories that are not there, copies."""

from __future__ import annotations

import functools
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from contract.test_archive_damage import READS, archived
from postgres.stored import PATIENCE, late, once_it_may
from reference import Row
from support import as_rows, child_environment, day_files
from support.archive import NOW, at, content_of, day, fill

pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

from nerve_store.postgres.archive import files, job, manifest
from nerve_store.postgres.archive.day import digest_of
from nerve_store.postgres.archive.directory import ArchiveDirectory, StagedFile

DAYS = 2
STEPS: dict[str, tuple[Any, str]] = {
    "announce": (manifest.Manifest, "announce"),
    "publish": (StagedFile, "publish"),
    "remove the other form": (ArchiveDirectory, "remove"),
    "settle": (manifest.Manifest, "settle"),
    "delete rows": (job.ArchiveJob, "_delete"),
}

KILLED = """
import json, sys
import nerve_store as ns
from postgres.test_directory_days import STEPS
from support.killing import killing

url, schema, archive, step, when, compression, now = json.loads(sys.argv[1])
owner, name = STEPS[step]
with ns.PostgresLogStore(url, schema=schema, archive=archive) as log:
    setattr(owner, name, killing(getattr(owner, name), when))
    log.archive_logs(now=now, compression=compression)
"""


@pytest.mark.parametrize("kind", ["files", "objects"])
def test_modes(place: Backend, files: Place, tmp_path: Path, kind: str) -> None:
    """Those that SECURITY.md promises, of all that is made, whatever the process's mask."""
    before = os.umask(0)
    try:
        top = tmp_path / "deep"
        options: dict[str, Any] = {"archive": top / "er"}
        if kind == "objects":
            pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
            options = {"archive": files.url, "cache": top / "er"}
        with ns.PostgresLogStore(place.url, schema=place.schema, **options) as log:
            log.append("system", "tick", None, None, at(1))
            log.archive_logs(now=NOW)
            assert log.count(archived=True) == len(log.query(archived=True)) == 1
        assert {stat.S_IMODE(path.stat().st_mode) for path in (top, *top.rglob("*")) if path.is_dir()} == {0o700}
        assert {stat.S_IMODE(path.stat().st_mode) for path in top.rglob("*") if path.is_file()} <= {0o600}
        assert kind == "objects" or day_files(top / "er")
    finally:
        os.umask(before)


def after_a_kill(place: Backend, step: str, when: str, compression: str | None, is_new: bool) -> tuple[Any, list[Any]]:
    """A log of which a job was killed, and its rows."""
    log: Any = place.open()
    rows = fill(log, days=DAYS)
    if not is_new:
        log.archive_logs(now=NOW)
        rows += [late(log, n) for n in range(DAYS)]
    task = json.dumps([place.url, place.schema, str(place.archive), step, when, compression, NOW])
    killed = subprocess.run([sys.executable, "-c", KILLED, task], env=child_environment(), timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    return log, rows


@pytest.mark.parametrize("is_new", [True, False], ids=["new days", "late rows"])
@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_kill_at_any_step_loses_and_hides_nothing(
    place: Backend, step: str, when: str, compression: str | None, is_new: bool
) -> None:
    log, rows = after_a_kill(place, step, when, compression, is_new)

    def assert_all_is_there() -> None:
        assert as_rows(log.query(archived=True)) == rows
        assert as_rows(log.query(archived=True, descending=True)) == rows[::-1]
        problems = log.verify().problems
        assert [item for item in problems if "the next archive job adopts it" not in item.reason] == []

    assert_all_is_there()
    log.archive_logs(now=NOW, wait=PATIENCE, dry_run=True)
    assert_all_is_there()
    for _ in range(3):
        log.archive_logs(now=NOW, wait=PATIENCE)
        assert_all_is_there()
        assert log.query() == []
        assert len(day_files(place.archive)) == len(content_of_days(place)) == DAYS
        rows.append(late(log, 0))
        assert_all_is_there()


@pytest.mark.parametrize("is_new", [True, False], ids=["new days", "late rows"])
@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_days_of_a_killed_job_are_restored(
    place: Backend, step: str, when: str, compression: str | None, is_new: bool
) -> None:
    log, rows = after_a_kill(place, step, when, compression, is_new)
    for item in log.archived_days():
        once_it_may(functools.partial(log.restore_archive, item.day))
    assert as_rows(log.query()) == rows
    assert as_rows(log.query(archived=True)) == rows
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == rows
    assert log.query() == []


@pytest.mark.parametrize("is_new", [True, False], ids=["new days", "late rows"])
@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_days_of_a_killed_job_are_expired(
    place: Backend, step: str, when: str, compression: str | None, is_new: bool
) -> None:
    """What the job had not deleted from the database stays there, and is archived anew."""
    log, rows = after_a_kill(place, step, when, compression, is_new)
    live = as_rows(log.query())
    expired = once_it_may(lambda: log.expire_archive(before=day(DAYS)))
    assert log.archived_days() == []
    left = as_rows(log.query(archived=True))
    assert left == live
    assert len(left) + sum(item.row_count for item in expired) >= len(rows)
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == left
    assert log.verify().ok


def content_of_days(place: Backend) -> list[str]:
    return [name for name in content_of(place.archive) if ".jsonl" in name]


INSTEAD: dict[str, Callable[[Any], object]] = {
    "nothing": lambda path: None,
    "an empty directory": lambda path: path.mkdir(),
    "a file": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("instead", INSTEAD)
def test_directory_that_is_not_there_begins_no_archive_anew(place: Backend, instead: str) -> None:
    """It is not mounted, or its name is wrong."""
    log: Any = place.open()
    rows = archived(log)
    away = place.archive.with_name("away")
    place.archive.rename(away)
    INSTEAD[instead](place.archive)
    refused_calls: dict[str, Callable[[Any], Any]] = {**READS}
    if instead != "an empty directory":
        # Of a directory that is there it can be meant that its files are gone.
        refused_calls["reindex"] = lambda log: log.reindex()
        refused_calls["expire_archive"] = lambda log: log.expire_archive(before=day(9))
    for call, read in refused_calls.items():
        with pytest.raises(ns.ArchiveCorruptError) as refused:
            read(log)
        assert str(place.archive) in str(refused.value), call
    assert [problem.day for problem in log.verify().problems] == [day(0), day(1)]
    assert as_rows(log.query()) == rows[-1:]
    if instead == "nothing":
        assert not place.archive.exists()
    elif instead == "a file":
        place.archive.unlink()
    else:
        assert content_of_days(place) == []
        place.archive.rename(place.archive.with_name("empty"))
    away.rename(place.archive)
    assert_whole(log, rows)


def assert_whole(log: Any, rows: list[Row]) -> None:
    assert as_rows(log.query(archived=True)) == rows
    log.archive_logs(now=NOW)
    assert as_rows(log.query(archived=True)) == rows
    assert log.query() == []
    assert log.verify().ok


def test_file_with_the_times_and_the_size_of_the_right_one_is_compared(place: Backend) -> None:
    log: Any = place.open()
    archived(log)
    assert log.count(archived=True) == 16
    path = day_files(place.archive)[day(0)]
    found = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes().replace(b"tick", b"tock"))
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    copy.rename(path)
    for call, read in READS.items():
        with pytest.raises(ns.ArchiveCorruptError) as refused:
            read(log)
        assert str(path) in str(refused.value), call


def test_file_is_compared_once_by_reads_and_each_time_by_jobs(place: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    log: Any = place.open()
    rows = archived(log)
    compared: list[str] = []

    def counting(file: Any) -> tuple[int, str]:
        compared.append(os.path.basename(file.name)[:10])
        return digest_of(file)

    monkeypatch.setattr(files, "digest_of", counting)
    days = [str(day(n)) for n in range(2)]
    assert as_rows(log.query(archived=True)) == rows
    # This process wrote and compared them.
    assert compared == []
    other: Any = place.open()
    for _ in range(3):
        assert as_rows(other.query(archived=True)) == rows
    assert compared == days
    os.utime(day_files(place.archive)[day(1)])
    for _ in range(3):
        assert as_rows(other.query(archived=True)) == rows
    assert compared == [*days, days[1]]
    assert as_rows(log.query(archived=True)) == rows
    compared.clear()
    # Before the late row is added to it, and after.
    log.archive_logs(now=NOW)
    assert compared == [days[0]] * 2
    assert as_rows(log.query(archived=True)) == rows
    assert compared == [days[0]] * 2


@pytest.mark.parametrize("is_whole", [True, False])
def test_file_that_another_program_compressed_counts_if_it_has_the_rows(place: Backend, is_whole: bool) -> None:
    import zstandard

    log: Any = place.open()
    rows = archived(log)
    path = day_files(place.archive)[day(0)]
    content = path.read_bytes()
    lines = b"".join(content.splitlines(True)[: None if is_whole else 3])
    path.with_suffix(".jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(lines))
    path.unlink()
    if is_whole:
        log.archive_logs(now=NOW)
    else:
        with pytest.raises(ns.ArchiveCorruptError):
            log.archive_logs(now=NOW)
        assert not log.verify().ok
        path.with_suffix(".jsonl.zst").unlink()
        path.write_bytes(content)
    assert_whole(log, rows)


@pytest.mark.parametrize("kept", ["an older one", "another one"])
def test_second_file_of_a_day_is_removed_if_it_has_nothing_more(place: Backend, kept: str) -> None:
    log: Any = place.open()
    rows = archived(log)
    path = day_files(place.archive)[day(0)]
    older = path.read_bytes()
    log.archive_logs(now=NOW, compression="zstd")
    rows.append(late(log, 0))
    path.write_bytes(older if kept == "an older one" else older.replace(b"tick", b"tock"))
    if kept == "another one":
        for _ in range(2):
            with pytest.raises(ns.ArchiveError, match=rf"{path}: .*move it away"):
                log.archive_logs(now=NOW)
        assert as_rows(log.query(archived=True)) == rows
        path.unlink()
    assert_whole(log, rows)
    assert content_of_days(place) == [f"{day(0)}.jsonl.zst", f"{day(1)}.jsonl"]
