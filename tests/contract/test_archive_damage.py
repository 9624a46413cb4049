"""A day that is not what was archived is refused by all that need it, and no job takes it for right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.test_archive import append, fill
from nerve_store.protocols import Log
from reference import Row
from support import as_rows
from support.archive import NOW, at, day, message

IS_ABOUT_ARCHIVES = True

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "cut at the end of a line": lambda content: b"".join(content.splitlines(True)[:2]),
    "cut": lambda content: content[:-1],
    "a line twice": lambda content: content + content.splitlines(True)[-1],
    "another value": lambda content: content.replace(b"tick", b"tock"),
}
READS: dict[str, Callable[[Log], Any]] = {
    "query": lambda log: log.query(archived=True),
    "query newest": lambda log: log.query(archived=True, descending=True),
    "query a reference": lambda log: log.query(archived=True, ref_id="ref-1"),
    "iter": lambda log: list(log.iter(archived=True)),
    "count": lambda log: log.count(archived=True, until=at(0, 20)),
    "follow": lambda log: [next(log.follow(after_id=0)) for _ in range(3)],
    "messages": lambda log: log.get_thread_messages("run-1"),
    "read_archive": lambda log: list(log.read_archive(day(0))),
    "restore_archive": lambda log: log.restore_archive(day(0)),
    "archive_logs": lambda log: log.archive_logs(now=NOW),
    "archive_logs, dry": lambda log: log.archive_logs(now=NOW, dry_run=True),
}


def archived(log: Log) -> list[Row]:
    """Two days in the archive, and a late row of the first."""
    fill(log, days=2)
    append(log, at(0, 50), "run-1", message(1))
    log.archive_logs(now=NOW)
    rows = as_rows(log.query(archived=True))
    return [*rows, append(log, at(0, 60), "run-1", message(2))]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_day_is_refused_by_all_that_need_it(backend: Backend, damage: str) -> None:
    log = backend.open()
    rows = archived(log)
    name, whole = next(iter(backend.files().items()))
    backend.replace(day(0), DAMAGES[damage](whole))
    before = backend.files()
    # One that has compared the day before, and one that has not.
    for each in (log, backend.open()):
        for call, read in READS.items():
            with pytest.raises(ns.ArchiveCorruptError) as refused:
                read(each)
            assert name[:10] in str(refused.value), call
        assert [problem.day for problem in each.verify().problems] == [day(0)]
    assert backend.files() == before
    assert as_rows(log.query()) == rows[-1:]
    assert len(list(log.read_archive(day(1)))) == 7
    put_back(backend, name, whole)
    assert as_rows(log.query(archived=True)) == rows
    assert [item.added_rows for item in log.archive_logs(now=NOW).days] == [1]
    assert as_rows(log.query(archived=True)) == rows
    assert log.verify().ok


def put_back(backend: Backend, name: str, content: bytes) -> None:
    if not backend.archive_url:
        (backend.archive / name).write_bytes(content)
        return
    backend.bucket().put(name, content)
    shutil.rmtree(backend.directory / "cache", ignore_errors=True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_job_names_a_damaged_day_that_no_row_needs(
    backend: Backend, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = backend.open()
    fill(log, days=2)
    log.archive_logs(now=NOW)
    assert log.archive_logs(now=NOW).problems == ()
    name, whole = next(iter(backend.files().items()))
    damaged = DAMAGES[damage](whole)
    backend.replace(day(0), damaged)
    if backend.archive_url:
        # A listing tells the sizes of objects.
        expected = [] if damaged is not None and len(damaged) == len(whole) else [day(0)]
    else:
        expected = [] if damaged is None else [day(0)]
    for number in (2, 3):
        append(log, at(number))
        caplog.clear()
        result = log.archive_logs(now=NOW)
        assert [item.day for item in result.days] == [day(number)]
        assert [problem.day for problem in result.problems] == expected
        assert [name[:10] in record.getMessage() for record in caplog.records] == [True] * len(expected)
        for problem in result.problems:
            assert name[:10] in problem.path
            assert problem.path not in problem.reason
    for each in (log, backend.open()):
        assert [problem.day for problem in each.archive_logs(now=NOW).problems] == expected
        assert each.archive_logs(now=NOW, dry_run=True).problems == ()
    put_back(backend, name, whole)
    assert log.archive_logs(now=NOW).problems == ()
    assert log.verify().ok


def test_file_that_was_touched_is_read_once(server: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a restore of the directory, which brings the same bytes with other times."""
    from nerve_store.postgres.archive.files import DirectoryDays

    log = server.open()
    fill(log, days=2)
    log.archive_logs(now=NOW)
    compared: list[Any] = []
    original = DirectoryDays._compare

    def compare(self: DirectoryDays, file: Any, known: Any) -> None:
        compared.append(known.day)
        original(self, file, known)

    monkeypatch.setattr(DirectoryDays, "_compare", compare)
    log.archive_logs(now=NOW)
    assert compared == []
    for path in server.archive.glob("*.jsonl"):
        path.touch()
    for _ in range(2):
        assert log.archive_logs(now=NOW).problems == ()
        assert server.open().archive_logs(now=NOW).problems == ()
    assert compared == [day(0), day(1)]
