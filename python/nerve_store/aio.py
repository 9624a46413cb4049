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
from datetime import date
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakKeyDictionary

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
"""Appends of one event loop that may wait for a commit; further ones wait for room first."""
_PAGE_ROWS = 256


class _Channel:
    """What one event loop waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.futures: dict[int, tuple[asyncio.Future[Any], bool]] = {}
        self._free = _IN_FLIGHT
        self._waiting: deque[asyncio.Future[None]] = deque()  # a semaphore's release would look through all of them
        self.native = AppendChannel(loop.call_soon_threadsafe, self.resolve)
        self._last_token = 0

    async def acquire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a place among those in flight, in the order of asking."""
        if self._free and not self._waiting:
            self._free -= 1
            return
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
        self._free += places
        while self._free and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                self._free -= 1
                place.set_result(None)

    def open(self, loop: asyncio.AbstractEventLoop, *, wants_entry: bool) -> tuple[int, asyncio.Future[Any]]:
        """A token for a submission, and the future that it will resolve."""
        self._last_token += 1
        future = loop.create_future()
        self.futures[self._last_token] = future, wants_entry
        return self._last_token, future

    def resolve(self, outcomes: list[tuple[int, range | None, LogEntry | None, Exception | None]]) -> None:
        """Resolve the futures of one commit; those that were cancelled meanwhile are passed over."""
        self.release(len(outcomes))
        for token, ids, entry, error in outcomes:
            future, wants_entry = self.futures.pop(token)
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(entry if wants_entry else ids)


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
        self._channels: WeakKeyDictionary[asyncio.AbstractEventLoop, _Channel] = WeakKeyDictionary()
        self._closing = False

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
        row = (source, type, ref_id, payload, timestamp)
        entry: LogEntry = await self._submit([row], durability, wants_entry=True)
        return entry

    async def append_many(self, entries: Iterable[_Row], *, durability: _Durability | None = None) -> range:
        """`LogStore.append_many`; shares its commit, and stays all or nothing."""
        rows = list(entries)
        if not rows:
            self._check_open()
            return range(0)
        ids: range = await self._submit(rows, durability, wants_entry=False)
        return ids

    async def _submit(self, rows: list[_Row], durability: _Durability | None, *, wants_entry: bool) -> Any:
        self._check_open()
        loop = asyncio.get_running_loop()
        channel = self._channels.get(loop)
        if channel is None:
            channel = self._channels.setdefault(loop, _Channel(loop))
        await channel.acquire(loop)
        token, future = channel.open(loop, wants_entry=wants_entry)
        try:
            self._store._submit(channel.native, token, rows, durability)
        except BaseException:
            del channel.futures[token]
            channel.release(1)
            raise
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
        channel = self._channels.get(asyncio.get_running_loop())
        if channel is not None:
            await asyncio.gather(*(future for future, _ in channel.futures.values()), return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._store.close)
        self._threads.shutdown(wait=False)

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
