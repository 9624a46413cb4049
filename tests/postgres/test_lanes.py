"""Interrupts of a caller that leads a commit: what others wait for is written once, whenever the interrupt comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from contract.backends import Backend
from nerve_store.postgres import PostgresLogStore, lane
from nerve_store.postgres.jobs import Job
from postgres.held import hold, let_go
from support.signals import Interrupted


def interrupting(original: Callable[..., Any], error: type[BaseException], *, after: bool) -> Callable[..., Any]:
    """`original`, whose first call raises what a handler may raise, before or after its work."""
    calls: list[int] = []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            return original(*arguments, **options)
        if after:
            original(*arguments, **options)
        raise error

    return call


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("place_of", ["_send", "_tell", "_may_pass", "write", "_reconnect"])
@pytest.mark.parametrize("is_first", [False, True], ids=["later", "first"])
def test_interrupted_leader_loses_and_doubles_nothing(
    place: Backend,
    monkeypatch: pytest.MonkeyPatch,
    place_of: str,
    after: bool,
    is_first: bool,
    error: type[BaseException],
) -> None:
    log = place.open(writers=1)
    assert isinstance(log, PostgresLogStore)
    if not is_first:
        log.append_many([("system", "before", None, None, 1)] * 3)
    others = [Job(is_durable=True) for _ in range(2)]
    for number, job in enumerate(others):
        job.append(log._row("system", f"other-{number}", None, None, 1))
    # The others wait for the one lane when this thread begins to lead, and share its commit.
    hold(log)
    threads = [threading.Thread(target=log._lanes.run, args=(job, Job.has_ended)) for job in others]
    for thread in threads:
        thread.start()
    while len(log._lanes._waiting) < len(others):
        time.sleep(0.005)
    let_go(log)
    owner: Any = lane if place_of == "_tell" else lane.Lane
    monkeypatch.setattr(owner, place_of, interrupting(getattr(owner, place_of), error, after=after))
    interrupted = False
    try:
        log.append("system", "own")
    except error:
        interrupted = True
    monkeypatch.undo()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    log.append("system", "next")
    assert all(job.has_ended() and job.error is None for job in others)
    types = [entry.type for entry in log.query()]
    assert types.count("other-0") == types.count("other-1") == 1
    assert types.count("own") <= 1
    assert interrupted or types.count("own") == 1
    assert types.count("next") == 1
    assert any(one.leader is None for one in log._lanes._all)
    for number, job in enumerate(others):
        (row,) = log.query(type=f"other-{number}")
        assert row.id == job.first_id


def write_in_a_batch(log: Any, rows: list[Any]) -> None:
    with log.batch() as batch:
        batch.set_meta("a", "b")
        batch.append_many(rows)


@pytest.mark.parametrize(
    "write",
    [
        lambda log, rows: log.append_many(rows),
        lambda log, rows: log.append_many([*rows, ("system", "r" * 5_000, "r" * 60_000, None, 1)]),
        lambda log, rows: log.append("system", "tick", None, "x" * 200_000, key="key"),
        lambda log, _: log.set_meta("key", "x" * 200_000),
        write_in_a_batch,
    ],
)
def test_call_that_the_server_cannot_take_is_refused_unsent(
    place: Backend, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any]
) -> None:
    log: Any = place.open()
    log.append("system", "before")
    monkeypatch.setattr(lane, "_MOST_MESSAGE_BYTES", 100_000)
    with pytest.raises(ValueError, match="100,000 bytes"):
        write(log, [("system", "tick", None, "x" * 20_000, 1)] * 6)
    assert log.append_many([("system", "tick", None, "x" * 20_000, 1)] * 4) == range(2, 6)
    assert log.count() == 5
    assert log.list_meta() == {}


def test_limit_of_a_call_is_what_the_server_takes() -> None:
    """Its length is a word of the message: MaxAllocSize less one."""
    assert 1_000_000_000 < lane._MOST_MESSAGE_BYTES < 0x3FFFFFFF - 1


def test_call_that_is_too_long_is_not_the_error_of_others(place: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    log: Any = place.open(writers=1)
    log.append("system", "before")
    monkeypatch.setattr(lane, "_MOST_MESSAGE_BYTES", 100_000)
    jobs = [Job(is_durable=True) for _ in range(3)]
    for number, job in enumerate(jobs):
        job.append(log._row("system", f"other-{number}", None, "x" * (200_000 if number == 1 else 5), 1))
    hold(log)
    refused: list[int] = []

    def run(number: int) -> None:
        try:
            log._lanes.run(jobs[number], Job.has_ended)
        except ValueError:
            refused.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while len(log._lanes._waiting) < len(jobs):
        time.sleep(0.005)
    let_go(log)
    log.append("system", "own")
    for thread in threads:
        thread.join(20)
    assert refused == [1]
    assert {entry.type for entry in log.query()} == {"before", "own", "other-0", "other-2"}
