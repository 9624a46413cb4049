"""The errors of nerve_store.

Each prints on one line: what happened, to which path or value, and the way out. Their fields carry the same facts for
programs, which need not match on text. All of them pickle. Wrong types and values are the built-in `TypeError`
and `ValueError`.
"""

from __future__ import annotations

__all__ = [
    "ArchiveBusyError",
    "ArchiveCorruptError",
    "ArchiveError",
    "BlobCorruptError",
    "BlobNotFoundError",
    "ClaimLostError",
    "CorruptStoreError",
    "ForkedStoreError",
    "IdempotencyError",
    "IllegalTransitionError",
    "NerveStoreError",
    "QueryTimeoutError",
    "RunExistsError",
    "SchemaVersionError",
    "StoreBusyError",
    "StoreClosedError",
    "StoreFullError",
    "StoreIOError",
    "StoreMovedError",
    "StoreUnavailableError",
    "TimestampUnitWarning",
]


class NerveStoreError(Exception):
    """The root of all errors that nerve_store defines."""

    path: str | None = None
    """The file or directory concerned, where there is one."""


class StoreClosedError(NerveStoreError):
    """The store was used after `close()`."""


class ForkedStoreError(NerveStoreError):
    """A forked child used its parent's store, or an object store after its parent; the message names the way out."""


class StoreBusyError(NerveStoreError, TimeoutError):
    """Another process, or another thread, held what was needed for longer than `busy_timeout`; nothing was changed."""


class QueryTimeoutError(NerveStoreError, TimeoutError):
    """A statement of `LogStore.sql` did not end within its `timeout`."""


class StoreIOError(NerveStoreError, OSError):
    """The operating system refused or failed a read or a write; `errno` and `path` say which.

    After a failed flush the outcome of the call is unknown (the rows may be there after reopening), and the handle
    refuses further writes until it is opened again.
    """


class StoreFullError(StoreIOError):
    """The disk, the quota or the file size limit is exhausted; nothing was acknowledged, and reads go on."""


class StoreMovedError(StoreIOError):
    """The database or its write-ahead log was moved, removed or replaced while it was open; nothing is acknowledged.

    Of a log on PostgreSQL: its schema was renamed or dropped, or another log has its name. Once what was moved is back
    in its place the store goes on; otherwise close it and open it again. `errno` is `ESTALE`.
    """


class StoreUnavailableError(NerveStoreError, ConnectionError):
    """The server of a `PostgresLogStore` did not answer within `busy_timeout`, or an object store after some tries.

    Also: a day lies in an object store without which the log was opened; `path` is its URL.

    A write may have happened all the same, if the message says that its outcome is unknown: repeat it with a `key`. The
    write of a blob can be repeated as it is.
    """


class CorruptStoreError(NerveStoreError):
    """A file is not what it should be: no database, a damaged page, a row that cannot be a row of ours."""


class SchemaVersionError(NerveStoreError):
    """The database was written by a newer nerve_store or by another application; it was left untouched.

    Of a log on PostgreSQL: its schema was renamed, and this role may not bring it up to date.
    """

    found: int | None = None
    """The schema version found in the file."""
    supported: int | None = None
    """The newest schema version that this build reads."""


class IllegalTransitionError(NerveStoreError, ValueError):
    """A workflow run cannot go from its state to the one asked for; nothing was changed."""

    run_id: str | None = None
    from_status: str | None = None
    """The state the run is in; None: there is no such run."""
    to_status: str | None = None
    allowed: tuple[str, ...] = ()
    """The states that this call could have gone to."""


class RunExistsError(NerveStoreError, ValueError):
    """A run that was to be created is there already; nothing was changed."""

    run_id: str | None = None


class ClaimLostError(NerveStoreError):
    """A call carried a claim that is not its run's newest any more; nothing was changed.

    The run was taken over, killed, given back or changed without the claim, by whatever program. Stop working on it.
    """

    run_id: str | None = None
    token: int | None = None
    """The token of the claim that was carried."""


class IdempotencyError(NerveStoreError, ValueError):
    """A key was given again with another row; nothing was appended."""

    key: str | None = None
    first_id: int | None = None
    """The id of the row that the key was given with first."""


class ArchiveError(NerveStoreError):
    """The archive cannot do what was asked; no row was deleted."""


class ArchiveBusyError(ArchiveError, StoreBusyError):
    """Another archive job is under way on the same archive directory."""


class ArchiveCorruptError(ArchiveError, CorruptStoreError):
    """An archive file is damaged; `path` and the message name the file and the line."""


class BlobCorruptError(NerveStoreError):
    """The bytes on disk do not have the digest that they are stored under.

    Writing the same content again repairs them.
    """

    hash: str | None = None
    """The sha256 asked for, lowercase hex."""
    actual_hash: str | None = None
    """The sha256 of the bytes that are there."""


class BlobNotFoundError(NerveStoreError, FileNotFoundError):
    """There is no blob under this hash."""

    hash: str | None = None
    """What was asked for."""


class TimestampUnitWarning(UserWarning):
    """A timestamp lies between 1e9 and 1e11, as one in seconds does; timestamps are in milliseconds.

    It is stored as it is. A store warns once.
    """
