"""What every part of the asynchronous log on PostgreSQL is built on: the log, and the threads that its calls block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, ParamSpec, Self, TypeVar

from nerve_store.postgres.aio.waits import Waits
from nerve_store.postgres.interruption import Interruption
from nerve_store.postgres.pages import Pages
from nerve_store.postgres.store import PostgresLogStore

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

_THREADS = {"read": 8, "write": 32, "job": 16, "cancel": 8}
"""Threads of each kind, so that none waits for another kind; those that write share their commits."""


class _Threads:
    def __init__(self) -> None:
        self.read, self.write, self.job, self.cancel = (
            ThreadPoolExecutor(count, thread_name_prefix=f"nerve_store-postgres-{kind}")
            for kind, count in _THREADS.items()
        )

    def shutdown(self) -> None:
        """Let the threads end once they have nothing to do."""
        for pool in (self.read, self.write, self.job, self.cancel):
            pool.shutdown(wait=False)


class OpenAsyncPostgres:
    """An open log, and its threads."""

    def __init__(self, url: str, **options: Any) -> None:
        self._store = PostgresLogStore(url, **options)
        self._threads = _Threads()
        self._waits = Waits(self._store._listener)

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        function: Callable[_Parameters, _Result],
        /,
        *arguments: _Parameters.args,
        **options: _Parameters.kwargs,
    ) -> _Result:
        self._store._connections.check()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, partial(function, *arguments, **options))

    async def _read(
        self, function: Callable[_Parameters, _Result], /, *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        """Call what only reads; a call that is cancelled is ended, at the server too."""
        interruption = Interruption()
        call = partial(function, *arguments, **options)
        try:
            return await self._run(self._threads.read, interruption.run, call)
        except asyncio.CancelledError:
            interruption.want()
            with suppress(RuntimeError):  # the store was closed
                self._threads.cancel.submit(interruption.end)
            raise

    def _items(self, make: Callable[[], Pages[_Item]]) -> AsyncPages[_Item]:
        return AsyncPages(self, make)


class AsyncPages(Generic[_Item]):
    """The items of `Pages` in an event loop. A step that fails or is cancelled loses none."""

    def __init__(self, owner: OpenAsyncPostgres, make: Callable[[], Pages[_Item]]) -> None:
        self._owner, self._make = owner, make
        self._pages: Pages[_Item] | None = None
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        while not self._is_closed:
            if self._pages is None:
                made = await self._owner._run(self._owner._threads.read, self._make)
                if self._pages is None:  # no other task made them meanwhile
                    self._pages = made
            page = self._pages._page
            for item in page:
                return item
            # What a thread reads stays in the pages, also when no task waits for it any more.
            if not await self._owner._run(self._owner._threads.read, self._pages._fill, page):
                break
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the iteration."""
        self._is_closed = True
