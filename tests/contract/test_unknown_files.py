"""Files in the archive's directory that the log has not written."""

from __future__ import annotations

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.test_archive import append, fill
from support import as_rows
from support.archive import NOW, at, day, gained


@pytest.mark.parametrize("content", [b"{", b"not a row\n", b"\0" * 4_096])
def test_file_that_cannot_be_taken_in_stops_nothing_else(backend: Backend, content: bytes) -> None:
    log = backend.open()
    rows = fill(log, days=2)
    log.archive_logs(now=NOW)
    path = backend.archive / f"{day(3)}.jsonl"
    path.write_bytes(content)
    rows.append(append(log, at(4)))
    result = log.archive_logs(now=NOW)
    assert [item.day for item in result.days] == [day(4)]
    assert [(problem.day, problem.path) for problem in result.problems] == [(day(3), str(path))]
    assert [item.day for item in log.archived_days()] == [day(0), day(1), day(4)]
    assert day(3) in {problem.day for problem in log.verify().problems}
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        list(log.read_archive(day(3)))
    rows.append(append(log, at(3)))
    with pytest.raises(ns.ArchiveCorruptError, match=path.name):
        log.archive_logs(now=NOW)
    assert path.read_bytes() == content
    path.unlink()
    assert gained(log.archive_logs(now=NOW)) == {day(3): 1}
    assert as_rows(log.query(archived=True)) == rows
