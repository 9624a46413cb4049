"""Reading rows, meta and figures, in the asynchronous log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nerve_store._core import LogEntry
from nerve_store.aio.base import documented
from nerve_store.postgres.aio.base import OpenAsyncPostgres
from nerve_store.postgres.store import PostgresLogStore
from nerve_store.records import LogStats
from nerve_store.types import Timestamp


class AsyncReads(OpenAsyncPostgres):
    """Reading rows, meta and figures."""

    @documented(PostgresLogStore.query)
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
        return await self._read(
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

    @documented(PostgresLogStore.count)
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
        return await self._read(
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

    @documented(PostgresLogStore.sql)
    async def sql(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] = (), *, timeout: float | None = None
    ) -> list[tuple[Any, ...]]:
        return await self._read(self._store.sql, query, params, timeout=timeout)

    @documented(PostgresLogStore.get_meta)
    async def get_meta(self, key: str) -> str | None:
        return await self._read(self._store.get_meta, key)

    @documented(PostgresLogStore.list_meta)
    async def list_meta(self, prefix: str = "") -> dict[str, str]:
        return await self._read(self._store.list_meta, prefix)

    @documented(PostgresLogStore.stats)
    async def stats(self, *, exact: bool = False) -> LogStats:
        return await self._read(self._store.stats, exact=exact)
