"""Writes that a signal ends raise what its handler raised, whatever the server does; nothing is written twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.postgres import lane
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.schema import lock_key
from postgres.held import hold, let_go
from support.servers import Server
from support.signals import Interrupted, handler, signal_after

MARK = "may be written all the same"


def write_a_batch(log: Any) -> None:
    with log.batch() as batch:
        batch.append("system", "own")
        batch.set_meta("key", "value")


WRITES: dict[str, Callable[[Any], Any]] = {
    "append": lambda log: log.append("system", "own"),
    "append with a key": lambda log: log.append("system", "own", key="key"),
    "append_many": lambda log: log.append_many([("system", "own", None, None, 1)]),
    "batch": write_a_batch,
    "create_workflow_run": lambda log: log.create_workflow_run("new", "deploy"),
    "transition": lambda log: log.transition("run", "started"),
    "claim_workflow_run": lambda log: log.claim_workflow_run("worker"),
    "set_meta": lambda log: log.set_meta("key", "value"),
    "delete_meta": lambda log: log.delete_meta("there"),
}
RAISED = [KeyboardInterrupt, SystemExit, Interrupted]


def prepare(log: Any) -> None:
    log.create_workflow_run("run", "deploy")
    log.set_meta("there", "value")


def state(log: Any) -> Any:
    return [(row.source, row.type, row.ref_id) for row in log.query()], log.list_meta(), log.query_workflow_runs()


@contextmanager
def interrupted(error: type[BaseException], after: float = 0.3) -> Iterator[BaseException]:
    """The block ends by what a handler raises, and by nothing else."""
    caught = error()

    def fail() -> None:
        raise caught

    with handler(fail), signal_after(after) as sent:
        with pytest.raises(BaseException) as found:  # noqa: PT011
            yield caught
        assert found.value is caught, repr(found.value)
        assert sent


@contextmanager
def silent(server: Server) -> Iterator[None]:
    """The server takes connections and bytes, and does nothing."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    pids = [server.process.pid, *map(int, children)]

    def send(number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    send(signal.SIGSTOP)
    try:
        yield
    finally:
        send(signal.SIGCONT)


def notes(error: BaseException) -> str:
    return "".join(getattr(error, "__notes__", []))


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("name", WRITES)
def test_write_that_waits_for_the_lock_is_interrupted(place: Backend, name: str, error: type[BaseException]) -> None:
    log: Any = place.open(busy_timeout=1.0)
    prepare(log)
    before = state(log)
    with psycopg.connect(place.direct_url) as session:
        session.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(place.schema),))
        with interrupted(error) as caught:
            WRITES[name](log)
        assert MARK in notes(caught)
        assert state(log) == before
    log.append("system", "next")
    found = state(log)
    assert found[0].count(("system", "next", None)) == 1
    assert len(found[0]) <= len(before[0]) + 2


@pytest.mark.parametrize("name", WRITES)
def test_write_to_a_silent_server_is_interrupted(own_server: Server, name: str) -> None:
    with ns.PostgresLogStore(own_server.url, busy_timeout=1.0) as log:
        prepare(log)
        before = state(log)
        with silent(own_server), interrupted(Interrupted) as caught:
            WRITES[name](log)
        assert MARK in notes(caught)
        # The store serves on, and by then it is settled what became of the call.
        log.append("system", "next")
        found = state(log)
        assert len(found[0]) in (len(before[0]) + 1, len(before[0]) + 2)
        time.sleep(0.3)
        assert state(log) == found


def test_ctrl_c_ends_a_loop_that_repeats_what_is_unavailable(own_server: Server) -> None:
    with ns.PostgresLogStore(own_server.url, busy_timeout=1.0) as log:
        log.append("system", "first")
        with silent(own_server), interrupted(KeyboardInterrupt) as caught:
            while True:
                try:
                    log.append("system", "own")
                except ns.StoreUnavailableError:
                    continue
                break
        assert MARK in notes(caught)
        log.append("system", "next")
        assert [row.type for row in log.query()].count("own") <= 1


@pytest.mark.parametrize("error", RAISED)
def test_write_that_was_not_sent_says_nothing_of_it(place: Backend, error: type[BaseException]) -> None:
    log: Any = place.open(writers=1)
    hold(log)
    with interrupted(error) as caught:
        log.append("system", "own")
    let_go(log)
    assert notes(caught) == ""
    log.append("system", "next")
    assert [row.type for row in log.query()] == ["next"]


class Group:
    """Jobs of other threads that share the commit of the next call of this one."""

    def __init__(self, log: Any, count: int = 3, **options: Any) -> None:
        self.log = log
        self.jobs = [Job(is_durable=True) for _ in range(count)]
        for number, job in enumerate(self.jobs):
            job.append(log._row("system", f"other-{number}", None, "x" * options.get(f"size_{number}", 1), 1))
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(job,)) for job in self.jobs]

    def _run(self, job: Job) -> None:
        try:
            self.log._lanes.run(job, Job.has_ended)
        except BaseException as error:  # noqa: BLE001
            self.errors.append(error)

    def __enter__(self) -> Self:
        hold(self.log)
        for number, thread in enumerate(self._threads):
            thread.start()
            while len(self.log._lanes._waiting) <= number:
                time.sleep(0.005)
        let_go(self.log)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("error", RAISED)
def test_others_of_an_interrupted_commit_wait_on_and_are_written_once(
    place: Backend, error: type[BaseException]
) -> None:
    log: Any = place.open(writers=1, busy_timeout=30)
    log.append("system", "first")
    with ExitStack() as stack:
        session = stack.enter_context(psycopg.connect(place.direct_url))
        session.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(place.schema),))
        group = stack.enter_context(Group(log))
        with interrupted(error):
            log.append("system", "own")
        session.rollback()
    assert group.errors == []
    types = [row.type for row in log.query()]
    assert [types.count(f"other-{number}") for number in range(3)] == [1, 1, 1]
    assert types.count("own") <= 1


def test_others_of_an_interrupted_commit_are_told_if_its_outcome_stays_unknown(place: Backend) -> None:
    log: Any = place.open(writers=1, busy_timeout=0.5)
    log.append("system", "first")
    with psycopg.connect(place.direct_url) as session:
        session.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key(place.schema),))
        with Group(log) as group, interrupted(Interrupted, 0.1):
            log.append("system", "own")
    assert len(group.errors) == 3
    assert all(isinstance(error, ns.StoreUnavailableError) and "unknown" in str(error) for error in group.errors)
    assert log.append("system", "next").type == "next"
    assert [row.type for row in log.query()].count("other-0") <= 1


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("number", range(2, 7))
def test_interrupt_of_a_commit_that_is_divided_leaves_no_other_waiting(
    place: Backend, monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException]
) -> None:
    """One of the jobs is refused, so that each is written by itself."""
    log: Any = place.open(writers=1)
    log.append("system", "first")
    monkeypatch.setattr(lane, "_MOST_MESSAGE_BYTES", 100_000)
    original, calls = lane.Lane.write, 0

    def write(self: Any, jobs: list[Job]) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        original(self, jobs)

    with Group(log, size_1=200_000) as group:
        monkeypatch.setattr(lane.Lane, "write", write)
        with suppress(error):
            log.append("system", "own")
    assert [type(found) for found in group.errors] == [ValueError] or number > 5
    types = [row.type for row in log.query()]
    assert [types.count(f"other-{number}") for number in range(3)] == [1, 0, 1]
    assert types.count("own") <= 1
