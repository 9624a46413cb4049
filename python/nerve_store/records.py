"""The records that the store takes and returns, and their enumerations.

All are immutable, compare by value and pickle. Timestamps are integer milliseconds since the Unix epoch, UTC. The two
that travel by the million, `LogEntry` and `NewLogEntry`, are written in Rust and live in `nerve_store._core`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum, StrEnum

from nerve_store._core import Check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nerve_store.types import Status, Timestamp

__all__ = [
    "ArchiveResult",
    "ArchivedDay",
    "BackupReport",
    "BlobProblem",
    "BlobStats",
    "BlobVerifyReport",
    "CollectReport",
    "ExitCode",
    "LogStats",
    "RunClaim",
    "SalvageReport",
    "ThreadMessage",
    "ThreadRound",
    "VerifyProblem",
    "VerifyReport",
    "WorkflowRun",
    "WorkflowRunStatus",
]


class WorkflowRunStatus(StrEnum):
    """The states of a workflow run. `IllegalTransitionError` documents what may follow what."""

    QUEUED = "queued"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"
    DROPPED = "dropped"
    KILLED = "killed"

    @property
    def is_active(self) -> bool:
        """Queued or started: the run still works, and its rows are not archived."""
        return self in (WorkflowRunStatus.QUEUED, WorkflowRunStatus.STARTED)

    @property
    def is_terminal(self) -> bool:
        """Completed, failed, dropped or killed: nothing follows."""
        return self in (
            WorkflowRunStatus.COMPLETED,
            WorkflowRunStatus.FAILED,
            WorkflowRunStatus.DROPPED,
            WorkflowRunStatus.KILLED,
        )


class ExitCode(IntEnum):
    """The exit codes that the predecessor writes; any other integer is allowed too."""

    SUCCESS = 0
    ROLE_ERROR = 1
    MAX_ROUNDS = 2
    KILLED = 137
    CRASHED = 255


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(timestamp: int) -> datetime:
    """The aware `datetime` of a timestamp, in UTC; an `OverflowError` outside of the years 1 to 9999."""
    return _EPOCH + timedelta(milliseconds=timestamp)


def _status(status: Any) -> WorkflowRunStatus:
    try:
        return WorkflowRunStatus(status)
    except ValueError:
        known = ", ".join(WorkflowRunStatus)
        wrong = ValueError if isinstance(status, str) else TypeError
        raise wrong(f"status is one of {known}, not {status!r}") from None


@dataclass(frozen=True, slots=True, init=False)
class WorkflowRun:
    """A workflow run as it is now: the materialized state behind its log rows."""

    run_id: str
    workflow: str
    status: WorkflowRunStatus
    timestamp: int
    """When it took this state, in milliseconds."""
    exit_code: int | None

    def __init__(
        self, run_id: str, workflow: str, status: Status, timestamp: Timestamp, exit_code: int | None = None
    ) -> None:
        """`status` may be the status's value, and `timestamp` an aware `datetime`."""
        put = object.__setattr__
        put(self, "run_id", run_id)
        put(self, "workflow", workflow)
        put(self, "status", _status(status))
        put(
            self,
            "timestamp",
            Check.optional_time(timestamp, "timestamp") if isinstance(timestamp, datetime) else timestamp,
        )
        put(self, "exit_code", exit_code)

    @property
    def time(self) -> datetime:
        """The timestamp as an aware `datetime`, in UTC."""
        return time_of(self.timestamp)


@dataclass(frozen=True, slots=True)
class RunClaim:
    """A run that is its owner's until the lease runs out and another claimant takes it over.

    Pass it as `claim` to what is done for the run. Once the claim is lost, that raises `ClaimLostError`.
    """

    run: WorkflowRun
    """The run as it was when it was claimed or renewed."""
    owner: str
    attempt: int
    """How often the run has been claimed, this claim included."""
    token: int
    """The id of the claim's `started` row, never reused: a later claim of the run has a greater one."""
    expires_at: int
    """When the lease ends, in milliseconds; for display. What measures the lease is a clock that no program sets."""


@dataclass(frozen=True, slots=True)
class ThreadMessage:
    """One message of a run's thread."""

    role: str
    content: str
    meta: object = None
    """Whatever JSON the writer put there; None also when it put nothing."""
    timestamp: int = 0
    """The writer's own clock, in milliseconds; 0 when it gave no number."""

    @property
    def time(self) -> datetime:
        """The timestamp as an aware `datetime`, in UTC; an `OverflowError` outside of the years 1 to 9999."""
        return time_of(self.timestamp)


@dataclass(frozen=True, slots=True)
class ThreadRound:
    """One numbered round of a run's thread."""

    round: int
    """From 1, in the order of the log."""
    log_id: int
    timestamp: int
    """The log row's timestamp, in milliseconds."""
    message: ThreadMessage

    @property
    def time(self) -> datetime:
        """The timestamp as an aware `datetime`, in UTC; an `OverflowError` outside of the years 1 to 9999."""
        return time_of(self.timestamp)


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """One UTC day's archive file."""

    day: date
    row_count: int
    """Rows in the file."""
    path: str
    """The file, or the URL of the object if it lies in an object store."""
    size: int
    """Bytes."""
    sha256: str
    """Of the file, lowercase hex."""
    added_rows: int = 0
    """Rows that the archive job which returned this record added to the file."""
    format: str = "jsonl"
    """`jsonl`, or `jsonl.zst` when compressed."""
    first_id: int | None = None
    """The least id in the file; None if it has no rows."""
    last_id: int | None = None
    archived_at: int | None = None
    """When the file was published, in milliseconds; None if the manifest does not know it yet."""


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """What an archive job did; with `dry_run`, what it would have done."""

    days: tuple[ArchivedDay, ...]
    """The days that gained rows, oldest first."""
    vacuumed: bool
    """Whether the database file has become shorter. False, too, if an open read of any process was in the way."""
    dry_run: bool = False
    pinned_rows: int = 0
    """Rows old enough to go that stay, because their run is still active."""
    unarchivable_rows: int = 0
    """Rows whose timestamp is no integer of the years 1970 to 9999, one of whose texts is none, or whose line would be
    longer than 1 GiB; they stay in the database."""
    problems: tuple[VerifyProblem, ...] = ()
    """Day files that could not be taken into the manifest, or are not what it says, although no row needed them. They
    are also logged as warnings of the logger `nerve_store`.

    Files are read for it that have another size, or were modified since they were archived; one that is missing is not
    among them (`verify`). Of days in an object store, those are that are missing or have another size.
    """


@dataclass(frozen=True, slots=True)
class VerifyProblem:
    """Something in a log database or its archive that is not what it should be."""

    path: str
    """The file."""
    reason: str
    """What is wrong, and the way out, on one line."""
    day: date | None = None
    """The UTC day, if it is a day's archive file."""
    first_id: int | None = None
    """The least id of the rows concerned, if it is known which."""
    last_id: int | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `LogStore.verify` found."""

    problems: tuple[VerifyProblem, ...]
    """What is wrong, in the order of the paths."""
    row_count: int
    """Rows that were compared with the checksums of their segments; the newest are in none yet."""
    segment_count: int
    day_count: int
    """Archive files that were read."""
    archived_row_count: int
    """Rows in them."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What `Store.backup` or `LogStore.backup` did."""

    path: str
    """The backup: a directory, or the file of a database."""
    database_bytes: int
    last_id: int | None
    """The greatest id given out when the database was copied; None: none ever was."""
    day_count: int
    """Archive files that the backup has by now."""
    new_day_count: int
    """Those of them that it did not have before."""
    blob_count: int
    new_blob_count: int
    copied_bytes: int
    """Bytes of new archive files and blobs that were written."""
    shared_bytes: int
    """Bytes of new ones that the file system shares with the originals."""
    problems: tuple[VerifyProblem, ...] = ()
    """Archive files, blobs and whole directories of them that are damaged, are missing or cannot be read, and were not
    copied."""

    @property
    def ok(self) -> bool:
        """Whether all was copied."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """What `salvage` saved. Spans of ids are tuples (first, last), both inclusive, in order."""

    row_count: int
    """Rows in the new database."""
    unverified: tuple[tuple[int, int], ...]
    """Those of them that no checksum vouches for; every other row is right."""
    missing: tuple[tuple[int, int], ...]
    """Ids that the database held, or may have held, and that are neither in the new one nor in the archive. The last
    span ends with 2**63 - 1 if nothing tells which id was the greatest."""
    last_id: int | None = None
    """The greatest id of the rows in the new database."""


@dataclass(frozen=True, slots=True)
class LogStats:
    """Figures of a log database."""

    path: str
    row_count: int
    first_id: int | None
    last_id: int | None
    first_timestamp: int | None
    """The least timestamp in the database, in milliseconds."""
    last_timestamp: int | None
    runs: Mapping[str, int]
    """How many runs are in each status."""
    database_bytes: int
    wal_bytes: int
    free_bytes: int
    """Space inside the database file that new rows will use first; a vacuum returns it."""
    archived_up_to: date | None


@dataclass(frozen=True, slots=True)
class BlobStats:
    """Figures of a blob store."""

    root: str
    blob_count: int
    size: int
    """Bytes of all blobs together."""


@dataclass(frozen=True, slots=True)
class BlobProblem:
    """Something in a blob's place that is not the blob."""

    hash: str | None
    """The name of the blob; None if a whole directory of blobs cannot be read."""
    path: str
    reason: str
    """What is wrong, on one line."""
    actual_hash: str | None = None
    """The sha256 of the bytes that are there; None if they could not be read."""
    quarantine: str | None = None
    """Where the file was moved; None if it stays where it is."""


@dataclass(frozen=True, slots=True)
class BlobVerifyReport:
    """What `BlobStore.verify` found."""

    blob_count: int
    """How many blobs were read."""
    size: int
    """Bytes of these blobs together."""
    problems: tuple[BlobProblem, ...]
    """What is wrong, in the order of the paths."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What `BlobStore.collect` did; with `dry_run`, what it would have done."""

    deleted_count: int
    deleted_size: int
    """Bytes of the deleted blobs together."""
    kept_count: int
    """Blobs that were to be kept."""
    young_count: int
    """Blobs that are not kept but that were written, or written again, within the grace period."""
    missing: tuple[str, ...]
    """Hashes that were to be kept and have no blob, in order."""
    dry_run: bool = False
