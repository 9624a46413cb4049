"""Days of a log on PostgreSQL in a bucket that gives no answers, or bad ones; and all that can happen at random."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import nerve_store as ns
from contract.backends import Backend, available, opened
from contract.blob_places import Place, made
from postgres.stored import keys
from support import Stop, StopAfter, as_row, as_rows, objects
from support.archive import NOW, at, day, fill
from support.flaky import flaky, once_each

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote import bucket
from nerve_store.remote.bucket import Bucket

DAYS = 3


@pytest.fixture
def s3(tmp_path: Path) -> Place:
    """A bucket of a server."""
    return made("s3-versitygw", tmp_path)


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_RETRIES", bucket._NO_RETRIES)


def port_of(s3: Place) -> int:
    return int(s3.options["endpoint"].rpartition(":")[2])


def log_at(place: Backend, s3: Place, port: int, **options: Any) -> Any:
    return ns.PostgresLogStore(
        place.url, schema=place.schema, archive=s3.url, archive_options=objects.S3Server.options(port), **options
    )


@pytest.mark.usefixtures("_no_patience")
def test_bucket_without_an_answer_is_told_and_nothing_is_lost(place: Backend, s3: Place) -> None:
    with flaky(port_of(s3)) as proxy, log_at(place, s3, proxy.port) as log:
        rows = fill(log, days=DAYS)
        proxy.fault = lambda request: "refuse"
        with pytest.raises(ns.StoreUnavailableError) as caught:
            log.archive_logs(now=NOW)
        assert str(caught.value.path).startswith(s3.url)
        assert as_rows(log.query()) == rows
        proxy.fault = None
        log.archive_logs(now=NOW)
        assert log.query() == []
        proxy.fault = lambda request: "refuse"
        calls: list[Callable[[], object]] = [
            lambda: log.query(archived=True),
            lambda: list(log.iter(archived=True)),
            lambda: next(log.follow(after_id=0)),
            lambda: list(log.read_archive(day(0))),
            lambda: log.restore_archive(day(0)),
            log.verify,
            log.reindex,
        ]
        for read in calls:
            # It has none of them in its cache: what a job sent is not kept.
            with pytest.raises(ns.StoreUnavailableError) as caught:
                read()
            assert str(caught.value.path).startswith(f"{s3.url}/logs")
        with pytest.raises(ns.StoreUnavailableError):
            log_at(place, s3, proxy.port)
        with ns.PostgresLogStore(place.url, schema=place.schema) as without:
            late = as_row(without.append("system", "late", None, None, at(0)))
        # What was fetched before is read without an answer, and the rest is missed.
        proxy.fault = None
        first = list(log.read_archive(day(0)))
        proxy.fault = lambda request: "refuse"
        assert list(log.read_archive(day(0))) == first
        with pytest.raises(ns.StoreUnavailableError):
            log.query(archived=True)
        with pytest.raises(ns.StoreUnavailableError):
            log.archive_logs(now=NOW)
        assert as_rows(log.query()) == [late]
        with pytest.raises(ns.StoreUnavailableError):
            log.expire_archive(before=day(1))
        # The rows are gone at once, and the object with the next job.
        assert len(keys(s3)) == DAYS
        proxy.fault = None
        log.archive_logs(now=NOW)
        expected = sorted([row for row in rows if row.timestamp >= at(1)] + [late])
        assert as_rows(log.query(archived=True)) == expected
        assert keys(s3) == [f"{day(0)}.1.jsonl", f"{day(1)}.jsonl", f"{day(2)}.jsonl"]
        assert log.verify().ok


@pytest.mark.parametrize("fault", ["busy", "cut", "lose"])
def test_bad_answers_do_not_end_a_job_or_a_read(place: Backend, s3: Place, fault: str) -> None:
    with flaky(port_of(s3)) as proxy, log_at(place, s3, proxy.port) as log:
        rows = fill(log, days=DAYS)
        proxy.fault = once_each(fault)
        log.archive_logs(now=NOW)
        assert as_rows(log.query(archived=True)) == rows
        assert log.query() == []
        assert len(keys(s3)) == DAYS


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize("number", range(1, 8))
def test_upload_in_parts_that_breaks_off_anywhere_is_begun_anew(place: Backend, s3: Place, number: int) -> None:
    with flaky(port_of(s3)) as proxy, log_at(place, s3, proxy.port) as log:
        log.append_many([("system", "large", None, chr(97 + n % 26) * (1 << 20), at(0, n)) for n in range(18)])
        rows = log.query()
        begun = threading.Event()
        left = number

        def cutting(request: Any) -> str | None:
            """From the request on that begins the upload, the `number`th and all after it."""
            nonlocal left
            if request.method == "POST":
                begun.set()
            if not begun.is_set():
                return None
            left -= 1
            return "refuse" if left <= 0 else None

        proxy.fault = cutting
        with pytest.raises(ns.StoreUnavailableError):
            log.archive_logs(now=NOW)
        assert begun.is_set()
        proxy.fault = None
        assert log.query() == log.query(archived=True) == rows
        log.archive_logs(now=NOW)
        assert keys(s3) == [f"{day(0)}.jsonl"]
        assert log.query() == []
        assert log.query(archived=True) == rows


class ServerMachine(RuleBasedStateMachine):
    """`rows` is all there ever was; every read says exactly that, wherever the days are."""

    backend_name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="nerve-store-days-"))
        self.rows: list[Any] = []

    @initialize()
    def begin(self) -> None:
        self.place: Generator[Backend] = opened(self.backend_name, self.directory)  # type: ignore[assignment]
        self.backend = next(self.place)
        self.url = f"memory://{os.getpid()}-{self.backend.schema}-random"
        self.open(1 << 20)

    def open(self, cache: int) -> None:
        self.log = ns.PostgresLogStore(
            self.backend.url,
            schema=self.backend.schema,
            archive=self.url,
            durability="normal",
            cache=self.directory / "cache",
            max_cache_bytes=cache,
        )
        self.archive: Any = self.log._archive

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            with suppress(StopIteration):
                next(self.place)
        shutil.rmtree(self.directory)

    @rule(days=st.lists(st.integers(0, 5), min_size=1, max_size=9), ref=st.sampled_from(["run-1", None]))
    def append(self, days: list[int], ref: str | None) -> None:
        self.rows += [as_row(self.log.append("system", "tick", ref, "x", at(n))) for n in days]

    @rule(until=st.integers(0, 7), compression=st.sampled_from([None, "zstd"]), steps=st.none() | st.integers(0, 3))
    def archive_some(self, until: int, compression: Any, steps: int | None) -> None:
        progress = None if steps is None else StopAfter(steps)
        with suppress(Stop):
            self.log.archive_logs(now=at(until), retention=timedelta(0), compression=compression, progress=progress)

    @rule(calls=st.integers(0, 9), name=st.sampled_from(["head", "create", "get_parts", "delete", "list"]))
    def archive_fails_midway(self, calls: int, name: str) -> None:
        left = iter(range(calls))
        original = getattr(self.archive.bucket, name)

        def failing(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise ns.StoreUnavailableError("no answer")
            return original(*arguments, **options)

        setattr(self.archive.bucket, name, failing)
        try:
            with suppress(ns.StoreUnavailableError):
                self.log.archive_logs(now=at(7), retention=timedelta(0))
        finally:
            delattr(self.archive.bucket, name)

    @precondition(lambda self: self.log.archived_days())
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        self.log.restore_archive(data.draw(st.sampled_from(self.log.archived_days())).day)

    @rule(before=st.integers(0, 6))
    def expire(self, before: int) -> None:
        there = {row.id for row in as_rows(self.log.query())}
        gone = {item.day for item in self.log.expire_archive(before=day(before))}
        self.rows = [row for row in self.rows if row.id in there or ns.utc_day(row.timestamp) not in gone]

    @rule()
    def reindex(self) -> None:
        self.log.reindex()

    @rule()
    def empty_the_manifest(self) -> None:
        for table in ("archive_days", "archive_refs"):
            self.backend.execute(f"DELETE FROM {table}")
        self.log.reindex()

    @rule()
    def lose_what_the_database_knows_of_objects(self) -> None:
        """As a database from a backup that is older than all of them: those that are there are taken in."""
        for table in ("archive_days", "archive_refs", "archive_objects"):
            self.backend.execute(f"DELETE FROM {table}")
        self.reopen(1 << 20)

    @rule(cache=st.sampled_from([0, 500, 1 << 20]))
    def reopen(self, cache: int) -> None:
        self.log.close()
        self.open(cache)

    @invariant()
    def every_row_is_there_once(self) -> None:
        if not hasattr(self, "log"):
            return
        assert as_rows(self.log.query(archived=True)) == self.rows
        of_run = [row for row in self.rows if row.ref_id == "run-1"]
        assert as_rows(self.log.iter(archived=True, ref_id="run-1")) == of_run
        assert self.log.verify().problems == ()

    @invariant()
    def each_day_is_where_it_is_said_to_be(self) -> None:
        if not hasattr(self, "log"):
            return
        listed = Bucket(f"{self.url}/logs", {}).list()
        there = {f"{self.url}/logs/{found.key}" for page in listed for found in page}
        assert {item.path for item in self.log.archived_days()} <= there


@pytest.mark.parametrize("name", ["postgresql-15", "postgresql-18"])
def test_at_random(name: str) -> None:
    reason = available(name)
    if reason is not None:
        pytest.skip(reason)
    run_state_machine_as_test(type("Machine", (ServerMachine,), {"backend_name": name}))


def test_child_of_a_process_that_used_an_object_store_is_told(place: Backend, opened: Any, files: Place) -> None:
    """Its client would hang there; without the archive the log can be opened."""
    opened(files).append("system", "tick")
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        done = 1
        try:
            ns.PostgresLogStore(place.url, schema=place.schema, archive=files.url)
        except ns.ForkedStoreError as error:
            if "spawn" in str(error):
                with ns.PostgresLogStore(place.url, schema=place.schema) as log:
                    done = 0 if log.append("system", "tock").id == 2 else 1
        finally:
            os._exit(done)
    assert os.waitpid(child, 0)[1] == 0
