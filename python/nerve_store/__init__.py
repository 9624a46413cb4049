"""Persistent storage for workflow and agent daemons: a log, workflow runs, an archive and blobs, in one directory."""

import nerve_store._defaults  # noqa: F401, it completes the classes of the core
from nerve_store._core import (
    ARCHIVED_UP_TO,
    BUILD_PROFILE,
    DEFAULT_RETENTION,
    SQLITE_VERSION,
    BlobStore,
    BlobWriter,
    LogEntry,
    LogStore,
    NewLogEntry,
    __version__,
    blob_hash,
    last_archivable_day,
    normalize_blob_hash,
    salvage,
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
    QueryTimeoutError,
    SchemaVersionError,
    StoreBusyError,
    StoreClosedError,
    StoreFullError,
    StoreIOError,
    StoreMovedError,
)
from nerve_store.store import Store

TYPE_CHECKING = False  # typing's own would cost more to import than all that follows
if TYPE_CHECKING:
    from nerve_store.aio import AsyncLogStore
    from nerve_store.records import (
        ArchivedDay,
        ArchiveResult,
        BackupReport,
        BlobProblem,
        BlobStats,
        BlobVerifyReport,
        CollectReport,
        ExitCode,
        LogStats,
        SalvageReport,
        ThreadMessage,
        ThreadRound,
        VerifyProblem,
        VerifyReport,
        WorkflowRun,
        WorkflowRunStatus,
    )

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
    "BackupReport",
    "BlobCorruptError",
    "BlobNotFoundError",
    "BlobProblem",
    "BlobStats",
    "BlobStore",
    "BlobVerifyReport",
    "BlobWriter",
    "CollectReport",
    "CorruptStoreError",
    "ExitCode",
    "ForkedStoreError",
    "IllegalTransitionError",
    "LogEntry",
    "LogStats",
    "LogStore",
    "NerveStoreError",
    "NewLogEntry",
    "QueryTimeoutError",
    "SalvageReport",
    "SchemaVersionError",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreFullError",
    "StoreIOError",
    "StoreMovedError",
    "ThreadMessage",
    "ThreadRound",
    "VerifyProblem",
    "VerifyReport",
    "WorkflowRun",
    "WorkflowRunStatus",
    "__version__",
    "blob_hash",
    "last_archivable_day",
    "normalize_blob_hash",
    "salvage",
    "utc_day",
]


_LAZY = {
    "aio": ("AsyncLogStore",),
    "records": (
        "ArchivedDay",
        "ArchiveResult",
        "BackupReport",
        "BlobProblem",
        "BlobStats",
        "BlobVerifyReport",
        "CollectReport",
        "ExitCode",
        "LogStats",
        "SalvageReport",
        "ThreadMessage",
        "ThreadRound",
        "VerifyProblem",
        "VerifyReport",
        "WorkflowRun",
        "WorkflowRunStatus",
    ),
}
"""What is imported when it is asked for: dataclasses and asyncio take longer to import than all the rest."""


def __getattr__(name: str) -> object:
    for module, names in _LAZY.items():
        if name in names:
            import importlib

            value: object = getattr(importlib.import_module(f"nerve_store.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
