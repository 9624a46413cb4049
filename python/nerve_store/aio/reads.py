"""The reads of the asynchronous log store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import date
from functools import partial
from typing import Any

from nerve_store._core import ArrowStream, LogEntry, LogFollower, LogIterator, LogStore
from nerve_store.aio.base import OpenStore, documented
from nerve_store.aio.follow import AsyncLogFollower
from nerve_store.aio.threads import submit
from nerve_store.records import LogStats
from nerve_store.types import SqlParameters, Timestamp

_PAGE_ROWS = 256
"""Rows that an async iterator takes from a thread at a time."""


class Reads(OpenStore):
    """Reading rows, meta and figures."""

    @documented(LogStore.query)
    async def query(
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
    ) -> list[LogEntry]:
        return await self._run(
            self._threads.read,
            self._store.query,
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

    @documented(LogStore.iter)
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
        return self._rows(
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

    @documented(LogStore.arrow)
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
        self._check_open()
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

    @documented(LogStore.count)
    async def count(
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
    ) -> int:
        return await self._run(
            self._threads.read,
            self._store.count,
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

    @documented(LogStore.follow, "With `async with` it begins at once; otherwise with its first row.")
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
    ) -> AsyncLogFollower:
        async def begin() -> LogFollower:
            return await self._run(
                self._threads.read,
                self._store.follow,
                after_id=after_id,
                poll_interval=poll_interval,
                source=source,
                type=type,
                ref_id=ref_id,
                since=since,
                until=until,
                archived=archived,
            )

        def poll(follower: LogFollower) -> asyncio.Future[list[LogEntry]]:
            self._check_open()
            return submit(self._threads.read, follower._poll)

        return AsyncLogFollower(begin, poll, self._newsrooms, poll_interval)

    @documented(LogStore.sql)
    async def sql(
        self,
        query: str,
        params: SqlParameters = (),
        *,
        timeout: float | None = None,  # noqa: ASYNC109, it is the statement's
    ) -> list[tuple[Any, ...]]:
        return await self._run(self._threads.read, self._store.sql, query, params, timeout=timeout)

    @documented(LogStore.read_archive)
    def read_archive(self, day: date) -> AsyncIterator[LogEntry]:
        return self._rows(partial(self._store.read_archive, day))

    @documented(LogStore.get_meta)
    async def get_meta(self, key: str) -> str | None:
        return await self._run(self._threads.read, self._store.get_meta, key)

    @documented(LogStore.list_meta)
    async def list_meta(self, prefix: str = "") -> dict[str, str]:
        return await self._run(self._threads.read, self._store.list_meta, prefix)

    @documented(LogStore.stats)
    async def stats(self, *, exact: bool = False) -> LogStats:
        return await self._run(self._threads.read, self._store.stats, exact=exact)

    def _rows(self, open_rows: Callable[[], LogIterator]) -> AsyncIterator[LogEntry]:
        return self._pages(lambda: partial(open_rows()._take, _PAGE_ROWS))
