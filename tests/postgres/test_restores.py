"""A database that was restored from a backup, while its archive and the fleet went on: no id is given to two rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from postgres.faults import patiently
from postgres.restores import RESTORES, SKIPPED, Database, as_version_4, assert_nothing_hidden, lived_on, tell_nothing
from support import child_environment
from support.archive import NOW, at, day
from support.servers import Server

pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

from nerve_store.postgres.archive import manifest
from nerve_store.postgres.schema import lock_key

PLACES = ("directory", "objects")
PATIENCE = 60.0


def _archive(kind: str, directory: Path) -> str:
    if kind == "directory":
        return str(directory / "days")
    pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
    return (directory / "bucket").as_uri()


@pytest.fixture(params=PLACES)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the days lie."""
    return _archive(request.param, tmp_path)


@pytest.fixture
def objects(tmp_path: Path) -> str:
    """Where the days lie, as objects."""
    return _archive("objects", tmp_path)


@pytest.fixture
def database(server: Server, archive: str, tmp_path: Path) -> Iterator[Database]:
    """A database of its own on the server that all share."""
    made = Database(server, tmp_path, archive)
    yield made
    made.remove()


@pytest.fixture
def in_objects(server: Server, objects: str, tmp_path: Path) -> Iterator[Database]:
    """The same, with its days in an object store."""
    made = Database(server, tmp_path, objects)
    yield made
    made.remove()


def take_in(log: ns.PostgresLogStore) -> None:
    """Of days in an object store, opening has done it; of files, a job or this."""
    log.reindex()


@pytest.fixture
def alone(own_server: Server, archive: str, tmp_path: Path) -> Database:
    """The same on a server of its own, which may be lost as a whole."""
    return Database(own_server, tmp_path, archive)


def append_again(log: ns.PostgresLogStore, kind: str) -> ns.LogEntry:
    entry: ns.LogEntry = patiently(lambda: log.append("system", kind, timestamp=at(2), key=kind))
    return entry


@pytest.mark.parametrize("way", RESTORES)
def test_restored_database_gives_no_id_again_whoever_writes(alone: Database, way: str) -> None:
    """A process that was there before the backup, one that knows no archive, and one that knows it."""
    back_up, restore = RESTORES[way]
    living = ns.PostgresLogStore(alone.url, busy_timeout=PATIENCE)
    rows = [living.append("system", "kept", timestamp=at(1)) for _ in range(3)]
    living.create_workflow_run("run-1", "deploy")
    rows += living.query(after_id=rows[-1].id)
    back_up(alone)
    zombie = patiently(lambda: living.claim_workflow_run("lost", lease=timedelta(minutes=5)))
    assert zombie is not None
    rows += [row for row in lived_on(alone) if row.type == "lost"]
    restore(alone)
    rows.append(append_again(living, "living"))
    other = alone.open(archive=None)
    rows.append(append_again(other, "without the archive"))
    # Whose claim was lost with the database can change nothing.
    with pytest.raises(ns.ClaimLostError):
        living.renew_claim(zombie)
    claim = other.claim_workflow_run("new", lease=timedelta(minutes=5))
    assert claim is not None
    for change in (lambda: living.renew_claim(zombie), lambda: living.transition("run-1", "completed", claim=zombie)):
        with pytest.raises(ns.ClaimLostError):
            change()
    with alone.open() as log:
        rows.append(append_again(log, "with the archive"))
        take_in(log)
        rows += log.query(type="started")
        assert_nothing_hidden(log, rows)
        log.archive_logs(now=NOW)
        assert_nothing_hidden(log, rows)
    living.close()
    other.close()


def test_writers_that_see_a_restored_database_at_once_skip_once(database: Database) -> None:
    with database.open() as log:
        log.append("system", "tick", timestamp=at(1))
    database.dump()
    database.restore()
    logs = [database.open(archive=None) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        given = sorted(entry.id for entry in pool.map(lambda log: log.append("system", "tick"), logs))
    for log in logs:
        log.close()
    assert given == list(range(given[0], given[0] + 8))
    assert given[0] > 1 + SKIPPED


def test_clock_that_went_back_skips_all_the_same(database: Database) -> None:
    with database.open() as log:
        log.append("system", "tick")
        ahead = 1 << 52
        database.execute(f"SELECT setval('nerve.log_id', {ahead}); DELETE FROM nerve.alive")
        assert log.append("system", "tick").id == ahead + SKIPPED + 1


def test_older_schema_skips_once_when_it_is_brought_up_to_date(database: Database) -> None:
    """Its row is the same in a dump."""
    old = database.open()
    last = old.append("system", "tick").id
    as_version_4(database)
    with database.open() as log:
        first = log.append("system", "tick").id
        assert first > last + SKIPPED
        # A process that was there before goes on.
        assert [old.append("system", "tick").id, log.append("system", "tick").id] == [first + 1, first + 2]
    old.close()


def test_follower_goes_on_after_a_restore(database: Database) -> None:
    """It has seen rows that are lost, and sees all that come."""
    with database.open() as log:
        kept = log.append("system", "kept", timestamp=at(1))
        database.dump()
        lost = log.append("system", "lost", timestamp=at(1))
    database.restore()
    with database.open() as log:
        new = [log.append("system", "new", timestamp=at(2)) for _ in range(3)]
        follower = log.follow(after_id=lost.id)
        assert [next(follower) for _ in new] == new
        follower = log.follow(after_id=0)
        assert [next(follower) for _ in range(4)] == [kept, *new]


def give_ids_twice(database: Database) -> list[ns.LogEntry]:
    """What a restored database of an earlier version did: the rows of the archive, and others with ids of theirs."""
    with database.open() as log:
        log.append("system", "kept", timestamp=at(1))
    database.dump()
    lived_on(database)
    with database.open() as log:
        archived = log.query(archived=True)
    database.restore()
    tell_nothing(database.url)
    with database.open(archive=None) as log:
        for number in range(2):
            log.append("system", "twice", "ref-1", timestamp=at(2), key=f"key-{number}")
        log.create_workflow_run("run-1", "deploy")
        assert log.claim_workflow_run("worker", lease=timedelta(minutes=5)) is not None
        assert [entry.id for entry in log.query(after_id=1)] == [entry.id for entry in archived[1:5]]
    return archived


def test_ids_that_were_given_twice_hide_no_row(database: Database) -> None:
    archived = give_ids_twice(database)
    if "://" not in database.archive:
        with (
            database.open() as log,
            pytest.raises(ns.ArchiveError, match=r"reindex\(\) gives those of the database new"),
        ):
            log.archive_logs(now=NOW)
    with database.open() as log:
        take_in(log)
        found = log.query(archived=True)
        assert found[: len(archived)] == archived
        assert [entry.type for entry in found[len(archived) :]] == ["twice", "twice", "queued", "started"]
        # What knows them by their ids knows the new ones.
        assert log.append("system", "twice", "ref-1", timestamp=at(2), key="key-0").id == found[len(archived)].id
        assert [run.run_id for run in log.query_workflow_runs()] == ["run-1"]
        assert log.verify().ok
        log.archive_logs(now=NOW)
        assert log.query(archived=True) == found
        assert log.verify().ok


def test_known_day_with_ids_that_were_given_twice_is_told_and_mended(database: Database) -> None:
    """As an earlier version took it in."""
    with database.open() as log:
        rows = [log.append("system", "tick", timestamp=at(1)) for _ in range(3)]
        log.archive_logs(now=NOW)
        twice = [log.append("system", "twice", timestamp=at(2)) for _ in range(2)]
        restored = [log.append("system", "kept", timestamp=at(1))]
        log.archive_logs(now=at(3), retention=timedelta(0), max_days=1)
        log.restore_archive(day(1))
        assert log.verify().ok, "the same rows in both places"
        for entry, taken in zip(twice, rows, strict=False):
            database.execute(f"DELETE FROM nerve.logs WHERE id = {taken.id}")
            database.execute(f"UPDATE nerve.logs SET id = {taken.id} WHERE id = {entry.id}")
        (problem,) = log.verify().problems
        assert (problem.day, problem.first_id, problem.last_id) == (day(1), rows[0].id, rows[1].id)
        assert "reindex()" in problem.reason
        log.reindex()
        found = log.query(archived=True)
        assert [entry.type for entry in found] == ["tick", "tick", "tick", "kept", "twice", "twice"]
        assert found[:4] == [*rows, *restored]
        assert log.verify().ok


def test_day_that_was_expired_after_the_backup_is_forgotten_when_it_is_expired_again(in_objects: Database) -> None:
    with in_objects.open() as log:
        log.append("system", "old", timestamp=at(1))
        rows = [log.append("system", "new", timestamp=at(3))]
        log.archive_logs(now=NOW)
        in_objects.dump()
        log.expire_archive(before=day(2))
    in_objects.restore()
    with in_objects.open() as log:
        for call in (lambda: log.query(archived=True), log.reindex):
            with pytest.raises(ns.ArchiveCorruptError, match="forgotten by expire_archive"):
                call()
        log.expire_archive(before=day(2))
        log.reindex()
        assert_nothing_hidden(log, rows)


KILLED = """
import json, sys
import nerve_store as ns
from postgres.test_restores import STEPS, take_in
from support.killing import killing

url, archive, step, when = json.loads(sys.argv[1])
owner, name = STEPS[step]
setattr(owner, name, killing(getattr(owner, name), when))
with ns.PostgresLogStore(url, archive=archive) as log:
    take_in(log)
"""

STEPS: dict[str, tuple[Any, str]] = {
    "go on": (manifest, "go_on_after"),
    "settle": (manifest.Manifest, "settle"),
}


def brought_back(database: Database) -> list[ns.LogEntry]:
    """Restore a dump, which the database cannot tell; the rows of before it and of after it, which were archived."""
    with database.open() as log:
        rows = [log.append("system", "kept", timestamp=at(1)) for _ in range(3)]
    database.dump()
    rows += lived_on(database)
    database.restore()
    tell_nothing(database.url)
    return rows


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_process_that_is_killed_while_it_takes_days_in_leaves_no_id_of_theirs(
    database: Database, step: str, when: str
) -> None:
    rows = brought_back(database)
    task = json.dumps([database.url, database.archive, step, when])
    killed = subprocess.run([sys.executable, "-c", KILLED, task], env=child_environment(), timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    is_known = database.execute("SELECT count(*) FROM nerve.archive_days")[0][0]
    with database.open() as log:
        if not is_known:
            take_in(log)
        rows += [log.append("system", "new", timestamp=at(2)) for _ in range(3)]
        take_in(log)
        assert_nothing_hidden(log, rows)


def test_day_that_another_process_is_about_to_take_in_gives_no_id_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one opens as soon as the day counts."""
    rows = brought_back(database)
    settle = manifest.Manifest.settle

    def settled(*arguments: Any) -> None:
        settle(*arguments)
        with ns.PostgresLogStore(database.url) as other:
            rows.append(other.append("system", "new", timestamp=at(2)))

    monkeypatch.setattr(manifest.Manifest, "settle", settled)
    with database.open() as log:
        take_in(log)
        monkeypatch.undo()
        assert len(rows) > 8
        take_in(log)
        assert_nothing_hidden(log, rows)


def test_opener_that_waits_for_the_append_lock_and_is_killed_leaves_no_id(in_objects: Database) -> None:
    with in_objects.open() as log:
        rows = [log.append("system", "kept", timestamp=at(1)) for _ in range(3)]
    in_objects.dump()
    rows += lived_on(in_objects)
    in_objects.restore()
    tell_nothing(in_objects.url)
    with psycopg.connect(in_objects.url, autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(%s)", (lock_key("nerve"),))
        script = "import sys, nerve_store as ns; ns.PostgresLogStore(sys.argv[1], archive=sys.argv[2])"
        command = [sys.executable, "-c", script, in_objects.url, in_objects.archive]
        with subprocess.Popen(command, env=child_environment()) as opener:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not in_objects.execute(waiting)[0][0]:
                assert opener.poll() is None
            opener.kill()
        in_objects.execute("SELECT pg_terminate_backend(pid, 30000) FROM pg_locks WHERE NOT granted")
    with in_objects.open(busy_timeout=PATIENCE) as log:
        rows += [log.append("system", "new", timestamp=at(2)) for _ in range(3)]
        assert_nothing_hidden(log, rows)


def test_opening_passes_the_ids_of_known_days(database: Database) -> None:
    """As an earlier version left them, whose process was killed when the day counted."""
    with database.open() as log:
        rows = [log.append("system", "tick", timestamp=at(1)) for _ in range(3)]
        log.archive_logs(now=NOW)
    database.execute("SELECT setval('nerve.log_id', 1)")
    tell_nothing(database.url)
    with ThreadPoolExecutor(4) as pool:
        logs = list(pool.map(lambda _: database.open(archive=None), range(4)))
        rows += pool.map(lambda log: log.append("system", "new", timestamp=at(2)), logs)
    for log in logs:
        log.close()
    with database.open() as log:
        assert_nothing_hidden(log, rows)


NOTED = """
import json, sys
import nerve_store as ns
from nerve_store.remote.days import move
from support.killing import killing

url, archive, when, now = json.loads(sys.argv[1])
move._send = killing(move._send, when)
with ns.PostgresLogStore(url, archive=archive) as log:
    log.archive_logs(now=now, wait=60)
"""


@pytest.mark.parametrize("grows", [False, True], ids=["as it was noted", "with more rows"])
@pytest.mark.parametrize("when", ["before", "after"], ids=["before it is sent", "after it was sent"])
def test_backup_that_noted_a_day_of_a_killed_job_takes_in_what_the_next_one_stored(
    in_objects: Database, when: str, grows: bool
) -> None:
    with in_objects.open() as log:
        rows = [log.append("system", "early", timestamp=at(1)) for _ in range(3)]
        log.archive_logs(now=NOW)
        rows += [log.append("system", "late", timestamp=at(1)) for _ in range(2)]
    task = json.dumps([in_objects.url, in_objects.archive, when, NOW])
    killed = subprocess.run([sys.executable, "-c", NOTED, task], env=child_environment(), timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [key for key, state in _objects(in_objects) if state == "pending"] == [f"{day(1)}.1.jsonl"]
    in_objects.dump()
    with in_objects.open() as log:
        if grows:
            rows.append(log.append("system", "later", timestamp=at(1)))
        log.archive_logs(now=NOW, wait=PATIENCE)
        assert_nothing_hidden(log, rows)
    in_objects.restore()
    with pytest.raises(ns.ArchiveError, match="older than the object store"):
        in_objects.open(read_only=True)
    with in_objects.open() as log:
        rows.append(log.append("system", "new", timestamp=at(2)))
        assert_nothing_hidden(log, rows)
        log.archive_logs(now=NOW)
        log.reindex()
        assert_nothing_hidden(log, rows)
        assert log.query() == []


def test_object_in_the_place_of_the_noted_one_is_not_taken_in(in_objects: Database) -> None:
    with in_objects.open() as log:
        log.append("system", "early", timestamp=at(1))
        log.archive_logs(now=NOW)
        log.append("system", "late", timestamp=at(1))
    task = json.dumps([in_objects.url, in_objects.archive, "before", NOW])
    subprocess.run([sys.executable, "-c", NOTED, task], env=child_environment(), timeout=120, check=False)
    with in_objects.open() as log:
        bucket: Any = log._archive
        content = bucket.bucket.get(f"{day(1)}.jsonl", longest=1 << 20)
        bucket.bucket.put(f"{day(1)}.1.jsonl", content + content.replace(b'"id":1', b'"id":3'))
        bucket.bucket.delete([f"{day(1)}.jsonl"])
    with pytest.raises(ns.ArchiveError, match="as the database knows it"):
        in_objects.open(busy_timeout=PATIENCE)


def _objects(database: Database) -> list[tuple[str, str]]:
    return [
        (key, state) for key, state in database.execute("SELECT key, state FROM nerve.archive_objects ORDER BY key")
    ]
