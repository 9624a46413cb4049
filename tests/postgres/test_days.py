"""Days of a log on PostgreSQL in an object store: kills at each step, lost sessions, other processes, interrupts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from postgres.stored import PATIENCE, assert_whole, keys, late, once_it_may
from support import as_rows, child_environment
from support.archive import NOW, at, day, fill

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

from nerve_store.postgres.archive import job, manifest
from nerve_store.postgres.archive.objects import Objects
from nerve_store.remote.blobs.content import InFile
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days import move as move_file

DAYS = 3
STEPS: dict[str, tuple[Any, str]] = {
    "begin": (Objects, "_begin_upload"),
    "send": (Bucket, "create"),
    "read back": (move_file, "holds"),
    "finish": (manifest.Manifest, "settle"),
    "delete rows": (job.ArchiveJob, "_delete"),
    "delete": (Bucket, "delete"),
    "forget": (Objects, "_forget_object"),
}

KILLED = """
import json, sys
import nerve_store as ns
from postgres.test_days import STEPS
from support.killing import killing

url, schema, archive, step, when, number, now = json.loads(sys.argv[1])
owner, name = STEPS[step]
with ns.PostgresLogStore(url, schema=schema, archive=archive) as log:
    setattr(owner, name, killing(getattr(owner, name), when, number))
    log.archive_logs(now=now)
"""


def job_that_is_killed(place: Backend, files: Place, step: str, when: str, number: int = 1) -> int:
    """The exit code of a job that is killed at the step of this number."""
    task = json.dumps([place.url, place.schema, files.url, step, when, number, NOW])
    command = [sys.executable, "-c", KILLED, task]
    return subprocess.run(command, env=child_environment(), timeout=120, check=False).returncode


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_kill_at_any_step_loses_nothing_and_the_next_job_goes_on(
    place: Backend, opened: Any, files: Place, step: str, when: str, number: int
) -> None:
    with opened(files) as log:
        rows = fill(log, days=DAYS)
        log.archive_logs(now=NOW)
        # Each of these gets another object, and the first one is to be deleted.
        rows += [late(log, n) for n in range(DAYS)]
    assert job_that_is_killed(place, files, step, when, number) == -signal.SIGKILL
    with opened(files) as log:
        assert as_rows(log.query(archived=True)) == rows
        # What was sent and noted is used by the job that is repeated.
        log.archive_logs(now=NOW, wait=PATIENCE)
        assert_whole(log, files, rows)
        assert keys(files) == [f"{day(n)}.1.jsonl" for n in range(DAYS)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_day_that_grows_after_a_kill_makes_what_was_sent_superfluous(
    place: Backend, opened: Any, files: Place, step: str, when: str
) -> None:
    with opened(files) as log:
        rows = fill(log, days=DAYS)
        log.archive_logs(now=NOW)
        rows += [late(log, n) for n in range(DAYS)]
    assert job_that_is_killed(place, files, step, when) == -signal.SIGKILL
    with opened(files) as log:
        rows.append(late(log, 0))
        log.archive_logs(now=NOW, wait=PATIENCE)
        assert_whole(log, files, rows)


@pytest.mark.parametrize("is_new", [True, False], ids=["new days", "late rows"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_days_that_are_expired_after_a_kill_do_not_come_back(
    place: Backend, opened: Any, files: Place, step: str, when: str, is_new: bool
) -> None:
    with opened(files) as log:
        fill(log, days=DAYS)
        if not is_new:
            log.archive_logs(now=NOW)
            for n in range(DAYS):
                late(log, n)
    assert (
        job_that_is_killed(place, files, step, when) == -signal.SIGKILL or is_new
    )  # what is superfluous is not deleted where nothing is
    with opened(files) as log:
        live = as_rows(log.query())
        once_it_may(lambda: log.expire_archive(before=day(DAYS)))
        assert log.archived_days() == []
    with opened(files) as log:
        assert log.archived_days() == []
        assert as_rows(log.query(archived=True)) == live
        log.archive_logs(now=NOW)
        assert as_rows(log.query(archived=True)) == live
        assert log.verify().ok


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_job_that_lost_its_session_harms_nothing_that_the_next_one_does(
    place: Backend, opened: Any, memory: Place, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    """It holds no lock any more, and does not know it; its requests to the object store still work."""
    log, other = opened(memory), opened(memory)
    rows = fill(log, days=DAYS)
    log.archive_logs(now=NOW)
    rows += [late(log, n) for n in range(DAYS)]
    owner, name = STEPS[step]
    function = getattr(owner, name)
    calls = 0

    def meanwhile() -> None:
        place.execute("SELECT pg_terminate_backend(pid, 30000) FROM pg_locks WHERE locktype = 'advisory'")
        rows.append(late(other, 0))
        other.archive_logs(now=NOW, wait=PATIENCE)
        assert as_rows(other.query(archived=True)) == sorted(rows)
        # The first days go and come again, with other rows.
        other.expire_archive(before=day(2))
        rows[:] = [row for row in rows if row.timestamp >= at(2)]
        rows.append(late(other, 0))
        other.archive_logs(now=NOW)

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        is_due = calls == 1
        if is_due and when == "before":
            meanwhile()
        result = function(*arguments, **options)
        if is_due and when == "after":
            meanwhile()
        return result

    monkeypatch.setattr(owner, name, call)
    with suppress(ns.StoreUnavailableError, ns.ArchiveError):
        log.archive_logs(now=NOW)
    monkeypatch.undo()
    assert calls > 1
    assert as_rows(log.query(archived=True)) == sorted(rows)
    # What it left behind is removed by the next job.
    rows.append(late(log, 1))
    other.archive_logs(now=NOW, wait=PATIENCE)
    assert_whole(other, memory, rows)


def test_upload_that_is_interrupted_stores_nothing_and_is_begun_anew(
    opened: Any, memory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(memory)
    log.append_many([("system", "large", None, chr(97 + n % 26) * (1 << 20), at(0, n)) for n in range(20)])
    rows = log.query()
    sent = 0
    read = InFile._pieces

    def breaking(content: Any) -> Iterator[bytes]:
        nonlocal sent
        for piece in read(content):
            sent += len(piece)
            yield piece
            raise KeyboardInterrupt

    monkeypatch.setattr(InFile, "_pieces", breaking)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - the client wraps what its source raised
        log.archive_logs(now=NOW)
    assert sent > 0
    assert keys(memory) == []
    assert log.query(archived=True) == log.query() == rows
    assert log.sql("SELECT key, state FROM archive_objects") == [(f"{day(0)}.jsonl", "pending")]
    monkeypatch.undo()
    log.archive_logs(now=NOW)
    assert keys(memory) == [f"{day(0)}.jsonl"]
    assert log.query(archived=True) == rows
    assert log.query() == []


def test_object_that_is_not_what_was_sent_keeps_the_rows(
    opened: Any, memory: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(memory)
    rows = fill(log, days=1)
    create = Bucket.create
    monkeypatch.setattr(
        Bucket, "create", lambda self, key, data: create(self, key, data if key[0] == "." else data[:-1])
    )
    with pytest.raises(ns.ArchiveCorruptError, match=str(day(0))):
        log.archive_logs(now=NOW)
    monkeypatch.undo()
    assert as_rows(log.query()) == rows
    assert log.archived_days() == []
    with pytest.raises(ns.ArchiveError, match="other content"):
        log.archive_logs(now=NOW)
    Bucket(f"{memory.url}/logs", {}).delete([f"{day(0)}.jsonl"])
    log.archive_logs(now=NOW)
    assert_whole(log, memory, rows)
