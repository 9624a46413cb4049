"""Following the log on PostgreSQL in an event loop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from nerve_store._core import LogEntry
from nerve_store.postgres.aio.base import OpenAsyncPostgres
from nerve_store.postgres.follow import PostgresFollower
from nerve_store.postgres.listener import LOOK_SECONDS


class AsyncPostgresFollower:
    """The rows of a filter as they are appended, by whatever process; endless, until it is closed.

    With `async with` it begins at once and is closed at the end; otherwise it begins with its first row. `close()` ends
    the iteration, in whatever task it waits. Cancelling a step loses no row.
    """

    def __init__(self, owner: OpenAsyncPostgres, follower: PostgresFollower) -> None:
        self._owner, self._follower = owner, follower

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogEntry:
        listener = self._owner._store._listener
        while not self._follower.closed:
            page = self._follower._page
            for entry in page:
                return entry
            known = listener.notices()
            # What a thread reads stays in the follower, also when no task waits for it any more.
            if not await self._owner._run(self._owner._threads.read, self._follower._fill, page):
                await self._owner._waits.wait(known, LOOK_SECONDS)
        raise StopAsyncIteration

    def close(self) -> None:
        """End the iteration. Does nothing if it was closed before."""
        self._follower.close()

    async def aclose(self) -> None:
        """End the iteration, as `close()`."""
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._follower.closed

    async def __aenter__(self) -> Self:
        await self._owner._run(self._owner._threads.read, self._follower._start)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
