"""Waiting for commits in event loops: no thread waits for a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from nerve_store.postgres.listener import Listener


class _Room:
    """The tasks of one event loop that wait."""

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        """What wakes each, and whether it is to be woken."""
        self.is_called = False
        """Whether the loop was asked to wake them."""

    def wake(self) -> None:
        """Wake those that have something to look at; called in their loop."""
        self.is_called = False
        for future, has_news in self.waiting.items():
            if not future.done() and has_news():
                future.set_result(None)


class Waits:
    """The tasks of a store that wait for a commit, which its listener hears of."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._rooms: dict[asyncio.AbstractEventLoop, _Room] = {}
        """Of the loops in which tasks wait."""
        self._lock = threading.Lock()
        listener.tell(self._hear)

    async def wait(self, known: int, seconds: float, *, of_runs: bool = False) -> None:
        """Wait for another commit than those known, at most so long."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        has_news = partial(self._listener.has_news, known, of_runs=of_runs)
        with self._lock:
            room = self._rooms.setdefault(loop, _Room())
            room.waiting[future] = has_news
        try:
            # What is heard from here on wakes the future.
            if not has_news():
                await asyncio.wait([future], timeout=self._listener.patience(seconds))
        finally:
            future.cancel()
            with self._lock:
                del room.waiting[future]
                if not room.waiting:
                    del self._rooms[loop]

    def _hear(self) -> None:
        """Called in the listener's thread."""
        with self._lock:
            rooms = [(loop, room) for loop, room in self._rooms.items() if not room.is_called]
            for loop, room in rooms:
                room.is_called = True
                with suppress(RuntimeError):  # the loop is closed, and its tasks have ended
                    loop.call_soon_threadsafe(room.wake)
