"""Persistent storage for workflow and agent daemons: a log, workflow runs, an archive and blobs, in one directory."""

import nerve_store._defaults  # noqa: F401  # pyright: ignore[reportUnusedImport] - it completes the core
from nerve_store._core import (
    ARCHIVED_UP_TO,
    BUILD_PROFILE,
    DEFAULT_RETENTION,
    SQLITE_VERSION,
    ArrowStream,
    BlobStore,
    BlobWriter,
    LogEntry,
    LogFollower,
    LogIterator,
    LogStore,
    NewLogEntry,
    WriteBatch,
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
    ClaimLostError,
    CorruptStoreError,
    ForkedStoreError,
    IdempotencyError,
    IllegalTransitionError,
    NerveStoreError,
    QueryTimeoutError,
    RunExistsError,
    SchemaVersionError,
    StoreBusyError,
    StoreClosedError,
    StoreFullError,
    StoreIOError,
    StoreMovedError,
    StoreUnavailableError,
    TimestampUnitWarning,
)
from nerve_store.store import Store

TYPE_CHECKING = False  # typing's own would cost more to import than all that follows
if TYPE_CHECKING:
    from nerve_store.aio import (
        AsyncBlobReader,
        AsyncBlobStore,
        AsyncBlobWriter,
        AsyncLogFollower,
        AsyncLogStore,
        AsyncStore,
    )
    from nerve_store.postgres import AsyncPostgresLogStore as AsyncPostgresLogStore
    from nerve_store.postgres import PostgresLogStore as PostgresLogStore
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
        RunClaim,
        SalvageReport,
        ThreadMessage,
        ThreadRound,
        VerifyProblem,
        VerifyReport,
        WorkflowRun,
        WorkflowRunStatus,
    )
    from nerve_store.remote import AsyncObjectBlobStore as AsyncObjectBlobStore
    from nerve_store.remote import ObjectBlobStore as ObjectBlobStore

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
    "ArrowStream",
    "AsyncBlobReader",
    "AsyncBlobStore",
    "AsyncBlobWriter",
    "AsyncLogFollower",
    "AsyncLogStore",
    "AsyncStore",
    "BackupReport",
    "BlobCorruptError",
    "BlobNotFoundError",
    "BlobProblem",
    "BlobStats",
    "BlobStore",
    "BlobVerifyReport",
    "BlobWriter",
    "ClaimLostError",
    "CollectReport",
    "CorruptStoreError",
    "ExitCode",
    "ForkedStoreError",
    "IdempotencyError",
    "IllegalTransitionError",
    "LogEntry",
    "LogFollower",
    "LogIterator",
    "LogStats",
    "LogStore",
    "NerveStoreError",
    "NewLogEntry",
    "QueryTimeoutError",
    "RunClaim",
    "RunExistsError",
    "SalvageReport",
    "SchemaVersionError",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreFullError",
    "StoreIOError",
    "StoreMovedError",
    "StoreUnavailableError",
    "ThreadMessage",
    "ThreadRound",
    "TimestampUnitWarning",
    "VerifyProblem",
    "VerifyReport",
    "WorkflowRun",
    "WorkflowRunStatus",
    "WriteBatch",
    "__version__",
    "blob_hash",
    "last_archivable_day",
    "normalize_blob_hash",
    "salvage",
    "utc_day",
]


_LAZY = {
    "aio": ("AsyncBlobReader", "AsyncBlobStore", "AsyncBlobWriter", "AsyncLogFollower", "AsyncLogStore", "AsyncStore"),
    # Not among the names of `import *`: they need the extra `postgres`.
    "postgres": ("AsyncPostgresLogStore", "PostgresLogStore"),
    # Nor these, which need the extra `s3`.
    "remote": ("AsyncObjectBlobStore", "ObjectBlobStore"),
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
        "RunClaim",
        "ThreadMessage",
        "ThreadRound",
        "VerifyProblem",
        "VerifyReport",
        "WorkflowRun",
        "WorkflowRunStatus",
    ),
}
"""What is imported when it is asked for: dataclasses and asyncio take longer to import than all the rest."""


if not TYPE_CHECKING:  # a type checker that saw it would take any name for one of ours

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
