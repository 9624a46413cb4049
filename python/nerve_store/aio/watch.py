"""Waiting in an event loop for a run that can be claimed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from nerve_store.aio.base import OpenStore

_INTERVAL = 0.025
"""Seconds between two looks at what other processes have committed, and at leases that run out."""


class RunFilter(NamedTuple):
    """Which runs a claim takes."""

    workflow: str | tuple[str, ...] | None
    run_id: str | None
    max_attempts: int | None


class _Watch:
    """The tasks of one event loop that wait for a run of one filter: one of them looks for all."""

    def __init__(self) -> None:
        self.waiting: set[asyncio.Future[None]] = set()
        self.is_watched = False

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)


class Watches:
    """What the tasks of each event loop wait for."""

    def __init__(self) -> None:
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, RunFilter], _Watch]] = (
            WeakKeyDictionary()
        )

    async def wait(self, store: OpenStore, wanted: RunFilter, seconds: float) -> None:
        """Return when a claim may take a run, at the latest after so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        watches = self._by_loop.setdefault(loop, {})
        key = (id(store), wanted)
        watch = watches.setdefault(key, _Watch())
        woken = loop.create_future()
        watch.waiting.add(woken)
        try:
            while not woken.done() and (left := deadline - loop.time()) > 0:
                if watch.is_watched:
                    # The one that looks may give up; then another goes on.
                    await asyncio.wait([woken], timeout=min(left, 4 * _INTERVAL))
                else:
                    await self._look(store, wanted, watch, woken, left)
        finally:
            watch.waiting.discard(woken)
            if not watch.waiting:
                watches.pop(key, None)

    async def _look(
        self, store: OpenStore, wanted: RunFilter, watch: _Watch, woken: asyncio.Future[None], seconds: float
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        committed = store._channels.open(loop).committed
        watch.is_watched = True
        try:
            while (left := deadline - loop.time()) > 0:
                news: asyncio.Future[None] = loop.create_future()
                committed.add(news)  # before the look, so that no commit is missed
                try:
                    if await store._run(store._threads.read, store._store._is_run_free, *wanted):
                        watch.wake()
                        return
                    await asyncio.wait([news, woken], timeout=min(left, _INTERVAL), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    committed.discard(news)
        finally:
            watch.is_watched = False
