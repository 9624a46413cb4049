"""What every part of the asynchronous log on PostgreSQL is built on: the log, and the threads that its calls block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from nerve_store._pages import Pages
from nerve_store.aio.pages import AsyncPages
from nerve_store.aio.threads import Call, submit
from nerve_store.postgres.aio.waits import Waits
from nerve_store.postgres.interruption import Interruption
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
        return await submit(pool, partial(function, *arguments, **options))

    async def _read(
        self, function: Callable[_Parameters, _Result], /, *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        """Call what only reads; a call that is cancelled is ended, at the server too."""
        call = self._begin_read(partial(function, *arguments, **options))
        try:
            return await call.outcome
        except asyncio.CancelledError:
            call.interrupt()
            raise

    def _pages(self, open_pages: Callable[[], Pages[_Item]]) -> AsyncPages[_Item]:
        """What threads read page by page."""
        return AsyncPages(self._begin_read, lambda: open_pages()._take)

    def _begin_read(self, call: Callable[[], _Result]) -> Call[_Result]:
        self._store._connections.check()
        interruption = Interruption()

        def interrupt() -> None:
            interruption.want()
            with suppress(RuntimeError):  # the store was closed
                self._threads.cancel.submit(interruption.end)

        return Call(submit(self._threads.read, partial(interruption.run, call)), interrupt)
