"""The asynchronous log on PostgreSQL: iterators, batches, closing, and all its parts together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import date
from functools import partial
from types import TracebackType
from typing import Any, Self

from nerve_store._core import ArrowStream, LogEntry
from nerve_store._places import MAX_CACHE_BYTES
from nerve_store.aio.base import documented
from nerve_store.aio.threads import submit
from nerve_store.postgres.aio.follow import AsyncPostgresFollower
from nerve_store.postgres.aio.reads import AsyncReads
from nerve_store.postgres.aio.runs import AsyncRuns
from nerve_store.postgres.aio.upkeep import AsyncUpkeep
from nerve_store.postgres.batch import PostgresBatch
from nerve_store.postgres.store import PostgresLogStore
from nerve_store.records import RunClaim, WorkflowRun
from nerve_store.types import Durability, Status, Timestamp


class AsyncPostgresBatch(PostgresBatch):
    """A batch of an asynchronous log: its methods are synchronous, and only its end is awaited."""

    _owner: AsyncPostgresLogStore

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._owner._run(self._owner._threads.write, self.__exit__, exc_type, exc, traceback)


class AsyncPostgresLogStore(AsyncReads, AsyncRuns, AsyncUpkeep):
    """`PostgresLogStore` for asyncio: its methods, awaitable, and async iterators.

    A call that is cancelled gives its task free at once. A read is ended, at the server too; a write that is under way
    ends in its thread, and may be committed all the same. Waiting takes no thread. Use it with `async with`, or await
    `close()`.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "nerve",
        archive: str | os.PathLike[str] | None = None,
        listen_url: str | None = None,
        durability: Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        max_payload_bytes: int = 67108864,
        max_connections: int = 16,
        writers: int = 2,
        archive_options: Mapping[str, Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        """Open the log, blocking for some round trips; the options are those of `PostgresLogStore`."""
        super().__init__(
            url,
            schema=schema,
            archive=archive,
            listen_url=listen_url,
            durability=durability,
            read_only=read_only,
            busy_timeout=busy_timeout,
            max_payload_bytes=max_payload_bytes,
            max_connections=max_connections,
            writers=writers,
            archive_options=archive_options,
            cache=cache,
            max_cache_bytes=max_cache_bytes,
        )

    @property
    @documented(PostgresLogStore.path)
    def path(self) -> str:
        return self._store.path

    @property
    @documented(PostgresLogStore.archive_dir)
    def archive_dir(self) -> str:
        return self._store.archive_dir

    @property
    @documented(PostgresLogStore.read_only)
    def read_only(self) -> bool:
        return self._store.read_only

    @property
    @documented(PostgresLogStore.closed)
    def closed(self) -> bool:
        return self._store.closed

    @documented(PostgresLogStore.batch)
    def batch(self, *, durability: Durability | None = None, claim: RunClaim | None = None) -> AsyncPostgresBatch:
        batch = AsyncPostgresBatch(self._store, durability=durability, claim=claim)
        batch._owner = self
        return batch

    @documented(PostgresLogStore.iter)
    def iter(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> AsyncIterator[LogEntry]:
        return self._pages(
            partial(
                self._store.iter,
                source=source,
                type=type,
                ref_id=ref_id,
                since=since,
                until=until,
                after_id=after_id,
                before_id=before_id,
                limit=limit,
                descending=descending,
                archived=archived,
            )
        )

    @documented(PostgresLogStore.arrow)
    def arrow(
        self,
        *,
        batch_rows: int = 65536,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> ArrowStream:
        return self._store.arrow(
            batch_rows=batch_rows,
            source=source,
            type=type,
            ref_id=ref_id,
            since=since,
            until=until,
            after_id=after_id,
            before_id=before_id,
            limit=limit,
            descending=descending,
            archived=archived,
        )

    @documented(PostgresLogStore.read_archive)
    def read_archive(self, day: date) -> AsyncIterator[LogEntry]:
        return self._pages(partial(self._store.read_archive, day))

    @documented(PostgresLogStore.iter_workflow_runs)
    def iter_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Status | Collection[Status] | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> AsyncIterator[WorkflowRun]:
        return self._pages(
            partial(
                self._store.iter_workflow_runs,
                workflow=workflow,
                status=status,
                since=since,
                until=until,
                after=after,
                limit=limit,
                descending=descending,
            )
        )

    @documented(PostgresLogStore.follow, "With `async with` it begins at once; otherwise with its first row.")
    def follow(
        self,
        *,
        after_id: int | None = None,
        poll_interval: float = 0.05,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        archived: bool = True,
    ) -> AsyncPostgresFollower:
        follower = self._store._follower(
            poll_interval,
            after_id=after_id,
            source=source,
            type=type,
            ref_id=ref_id,
            since=since,
            until=until,
            archived=archived,
        )
        return AsyncPostgresFollower(self, follower)

    async def close(self) -> None:
        """Wait for calls under way and close; harmless when closed already. Later calls raise `StoreClosedError`."""
        try:
            await asyncio.shield(submit(self._threads.write, self._store.close))
        finally:
            self._threads.shutdown()

    async def __aenter__(self) -> Self:
        self._store._connections.check()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        closed = " (closed)" if self.closed else ""
        return f"<AsyncPostgresLogStore {self.path!r}{closed}>"
