"""What every part of the asynchronous log store is built on: the store, its threads, and its documentation."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from inspect import getdoc
from typing import Literal, ParamSpec, TypeAlias, TypeVar

from nerve_store._core import LogEntry, LogStore, NewLogEntry
from nerve_store.aio.channel import Channels
from nerve_store.aio.forks import watch_store
from nerve_store.aio.threads import Threads, run_in
from nerve_store.exceptions import ForkedStoreError, StoreClosedError

Durability: TypeAlias = Literal["full", "normal"]
Progress: TypeAlias = Callable[[int, int], object]
Row: TypeAlias = NewLogEntry | LogEntry | tuple[str, str, str | None, str | None, int | None]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Method = TypeVar("_Method", bound=Callable[..., object])


def documented(original: object, addition: str = "") -> Callable[[_Method], _Method]:
    """Give a method the documentation of the `LogStore` method that it calls, and an `addition`."""

    def document(method: _Method) -> _Method:
        method.__doc__ = "\n\n".join(filter(None, [getdoc(original), addition]))
        return method

    return document


class OpenStore:
    """A log store and the threads that its calls block."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        archive_dir: str | os.PathLike[str] | None = None,
        segment_rows: int = 4096,
        max_payload_bytes: int = 67108864,
        progress: Progress | None = None,
    ) -> None:
        """Open the database at `path`, blocking for some milliseconds; the options are those of `LogStore`."""
        self._store = LogStore(
            path,
            durability=durability,
            read_only=read_only,
            busy_timeout=busy_timeout,
            archive_dir=archive_dir,
            segment_rows=segment_rows,
            max_payload_bytes=max_payload_bytes,
            progress=progress,
        )
        self._threads = Threads()
        self._channels = Channels(self._store)
        self._closing = False
        self._is_inherited = False
        watch_store(self)

    def _become_inherited(self) -> None:
        """Called in a forked child: its threads and event loops are the parent's."""
        self._closing = self._is_inherited = True
        self._channels._become_inherited()

    def _check_open(self) -> None:
        if self._is_inherited:
            forked = ForkedStoreError(
                "this process was forked from the one that opened the store; open the store again in the child"
            )
            forked.path = self._store.path
            raise forked
        if self._closing:
            error = StoreClosedError("the store is closed; open it again")
            error.path = self._store.path
            raise error

    async def _run(
        self,
        pool: ThreadPoolExecutor,
        function: Callable[_Parameters, _Result],
        /,
        *arguments: _Parameters.args,
        **options: _Parameters.kwargs,
    ) -> _Result:
        self._check_open()
        return await run_in(pool, function, *arguments, **options)

    async def _write(
        self, function: Callable[_Parameters, _Result], /, *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        """Call a method of the store that writes, without a thread: it shares its commit with all else that waits."""
        self._check_open()
        loop = asyncio.get_running_loop()
        channel = self._channels.open(loop)
        if channel.free > 0:
            channel.free -= 1
        else:
            await channel.wait_for_place(loop)
        future: asyncio.Future[_Result] = loop.create_future()
        try:
            more = channel.perform(future, partial(function, *arguments, **options))
        except BaseException:
            channel.release(1)
            raise
        if more is None:
            channel.release(1)
        else:
            channel.free -= more
        return await future
