"""Writing: jobs that wait share a commit.

One of the callers leads a lane and commits for all. Jobs of few rows go by one lane at a time, so that they share its
commits: a call costs the server and the client more than a row does. Callers that shared the last commit are awaited
for a moment before the next one. Other lanes are for jobs of many rows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress

import psycopg

from nerve_store.exceptions import NerveStoreError, StoreUnavailableError
from nerve_store.postgres import failures
from nerve_store.postgres.connections import Connections
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.lane import Lane

_MOST_ROWS, _MOST_BYTES = 20_000, 16 << 20
"""Of one commit, unless a single job has more."""
_FEW_ROWS, _FEW_BYTES = 100, 64 << 10
"""Of a job that waits for the commit that is under way in place of one of its own beside it."""
_LONGEST_WAIT = 0.0005
"""Seconds that those who shared the last commit are awaited; a quarter of its time at the most."""


class Lanes:
    """The jobs that wait, and the lanes that take them, in the order in which they came."""

    def __init__(self, connections: Connections, schema: str, log: str, *, count: int) -> None:
        self._connections = connections
        self._waiting: deque[Job] = deque()
        self._free = [Lane(connections, schema, log) for _ in range(count)]
        self._all = list(self._free)
        self._mutex = threading.Lock()
        self._idle = threading.Condition(self._mutex)
        self._gathering: Job | None = None
        """The job of a caller that leads, and awaits others."""

    def run(self, job: Job) -> Job:
        """Commit the job, with others that wait; returns it once its outcome is known, or raises what refused it.

        A caller that is given a free lane leads: it commits what waits, its own job included, and hands the lane to the
        first of those that came meanwhile. Each of the others sleeps until its job is committed or it is to lead.
        """
        self._connections.check()
        with self._mutex:
            self._waiting.append(job)
            self._begin(job)
            leader = self._gathering
            if leader is not None and len(self._waiting) >= leader.lane.expected:
                leader.wake()
        try:
            job.wait()
            if job.lane is not None:
                self._settle(job.lane)
            if job.lane is not None and not job.has_ended():
                self._gather(job)
                self._commit(job.lane, self._take(job), own=job)
        except BaseException as interrupt:
            if self._may_be_written(job):
                interrupt.add_note(f"{self._connections.place}: what the call was writing may be written all the same")
            raise
        finally:
            self._leave(job)
        if job.error is not None:
            raise job.error
        return job

    def _may_be_written(self, job: Job) -> bool:
        with self._mutex:
            if job.has_ended():
                return job.error is None
            is_led_by_another = job.lane is None and job not in self._waiting
            return is_led_by_another or any(lane.has_sent(job) for lane in self._all)

    def _leave(self, job: Job) -> None:
        with self._mutex:
            # Interrupted before anything was done for it.
            for waiting in (self._waiting, *(lane.left for lane in self._all)):
                with suppress(ValueError):
                    waiting.remove(job)
            lane, job.lane = job.lane, None
            if lane is not None:
                self._hand_on(lane)

    def _hand_on(self, lane: Lane) -> None:
        left = next((job for job in lane.left if job.lane is None), None)
        if left is not None:
            self._give(lane, left)
            return
        self._free.append(lane)
        self._idle.notify_all()
        first = next((job for job in self._waiting if job.lane is None), None)
        if first is not None:
            self._begin(first)

    def _begin(self, job: Job) -> None:
        """Let the job's caller lead, unless all lanes are taken or the job is to follow a small commit."""
        is_to_follow = _is_small(job) and any(lane.is_small for lane in self._all if lane not in self._free)
        if self._free and not is_to_follow:
            self._give(self._free.pop(), job)

    def _give(self, lane: Lane, job: Job) -> None:
        lane.is_small = _is_small(job)
        job.lane = lane
        job.wake()

    def _gather(self, job: Job) -> None:
        """Give those who shared the last commit a moment to come again."""
        lane: Lane = job.lane
        with self._mutex:
            if lane.expected <= len(self._waiting) or self._gathering is not None:
                return
            self._gathering = job
        try:
            job.wait(min(lane.took / 4, _LONGEST_WAIT))
        finally:
            with self._mutex:
                self._gathering = None

    def _take(self, own: Job) -> list[Job]:
        """The leader's own job and others that wait, without those whose callers lead another lane."""
        with self._mutex:
            return self._taken(own)

    def _taken(self, own: Job) -> list[Job]:
        self._waiting.remove(own)
        jobs, passed = [own], []
        rows, size = len(own.columns), own.columns.payload_bytes
        while self._waiting:
            job = self._waiting[0]
            if job.lane is None:
                rows += len(job.columns)
                size += job.columns.payload_bytes
                if rows > _MOST_ROWS or size > _MOST_BYTES:
                    break
                jobs.append(job)
            else:
                passed.append(job)
            self._waiting.popleft()
        self._waiting.extendleft(reversed(passed))
        own.lane.is_small = all(map(_is_small, jobs))
        return jobs

    def _commit(self, lane: Lane, jobs: list[Job], *, own: Job) -> None:
        began = time.monotonic()
        try:
            self._write(lane, jobs)
            lane.took = time.monotonic() - began
            lane.expected = len(jobs) + len(self._waiting)
        except BaseException:
            # The interrupt is this caller's; the other jobs are not to suffer for it.
            others = [job for job in jobs if job is not own and not job.has_ended()]
            with self._mutex:
                lane.left = [job for job in others if lane.has_sent(job)]
                self._waiting.extendleft(reversed([job for job in others if job not in lane.left]))
            raise

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
        try:
            is_committed = lane.settle()
        except (NerveStoreError, psycopg.Error) as error:
            for job in lane.left:
                if not job.has_ended():
                    job.fail(failures.unavailable(self._connections.place, error, is_unknown=True))
            lane.left = []
            return
        with self._mutex:
            left, lane.left = lane.left, []
            if not is_committed:
                self._waiting.extendleft(reversed(left))

    def close(self) -> None:
        """Wait for what is under way, and close the lanes."""
        with self._idle:
            while len(self._free) < len(self._all):
                self._idle.wait(1.0)
        for lane in self._all:
            lane.close()


def _is_small(job: Job) -> bool:
    return len(job.columns) <= _FEW_ROWS and job.columns.payload_bytes <= _FEW_BYTES
