"""One data directory for asyncio."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nerve_store.aio.blobs import AsyncBlobStore
from nerve_store.aio.store import AsyncLogStore
from nerve_store.store import MAX_CACHE_BYTES, attach_days, below, check_remote, directory_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nerve_store.records import BackupReport
    from nerve_store.types import Durability, Path, Progress


class AsyncStore:
    """`Store` for asyncio: one data directory, its log behind `logs`, its blobs behind `blobs`.

    Use it with `async with`, or await `close()`.
    """

    logs: AsyncLogStore
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
        segment_rows: int = 4096,
        max_payload_bytes: int = 67108864,
        progress: Progress | None = None,
        remote: str | None = None,
        remote_options: Mapping[str, Any] | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        """Open the directory `path`, blocking for some milliseconds; the options are those of `Store`."""
        directory = directory_path(path)
        self._path = directory
        check_remote(remote, remote_options, max_cache_bytes)
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
            attach_days(self.logs._store, directory, remote, remote_options, max_cache_bytes)

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._path

    @property
    def archive_dir(self) -> str:
        """The absolute path of the directory of the day files."""
        return self.logs.archive_dir

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self.logs.closed

    async def backup(self, target: Path, *, progress: Progress | None = None) -> BackupReport:
        """Copy the store to the directory `target`, while others write: see `Store.backup`.

        `progress` is called in another thread than the event loop's.
        """
        return await self.logs._backup_directory(target, self._local_blobs._store, progress=progress)

    async def close(self) -> None:
        """Let what is on its way finish, and close the log and the blobs; harmless when that was done already."""
        try:
            await self.logs.close()
        finally:
            await self.blobs.close()
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
