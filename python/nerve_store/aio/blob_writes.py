"""The writes of an event loop that wait at the same time: they share a batch, and so their flushes.

Of one loop, two batches are under way at the most: while one waits for the disk, the other is hashed. What comes
meanwhile gathers for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from nerve_store._core import Check
from nerve_store.aio.threads import submit
from nerve_store.protocols import Blobs

if TYPE_CHECKING:
    from nerve_store.types import Data

_BATCH_BYTES = 64 << 20
"""Bytes of one batch, unless a single item has more."""
_BATCH_ITEMS = 4096
_AT_ONCE = 2


@dataclass(slots=True)
class _Waiting:
    """What one loop has gathered."""

    items: deque[tuple[bytes, asyncio.Future[str]]] = field(default_factory=deque[tuple[bytes, asyncio.Future[str]]])
    batches: set[asyncio.Future[list[str | Exception]]] = field(
        default_factory=set[asyncio.Future[list[str | Exception]]]
    )
    is_scheduled: bool = False


class Writes:
    """What is on its way into a blob store."""

    def __init__(self, store: Blobs, pool: ThreadPoolExecutor) -> None:
        self._store = store
        self._pool = pool
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    async def write(self, data: Data) -> str:
        """Store `data` in the next batch and return its hash."""
        item = Check.data(data)
        loop = asyncio.get_running_loop()
        waiting = self._by_loop.get(loop)
        if waiting is None:
            waiting = self._by_loop[loop] = _Waiting()
        future: asyncio.Future[str] = loop.create_future()
        waiting.items.append((item, future))
        if not waiting.is_scheduled and len(waiting.batches) < _AT_ONCE:
            waiting.is_scheduled = True
            loop.call_soon(self._start, loop, waiting)  # at the end of this turn, with what others write in it
        return await future

    async def finish(self) -> None:
        """Wait until nothing of this loop is on its way."""
        waiting = self._by_loop.get(asyncio.get_running_loop())
        while waiting is not None and (waiting.items or waiting.batches):
            if waiting.batches:
                await asyncio.wait(waiting.batches)
            await asyncio.sleep(0)

    def _start(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting) -> None:
        waiting.is_scheduled = False
        while waiting.items and len(waiting.batches) < _AT_ONCE:
            batch = self._take(waiting)
            if batch:
                # No task: a program that cancels all tasks of its loop leaves no writer without an outcome.
                stored = submit(self._pool, partial(self._stored, [item for item, _ in batch]))
                waiting.batches.add(stored)
                stored.add_done_callback(partial(_tell, [future for _, future in batch]))
                stored.add_done_callback(waiting.batches.discard)
                stored.add_done_callback(lambda _: self._start(loop, waiting))

    def _take(self, waiting: _Waiting) -> list[tuple[bytes, asyncio.Future[str]]]:
        batch: list[tuple[bytes, asyncio.Future[str]]] = []
        size = 0
        while waiting.items and len(batch) < _BATCH_ITEMS and size < _BATCH_BYTES:
            item, future = waiting.items.popleft()
            if not future.done():  # else it was cancelled
                batch.append((item, future))
                size += len(item)
        return batch

    def _stored(self, items: list[bytes]) -> list[str | Exception]:
        """The hash of each item, or why it could not be stored: each has an outcome of its own."""
        try:
            return list(self._store.write_many(items))
        except Exception as error:  # noqa: BLE001 - the callers get it
            if len(items) == 1:
                return [error]
            return [outcome for item in items for outcome in self._stored([item])]


def _tell(futures: list[asyncio.Future[str]], stored: asyncio.Future[list[str | Exception]]) -> None:
    for future, outcome in zip(futures, stored.result(), strict=True):
        if future.done():  # it was cancelled
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
