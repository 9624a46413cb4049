"""What every asynchronous store is built on: its threads, its end, its documentation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from inspect import getdoc
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from nerve_store._core import LogStore
from nerve_store.aio.channel import Channel, Channels
from nerve_store.aio.follow import Newsrooms
from nerve_store.aio.forks import watch_store
from nerve_store.aio.pages import AsyncPages
from nerve_store.aio.threads import Call, Threads, begin_in, run_in, submit
from nerve_store.exceptions import ForkedStoreError, StoreClosedError
from nerve_store.types import Durability, Path, Progress

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_Method = TypeVar("_Method", bound=Callable[..., object])


def documented(original: object, addition: str = "") -> Callable[[_Method], _Method]:
    """Give a method the documentation of the one that it calls, and an `addition`."""

    def document(method: _Method) -> _Method:
        method.__doc__ = "\n\n".join(filter(None, [getdoc(original), addition]))
        return method

    return document


class Handle:
    """The threads that a store's calls block, until it is closed."""

    def __init__(self, path: str, close: Callable[[], None]) -> None:
        """Of the store at `path`, which `close` closes."""
        self._path = path
        self._close_store = close
        self._threads = Threads()
        self._closing = False
        self._finishing: asyncio.Future[None] | None = None
        self._is_inherited = False
        watch_store(self)

    def _become_inherited(self) -> None:
        """Called in a forked child: its threads and event loops are the parent's."""
        self._closing = self._is_inherited = True

    def _check_process(self) -> None:
        """Refuse the calls of a forked child."""
        if self._is_inherited:
            forked = ForkedStoreError(
                "this process was forked from the one that opened the store; open the store again in the child"
            )
            forked.path = self._path
            raise forked

    def _check_open(self) -> None:
        self._check_process()
        if self._closing:
            error = StoreClosedError("the store is closed; open it again")
            error.path = self._path
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

    def _pages(self, open_pages: Callable[[], Callable[[], list[_Item]]]) -> AsyncPages[_Item]:
        """What threads read page by page; `open_pages` is as `AsyncPages` wants it."""
        return AsyncPages(self._begin_read, open_pages)

    def _begin_read(self, call: Callable[[], _Result]) -> Call[_Result]:
        self._check_open()
        return begin_in(self._threads.read, call)

    async def close(self) -> None:
        """Let the writes under way finish and close; later calls raise `StoreClosedError`.

        A second call in the same event loop waits for the first.
        """
        if not self._closing:
            self._closing = True
            # The caller may be cancelled; the writes under way are to finish all the same.
            self._finishing = asyncio.ensure_future(self._finish())
            await asyncio.shield(self._finishing)
        elif self._finishing is not None and self._finishing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._finishing])

    async def _finish(self) -> None:
        try:
            await self._finish_writes()
        finally:
            try:
                try:
                    closing = submit(self._threads.close, self._close_store)
                finally:
                    self._threads.shutdown()
                await asyncio.shield(closing)
            finally:
                self._end()

    async def _finish_writes(self) -> None:
        """Wait for the writes under way."""
        raise NotImplementedError

    def _end(self) -> None:
        """Let go of what the event loops have of the store, once it is closed."""

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class OpenStore(Handle):
    """A log store and the threads that its calls block."""

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        archive_dir: Path | None = None,
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
        self._channels = Channels(self._store)
        self._last_channel: Channel | None = None
        self._newsrooms = Newsrooms(self._store)
        super().__init__(self._store.path, self._store.close)

    def _become_inherited(self) -> None:
        super()._become_inherited()
        self._channels._become_inherited()
        self._newsrooms.become_inherited()

    async def _write(
        self, function: Callable[_Parameters, _Result], /, *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        """Call a method of the store that writes, without a thread: it shares its commit with all else that waits."""
        # As few calls as can be: a thousand tasks that write at once pay for them a thousand times.
        if self._closing:
            self._check_open()
        loop = asyncio.get_running_loop()
        channel = self._last_channel
        if channel is None or channel.loop() is not loop:
            channel = self._last_channel = self._channels.open(loop)
        if channel.free > 0:
            channel.free -= 1
        else:
            await channel.wait_for_place(loop)
        future: asyncio.Future[_Result] = loop.create_future()
        try:
            more = channel.perform(future, function, arguments, options)
        except BaseException:
            channel.release(1)
            raise
        if more is None:
            channel.release(1)
        else:
            channel.free -= more
        try:
            return await future
        except asyncio.CancelledError:
            channel.revoke(future)
            raise
