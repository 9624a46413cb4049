"""The asynchronous log store: appending, closing, and all its parts together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from weakref import finalize

from nerve_store._core import Check, LogEntry, LogStore
from nerve_store.aio.base import documented
from nerve_store.aio.reads import Reads
from nerve_store.aio.runs import Runs
from nerve_store.aio.upkeep import Upkeep
from nerve_store.records import RunClaim
from nerve_store.types import Durability, JsonArgument, Path, Progress, Row, Timestamp

_SHARES = "In an event loop, the rows share their commit with all other appends that wait."


class AsyncLogStore(Reads, Runs, Upkeep):
    """`LogStore` for asyncio: its methods, awaitable, and async iterators; usable from several event loops at once.

    Cancelling a write neither blocks nor harms the store. An append may be committed all the same; any other write is
    taken back if its commit has not begun. So may a claim be made, whose lease then runs out. Any other call that is
    cancelled is interrupted. Use it with `async with`, or await `close()`, which lets the appends in flight finish.
    """

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
        super().__init__(
            path,
            durability=durability,
            read_only=read_only,
            busy_timeout=busy_timeout,
            archive_dir=archive_dir,
            segment_rows=segment_rows,
            max_payload_bytes=max_payload_bytes,
            progress=progress,
        )
        finalize(self, self._channels.end).atexit = False
        finalize(self, self._newsrooms.end).atexit = False

    @property
    @documented(LogStore.path)
    def path(self) -> str:
        return self._store.path

    @property
    @documented(LogStore.archive_dir)
    def archive_dir(self) -> str:
        return self._store.archive_dir

    @property
    @documented(LogStore.read_only)
    def read_only(self) -> bool:
        return self._store.read_only

    @property
    @documented(LogStore.closed)
    def closed(self) -> bool:
        return self._closing and not self._is_inherited

    @documented(LogStore.append, _SHARES)
    async def append(
        self,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: Timestamp | None = None,
        *,
        json: JsonArgument = ...,
        durability: Durability | None = None,
        key: str | None = None,
        claim: RunClaim | None = None,
    ) -> LogEntry:
        if key is not None or claim is not None:
            return await self._write(
                self._store.append,
                source,
                type,
                ref_id,
                payload,
                timestamp,
                json=json,
                durability=durability,
                key=key,
                claim=claim,
            )
        # As few calls as can be, as in `_write`.
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
            more = channel.append(future, source, type, ref_id, payload, timestamp, json, durability)
        except BaseException:
            channel.release(1)
            raise
        channel.free -= more
        return await future

    @documented(LogStore.append_many, _SHARES)
    async def append_many(
        self, entries: Iterable[Row], *, durability: Durability | None = None, claim: RunClaim | None = None
    ) -> range:
        rows = Check.entries(entries)
        Check.durability(durability)
        self._check_open()
        if claim is not None:
            return await self._write(self._store.append_many, rows, durability=durability, claim=claim)
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

    async def close(self) -> None:
        """Let this loop's appends in flight finish and close; later calls raise `StoreClosedError`.

        Appends that other event loops have in flight get either their rows or `StoreClosedError`.
        """
        await super().close()

    async def _finish_writes(self) -> None:
        channel = self._channels.get(asyncio.get_running_loop())
        while channel is not None and (in_flight := channel.futures()):
            await asyncio.wait(in_flight)

    def _end(self) -> None:
        self._channels.end()
        self._newsrooms.end()

    def __repr__(self) -> str:
        closed = " (closed)" if self._closing else ""
        return f"<AsyncLogStore {self._store.path!r}{closed}>"
