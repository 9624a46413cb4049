"""Following a log in an event loop.

Followers that wait cost nothing: each loop watches one descriptor, which becomes readable when the log may have
changed, and then wakes all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Lock
from types import TracebackType
from typing import Self
from weakref import WeakKeyDictionary

from nerve_store._core import LogEntry, LogFollower, LogStore, News
from nerve_store.aio.forks import watch_loop

_MOST_BRIEF_READS = 8
"""Followers that read in the loop each time it is woken: some 50 µs each."""


class Newsroom:
    """What one event loop waits for while its followers have nothing to read."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: LogStore) -> None:
        self.edition: int = 0
        """How often there was something new."""
        self.brief_reads: int = 0
        """How many followers have read in the loop since it was last woken."""
        self._native = News(store)
        self._waiting: set[asyncio.Future[None]] = set()
        watch_loop(loop)
        loop.add_reader(self._native.fileno(), self.wake)

    def wake(self) -> None:
        """Let all who wait look again."""
        self._native.take()
        self.edition += 1
        self.brief_reads = 0
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, known: int, timeout: float | None) -> None:  # noqa: ASYNC109 - it ends without an exception
        """Wait for an edition after the `known` one, for so many seconds at the most."""
        if self.edition != known:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=timeout)
        finally:
            self._waiting.discard(future)
            future.cancel()

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave the loop alone; called in it."""
        loop.remove_reader(self._native.fileno())


class Newsrooms:
    """The newsrooms of a store, one for each event loop that follows."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Newsroom] = WeakKeyDictionary()
        self._lock = Lock()

    def open(self) -> Newsroom:
        """The newsroom of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            room = self._by_loop.get(loop)
            if room is None:
                room = self._by_loop[loop] = Newsroom(loop, self._store)
            return room

    def become_inherited(self) -> None:
        """In a forked child, where the loops are the parent's: forget them."""
        self._lock = Lock()
        self._by_loop.clear()

    def end(self) -> None:
        """End each newsroom, in its own loop, and wake those who wait."""
        with self._lock:
            rooms = list(self._by_loop.items())
            self._by_loop.clear()
        for loop, room in rooms:
            with suppress(RuntimeError):  # the loop is closed, and watches nothing
                loop.call_soon_threadsafe(_end, loop, room)


def _end(loop: asyncio.AbstractEventLoop, room: Newsroom) -> None:
    room.wake()
    room.end(loop)


class AsyncLogFollower:
    """The rows of a filter as they are appended, by whatever process; endless, until it is closed.

    `AsyncLogStore.follow` makes it. With `async with` it begins at once and is closed at the end; otherwise it begins
    with its first row. `close()` ends the iteration, in whatever task it waits.
    """

    def __init__(
        self,
        open_follower: Callable[[], Awaitable[LogFollower]],
        poll: Callable[[LogFollower], asyncio.Future[list[LogEntry]]],
        newsrooms: Newsrooms,
        poll_interval: float,
    ) -> None:
        self._open_follower = open_follower
        self._poll = poll
        self._newsrooms = newsrooms
        self._poll_interval = poll_interval
        self._follower: LogFollower | None = None
        self._page: list[LogEntry] = []
        """What was read and not returned, the last row first."""
        self._turn = asyncio.Lock()
        self._room: Newsroom | None = None
        self._known = 0
        self._has_waited = False
        """Whether it has waited since it last read in the loop."""
        self._reading: asyncio.Future[list[LogEntry]] | None = None
        """A page that a thread reads. No task: a program that cancels all tasks of its loop loses none of its rows."""
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogEntry:
        async with self._turn:
            while not self._is_closed:
                if self._page:
                    return self._page.pop()
                follower = await self._begin()
                if self._reading is None:
                    self._room = self._newsrooms.open()
                    self._known = self._room.edition
                if self._reading is not None or not self._read_briefly(follower):
                    await self._read_in_thread(follower)
                if not self._page:
                    await self._wait(follower)
            raise StopAsyncIteration

    async def _wait(self, follower: LogFollower) -> None:
        if self._room is not None and not self._is_closed:
            await self._room.wait(self._known, None if follower._is_settled() else self._poll_interval)
            self._has_waited = True

    def _read_briefly(self, follower: LogFollower) -> bool:
        """Read what is new here, where that takes no longer than asking a thread to; whether it was read.

        Once only until other tasks have had their turn, and for a few followers each time.
        """
        if not self._has_waited:
            return follower._is_settled()
        self._has_waited = False
        if self._room is None or self._room.brief_reads == _MOST_BRIEF_READS:
            return False
        self._room.brief_reads += 1
        page = follower._poll_briefly()
        if page is None:
            return False
        self._keep(page)
        return True

    async def _read_in_thread(self, follower: LogFollower) -> None:
        if self._reading is None:
            self._reading = self._poll(follower)
        # A call that is cancelled loses no rows: the next one goes on waiting for the same page.
        await asyncio.wait([self._reading])
        reading, self._reading = self._reading, None
        self._keep(reading.result())

    def _keep(self, page: list[LogEntry]) -> None:
        page.reverse()
        self._page = page

    async def _begin(self) -> LogFollower:
        if self._follower is None:
            self._follower = await self._open_follower()
        return self._follower

    def close(self) -> None:
        """End the iteration; to be called in its event loop. Does nothing if it was closed before."""
        self._is_closed = True
        if self._follower is not None:
            self._follower.close()  # which wakes those who wait, too
        self._page.clear()

    async def aclose(self) -> None:
        """End the iteration, as `close()`."""
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
