"""Persistent storage for workflow and agent daemons: a log, workflow runs, an archive and blobs, in one directory."""

from typing import TYPE_CHECKING

from nerve_store._core import (
    ARCHIVED_UP_TO,
    BUILD_PROFILE,
    DEFAULT_RETENTION,
    SQLITE_VERSION,
    BlobStore,
    LogEntry,
    LogStore,
    NewLogEntry,
    __version__,
    last_archivable_day,
    normalize_blob_hash,
    utc_day,
)
from nerve_store.exceptions import (
    ArchiveBusyError,
    ArchiveCorruptError,
    ArchiveError,
    BlobCorruptError,
    BlobNotFoundError,
    CorruptStoreError,
    ForkedStoreError,
    IllegalTransitionError,
    NerveStoreError,
    SchemaVersionError,
    StoreBusyError,
    StoreClosedError,
    StoreFullError,
    StoreIOError,
)
from nerve_store.records import (
    ArchivedDay,
    ArchiveResult,
    BlobStats,
    ExitCode,
    LogStats,
    ThreadMessage,
    ThreadRound,
    WorkflowRun,
    WorkflowRunStatus,
)
from nerve_store.store import Store

if TYPE_CHECKING:
    from nerve_store.aio import AsyncLogStore

__all__ = [
    "ARCHIVED_UP_TO",
    "BUILD_PROFILE",
    "DEFAULT_RETENTION",
    "SQLITE_VERSION",
    "ArchiveBusyError",
    "ArchiveCorruptError",
    "ArchiveError",
    "ArchiveResult",
    "ArchivedDay",
    "AsyncLogStore",
    "BlobCorruptError",
    "BlobNotFoundError",
    "BlobStats",
    "BlobStore",
    "CorruptStoreError",
    "ExitCode",
    "ForkedStoreError",
    "IllegalTransitionError",
    "LogEntry",
    "LogStats",
    "LogStore",
    "NerveStoreError",
    "NewLogEntry",
    "SchemaVersionError",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreFullError",
    "StoreIOError",
    "ThreadMessage",
    "ThreadRound",
    "WorkflowRun",
    "WorkflowRunStatus",
    "__version__",
    "last_archivable_day",
    "normalize_blob_hash",
    "utc_day",
]


def __getattr__(name: str) -> object:
    """Import `AsyncLogStore` when it is asked for: asyncio takes longer than all the rest."""
    if name == "AsyncLogStore":
        from nerve_store.aio import AsyncLogStore

        return AsyncLogStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
