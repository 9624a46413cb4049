"""What every part of the asynchronous log on PostgreSQL is built on: the log, and the threads that its calls block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from nerve_store.postgres.store import PostgresLogStore

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_THREADS = {"read": 8, "write": 32, "job": 16}
"""Threads of each kind, so that none waits for another kind; those that write share their commits."""
_PAGE = 256
"""Items that an async iterator takes from a thread at a time."""


class _Threads:
    def __init__(self) -> None:
        self.read, self.write, self.job = (
            ThreadPoolExecutor(count, thread_name_prefix=f"nerve_store-postgres-{kind}")
            for kind, count in _THREADS.items()
        )

    def shutdown(self) -> None:
        """Let the threads end once they have nothing to do."""
        for pool in (self.read, self.write, self.job):
            pool.shutdown(wait=False)


class OpenAsyncPostgres:
    """An open log, and its threads."""

    def __init__(self, url: str, **options: Any) -> None:
        self._store = PostgresLogStore(url, **options)
        self._threads = _Threads()

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

    async def _items(self, make: Callable[[], Iterator[_Result]]) -> AsyncIterator[_Result]:
        items = await self._run(self._threads.read, make)
        while page := await self._run(self._threads.read, lambda: list(islice(items, _PAGE))):
            for item in page:
                yield item
