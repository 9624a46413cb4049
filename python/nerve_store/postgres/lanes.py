"""Writing: jobs that wait share a commit.

One of the callers leads a lane and commits for all. Jobs of few rows go by one lane at a time, so that they share its
commits: a call costs the server and the client more than a row does. Callers that shared the last commit are awaited
for a moment before the next one. Other lanes are for jobs of many rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

from nerve_store.exceptions import NerveStoreError, StoreUnavailableError
from nerve_store.postgres import failures
from nerve_store.postgres.connections import Connections
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.lane import Lane

_Result = TypeVar("_Result")

_MOST_ROWS, _MOST_BYTES = 20_000, 16 << 20
"""Of one commit, unless a single job has more."""
_FEW_ROWS, _FEW_BYTES = 100, 64 << 10
"""Of a job that waits for the commit that is under way in place of one of its own beside it."""
_LONGEST_WAIT = 0.0005
"""Seconds that those who shared the last commit are awaited; a quarter of its time at the most."""


class Lanes:
    """The jobs that wait, and the lanes that take them, in the order in which they came.

    An interrupt may come wherever Python looks for one, also while a caller enters or leaves. So each step is one
    assignment, all is said in one place (`lane.leader`, `lane.taken`), and leaving once more does what is left to do.
    """

    def __init__(self, connections: Connections, schema: str, log: str, *, count: int) -> None:
        self._connections = connections
        self._all = [Lane(connections, schema, log) for _ in range(count)]
        self._waiting: list[Job] = []
        """Jobs that no commit has taken, in the order in which they came."""
        self._mutex = threading.Lock()
        self._idle = threading.Condition(self._mutex)
        self._gathering: Lane | None = None
        """The lane whose leader awaits others."""

    def run(self, job: Job, result: Callable[[Job], _Result]) -> _Result:
        """Commit the job, with others that wait; returns its `result` once it was committed, or raises what refused it.

        A caller that is given a free lane leads: it commits what waits, its own job included, and hands the lane to the
        first of those that came meanwhile. Each of the others sleeps until its job is committed or it is to lead.
        """
        self._connections.check()
        try:
            self._enter(job)
            job.wait()
            lane = self._led_for(job)
            if lane is not None:
                self._lead(lane)
            with self._mutex:
                self._leave(job)
            job.check()
            return result(job)
        except BaseException as error:
            may_be_written = self._withdraw_surely(job)
            if may_be_written and error is not job.error:
                error.add_note(f"{self._connections.place}: what the call was writing may be written all the same")
            raise

    def _enter(self, job: Job) -> None:
        with self._mutex:
            job.is_queued = True
            self._waiting.append(job)
            self._begin(job)
            gathering = self._gathering
            if gathering is not None and gathering.leader and len(self._waiting) >= gathering.expected:
                gathering.leader.wake()

    def _led_for(self, job: Job) -> Lane | None:
        """The lane that the job's caller leads."""
        return next((lane for lane in self._all if lane.leader is job), None)

    def _lead(self, lane: Lane) -> None:
        assert lane.leader is not None
        self._settle(lane)
        if lane.leader.has_ended():
            return
        self._gather(lane)
        began = time.monotonic()
        self._write(lane, self._take(lane))
        lane.took = time.monotonic() - began
        lane.expected = len(lane.taken) + len(self._waiting)

    def _withdraw_surely(self, job: Job) -> bool:
        """The same as `_withdraw`, also if another interrupt comes meanwhile, which then is the same one."""
        while True:
            try:
                return self._withdraw(job)
            except BaseException:  # noqa: BLE001, S112 - the first one is raised
                continue

    def _withdraw(self, job: Job) -> bool:
        """Leave after an interrupt, wherever it came; returns whether what the job has may be written."""
        with self._mutex:
            may_be_written = self._may_be_written(job)
            # It may have come between an outcome and the call that wakes who waits for it.
            for lane in self._all:
                for other in (*lane.taken, *lane.left):
                    if other.has_ended():
                        other.wake()
            self._leave(job)
            for lane in self._all:
                if lane.leader is not None:
                    lane.leader.wake()
        return may_be_written

    def _may_be_written(self, job: Job) -> bool:
        if job.has_ended():
            return job.error is None
        is_with_another = job.is_queued and job not in self._waiting and self._led_for(job) is None
        return is_with_another or any(lane.has_sent(job) for lane in self._all)

    def _leave(self, job: Job) -> None:
        for jobs in (self._waiting, *(lane.left for lane in self._all)):
            if job in jobs:
                jobs.remove(job)
        lane = self._led_for(job)
        if lane is not None:
            self._hand_on(lane)
        first = next((waiting for waiting in self._waiting if self._led_for(waiting) is None), None)
        if first is not None:
            self._begin(first)

    def _hand_on(self, lane: Lane) -> None:
        # The interrupt is the leader's; the others are not to suffer for it.
        others = [job for job in lane.taken if job is not lane.leader and not job.has_ended()]
        lane.left += [job for job in others if lane.has_sent(job) and job not in lane.left]
        self._wait_again([job for job in others if job not in lane.left])
        lane.taken = []
        if self._gathering is lane:
            self._gathering = None
        lane.leader = lane.left[0] if lane.left else None
        if lane.leader is not None:
            lane.leader.wake()
        else:
            self._idle.notify_all()

    def _wait_again(self, jobs: list[Job]) -> None:
        self._waiting = [job for job in jobs if job not in self._waiting] + self._waiting

    def _begin(self, job: Job) -> None:
        """Let the job's caller lead, unless all lanes are taken or the job is to follow a small commit."""
        free = [lane for lane in self._all if lane.leader is None]
        is_to_follow = _is_small(job) and any(lane.is_small for lane in self._all if lane not in free)
        if free and not is_to_follow:
            free[0].is_small = _is_small(job)
            free[0].leader = job
            job.wake()

    def _gather(self, lane: Lane) -> None:
        """Give those who shared the last commit a moment to come again."""
        assert lane.leader is not None
        with self._mutex:
            if lane.expected <= len(self._waiting) or self._gathering is not None:
                return
            self._gathering = lane
        lane.leader.wait(min(lane.took / 4, _LONGEST_WAIT))
        with self._mutex:
            self._gathering = None

    def _take(self, lane: Lane) -> list[Job]:
        """The leader's own job and others that wait, without those whose callers lead another lane."""
        own = lane.leader
        assert own is not None
        jobs = [own]
        rows, size = len(own.columns), own.columns.payload_bytes
        with self._mutex:
            for job in self._waiting:
                if self._led_for(job) is not None:
                    continue
                rows += len(job.columns)
                size += job.columns.payload_bytes
                if rows > _MOST_ROWS or size > _MOST_BYTES:
                    break
                jobs.append(job)
            lane.is_small = all(map(_is_small, jobs))
            lane.taken = jobs
            taken = set(jobs)
            self._waiting = [job for job in self._waiting if job not in taken]
        return jobs

    def _write(self, lane: Lane, jobs: list[Job]) -> None:
        """Give each job its outcome; what is raised is no outcome, but an interrupt."""
        try:
            lane.write(jobs)
        except StoreUnavailableError as error:
            for job in jobs:
                job.fail(error)
        except (NerveStoreError, ValueError) as error:
            if lane.is_in_doubt():
                raise
            if len(jobs) == 1:
                jobs[0].fail(error)
                return
            # One of them is refused by the server itself: the others are not to suffer for it.
            for job in jobs:
                self._write(lane, [job])

    def _settle(self, lane: Lane) -> None:
        """Tell those whom an interrupted caller left what became of their commit, or let them wait anew."""
        if not lane.left:
            return
        is_known = True
        try:
            is_known = lane.settle()
        except (NerveStoreError, psycopg.Error) as error:
            for job in lane.left:
                if not job.has_ended():
                    job.fail(failures.unavailable(self._connections.place, error, is_unknown=True))
        with self._mutex:
            if not is_known:
                self._wait_again([job for job in lane.left if not job.has_ended()])
            lane.left = []

    def close(self) -> None:
        """Wait for what is under way, and close the lanes."""
        with self._mutex:
            while any(lane.leader is not None for lane in self._all):
                self._idle.wait(1.0)
        for lane in self._all:
            lane.close()


def _is_small(job: Job) -> bool:
    return len(job.columns) <= _FEW_ROWS and job.columns.payload_bytes <= _FEW_BYTES
