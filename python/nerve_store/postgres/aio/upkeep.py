"""Appending, meta, and the archive, in the asynchronous log on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Literal

from nerve_store._core import DEFAULT_RETENTION, Check, LogEntry
from nerve_store.aio.base import documented
from nerve_store.exceptions import ArchiveBusyError
from nerve_store.postgres.aio.base import OpenAsyncPostgres
from nerve_store.postgres.store import PostgresLogStore
from nerve_store.records import ArchivedDay, ArchiveResult, RunClaim, VerifyReport
from nerve_store.types import Durability, JsonArgument, Path, Progress, Row, Timestamp

_PAUSE = 0.2
"""Seconds between two looks whether another archive job has ended."""


class AsyncUpkeep(OpenAsyncPostgres):
    """Appending, meta, and the archive."""

    @documented(PostgresLogStore.append)
    async def append(
        self,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: Timestamp | None = None,
        *,
        json: JsonArgument = ...,
        key: str | None = None,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> LogEntry:
        return await self._run(
            self._threads.write,
            self._store.append,
            source,
            type,
            ref_id,
            payload,
            timestamp,
            json=json,
            key=key,
            claim=claim,
            durability=durability,
        )

    @documented(PostgresLogStore.append_many)
    async def append_many(
        self,
        entries: Iterable[Row],
        *,
        claim: RunClaim | None = None,
        durability: Durability | None = None,
    ) -> range:
        return await self._run(
            self._threads.write, self._store.append_many, entries, claim=claim, durability=durability
        )

    @documented(PostgresLogStore.set_meta)
    async def set_meta(self, key: str, value: str) -> None:
        await self._run(self._threads.write, self._store.set_meta, key, value)

    @documented(PostgresLogStore.delete_meta)
    async def delete_meta(self, key: str) -> bool:
        return await self._run(self._threads.write, self._store.delete_meta, key)

    @documented(PostgresLogStore.archive_logs)
    async def archive_logs(
        self,
        *,
        now: Timestamp | None = None,
        retention: timedelta = DEFAULT_RETENTION,
        max_days: int | None = None,
        vacuum: bool | Literal["incremental"] = False,
        compression: Literal["zstd"] | None = None,
        dry_run: bool = False,
        wait: float = 0.0,
        progress: Progress | None = None,
    ) -> ArchiveResult:
        end = time.monotonic() + Check.seconds(wait, "wait")
        while True:
            try:
                return await self._run(
                    self._threads.job,
                    self._store.archive_logs,
                    now=now,
                    retention=retention,
                    max_days=max_days,
                    vacuum=vacuum,
                    compression=compression,
                    dry_run=dry_run,
                    progress=progress,
                )
            except ArchiveBusyError:
                left = end - time.monotonic()
                if left <= 0:
                    raise
            await asyncio.sleep(min(left, _PAUSE))

    @documented(PostgresLogStore.archived_days)
    async def archived_days(self) -> list[ArchivedDay]:
        return await self._read(self._store.archived_days)

    @documented(PostgresLogStore.restore_archive)
    async def restore_archive(self, day: date, *, progress: Progress | None = None) -> int:
        return await self._run(self._threads.job, self._store.restore_archive, day, progress=progress)

    @documented(PostgresLogStore.expire_archive)
    async def expire_archive(self, *, before: date, dry_run: bool = False) -> list[ArchivedDay]:
        return await self._run(self._threads.job, self._store.expire_archive, before=before, dry_run=dry_run)

    @documented(PostgresLogStore.verify)
    async def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        return await self._run(self._threads.job, self._store.verify, progress=progress)

    @documented(PostgresLogStore.reindex)
    async def reindex(self, *, progress: Progress | None = None) -> None:
        await self._run(self._threads.job, self._store.reindex, progress=progress)

    @documented(PostgresLogStore.backup)
    async def backup(self, target: Path, *, progress: Progress | None = None) -> None:
        await self._run(self._threads.job, self._store.backup, target, progress=progress)
