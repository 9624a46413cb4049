"""Days of a log on PostgreSQL in an object store: kills at each step, lost sessions, other processes, interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place, made
from support import as_row, as_rows, child_environment
from support.archive import NOW, at, day, fill

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

from nerve_store.postgres.archive import job, manifest
from nerve_store.postgres.archive.objects import Objects
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days import move as move_file

DAYS = 3
PATIENCE = 60.0
"""Seconds until the server has seen that a session ended."""

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
import json, os, signal, sys
import nerve_store as ns
from postgres.test_days import STEPS

url, schema, archive, step, when, number, now = json.loads(sys.argv[1])
calls = 0

def killing(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        is_due = calls == number
        if is_due and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if is_due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

owner, name = STEPS[step]
with ns.PostgresLogStore(url, schema=schema, archive=archive) as log:
    setattr(owner, name, killing(getattr(owner, name)))
    log.archive_logs(now=now)
"""


@pytest.fixture
def files(tmp_path: Path) -> Place:
    """Objects that other processes see."""
    return made("file", tmp_path)


@pytest.fixture
def memory(tmp_path: Path) -> Place:
    """Objects of this process."""
    return made("memory", tmp_path)


@pytest.fixture
def opened(place: Backend) -> Callable[..., Any]:
    """Opens the log; it is closed at the end of the test."""

    def open_log(archive: Place, **options: Any) -> Any:
        options = {"archive_options": archive.options or None, **options}
        return place.stack.enter_context(
            ns.PostgresLogStore(place.url, schema=place.schema, archive=archive.url, **options)
        )

    return open_log


def keys(archive: Place) -> list[str]:
    listed = Bucket(f"{archive.url}/logs", archive.options).list()
    return sorted(found.key for page in listed for found in page if not found.key.startswith("."))


def late(log: Any, number: int) -> Any:
    return as_row(log.append("system", "late", None, None, at(number)))


def assert_whole(log: Any, archive: Place, rows: list[Any]) -> None:
    """Every row is there once, all of them have left the database, and no object is left over."""
    assert as_rows(log.query(archived=True)) == sorted(rows)
    assert log.query() == []
    assert log.verify().ok
    assert [item.path for item in log.archived_days()] == [f"{archive.url}/logs/{key}" for key in keys(archive)]


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
    task = json.dumps([place.url, place.schema, files.url, step, when, number, NOW])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, task], env=child_environment(), timeout=120, check=False
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
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
    task = json.dumps([place.url, place.schema, files.url, step, when, 1, NOW])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, task], env=child_environment(), timeout=120, check=False
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    with opened(files) as log:
        rows.append(late(log, 0))
        log.archive_logs(now=NOW, wait=PATIENCE)
        assert_whole(log, files, rows)


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
    read = move_file.InFile._pieces

    def breaking(content: Any) -> Iterator[bytes]:
        nonlocal sent
        for piece in read(content):
            sent += len(piece)
            yield piece
            raise KeyboardInterrupt

    monkeypatch.setattr(move_file.InFile, "_pieces", breaking)
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


@pytest.mark.parametrize("max_cache_bytes", [0, 1 << 20])
def test_readers_miss_no_row_while_days_are_replaced(opened: Any, memory: Place, max_cache_bytes: int) -> None:
    log, reader = opened(memory), opened(memory, max_cache_bytes=max_cache_bytes)
    log.append_many([("system", "tick", f"r{n % 3}", None, at(n % 4)) for n in range(200)])
    ending = threading.Event()
    errors: list[Any] = []

    def look() -> None:
        most = 0
        while not ending.is_set():
            try:
                found = [row.id for row in reader.query(archived=True)]
            except ns.NerveStoreError as error:
                errors.append(error)
                return
            if found != list(range(1, len(found) + 1)) or len(found) < max(most, 200):
                errors.append(found)
                return
            most = len(found)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(12):
        log.archive_logs(now=NOW, compression=cast(Any, ("zstd", None)[number % 2]))
        late(log, number % 4)
        if number % 3 == 0:
            log.restore_archive(day(number % 4))
    ending.set()
    for thread in threads:
        thread.join()
    assert errors == []
    log.archive_logs(now=NOW)
    assert log.count(archived=True) == 212
    assert len(keys(memory)) == 4


@pytest.mark.parametrize("change", ["grow", "expire"])
@pytest.mark.parametrize("read", ["query", "iter", "read_archive", "verify"])
def test_day_that_is_replaced_or_expires_before_it_is_fetched(
    opened: Any, memory: Place, read: str, change: str
) -> None:
    log, reader = opened(memory), opened(memory)
    rows = fill(log, days=DAYS)
    log.archive_logs(now=NOW)
    bucket = reader._archive.bucket
    head = bucket.head
    grown: list[Any] = []

    def asking(key: str) -> Any:
        """The first object that is asked for goes just then."""
        bucket.head = head
        if change == "grow":
            grown.extend(late(log, number) for number in range(DAYS))
            log.archive_logs(now=NOW)
        else:
            log.expire_archive(before=day(DAYS))
        return head(key)

    bucket.head = asking
    if read == "verify":
        assert reader.verify().ok
    elif read == "read_archive":
        found = as_rows(reader.read_archive(day(0)))
        assert found == ([] if change == "expire" else [row for row in rows + grown if row.timestamp < at(1)])
    else:
        found = as_rows(reader.query(archived=True) if read == "query" else reader.iter(archived=True))
        # Rows that came after the call began may be there or not; no other is missed.
        assert found == [] if change == "expire" else set(rows) <= set(found) <= set(rows + grown)
        assert found == sorted(found)
    assert bucket.head is not asking


def test_forked_child_is_refused_at_once_and_leaves_the_cache(opened: Any, files: Place) -> None:
    log = opened(files)
    rows = fill(log, days=DAYS)
    log.archive_logs(now=NOW)
    begun = log.iter(archived=True)
    next(begun)
    known = log._reader().known()[-1]
    # Another thread is in the middle of a fetch, and holds its locks.
    started, go_on = threading.Event(), threading.Event()
    head = log._archive.bucket.head

    def waiting(key: str) -> Any:
        started.set()
        go_on.wait(60)
        return head(key)

    log._archive.bucket.head = waiting
    fetching = threading.Thread(target=lambda: list(log.read_archive(day(DAYS - 1))))
    fetching.start()
    assert started.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        code = 1
        try:
            for call in (
                lambda: log.query(archived=True),
                lambda: list(log.iter(archived=True)),
                lambda: list(begun),
                lambda: list(log.read_archive(day(0))),
                lambda: log.archive_logs(now=NOW),
                lambda: log.restore_archive(day(0)),
                lambda: log.expire_archive(before=day(1)),
                log.verify,
                log.reindex,
                log.archived_days,
                log.close,
                # What a reader asks whose page of the manifest was read before the fork.
                lambda: log._archive.check(known),
            ):
                try:
                    call()
                except ns.ForkedStoreError:
                    continue
                os._exit(2)
            log._archive._remove()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    fetching.join()
    del log._archive.bucket.head
    assert as_rows(log.query(archived=True)) == rows


def test_cache_of_its_own_is_bounded_and_goes_with_the_log(opened: Any, memory: Place) -> None:
    with opened(memory) as log:
        fill(log, days=DAYS)
        most = max(item.size for item in log.archive_logs(now=NOW).days)
    with opened(memory, max_cache_bytes=2 * most) as log:
        directory = Path(log._archive._cache.directory)
        for number in (0, 1, 2, 0, 1):
            assert len(list(log.read_archive(day(number)))) > 0
            assert 0 < sum(path.stat().st_size for path in directory.iterdir()) <= 2 * most
    assert not directory.exists()


def test_cache_that_is_shared_stays_and_damaged_files_are_fetched_anew(
    opened: Any, memory: Place, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with opened(memory, cache=cache) as log:
        rows = fill(log, days=DAYS)
        log.archive_logs(now=NOW)
        assert as_rows(log.query(archived=True)) == rows
        assert not [path for path in cache.iterdir() if path.name.startswith(".")]
    assert len(list(cache.iterdir())) == DAYS
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with opened(memory, cache=cache) as log:
        assert as_rows(log.query(archived=True)) == rows
        for path in cache.iterdir():
            path.unlink()
        assert as_rows(log.query(archived=True)) == rows


def test_older_schema_is_read_and_brought_up_to_date(place: Backend, opened: Any, memory: Place) -> None:
    """Version 1 of the schema knew days in a directory alone."""
    with place.open() as log:
        rows = fill(cast(Any, log), days=DAYS)
        log.archive_logs(now=NOW)
    place.execute("ALTER TABLE archive_days DROP COLUMN place, DROP COLUMN object")
    place.execute("DROP TABLE archive_objects")
    place.execute("UPDATE state SET schema_version = 1")
    with place.open(read_only=True) as log:
        assert as_rows(log.query(archived=True)) == rows
        assert log.verify().ok
    with opened(memory, read_only=True) as log, pytest.raises(ns.ArchiveError, match="file in a directory"):
        log.query(archived=True)
    with place.open() as log:
        assert as_rows(log.query(archived=True)) == rows
        assert log.sql("SELECT schema_version FROM state") == [(2,)]
    with opened(memory) as log:
        rows.append(late(log, DAYS))
        log.archive_logs(now=NOW)
        assert keys(memory) == [f"{day(DAYS)}.jsonl"]


INTERRUPTED = """
import sys, threading
import nerve_store as ns
from nerve_store.remote.bucket import Bucket
url, schema, archive = sys.argv[1:]
with ns.PostgresLogStore(url, schema=schema, archive=archive) as log:
    def never(*arguments):
        print("waits", flush=True)
        threading.Event().wait()
    Bucket.head = never
    try:
        CALL
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(len(log.query()), flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        "log.query(archived=True)",
        "list(log.iter(archived=True))",
        "log.verify()",
        "log.archive_logs(retention=__import__('datetime').timedelta(0))",
    ],
)
def test_interrupt_ends_a_call_that_waits_for_the_place(place: Backend, opened: Any, files: Place, call: str) -> None:
    with opened(files) as log:
        fill(log, days=1)
        log.archive_logs(now=NOW)
        log.append("system", "late", None, None, at(5))
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.replace("CALL", call), place.url, place.schema, files.url],
        stdout=subprocess.PIPE, text=True, env=child_environment(),
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read().splitlines()
        assert child.wait(60) == 0
    assert [line for line in rest if line != "waits"] == ["interrupted", "1"]
