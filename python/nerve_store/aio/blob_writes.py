"""The writes of an event loop that wait at the same time: they share a batch, and so their flushes.

Of one loop, two batches are under way at the most: while one waits for the disk, the other is hashed. What comes
meanwhile gathers for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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

    items: deque[tuple[str | bytes, asyncio.Future[str]]] = field(
        default_factory=deque[tuple[str | bytes, asyncio.Future[str]]]
    )
    batches: set[asyncio.Future[None]] = field(default_factory=set[asyncio.Future[None]])
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
                task = loop.create_task(self._store_batch(batch))
                waiting.batches.add(task)
                task.add_done_callback(waiting.batches.discard)
                task.add_done_callback(lambda _: self._start(loop, waiting))

    def _take(self, waiting: _Waiting) -> list[tuple[str | bytes, asyncio.Future[str]]]:
        batch: list[tuple[str | bytes, asyncio.Future[str]]] = []
        size = 0
        while waiting.items and len(batch) < _BATCH_ITEMS and size < _BATCH_BYTES:
            item, future = waiting.items.popleft()
            if not future.done():  # else it was cancelled
                batch.append((item, future))
                size += len(item)
        return batch

    async def _store_batch(self, batch: list[tuple[str | bytes, asyncio.Future[str]]]) -> None:
        items = [item for item, _ in batch]
        try:
            hashes = await submit(self._pool, lambda: self._store.write_many(items))
        except Exception as error:  # noqa: BLE001 - the callers get it
            if len(batch) == 1:
                _refuse(batch[0][1], error)
            else:  # each gets the outcome of its own
                for one in batch:
                    await self._store_batch([one])
        else:
            for (_, future), hash in zip(batch, hashes, strict=True):
                if not future.done():
                    future.set_result(hash)


def _refuse(future: asyncio.Future[str], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
