"""An interrupt between any two steps of a call leaves no lane taken, no job behind, and nothing written unsaid."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from nerve_store.postgres import lanes
from nerve_store.postgres.connections import Connections
from nerve_store.postgres.entries import CheckedRow
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.lane import Lane
from nerve_store.postgres.lanes import Lanes
from postgres.held import LONG, Nowhere, until
from support.interrupts import Interrupted, interrupted_at


class Server(Lane):
    """A lane whose server is a list of the jobs that were committed."""

    committed: list[Job]
    may_answer: threading.Event | None = None
    meanwhile: Callable[[], None] | None = None
    """What happens during the next commit."""

    def write(self, jobs: list[Job]) -> None:
        self._sent = None
        self._jobs = jobs
        self._sent = len(self.committed)
        self.committed = self.committed + jobs
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if self.may_answer is not None:
            assert self.may_answer.wait(LONG)
        self._tell()

    def settle(self) -> bool:
        if self._sent is None or self.committed[self._sent :][: len(self._jobs)] != self._jobs:
            return False
        self._tell()
        return True

    def _tell(self) -> None:
        for job in self._jobs:
            job.succeed(1, [])


def job() -> Job:
    made = Job(is_durable=True)
    made.append(CheckedRow("system", "tick", None, None, 1))
    return made


class Scene:
    """Lanes of one connection, and callers in threads of their own."""

    def __init__(self) -> None:
        self.group = Lanes(cast(Any, Nowhere()), "schema", "log", count=1)
        self.server = Server(cast(Any, Nowhere()), "schema", "log")
        self.server.committed = []
        self.group._all = [self.server]
        self.threads: list[threading.Thread] = []

    def start(self, job: Job) -> None:
        self.threads.append(threading.Thread(target=self.group.run, args=(job, Job.has_ended)))
        self.threads[-1].start()

    def waits_for(self, count: int) -> None:
        until(lambda: len(self.group._waiting) >= count)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(LONG)
            assert not thread.is_alive()

    def interrupted_at(self, point: int, own: Job) -> tuple[bool, BaseException | None]:
        return interrupted_at(point, functools.partial(self.group.run, own, Job.has_ended), __file__)

    def check(self, own: Job, others: list[Job], raised: BaseException | None) -> None:
        """The interrupted call was `own`'s."""
        self.join()
        following = job()
        assert self.group.run(following, Job.has_ended)
        assert self.server.leader is None
        assert (self.group._waiting, self.server.left, self.group._gathering) == ([], [], None)
        for other in (*others, following):
            assert self.server.committed.count(other) == 1
            assert other.error is None
        written = self.server.committed.count(own)
        assert written <= 1
        if raised is None:
            assert written == 1
        elif written:
            assert "may be written" in "".join(getattr(raised, "__notes__", []))
        self.group.close()


def alone(point: int) -> bool:
    scene, own = Scene(), job()
    is_reached, raised = scene.interrupted_at(point, own)
    scene.check(own, [], raised)
    return is_reached


def leading(point: int) -> bool:
    """It commits for two others, which shared the last commit as well."""
    scene, own, others = Scene(), job(), [job(), job()]
    scene.server.expected, scene.server.took = 4, 0.001
    scene.server.leader = job()
    for number, other in enumerate(others):
        scene.start(other)
        scene.waits_for(number + 1)
    scene.server.leader = None
    is_reached, raised = scene.interrupted_at(point, own)
    with scene.group._mutex:
        first = next((other for other in scene.group._waiting if scene.group._led_for(other) is None), None)
        if first is not None:  # the call was interrupted before it came to them, and none came after it
            scene.group._begin(first)
    scene.check(own, others, raised)
    return is_reached


def handing_on(point: int) -> bool:
    """Another caller comes while it commits, and leads next."""
    scene, own, other = Scene(), job(), job()

    def come() -> None:
        trace = sys.gettrace()
        sys.settrace(None)
        scene.start(other)
        scene.waits_for(1)
        sys.settrace(trace)

    scene.server.meanwhile = come
    is_reached, raised = scene.interrupted_at(point, own)
    if not scene.threads:
        scene.start(other)
    scene.check(own, [other], raised)
    return is_reached


def following(point: int) -> bool:
    """It waits for the commit under way, and then leads another caller's job, or is one of that commit's followers."""
    scene, own, others = Scene(), job(), [job(), job()]
    scene.server.may_answer = threading.Event()
    scene.start(others[0])
    until(lambda: scene.server.committed)

    def rest() -> None:
        until(lambda: own in scene.group._waiting or is_over.is_set())
        scene.start(others[1])
        until(lambda: others[1] in scene.group._waiting)
        scene.server.may_answer.set()  # type: ignore[union-attr]

    is_over = threading.Event()
    helper = threading.Thread(target=rest)
    helper.start()
    is_reached, raised = scene.interrupted_at(point, own)
    is_over.set()
    helper.join(LONG)
    scene.check(own, others, raised)
    return is_reached


@pytest.mark.parametrize("scene", [alone, leading, handing_on, following])
def test_interrupt_of_a_write(scene: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_LONGEST_WAIT", 0.0005)
    point = 1
    while scene(point):
        point += 1
    assert point > 40


class Session:
    """A connection to nowhere."""

    def __init__(self) -> None:
        self.closed = False

    def execute(self, statement: str) -> None:
        """It answers."""

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("is_kept", [False, True], ids=["first", "kept"])
def test_interrupt_of_a_read(is_kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Session] = []

    def connect(_: Connections, __: str | None = None) -> Session:
        made.append(Session())
        return made[-1]

    monkeypatch.setattr(Connections, "connect", connect)
    point, is_reached = 0, True
    while is_reached:
        point += 1
        made.clear()
        connections = Connections("postgresql://h/d", place="nowhere", busy_timeout=5.0, max_connections=1)
        if is_kept:
            connections.read(lambda _: None)
        is_reached, raised = interrupted_at(point, functools.partial(connections.read, lambda _: 1))
        assert raised is None or isinstance(raised, Interrupted)
        raised = None  # its traceback keeps what was interrupted
        assert connections._lent == {}
        assert not any(session.closed for session in connections._idle)
        connections.read(lambda session: not session.closed or pytest.fail("a closed connection was lent"))
        assert all(session.closed or session in connections._idle for session in cast(Any, made[1:]))
    assert point > 20
