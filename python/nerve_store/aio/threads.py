"""The threads that run what blocks, and the interruption of cancelled calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from nerve_store._core import Interruption

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_THREADS = 4
"""Threads of each kind: SQLite has one writer, and reads are short."""


class _Once(Generic[_Result]):
    """A call that is made by the first thread that comes to it."""

    def __init__(self, call: Callable[[], _Result]) -> None:
        self.future: Future[_Result] = Future()
        self._call = call
        self._taken = threading.Lock()

    def __call__(self) -> None:
        if not self._taken.acquire(blocking=False) or not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001 - the waiting task gets it
            self.future.set_exception(error)


def submit(pool: ThreadPoolExecutor, call: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Make a call in a thread of `pool`, or here if the system refuses the thread."""
    once = _Once(call)
    try:
        pool.submit(once)
    except RuntimeError:
        # The pool has queued the call nevertheless, for threads that it may have.
        once()
    except BaseException:
        # A signal handler has raised while a thread began. The pool does not know that thread, which would wait for
        # calls for ever; what is called from here on has no thread.
        pool.shutdown(wait=False)
        raise
    outcome = asyncio.wrap_future(once.future)
    outcome.add_done_callback(_look_at)
    return outcome


def _look_at(outcome: asyncio.Future[Any]) -> None:
    if not outcome.cancelled():
        outcome.exception()  # the task that waited for it may be gone


class Call(Generic[_Result]):
    """A call in a thread, and the way to end it."""

    def __init__(self, outcome: asyncio.Future[_Result], interrupt: Callable[[], object]) -> None:
        self.outcome: asyncio.Future[_Result] = outcome
        self._interrupt: Callable[[], object] = interrupt
        self.was_interrupted: bool = False

    def interrupt(self) -> None:
        """Let it end soon; returns at once."""
        self.was_interrupted = True
        self._interrupt()


def begin_in(pool: ThreadPoolExecutor, call: Callable[[], _Result]) -> Call[_Result]:
    """Make a call to the store in a thread of `pool`."""
    interruption = Interruption()
    return Call(submit(pool, partial(interruption.run, call)), interruption.interrupt)


class Threads:
    """Threads for reads, for writes and for archive jobs, so that none of them waits for another kind."""

    def __init__(self) -> None:
        self._pools: list[ThreadPoolExecutor] = []
        self.read: ThreadPoolExecutor = self._pool("read")
        self.write: ThreadPoolExecutor = self._pool("write")
        self.job: ThreadPoolExecutor = self._pool("job")
        self.close: ThreadPoolExecutor = self._pool("close")

    def _pool(self, kind: str) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"nerve_store-{kind}")
        self._pools.append(pool)
        return pool

    def shutdown(self) -> None:
        """Let the threads end once they have nothing to do."""
        for pool in self._pools:
            pool.shutdown(wait=False)


async def run_in(
    pool: ThreadPoolExecutor,
    function: Callable[_Parameters, _Result],
    /,
    *arguments: _Parameters.args,
    **options: _Parameters.kwargs,
) -> _Result:
    """Call a function of the store in a thread of `pool`; a cancelled call is interrupted and gives its thread back."""
    call = begin_in(pool, partial(function, *arguments, **options))
    try:
        return await call.outcome
    except asyncio.CancelledError:
        call.interrupt()
        raise
