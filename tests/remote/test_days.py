"""Days in an object store: kills at each step, no answer, other processes, interrupts; and all of it at random."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import nerve_store as ns
from contract.blob_places import Place
from support import Stop, StopAfter, as_row, as_rows, child_environment, day_files, foreign_script, objects
from support.archive import MANIFEST_TABLES, NOW, at, day, fill
from support.flaky import flaky, once_each

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote import bucket
from nerve_store.remote.bucket import Bucket

DAYS = 3

STEPS = {
    "begin": "core.LogStore._begin_upload",
    "send": "Bucket.create",
    "read back": "move_file.holds",
    "finish": "core.LogStore._finish_upload",
    "release": "core.LogStore._release_day",
    "delete": "Bucket.delete",
    "forget": "core.LogStore._forget_object",
}

KILLED = """
import sys
import nerve_store as ns
from nerve_store import _core as core
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.days import move as move_file
from support.killing import killing

data, url, step, when, number, now = sys.argv[1:]
number = int(number)
owner, name = step.rsplit(".", 1)

class Log:
    def __init__(self, log):
        self._log = log
        if owner == "core.LogStore":
            setattr(self, name, killing(getattr(log, name), when, number))
    def __getattr__(self, attribute):
        return getattr(self._log, attribute)

if owner != "core.LogStore":
    target = {"Bucket": Bucket, "move_file": move_file}[owner]
    setattr(target, name, killing(getattr(target, name), when, number))
with ns.Store(data, durability="normal", remote=url) as store:
    remote = store.logs._remote
    after_job = remote.after_job
    remote.after_job = lambda log, result, wait: after_job(Log(log), result, wait)
    store.logs.archive_logs(now=int(now))
"""


def keys(url: str, options: dict[str, Any] | None = None) -> list[str]:
    listed = Bucket(f"{url}/logs", options or {}).list()
    return sorted(found.key for page in listed for found in page if not found.key.startswith("."))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_kill_at_any_step_loses_nothing_and_the_next_job_goes_on(
    directory: Place, tmp_path: Path, step: str, when: str, number: int
) -> None:
    data = tmp_path / "data"
    with ns.Store(data, durability="normal", remote=directory.url) as store:
        rows = fill(store.logs, days=DAYS)
        store.logs.archive_logs(now=NOW)
        # Each of these gets another object, and the first one is to be deleted.
        rows += [as_row(store.logs.append("system", "late", None, None, at(n))) for n in range(DAYS)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, data, directory.url, STEPS[step], when, str(number), str(NOW)],
        env=child_environment(), timeout=120, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    with ns.Store(data, durability="normal", remote=directory.url) as store:
        assert as_rows(store.logs.query(archived=True)) == rows
        # A day that grows once more before the job is repeated makes what was sent superfluous.
        rows += [as_row(store.logs.append("system", "later", None, None, at(0)))]
        store.logs.archive_logs(now=NOW)
        assert as_rows(store.logs.query(archived=True)) == rows
        assert store.logs.verify().ok
        assert not day_files(store.archive_dir)
        assert [item.path for item in store.logs.archived_days()] == [
            f"{directory.url}/logs/{key}" for key in keys(directory.url)
        ]
        assert len(keys(directory.url)) == DAYS


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_RETRIES", bucket._NO_RETRIES)


@pytest.mark.usefixtures("_no_patience")
def test_bucket_without_an_answer_is_told_and_nothing_is_lost(s3: Place, tmp_path: Path) -> None:
    port = int(s3.options["endpoint"].rpartition(":")[2])
    with flaky(port) as proxy:
        options = objects.S3Server.options(proxy.port)
        with ns.Store(tmp_path / "data", durability="normal", remote=s3.url, remote_options=options) as store:
            rows = fill(store.logs, days=DAYS)
            proxy.fault = lambda request: "refuse"
            with pytest.raises(ns.StoreUnavailableError) as caught:
                store.logs.archive_logs(now=NOW)
            assert str(caught.value.path).startswith(s3.url)
            # The job here is done, and what it did is read from the files.
            assert list(day_files(store.archive_dir)) == [day(n) for n in range(DAYS)]
            assert as_rows(store.logs.query(archived=True)) == rows
            proxy.fault = None
            store.logs.archive_logs(now=NOW)
            assert not day_files(store.archive_dir)
            proxy.fault = lambda request: "refuse"
            for read in (
                lambda: store.logs.query(archived=True),
                lambda: list(store.logs.iter(archived=True)),
                lambda: list(itertools.islice(store.logs.follow(after_id=0), 1)),
                lambda: list(store.logs.read_archive(day(0))),
                lambda: store.logs.restore_archive(day(0)),
                store.logs.verify,
                store.logs.reindex,
                lambda: store.backup(tmp_path / "backup"),
            ):
                with pytest.raises(ns.StoreUnavailableError) as caught:
                    read()
                assert str(caught.value.path).startswith(f"{s3.url}/logs/")
            assert store.logs.query() == []
            # What was fetched before is read without an answer, and the rest is missed.
            proxy.fault = None
            first = list(store.logs.read_archive(day(0)))
            proxy.fault = lambda request: "refuse"
            assert store.logs.query(archived=True, until=at(1) - 1) == first
            with pytest.raises(ns.StoreUnavailableError):
                store.logs.query(archived=True)
            late = as_row(store.logs.append("system", "late", None, None, at(0)))
            other = as_row(store.logs.append("system", "late", None, None, at(1)))
            with pytest.raises(ns.StoreUnavailableError):
                store.logs.archive_logs(now=NOW)
            # The first day was in the cache, and has gained its row; the second one could not be fetched.
            assert as_rows(store.logs.query()) == [other]
            with pytest.raises(ns.StoreUnavailableError):
                store.logs.expire_archive(before=day(1))
            # The rows are gone at once, and the object with the next job.
            assert len(keys(s3.url, s3.options)) == DAYS
            proxy.fault = None
            store.logs.archive_logs(now=NOW)
            expected = sorted(row for row in [*rows, late, other] if row.timestamp >= at(1))
            assert as_rows(store.logs.query(archived=True)) == expected
            assert len(keys(s3.url, s3.options)) == DAYS - 1
            assert store.logs.verify().ok


@pytest.mark.parametrize("fault", ["busy", "cut", "lose"])
def test_bad_answers_do_not_end_a_job_or_a_read(s3: Place, tmp_path: Path, fault: str) -> None:
    port = int(s3.options["endpoint"].rpartition(":")[2])
    with flaky(port) as proxy:
        options = objects.S3Server.options(proxy.port)
        with ns.Store(tmp_path / "data", durability="normal", remote=s3.url, remote_options=options) as store:
            rows = fill(store.logs, days=DAYS)
            proxy.fault = once_each(fault)
            store.logs.archive_logs(now=NOW)
            assert as_rows(store.logs.query(archived=True)) == rows
            assert not day_files(store.archive_dir)


READER = """
import sys
import nerve_store as ns
data, url, count = sys.argv[1:]
with ns.Store(data, read_only=True, remote=url, max_cache_bytes=2000) as store:
    print("ready", flush=True)
    while not sys.stdin.readline().startswith("end"):
        found = [row.id for row in store.logs.query(archived=True)]
        assert found == sorted(set(found))
        print(len(found), flush=True)
"""


def test_another_process_reads_while_days_move(directory: Place, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ns.Store(data, durability="normal", remote=directory.url, max_cache_bytes=2000) as store:
        count = len(fill(store.logs, days=DAYS))
        with subprocess.Popen(
            [sys.executable, "-c", READER, data, directory.url, str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment(),
        ) as reader:  # fmt: skip
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            for number in range(8):
                reader.stdin.write("\n")
                reader.stdin.flush()
                store.logs.archive_logs(now=NOW)
                found = int(reader.stdout.readline())
                assert found in {count, count + 1}  # the row below may be there already or not, no other is missed
                reader.stdin.write("\n")
                reader.stdin.flush()
                assert int(reader.stdout.readline()) == count
                store.logs.append("system", "late", None, None, at(number % DAYS))
                count += 1
                reader.stdin.write("\n")
                reader.stdin.flush()
                assert int(reader.stdout.readline()) == count
            reader.stdin.write("end\n")
            reader.stdin.flush()
            assert reader.wait(60) == 0


INTERRUPTED = """
import sys, threading
import nerve_store as ns
from nerve_store.remote.bucket import Bucket
data, url = sys.argv[1:]
with ns.Store(data, remote=url) as store:
    def never(*arguments):
        print("waits", flush=True)
        threading.Event().wait()
    Bucket.head = never
    try:
        CALL
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(len(store.logs.query()), flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        "store.logs.query(archived=True)",
        "list(store.logs.iter(archived=True))",
        "store.logs.verify()",
        "store.logs.archive_logs(retention=__import__('datetime').timedelta(0))",
    ],
)
def test_interrupt_ends_a_call_that_waits_for_the_place(directory: Place, tmp_path: Path, call: str) -> None:
    data = tmp_path / "data"
    with ns.Store(data, durability="normal", remote=directory.url) as store:
        fill(store.logs, days=1)
        store.logs.archive_logs(now=NOW)
        store.logs.append("system", "late", None, None, at(5))
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED.replace("CALL", call), data, directory.url],
        stdout=subprocess.PIPE, text=True, env=child_environment(),
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read().splitlines()
        assert child.wait(60) == 0
    assert [line for line in rest if line != "waits"][:1] == ["interrupted"]


class RemoteMachine(RuleBasedStateMachine):
    """`rows` is all there ever was; every read says exactly that, wherever the days are."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="nerve-store-remote-")
        self.url = f"memory://{os.getpid()}-{id(self)}-{time.monotonic_ns()}"
        self.rows: list[Any] = []
        self.open(1 << 20)

    def open(self, cache: int) -> None:
        self.store = ns.Store(
            Path(self.directory.name) / "data",
            durability="normal",
            segment_rows=5,
            remote=self.url,
            max_cache_bytes=cache,
        )

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule(days=st.lists(st.integers(0, 5), min_size=1, max_size=9), ref=st.sampled_from(["run-1", None]))
    def append(self, days: list[int], ref: str | None) -> None:
        self.rows += [as_row(self.store.logs.append("system", "tick", ref, "x", at(n))) for n in days]

    @rule(until=st.integers(0, 7), compression=st.sampled_from([None, "zstd"]), steps=st.none() | st.integers(0, 3))
    def archive(self, until: int, compression: Any, steps: int | None) -> None:
        progress = None if steps is None else StopAfter(steps)
        with suppress(Stop):
            self.store.logs.archive_logs(
                now=at(until), retention=timedelta(0), compression=compression, progress=progress
            )

    @rule(calls=st.integers(0, 9))
    def archive_fails_midway(self, calls: int) -> None:
        left = iter(range(calls))
        head, remote = Bucket.head, self.store.logs._remote

        def failing(key: str) -> Any:
            if next(left, None) is None:
                raise ns.StoreUnavailableError("no answer")
            return head(remote.bucket, key)

        remote.bucket.head = failing
        try:
            with suppress(ns.StoreUnavailableError):
                self.store.logs.archive_logs(now=at(7), retention=timedelta(0))
        finally:
            del remote.bucket.head

    @precondition(lambda self: self.store.logs.archived_days())
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        self.store.logs.restore_archive(data.draw(st.sampled_from(self.store.logs.archived_days())).day)

    @rule()
    def reindex(self) -> None:
        self.store.logs.reindex()

    @rule()
    def empty_the_manifest(self) -> None:
        foreign_script(self.store.logs.path, "".join(f"DELETE FROM {table};" for table in MANIFEST_TABLES))
        self.store.logs.reindex()

    @rule(cache=st.sampled_from([0, 500, 1 << 20]))
    def reopen(self, cache: int) -> None:
        self.store.close()
        self.open(cache)

    @invariant()
    def every_row_is_there_once(self) -> None:
        assert as_rows(self.store.logs.query(archived=True)) == self.rows
        of_run = [row for row in self.rows if row.ref_id == "run-1"]
        assert as_rows(self.store.logs.iter(archived=True, ref_id="run-1")) == of_run

    @invariant()
    def nothing_is_wrong(self) -> None:
        assert self.store.logs.verify().problems == ()

    @invariant()
    def each_day_is_where_it_is_said_to_be(self) -> None:
        there = {f"{self.url}/logs/{key}" for key in keys(self.url)}
        for item in self.store.logs.archived_days():
            assert item.path in there or os.path.exists(item.path)


TestRemote = RemoteMachine.TestCase


def test_closed_port_is_told_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_RETRIES", bucket._NO_RETRIES)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        options = objects.S3Server.options(taken.getsockname()[1])
        with pytest.raises(ns.StoreUnavailableError):
            ns.Store(tmp_path / "data", remote="s3://bucket/prefix", remote_options=options)
