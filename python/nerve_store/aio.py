"""The log store for asyncio: the same names, awaitable.

Appends cost no thread and no wake-up of their own: all that are waiting share a commit, and each commit wakes the event
loop once. Everything else runs in a few threads of the store's own.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakKeyDictionary, finalize, ref

from nerve_store._core import AppendChannel, LogEntry, LogStore, NewLogEntry
from nerve_store.exceptions import StoreClosedError
from nerve_store.records import (
    ArchivedDay,
    ArchiveResult,
    LogStats,
    ThreadMessage,
    ThreadRound,
    VerifyReport,
    WorkflowRun,
)

__all__ = ["AsyncLogStore"]

_Result = TypeVar("_Result")
_Durability = Literal["full", "normal"]
_Row = NewLogEntry | LogEntry | tuple[str, str, str | None, str | None, int | None]

_THREADS = 4
"""Threads for what blocks; SQLite has one writer, and reads are short."""
_IN_FLIGHT = 8192
"""Places for the appends of one event loop that wait for their commit; each takes one, and one more for each 8 KiB of
its texts. Further ones wait for a place first."""
_PAGE_ROWS = 256


class _Channel:
    """What one event loop has in flight."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: LogStore) -> None:
        self.loop = ref(loop)
        self.free = _IN_FLIGHT
        """Places; below 0 when the last append took more than there were."""
        self._waiting: deque[asyncio.Future[None]] = deque()  # a semaphore's release would look through all of them
        self._native = AppendChannel(store)
        self.append = self._native.append
        self.append_many = self._native.append_many
        self.futures = self._native.futures
        self._is_ending = False
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
        if self._is_ending and not self.futures():
            asyncio.get_running_loop().remove_reader(self._native.fileno())


class _Channels:
    """The channels of a store, one for each event loop that appended; the loops may run in several threads."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Channel] = WeakKeyDictionary()
        self._lock = Lock()
        self._is_ended = False

    def get(self, loop: asyncio.AbstractEventLoop) -> _Channel | None:
        """The loop's channel, if it has one."""
        with self._lock:
            return self._by_loop.get(loop)

    def open(self, loop: asyncio.AbstractEventLoop) -> _Channel:
        """The channel of the running loop."""
        with self._lock:
            channel = self._by_loop.get(loop)
            if channel is None:
                for other in list(self._by_loop):
                    if other.is_closed():  # what it had in flight would keep it alive
                        del self._by_loop[other]
                channel = self._by_loop[loop] = _Channel(loop, self._store)
                if self._is_ended:
                    channel.end()
            return channel

    def end(self) -> None:
        """End each channel, in its own loop."""
        with self._lock:
            self._is_ended = True
            for loop, channel in self._by_loop.items():
                with suppress(RuntimeError):  # the loop is closed, and watches nothing
                    loop.call_soon_threadsafe(channel.end)


class AsyncLogStore:
    """`LogStore` for asyncio: its methods, awaitable, and async iterators; usable from several event loops at once.

    Cancelling a waiting append neither blocks nor harms the store, but the row may be appended all the same: it is
    already on its way. Use it with `async with`, or await `close()`, which lets the appends in flight finish.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: _Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        archive_dir: str | os.PathLike[str] | None = None,
        segment_rows: int = 4096,
        max_payload_bytes: int = 67108864,
        progress: Callable[[int, int], object] | None = None,
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
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="nerve_store")
        self._channels = _Channels(self._store)
        self._last_channel: _Channel | None = None
        self._closing = False
        finalize(self, self._channels.end).atexit = False

    @property
    def path(self) -> str:
        """The absolute path of the database."""
        return self._store.path

    @property
    def archive_dir(self) -> str:
        """The absolute path of the directory of the day files."""
        return self._store.archive_dir

    @property
    def read_only(self) -> bool:
        """Whether the store refuses writes."""
        return self._store.read_only

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closing

    # append

    async def append(
        self,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: int | None = None,
        *,
        durability: _Durability | None = None,
    ) -> LogEntry:
        """`LogStore.append`; shares its commit with every other append that waits."""
        # As few calls as can be: a thousand tasks that append at once pay for them a thousand times.
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
        future: asyncio.Future[LogEntry] = loop.create_future()
        try:
            more = channel.append(future, source, type, ref_id, payload, timestamp, durability)
        except BaseException:
            channel.release(1)
            raise
        channel.free -= more
        return await future

    async def append_many(self, entries: Iterable[_Row], *, durability: _Durability | None = None) -> range:
        """`LogStore.append_many`; shares its commit, and stays all or nothing."""
        rows = list(entries)
        self._check_open()
        if not rows:
            return range(0)
        loop = asyncio.get_running_loop()
        channel = self._channels.open(loop)
        if channel.free > 0:
            channel.free -= 1
        else:
            await channel.wait_for_place(loop)
        future: asyncio.Future[range] = loop.create_future()
        try:
            more = channel.append_many(future, rows, durability)
        except BaseException:
            channel.release(1)
            raise
        channel.free -= more
        return await future

    # read

    async def query(self, **filters: Any) -> list[LogEntry]:
        """`LogStore.query`."""
        return await self._run(self._store.query, **filters)

    async def iter(self, **filters: Any) -> AsyncIterator[LogEntry]:
        """`LogStore.iter`, as an async iterator."""
        rows = await self._run(self._store.iter, **filters)
        while page := await self._run(rows._take, _PAGE_ROWS):
            for entry in page:
                yield entry

    async def count(self, **filters: Any) -> int:
        """`LogStore.count`."""
        return await self._run(self._store.count, **filters)

    async def follow(
        self, *, after_id: int | None = None, poll_interval: float = 0.05, **filters: Any
    ) -> AsyncIterator[LogEntry]:
        """`LogStore.follow`, as an async iterator; a new row is seen within `poll_interval` seconds."""
        follower = await self._run(self._store.follow, after_id=after_id, poll_interval=poll_interval, **filters)
        while True:
            page = await self._run(follower._poll)
            for entry in page:
                yield entry
            if not page:
                await asyncio.sleep(poll_interval)

    async def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """`LogStore.sql`."""
        return await self._run(self._store.sql, query, params)

    async def read_archive(self, day: date) -> AsyncIterator[LogEntry]:
        """`LogStore.read_archive`, as an async iterator."""
        rows = await self._run(self._store.read_archive, day)
        while page := await self._run(rows._take, _PAGE_ROWS):
            for entry in page:
                yield entry

    # the rest

    async def get_meta(self, key: str) -> str | None:
        """`LogStore.get_meta`."""
        return await self._run(self._store.get_meta, key)

    async def set_meta(self, key: str, value: str) -> None:
        """`LogStore.set_meta`."""
        await self._run(self._store.set_meta, key, value)

    async def upsert_workflow_run(
        self, entry: _Row, run: WorkflowRun, *, force: bool = False, durability: _Durability | None = None
    ) -> LogEntry:
        """`LogStore.upsert_workflow_run`."""
        return await self._run(self._store.upsert_workflow_run, entry, run, force=force, durability=durability)

    append_with_workflow_update = upsert_workflow_run

    async def transition(self, run_id: str, status: str, **options: Any) -> WorkflowRun:
        """`LogStore.transition`."""
        return await self._run(self._store.transition, run_id, status, **options)

    async def get_workflow_run(self, run_id: str) -> WorkflowRun | None:
        """`LogStore.get_workflow_run`."""
        return await self._run(self._store.get_workflow_run, run_id)

    async def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        """`LogStore.get_active_workflow_runs`."""
        return await self._run(self._store.get_active_workflow_runs, workflow)

    async def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        """`LogStore.get_all_workflow_runs`."""
        return await self._run(self._store.get_all_workflow_runs, workflow)

    async def get_trigger_payload(self, run_id: str) -> Any:
        """`LogStore.get_trigger_payload`."""
        return await self._run(self._store.get_trigger_payload, run_id)

    async def get_thread_events(self, run_id: str) -> list[dict[str, Any]]:
        """`LogStore.get_thread_events`."""
        return await self._run(self._store.get_thread_events, run_id)

    async def get_thread_messages(self, run_id: str) -> list[ThreadMessage]:
        """`LogStore.get_thread_messages`."""
        return await self._run(self._store.get_thread_messages, run_id)

    async def get_thread_round_count(self, run_id: str) -> int:
        """`LogStore.get_thread_round_count`."""
        return await self._run(self._store.get_thread_round_count, run_id)

    async def get_thread_rounds(self, run_id: str, *, before: int = 0, limit: int) -> list[ThreadRound]:
        """`LogStore.get_thread_rounds`."""
        return await self._run(self._store.get_thread_rounds, run_id, before=before, limit=limit)

    async def archive_logs(self, **options: Any) -> ArchiveResult:
        """`LogStore.archive_logs`; `progress` is called in another thread."""
        return await self._run(self._store.archive_logs, **options)

    async def archived_days(self) -> list[ArchivedDay]:
        """`LogStore.archived_days`."""
        return await self._run(self._store.archived_days)

    async def restore_archive(self, day: date, **options: Any) -> int:
        """`LogStore.restore_archive`."""
        return await self._run(self._store.restore_archive, day, **options)

    async def verify(self, **options: Any) -> VerifyReport:
        """`LogStore.verify`; `progress` is called in another thread."""
        return await self._run(self._store.verify, **options)

    async def reindex(self, **options: Any) -> None:
        """`LogStore.reindex`."""
        await self._run(self._store.reindex, **options)

    async def stats(self) -> LogStats:
        """`LogStore.stats`."""
        return await self._run(self._store.stats)

    async def close(self) -> None:
        """Let this loop's appends in flight finish and close; later calls raise `StoreClosedError`.

        Appends that other event loops have in flight get either their rows or `StoreClosedError`.
        """
        if self._closing:
            return
        self._closing = True
        # Whoever waits may be cancelled; the appends in flight are to finish all the same.
        self._finishing = asyncio.ensure_future(self._finish())
        await asyncio.shield(self._finishing)

    async def _finish(self) -> None:
        loop = asyncio.get_running_loop()
        channel = self._channels.get(loop)
        try:
            while channel is not None and (in_flight := channel.futures()):
                await asyncio.wait(in_flight)
        finally:
            closing = loop.run_in_executor(self._threads, self._store.close)
            self._threads.shutdown(wait=False)
            try:
                await asyncio.shield(closing)
            finally:
                self._channels.end()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        closed = " (closed)" if self._closing else ""
        return f"<AsyncLogStore {self._store.path!r}{closed}>"

    async def _run(self, function: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
        self._check_open()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(function, *arguments, **options))

    def _check_open(self) -> None:
        if self._closing:
            error = StoreClosedError("the store is closed; open it again")
            error.path = self._store.path
            raise error
