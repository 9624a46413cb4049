"""One data directory, or a log on a server and an object store, for asyncio."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nerve_store._places import MAX_CACHE_BYTES, below, check_remote, directory_path, is_url
from nerve_store.aio.blobs import AsyncBlobStore
from nerve_store.aio.store import AsyncLogStore
from nerve_store.store import (
    SCHEMA,
    SEGMENT_ROWS,
    attach_days,
    cache_directory,
    refuse_server_options,
    remote_of_server,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nerve_store.records import BackupReport
    from nerve_store.types import Durability, Path, Progress


class AsyncStore:
    """`Store` for asyncio: one data directory, or a log on a server; the log behind `logs`, blobs behind `blobs`.

    Use it with `async with`, or await `close()`.
    """

    logs: AsyncLogStore
    """On a server an `AsyncPostgresLogStore`, which has the same methods."""
    _local_blobs: AsyncBlobStore | None = None
    blobs: AsyncBlobStore
    """With `remote` an `AsyncObjectBlobStore`, which has the same methods."""

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        archive_dir: Path | None = None,
        segment_rows: int = SEGMENT_ROWS,
        max_payload_bytes: int = 67108864,
        progress: Progress | None = None,
        remote: str | None = None,
        remote_options: Mapping[str, Any] | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
        cache: Path | None = None,
        schema: str = SCHEMA,
        listen_url: str | None = None,
    ) -> None:
        """Open the directory or the log `path`, blocking for some milliseconds; the options are those of `Store`."""
        check_remote(remote, remote_options, max_cache_bytes)
        if isinstance(path, str) and is_url(path):
            place = remote_of_server(remote, archive_dir, segment_rows, progress)
            from nerve_store.postgres import AsyncPostgresLogStore
            from nerve_store.remote import AsyncObjectBlobStore

            server_blobs: Any = AsyncObjectBlobStore(below(place, "blobs"), options=remote_options, read_only=read_only)
            server_logs: Any = AsyncPostgresLogStore(
                path,
                schema=schema,
                archive=place,
                archive_options=remote_options,
                cache=cache,
                max_cache_bytes=max_cache_bytes,
                listen_url=listen_url,
                durability=durability,
                read_only=read_only,
                busy_timeout=busy_timeout,
                max_payload_bytes=max_payload_bytes,
            )
            self.blobs, self.logs = server_blobs, server_logs
            self._path = self.logs.path
            return
        directory = directory_path(path)
        self._path = directory
        refuse_server_options(schema, listen_url)
        fetched = cache_directory(directory, cache, archive_dir, remote)
        local = AsyncBlobStore(os.path.join(directory, "blobs"), durability=durability, read_only=read_only)
        self._local_blobs = local
        if remote is None:
            self.blobs = local
        else:
            from nerve_store.remote.aio import AsyncObjectBlobStore

            objects: Any = AsyncObjectBlobStore(below(remote, "blobs"), options=remote_options, read_only=read_only)
            self.blobs = objects
        self.logs = AsyncLogStore(
            os.path.join(directory, "logs.db"),
            durability=durability,
            read_only=read_only,
            busy_timeout=busy_timeout,
            archive_dir=archive_dir,
            segment_rows=segment_rows,
            max_payload_bytes=max_payload_bytes,
            progress=progress,
        )
        if remote is not None:
            attach_days(self.logs._store, directory, remote, remote_options, max_cache_bytes, cache=fetched)

    @property
    def path(self) -> str:
        """The directory, absolute; on a server the URL without its password, `#` and the schema."""
        return self._path

    @property
    def archive_dir(self) -> str:
        """The absolute path of the directory of the day files; on a server the URL of the days."""
        return self.logs.archive_dir

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self.logs.closed

    async def backup(self, target: Path, *, progress: Progress | None = None) -> BackupReport:
        """Copy the store to the directory `target`, while others write: see `Store.backup`.

        `progress` is called in another thread than the event loop's.
        """
        if self._local_blobs is None:
            return await self.logs.backup(target)
        return await self.logs._backup_directory(target, self._local_blobs._store, progress=progress)

    async def close(self) -> None:
        """Let what is on its way finish, and close the log and the blobs; harmless when that was done already."""
        try:
            await self.logs.close()
        finally:
            await self.blobs.close()
            if self._local_blobs is not None:
                await self._local_blobs.close()

    async def __aenter__(self) -> Self:
        await self.logs.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncStore({self._path!r})"
