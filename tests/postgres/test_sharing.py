"""Which jobs share a commit: by callers on a lane whose commits end when the test says so."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from nerve_store.postgres import lanes
from nerve_store.postgres.entries import CheckedRow
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.lane import Lane
from nerve_store.postgres.lanes import Lanes
from postgres.held import LONG, Nowhere, until


class Callers:
    """Callers of two lanes. Each commit takes until it is ended; `commits` has the jobs of each, as they began."""

    def __init__(self) -> None:
        self.lanes = Lanes(cast(Any, Nowhere()), "schema", "log", count=2)
        self.commits: list[list[Job]] = []
        self.threads: list[threading.Thread] = []
        self._ends: list[threading.Event] = []

    def write(self, jobs: list[Job]) -> None:
        ending = threading.Event()
        self._ends.append(ending)
        self.commits.append(jobs)
        assert ending.wait(LONG)
        for job in jobs:
            job.succeed(1, [])

    def run(self, *, rows: int = 1, size: int = 2) -> Job:
        """A job by a caller of its own, which waits or leads by now."""
        job = Job(is_durable=True)
        for _ in range(rows):
            job.append(CheckedRow("system", "tick", None, "x" * size, 1))
        self.threads.append(threading.Thread(target=self.lanes.run, args=(job, Job.has_ended)))
        self.threads[-1].start()
        until(lambda: job in self.lanes._waiting or any(job in jobs for jobs in self.commits))
        return job

    def end(self, commit: int) -> None:
        self._ends[commit].set()
        until(lambda: all(job.has_ended() for job in self.commits[commit]))

    def has_begun(self, count: int) -> None:
        until(lambda: len(self.commits) == count)


@pytest.fixture
def callers(monkeypatch: pytest.MonkeyPatch) -> Callers:
    made = Callers()
    monkeypatch.setattr(Lane, "write", lambda _, jobs: made.write(jobs))
    return made


def test_jobs_of_few_rows_follow_the_commit_that_is_under_way(callers: Callers) -> None:
    first = callers.run()
    callers.has_begun(1)
    others = [callers.run() for _ in range(3)]
    assert callers.commits == [[first]]
    callers.end(0)
    callers.has_begun(2)
    assert callers.commits == [[first], others]
    callers.end(1)


@pytest.mark.parametrize("many", [{"rows": 200}, {"size": 100_000}], ids=["rows", "bytes"])
def test_job_of_many_rows_has_a_lane_of_its_own_beside_a_small_commit(callers: Callers, many: dict[str, int]) -> None:
    first = callers.run()
    callers.has_begun(1)
    follower = callers.run()
    large = callers.run(**many)
    callers.has_begun(2)
    assert callers.commits == [[first], [large, follower]]
    callers.end(0)
    callers.end(1)


@pytest.mark.parametrize("many", [{"rows": 200}, {"size": 100_000}], ids=["rows", "bytes"])
def test_small_job_does_not_wait_for_a_large_one(callers: Callers, many: dict[str, int]) -> None:
    large = callers.run(**many)
    callers.has_begun(1)
    small = callers.run()
    callers.has_begun(2)
    assert callers.commits == [[large], [small]]
    follower = callers.run()
    callers.end(0)
    # The lane of the large job is free; the small commit is followed all the same.
    until(lambda: free(callers) == 1)
    assert len(callers.commits) == 2
    callers.end(1)
    callers.has_begun(3)
    assert callers.commits[2] == [follower]
    callers.end(2)


def test_callers_that_shared_a_commit_are_awaited(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    share(callers, 3)
    wait_long(callers, monkeypatch)
    again = [callers.run()]
    until(lambda: callers.lanes._gathering is not None)
    again.append(callers.run())
    assert len(callers.commits) == 2
    again.append(callers.run())
    callers.has_begun(3)
    assert callers.commits[2] == again
    callers.end(2)


def test_callers_that_do_not_come_again_are_awaited_once(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    share(callers, 3)
    monkeypatch.setattr(lanes, "_LONGEST_WAIT", 0.01)
    for number in range(2, 4):
        lane = callers.lanes._all[0]
        assert lane.expected == (3 if number == 2 else 1)
        job = callers.run()
        callers.has_begun(number + 1)
        assert callers.commits[number] == [job]
        callers.end(number)
        until(lambda: free(callers) == 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupt_of_a_leader_that_awaits_others_leaves_them_their_turn(
    callers: Callers, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    share(callers, 2)
    wait_long(callers, monkeypatch)
    awaited = threading.Event()
    wait = Job.wait

    def interrupted(job: Job, timeout: float = -1) -> None:
        if timeout < 0:
            wait(job)
            return
        monkeypatch.setattr(Job, "wait", wait)
        awaited.set()
        monkeypatch.setattr(lanes, "_LONGEST_WAIT", 0.01)
        until(lambda: len(callers.lanes._waiting) == 2)
        raise error

    monkeypatch.setattr(Job, "wait", interrupted)
    raised: list[BaseException] = []

    def lead() -> None:
        try:
            callers.lanes.run(Job(is_durable=True), Job.has_ended)
        except BaseException as caught:  # noqa: BLE001 - what the test asks for
            raised.append(caught)

    leader = threading.Thread(target=lead)
    leader.start()
    assert awaited.wait(LONG)
    other = callers.run()
    leader.join(LONG)
    assert [type(caught) for caught in raised] == [error]
    callers.has_begun(3)
    assert callers.commits[2] == [other]
    callers.end(2)


def free(callers: Callers) -> int:
    return sum(lane.leader is None for lane in callers.lanes._all)


def share(callers: Callers, count: int) -> None:
    """One commit alone, then one that so many share."""
    callers.run()
    callers.has_begun(1)
    shared = [callers.run() for _ in range(count)]
    callers.end(0)
    callers.has_begun(2)
    assert callers.commits[1] == shared
    callers.end(1)
    until(lambda: free(callers) == 2)


def wait_long(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that only the awaited end."""
    monkeypatch.setattr(lanes, "_LONGEST_WAIT", LONG)
    callers.lanes._all[0].took = 4 * LONG
