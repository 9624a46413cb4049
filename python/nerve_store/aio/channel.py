"""The writes of event loops that wait for their commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, ref

from nerve_store._core import AppendChannel, LogEntry, LogStore
from nerve_store.aio.forks import watch_loop
from nerve_store.types import Durability, JsonArgument, Row, Timestamp

_Append: TypeAlias = Callable[
    [
        "asyncio.Future[LogEntry]",
        str,
        str,
        str | None,
        str | None,
        Timestamp | None,
        JsonArgument,
        Durability | None,
    ],
    int,
]
_Perform: TypeAlias = Callable[
    ["asyncio.Future[Any]", Callable[..., object], tuple[Any, ...], dict[str, Any]], int | None
]
_AppendMany: TypeAlias = Callable[["asyncio.Future[range]", Sequence[Row], Durability | None], int]

IN_FLIGHT = 8192
"""Places for the writes of one event loop that wait for their commit; each takes one, and one more for each 8 KiB of
its texts. Further ones wait for a place first."""


class Channel:
    """What one event loop has in flight."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: LogStore) -> None:
        self.loop: ref[asyncio.AbstractEventLoop] = ref(loop)
        self.free: int = IN_FLIGHT
        """Places; below 0 when the last append took more than there were."""
        self._waiting: deque[asyncio.Future[None]] = deque()  # a semaphore's release would look through all of them
        self._native = AppendChannel(store)
        # As they are, since a thousand tasks that append at once pay for each call between.
        self.append: _Append = self._native.append
        self.append_many: _AppendMany = self._native.append_many
        self.perform: _Perform = self._native.perform
        self.revoke: Callable[[asyncio.Future[Any]], None] = self._native.revoke
        self.committed: set[asyncio.Future[None]] = set()
        """Resolved after the next commit of this loop."""
        self.futures: Callable[[], list[asyncio.Future[Any]]] = self._native.futures
        self._is_ending = False
        watch_loop(loop)
        loop.add_reader(self._native.fileno(), self._resolve)

    async def wait_for_place(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a place when there is one, in the order of asking."""
        place = loop.create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release(1)  # it was given and not taken
            raise

    def release(self, places: int) -> None:
        """Give places back, and on to those who wait."""
        self.free += places
        while self.free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                self.free -= 1
                place.set_result(None)

    def end(self) -> None:
        """Leave the loop alone once nothing is in flight; called in the loop."""
        self._is_ending = True
        self._resolve()

    def _resolve(self) -> None:
        self.release(self._native.resolve())
        for news in self.committed:
            if not news.done():
                news.set_result(None)
        if self._is_ending and not self.futures():
            asyncio.get_running_loop().remove_reader(self._native.fileno())


class Channels:
    """The channels of a store, one for each event loop that appended; the loops may run in several threads."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Channel] = WeakKeyDictionary()
        self._lock = Lock()
        self._is_ended = False

    def get(self, loop: asyncio.AbstractEventLoop) -> Channel | None:
        """The loop's channel, if it has one."""
        with self._lock:
            return self._by_loop.get(loop)

    def open(self, loop: asyncio.AbstractEventLoop) -> Channel:
        """The channel of the running loop."""
        with self._lock:
            channel = self._by_loop.get(loop)
            if channel is None:
                for other in list(self._by_loop):
                    if other.is_closed():  # what it had in flight would keep it alive
                        del self._by_loop[other]
                channel = self._by_loop[loop] = Channel(loop, self._store)
                if self._is_ended:
                    channel.end()
            return channel

    def _become_inherited(self) -> None:
        """In a forked child, where the loops are the parent's: forget them."""
        self._lock = Lock()
        self._by_loop.clear()

    def end(self) -> None:
        """End each channel, in its own loop."""
        with self._lock:
            self._is_ended = True
            for loop, channel in self._by_loop.items():
                with suppress(RuntimeError):  # the loop is closed, and watches nothing
                    loop.call_soon_threadsafe(channel.end)
