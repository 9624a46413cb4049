"""Meta, the archive and repairs, in the asynchronous log store."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

from nerve_store._core import DEFAULT_RETENTION, BlobStore, LogStore
from nerve_store.aio.base import OpenStore, documented
from nerve_store.records import ArchivedDay, ArchiveResult, BackupReport, VerifyReport
from nerve_store.types import Path, Progress, Timestamp

_IN_A_THREAD = "`progress` is called in another thread than the event loop's."


class Upkeep(OpenStore):
    """What a daemon does beside its work."""

    @documented(LogStore.set_meta)
    async def set_meta(self, key: str, value: str) -> None:
        await self._write(self._store.set_meta, key, value)

    @documented(LogStore.delete_meta)
    async def delete_meta(self, key: str) -> bool:
        return await self._write(self._store.delete_meta, key)

    @documented(LogStore.archive_logs, _IN_A_THREAD)
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
        return await self._run(
            self._threads.job,
            self._store.archive_logs,
            now=now,
            retention=retention,
            max_days=max_days,
            vacuum=vacuum,
            compression=compression,
            dry_run=dry_run,
            wait=wait,
            progress=progress,
        )

    @documented(LogStore.archived_days)
    async def archived_days(self) -> list[ArchivedDay]:
        return await self._run(self._threads.read, self._store.archived_days)

    @documented(LogStore.expire_archive)
    async def expire_archive(self, *, before: date, dry_run: bool = False) -> list[ArchivedDay]:
        return await self._run(self._threads.job, self._store.expire_archive, before=before, dry_run=dry_run)

    @documented(LogStore.restore_archive, _IN_A_THREAD)
    async def restore_archive(self, day: date, *, progress: Progress | None = None) -> int:
        return await self._run(self._threads.job, self._store.restore_archive, day, progress=progress)

    @documented(LogStore.verify, _IN_A_THREAD)
    async def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        return await self._run(self._threads.job, self._store.verify, progress=progress)

    @documented(LogStore.backup, _IN_A_THREAD)
    async def backup(self, target: Path, *, progress: Progress | None = None) -> BackupReport:
        return await self._run(self._threads.job, self._store.backup, target, progress=progress)

    async def _backup_directory(
        self, target: Path, blobs: BlobStore, *, progress: Progress | None = None
    ) -> BackupReport:
        return await self._run(self._threads.job, self._store._backup_directory, target, blobs, progress=progress)

    @documented(LogStore.reindex, _IN_A_THREAD)
    async def reindex(self, *, progress: Progress | None = None) -> None:
        await self._run(self._threads.job, self._store.reindex, progress=progress)
