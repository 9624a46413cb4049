"""Who reads days of a log on PostgreSQL in an object store: beside jobs, after a fork, through a cache, interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.blob_places import Place
from nerve_store.postgres import schema
from postgres.stored import keys, late
from support import as_rows, child_environment
from support.archive import NOW, at, day, fill

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

DAYS = 3


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


def test_forked_child_is_refused_at_once_and_leaves_the_cache(
    opened: Any, files: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The iterator has fetched no more than the first days.
    monkeypatch.setattr("nerve_store.postgres.pages.PAGE_ROWS", 1)
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
    place.execute("ALTER TABLE archive_refs DROP COLUMN expired")
    place.execute("DROP TABLE archive_objects")
    place.execute("UPDATE state SET schema_version = 1")
    with place.open(read_only=True) as log:
        assert as_rows(log.query(archived=True)) == rows
        assert log.verify().ok
        assert log.archive_logs(now=NOW, dry_run=True).days == ()
        assert len(log.expire_archive(before=day(DAYS), dry_run=True)) == DAYS
    with opened(memory, read_only=True) as log, pytest.raises(ns.ArchiveError, match="file in a directory"):
        log.query(archived=True)
    with place.open() as log:
        assert as_rows(log.query(archived=True)) == rows
        assert log.sql("SELECT schema_version FROM state") == [(schema.VERSION,)]
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
