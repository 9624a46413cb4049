"""The Rust core of nerve_store. Import its names from `nerve_store`.

Timestamps are integer milliseconds since the Unix epoch, UTC; a float or a bool is a `TypeError`. Text is Unicode
without lone surrogates (`ValueError`); NUL is kept.
"""

from asyncio import Future
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from types import EllipsisType, TracebackType
from typing import Any, BinaryIO, Final, Literal, Self, TypeAlias, TypeVar, final

from typing_extensions import Buffer

from nerve_store.records import (
    ArchivedDay,
    ArchiveResult,
    BackupReport,
    BlobStats,
    BlobVerifyReport,
    CollectReport,
    LogStats,
    RunClaim,
    SalvageReport,
    ThreadMessage,
    ThreadRound,
    VerifyReport,
    WorkflowRun,
    WorkflowRunStatus,
)
from nerve_store.types import (
    Data,
    Durability,
    Expected,
    File,
    JsonArgument,
    Path,
    Progress,
    Row,
    SqlParameters,
    Status,
    Timestamp,
)

__all__ = [
    "ARCHIVED_UP_TO",
    "BUILD_PROFILE",
    "DEFAULT_RETENTION",
    "MAX_TIMESTAMP",
    "SQLITE_VERSION",
    "AppendChannel",
    "ArchiveLock",
    "ArrowStream",
    "BlobIterator",
    "BlobReader",
    "BlobStore",
    "BlobWriter",
    "Check",
    "Columns",
    "DayEncoder",
    "Interruption",
    "LogEntry",
    "LogFollower",
    "LogIterator",
    "LogStore",
    "NewLogEntry",
    "News",
    "WorkflowRunIterator",
    "WriteBatch",
    "__version__",
    "arrow_stream",
    "blob_hash",
    "copied_rows",
    "is_round",
    "last_archivable_day",
    "normalize_blob_hash",
    "salvage",
    "stored_rows",
    "stringify",
    "utc_day",
]

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

__version__: Final[str]
SQLITE_VERSION: Final[str]
"""The version of the SQLite compiled into this module."""
BUILD_PROFILE: Final[str]
""""release" or "debug"; a debug build is not for timing."""
DEFAULT_RETENTION: Final[timedelta]
"""How long rows stay in the database unless `archive_logs` is told otherwise: 30 days."""
ARCHIVED_UP_TO: Final[str]
MAX_TIMESTAMP: Final[int]
"""The meta key of the archive's watermark: the newest day that an archive job has finished."""

def utc_day(timestamp: Timestamp) -> date:
    """The UTC day that `timestamp` (milliseconds, years 1970 to 9999, else `ValueError`) falls on."""

def blob_hash(data: Data) -> str:
    """The sha256 of `data` (text as UTF-8), lowercase hex: the name that it has as a blob. Stores nothing."""

def last_archivable_day(boundary: Timestamp) -> date:
    """The last UTC day that lies wholly before `boundary` (milliseconds, from 1970-01-02 on, else `ValueError`)."""

def salvage(damaged: Path, target: Path, *, progress: Progress | None = None) -> SalvageReport:
    """Write what can still be read of the database `damaged` to a new one at `target`, with the help of its archive.

    `damaged` is the file of a database that no process has open. Its `-wal` and `archive/logs` beside it are read as
    well, and nothing there is changed. The new database has the rows, the runs, meta and the identity, so that it can
    take the place of the damaged one. Rows for which neither the checksum of their segment nor the archive vouches are
    kept, and listed as unverified: the newest, which are in no segment yet, and all rows of a segment that lost one.
    Every other row is right. Runs and meta have no checksums. `progress` is called with (pages done, pages to do).

    `StoreIOError` if there is something at `target`, or if the database is in use.
    """

def normalize_blob_hash(text: str) -> str | None:
    """`text` as a lowercase sha256 in hex, or None if it is not 64 hexadecimal digits."""

# Inside the classes `type` is the column.
_LogEntryClass: TypeAlias = type[LogEntry]
_NewLogEntryClass: TypeAlias = type[NewLogEntry]

@final
class LogEntry:
    """A row of the log.

    `id` strictly increases and is never reused; `timestamp` is in milliseconds since the Unix epoch, UTC.
    """

    __match_args__: Final = ("id", "source", "type", "ref_id", "payload", "timestamp")

    def __new__(
        cls, id: int, source: str, type: str, ref_id: str | None, payload: str | None, timestamp: Timestamp
    ) -> Self: ...
    @property
    def id(self) -> int:
        """Strictly increasing, never reused; the order of ids is the order of commits."""
    @property
    def source(self) -> str:
        """Who wrote it."""
    @property
    def type(self) -> str:
        """What happened."""
    @property
    def ref_id(self) -> str | None:
        """What it is about; for the rows of a workflow run, its id."""
    @property
    def payload(self) -> str | None:
        """Free text, by custom JSON."""
    @property
    def timestamp(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
    @property
    def time(self) -> datetime:
        """The timestamp as an aware `datetime`, in UTC; an `OverflowError` outside of the years 1 to 9999."""
    def json(self) -> Any:
        """The payload parsed as JSON; None if there is none.

        Any depth and integers of up to 200,000 digits are read, exactly; a number beyond every float becomes infinite.
        A payload that is not JSON is a `json.JSONDecodeError`, and a longer integer a `ValueError`. NaN and Infinity,
        which `json.dumps` writes, are not JSON.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def _asdict(self) -> dict[str, Any]:
        """The fields by their names, in their order."""
    def _replace(
        self,
        *,
        id: int | EllipsisType = ...,
        source: str | EllipsisType = ...,
        type: str | EllipsisType = ...,
        ref_id: str | EllipsisType | None = ...,
        payload: str | EllipsisType | None = ...,
        timestamp: Timestamp | EllipsisType = ...,
    ) -> Self:
        """A row with other values in these fields."""
    def __reduce__(self) -> tuple[_LogEntryClass, tuple[int, str, str, str | None, str | None, int]]: ...

@final
class NewLogEntry:
    """A row to append.

    `timestamp` is in milliseconds since the Unix epoch, UTC, or an aware `datetime`; None: the time of the append. In
    place of `payload`, `json` takes a JSON value, which is written compactly.
    """

    __match_args__: Final = ("source", "type", "ref_id", "payload", "timestamp")

    def __new__(
        cls,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: Timestamp | None = None,
        *,
        json: JsonArgument = ...,
    ) -> Self: ...
    @property
    def source(self) -> str:
        """Who writes it."""
    @property
    def type(self) -> str:
        """What happened."""
    @property
    def ref_id(self) -> str | None:
        """What it is about; for the rows of a workflow run, its id."""
    @property
    def payload(self) -> str | None:
        """Free text, by custom JSON."""
    @property
    def timestamp(self) -> int | None:
        """Milliseconds since the Unix epoch, UTC; None: the time of the append."""
    @property
    def time(self) -> datetime | None:
        """The timestamp as an aware `datetime`, in UTC; None: the time of the append."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[_NewLogEntryClass, tuple[str, str, str | None, str | None, int | None]]: ...

@final
class LogIterator:
    """The rows of a filter or of an archived day, page by page; no transaction is open between steps."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> LogEntry: ...
    def _take(self, most: int) -> list[LogEntry]:
        """Up to so many rows at once; none at the end."""

def stored_rows(rows: list[tuple[Any, ...]]) -> list[LogEntry]:
    """The rows in what a server returned: of each the `record_send` of a `LogEntry`'s fields, in a tuple.

    Their texts are as PostgreSQL stores them.
    """

def copied_rows(data: bytes) -> list[LogEntry]:
    """The rows in whole messages of a binary COPY of a `LogEntry`'s fields, with texts as PostgreSQL stores them."""

_FittingRow: TypeAlias = tuple[tuple[str, str, str | None, str | None, int], bool]

@final
class Check:
    """The rules for arguments, as calls on a directory have them: each returns what it takes, or raises their error.

    What is refused is a `TypeError` or a `ValueError` whose text begins with `name`. What accepts None passes it on.
    """
    @staticmethod
    def text(value: str, name: str) -> str:
        """A text without lone surrogates."""
    @staticmethod
    def optional_text(value: str | None, name: str) -> str | None:
        """A text, or None."""
    @staticmethod
    def texts(value: str | Collection[str] | None, name: str) -> list[str] | None:
        """The texts of one text or of a collection, or None."""
    @staticmethod
    def integer(value: int | None, name: str) -> int | None:
        """A whole number of 64 bits, or None; a bool is none."""
    @staticmethod
    def count(value: int, name: str) -> int:
        """A whole number from 0 on."""
    @staticmethod
    def optional_count(value: int | None, name: str) -> int | None:
        """A whole number from 0 on, or None."""
    @staticmethod
    def flag(value: bool, name: str) -> bool:
        """A bool."""
    @staticmethod
    def time(value: Timestamp, name: str) -> int:
        """The milliseconds of a time of any year."""
    @staticmethod
    def optional_time(value: Timestamp | None, name: str) -> int | None:
        """The same, or None."""
    @staticmethod
    def timestamp(value: Timestamp | None, name: str) -> int | None:
        """The milliseconds of a time of the years 1970 to 9999, or None."""
    @staticmethod
    def day(value: date, name: str) -> date:
        """A calendar date of the years 1970 to 9999."""
    @staticmethod
    def span(value: timedelta, name: str) -> timedelta:
        """A `timedelta` that is not negative."""
    @staticmethod
    def seconds(value: float, name: str) -> float:
        """A number of seconds from 0 on."""
    @staticmethod
    def seconds_or_delta(value: float | timedelta, name: str) -> float:
        """The seconds of a span of time from 0 on, which is a number or a `timedelta`."""
    @staticmethod
    def poll_interval(value: float) -> float:
        """The seconds between two looks of a follower."""
    @staticmethod
    def lease(value: float | timedelta) -> float:
        """The seconds of a lease."""
    @staticmethod
    def max_attempts(value: int | None) -> int | None:
        """How often a run may be claimed, or None."""
    @staticmethod
    def durability(value: Durability | None) -> Durability | None:
        """`full`, `normal` or None."""
    @staticmethod
    def compression(value: Literal["zstd"] | None) -> Literal["zstd"] | None:
        """`zstd` or None."""
    @staticmethod
    def vacuum(value: bool | Literal["incremental"]) -> bool | Literal["incremental"]:
        """A bool or `incremental`."""
    @staticmethod
    def progress(value: Progress | None) -> None:
        """What can be told of progress, or None."""
    @staticmethod
    def key(value: str) -> str:
        """A key of an append."""
    @staticmethod
    def path(value: Path, name: str) -> str:
        """A path of a file."""
    @staticmethod
    def entries(entries: Iterable[_Item]) -> list[_Item]:
        """The items of an argument `entries`, which may be any."""
    @staticmethod
    def hash(value: str) -> str | None:
        """The hash of a blob in lowercase; None for a text that is none."""
    @staticmethod
    def keep(value: Iterable[str]) -> list[str]:
        """The hashes of blobs to keep, in lowercase."""
    @staticmethod
    def items(items: Iterable[_Item]) -> Iterator[_Item]:
        """The items of an argument `items`, one at a time."""
    @staticmethod
    def data(data: Data, index: int | None = None) -> bytes:
        """The bytes of a text or of a bytes-like object, which never change; `index`: its place among `items`."""
    @staticmethod
    def run_id(value: str) -> str:
        """The id of a run that a row is to be about."""
    @staticmethod
    def payload(payload: str | None, json: JsonArgument) -> str | None:
        """The payload of a call that takes `payload` or `json`."""
    @staticmethod
    def row(
        source: str,
        type: str,
        ref_id: str | None,
        payload: str | None,
        timestamp: Timestamp | None,
        *,
        max_payload_bytes: int,
    ) -> _FittingRow:
        """The fields of a row, the timestamp in milliseconds, and whether that looks like seconds."""
    @staticmethod
    def entry(entry: Row, *, max_payload_bytes: int) -> _FittingRow:
        """The same of a row that was given as one argument, `entry`."""
    @staticmethod
    def status(value: Status) -> WorkflowRunStatus:
        """A state of a run."""
    @staticmethod
    def statuses(value: Expected | None) -> list[WorkflowRunStatus] | None:
        """One state or several, or None."""
    @staticmethod
    def expect(value: Expected | None) -> list[WorkflowRunStatus] | None:
        """One state or several that a run must be in, or None."""
    @staticmethod
    def run(value: WorkflowRun, name: str) -> tuple[WorkflowRun, bool]:
        """A `WorkflowRun` with these fields, checked, and whether its timestamp looks like seconds."""
    @staticmethod
    def claim(value: RunClaim | None, ref_id: str | None = None) -> RunClaim | None:
        """A `RunClaim`, or None. A claim of another run than `ref_id` is a `ValueError`, unless that is None."""

@final
class Columns:
    """Rows on their way to PostgreSQL, as arrays in its binary form, one a column."""

    def __new__(cls) -> Self: ...
    def __len__(self) -> int: ...
    @property
    def payload_bytes(self) -> int:
        """Bytes of the payloads together."""

    def add(self, source: str, type: str, ref_id: str | None, payload: str | None, timestamp: int) -> None:
        """Append a row that was checked."""

    def add_stored(self, rows: Sequence[LogEntry]) -> None:
        """Append rows that were stored, whatever they are."""

    def add_new(
        self,
        entries: Iterable[Row],
        max_payload_bytes: int,
        warn: Callable[[int], object],
        claim: RunClaim | None = None,
    ) -> int:
        """Append all rows of a call, or none; returns how many there are.

        An error names the index of the row. Rows of another run than that of a `claim` are refused. `warn` is called
        with the first timestamp that looks like seconds, before any row is appended.
        """

    def extend(self, other: Columns) -> None:
        """Append the rows of another."""

    def arrays(self) -> list[bytes]:
        """The arrays: sources, types, references, payloads, timestamps, and whether each row is a round."""

def is_round(source: str, type: str, payload: str | None) -> bool:
    """Whether a row counts as a round of its thread."""

def stringify(text: str) -> str:
    """What `JSON.stringify(JSON.parse(text))` gives for a text that is JSON.

    Integers of 64 bits stay exact, numbers beyond every double stay as they are written, members keep their order.
    """

@final
class DayEncoder:
    """The bytes of a day's file, made from its rows in the order of their ids, and what it holds.

    Each call returns the bytes that come next in the file. Rows in another order are a `ValueError`.
    """

    def __new__(cls, compressed: bool) -> Self: ...
    @property
    def row_count(self) -> int:
        """How many rows there are."""
    def copied(self, data: bytes) -> bytes:
        """Append rows as a server sent them.

        `data` are whole messages of a binary COPY of a `LogEntry`'s fields, with texts as PostgreSQL stores them.
        """
    def add(self, rows: list[tuple[LogEntry, bytes | None]]) -> bytes:
        """Append rows, those that come from a file with their lines."""
    def finish(
        self,
    ) -> tuple[bytes, int, int, str, bytes, dict[str, list[int]], list[tuple[str, str]] | None]:
        """End the file.

        Returns its last bytes, its size, the size of its lines, its sha256, its ids as native integers of 64 bits, its
        references with the ids of their rounds, and its pairs of source and type if they are few.
        """

def arrow_stream(open: Callable[[], Callable[[], list[LogEntry]]], batch_rows: int) -> ArrowStream:
    """Rows for data tools from elsewhere.

    `open()` begins a reading, and returns a callable that returns the next rows at each call, and none at the end.
    """

@final
class ArrowStream:
    """Rows of a log for data tools, by Arrow's PyCapsule interface, which pyarrow, Polars, DuckDB and others read.

    Each reading begins anew, with the rows that there are then. Columns: `id` (int64), `source` and `type`
    (dictionaries of utf8), `ref_id` and `payload` (utf8), `timestamp` (milliseconds, UTC).
    """

    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...

@final
class WorkflowRunIterator:
    """Workflow runs in order, read as they are asked for; made by `LogStore.iter_workflow_runs`.

    Any thread may take the next run. An interrupted step loses none.
    """

    def __iter__(self) -> Self: ...
    def __next__(self) -> WorkflowRun: ...
    def _take(self, most: int) -> list[WorkflowRun]:
        """Up to `most` runs, none only at the end."""

@final
class BlobIterator:
    """The hashes of a blob store, in order."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> str: ...

@final
class LogFollower:
    """The rows of a filter as they are appended, by whatever process; endless, until it is closed.

    As a context manager it is closed at the end.
    """

    def __iter__(self) -> Self: ...
    def __next__(self) -> LogEntry: ...
    def close(self) -> None:
        """End the iteration, in whatever thread it waits. Does nothing if it was closed before."""
    @property
    def closed(self) -> bool:
        """Whether it was closed."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
    def _is_settled(self) -> bool:
        """Whether nothing is to be read before something is announced."""
    def _poll_briefly(self) -> list[LogEntry] | None:
        """The rows that there are now; None if they may be many or large, or reading them takes long."""
    def _poll(self) -> list[LogEntry]:
        """The rows that there are now, perhaps none; waits for nothing."""

@final
class AppendChannel:
    """The way of one event loop's appends to the commits, and of their outcomes back; for `nerve_store.aio`."""

    def __new__(cls, store: LogStore) -> Self: ...
    def fileno(self) -> int:
        """The descriptor that is readable when there are outcomes to take in."""
    def append(
        self,
        future: Future[LogEntry],
        source: str,
        type: str,
        ref_id: str | None,
        payload: str | None,
        timestamp: Timestamp | None,
        json: JsonArgument,
        durability: Durability | None,
    ) -> int:
        """Send a row on its way; `future` will be resolved with it.

        Returns how many places it takes besides the one that every call takes.
        """
    def append_many(
        self,
        future: Future[range],
        entries: Sequence[Row],
        durability: Durability | None,
    ) -> int:
        """The same for rows that are all or nothing; `future` will be resolved with the range of their ids."""
    def perform(
        self, future: Future[Any], function: Callable[..., object], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> int | None:
        """Call a method of the store that writes with these arguments, and send what it writes on its way.

        `future` will be resolved with what the method returns otherwise. Returns how many places it takes besides the
        one that every call takes; None if there is nothing to write, and the call takes none.
        """
    def revoke(self, future: Future[Any]) -> None:
        """Take back the call whose future this is, if its commit has not begun. Nothing is written then."""
    def submit(self) -> None:
        """Submit what has gathered; called by the loop at the end of a turn."""
    def resolve(self) -> int:
        """Resolve the futures whose outcomes have arrived; returns how many places that frees.

        Futures that were cancelled meanwhile are passed over.
        """
    def futures(self) -> list[Future[Any]]:
        """The futures of what is on its way."""

@final
class News:
    """A descriptor that is readable when a log may have changed; for `nerve_store.aio`."""

    def __new__(cls, store: LogStore) -> Self: ...
    def fileno(self) -> int:
        """The descriptor that is readable when there may be something new."""
    def take(self) -> None:
        """Take the news in: what changes from now on makes the descriptor readable again."""

@final
class Interruption:
    """Interrupts the calls that are made through it, from another thread."""

    def __new__(cls) -> Self: ...
    def interrupt(self) -> None:
        """End the call under way, and any later one, as soon as it can end without having written anything."""
    def run(self, function: Callable[[], _Result]) -> _Result:
        """Call `function`, which takes no arguments; what it calls of a store is interrupted."""

@final
class BlobReader:
    """The raw file under the `io.BufferedReader` that `BlobStore.open` returns."""

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` with the bytes at hand and return how many; 0 at the end, once all bytes were verified."""
    def readall(self) -> bytes:
        """The remaining bytes; `BlobCorruptError` if the blob's bytes do not match."""
    def tell(self) -> int:
        """How many bytes were read."""
    def close(self) -> None:
        """Close the file."""
    @property
    def closed(self) -> bool:
        """Whether it was closed, or is that of the process which forked this one."""
    def flush(self) -> None:
        """Does nothing."""
    def readable(self) -> bool:
        """True."""
    def writable(self) -> bool:
        """False."""
    def seekable(self) -> bool:
        """False: bytes that are skipped could not be verified."""

@final
class BlobWriter:
    """A file that becomes a blob when it is closed; `BlobStore.writer` makes it.

    As a context manager it is closed at the end, or discarded if an exception comes: then nothing of it is left.
    Nothing is acknowledged before `close`. Memory is constant, whatever the size.
    """

    def write(self, data: Data) -> int:
        """Add bytes (text as UTF-8) and return how many. What is stored is hashed as it is stored."""
    def close(self) -> None:
        """Publish the blob; `hash` says its name. Does nothing if it was closed or discarded before."""
    def discard(self) -> None:
        """Give the blob up: nothing of it is left. Does nothing if it was closed before."""
    @property
    def hash(self) -> str:
        """The sha256 of the blob, lowercase hex; a `ValueError` before it is published."""
    @property
    def closed(self) -> bool:
        """Whether it was closed or discarded, or is that of the process which forked this one."""
    def tell(self) -> int:
        """How many bytes were written."""
    def flush(self) -> None:
        """Does nothing: a blob is durable when it is closed."""
    def writable(self) -> bool:
        """True."""
    def readable(self) -> bool:
        """False."""
    def seekable(self) -> bool:
        """False."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class WriteBatch:
    """Changes that are committed together, all or none; `LogStore.batch` makes it.

    Its methods check their arguments, and write nothing. At the end of the `with` block everything is committed in one
    transaction, in the order of the calls. An exception in the block discards everything, and so does a change that is
    refused: then nothing has changed.
    """

    @property
    def ids(self) -> tuple[int, ...] | None:
        """The ids of all its rows, in the order of the calls; None before the commit.

        Those of changes of state are among them. A key that was there gives the id of its first row, a run that was
        there (`exist_ok`) none.
        """
    def append(
        self,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: Timestamp | None = None,
        *,
        json: JsonArgument = ...,
        key: str | None = None,
    ) -> None:
        """Add a row: see `LogStore.append`."""
    def append_many(self, entries: Iterable[Row]) -> None:
        """Add rows: see `LogStore.append_many`."""
    def create_workflow_run(
        self,
        run_id: str,
        workflow: str,
        *,
        status: Status = "queued",
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        not_before: Timestamp | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Add a new run: see `LogStore.create_workflow_run`."""
    def upsert_workflow_run(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
    ) -> None:
        """Add a row and the state of a run: see `LogStore.upsert_workflow_run`."""
    def transition(
        self,
        run_id: str,
        status: Status,
        *,
        expect: Expected | None = None,
        exit_code: int | None = None,
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
    ) -> None:
        """Add a change of state: see `LogStore.transition`."""
    def set_meta(self, key: str, value: str) -> None:
        """Add a value of meta: see `LogStore.set_meta`."""
    def delete_meta(self, key: str) -> None:
        """Add the removal of a key of meta: see `LogStore.delete_meta`."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...
    def _commit(self) -> tuple[int, ...]:
        """Commit what was added, and return the ids."""
    def _end(self) -> None:
        """Discard what was added; nothing can be added any more."""
    def _committed(self, ids: tuple[int, ...]) -> None:
        """Tell the ids that were committed."""

@final
class ArchiveLock:
    """The lock of archive jobs, until it is released."""

    def release(self) -> None:
        """Let others have it."""

@final
class LogStore:
    """The log database and its archive: rows, workflow runs, meta.

    One object serves any number of threads; any number of processes may open the same file. Use it as a context
    manager, or call `close()`. A forked child must open its own (`ForkedStoreError`).

    The constructor opens the database at `path`, or creates it (directories 0700, file 0600). A database of the
    predecessor (`@uncaged/nerve-store` 0.5.0) is opened in place and indexed, which takes some seconds per million
    rows. A symbolic link at `path` is refused.

    - `durability`: what a returned call survives. "full": power loss; "normal": the kill of the process, while a
      power loss may drop the newest commits.
    - `read_only`: refuse every write; no database is created, and none is brought up to date.
    - `busy_timeout`: seconds to wait for another process's lock before `StoreBusyError`.
    - `archive_dir`: where day files go; default `archive/logs` beside the database.
    - `segment_rows`: rows of a segment of the index, from 2; for tests and experiments.
    - `max_payload_bytes`: the longest text accepted in a row, in bytes of UTF-8. Source, type and ref_id take 65,536
      at most.
    - `progress`: called with (rows indexed, rows to index) while a database without a segment index gets one; an
      exception that it raises stops that, and the next opening goes on with it.

    Raises `StoreIOError`, `CorruptStoreError` (no database), `SchemaVersionError` (newer, or another
    application's), `StoreBusyError`.
    """

    def __new__(
        cls,
        path: Path,
        *,
        durability: Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        archive_dir: Path | None = None,
        segment_rows: int = 4096,
        max_payload_bytes: int = 67108864,
        progress: Progress | None = None,
    ) -> Self: ...
    @property
    def path(self) -> str:
        """The absolute path of the database."""
    @property
    def archive_dir(self) -> str:
        """The absolute path of the directory of the day files."""
    @property
    def read_only(self) -> bool:
        """Whether the store refuses writes."""
    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
    def append(
        self,
        source: str,
        type: str,
        ref_id: str | None = None,
        payload: str | None = None,
        timestamp: Timestamp | None = None,
        *,
        json: JsonArgument = ...,
        durability: Durability | None = None,
        key: str | None = None,
        claim: RunClaim | None = None,
    ) -> LogEntry:
        """Append one row and return it; it is as durable as asked when this returns.

        `timestamp` is in milliseconds, or an aware `datetime`; None: now. In place of `payload`, `json` takes a JSON
        value, which is written compactly; NaN and infinities are a `ValueError`.

        - `key`: makes the append idempotent. A later one with the same key appends nothing and returns the first
          row; with another source, type, ref_id or payload it is an `IdempotencyError`. A key is remembered until
          its row is archived, and for seven days at the least.
        - `claim`: the claim under which the row is written, of the run that `ref_id` names, if it names any. A
          claim that is lost is a `ClaimLostError`, and nothing is appended.
        """
    def append_many(
        self,
        entries: Iterable[Row],
        *,
        durability: Durability | None = None,
        claim: RunClaim | None = None,
    ) -> range:
        """Append rows in one transaction, all or none; returns their ids.

        A tuple is (source, type, ref_id, payload, timestamp); the id of a `LogEntry` is ignored. Every row is checked
        before anything is written; an error names the index of the row. `claim`: as in `append`.
        """
    def query(
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
        """The rows that match every filter given, in id order.

        `since` and `until` bound the timestamp, both inclusive; `after_id` and `before_id` bound the id, both
        exclusive. `limit` takes the first rows of the order asked for. With `archived`, rows that have left the
        database are read from the archive as if they had not, each once; only files are opened that can hold a match.
        Without it, rows that an archive job takes away during a long query may be missing.
        """
    def iter(
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
    ) -> LogIterator:
        """The rows of `query`, any number of them in constant memory, holding no transaction between steps.

        Rows appended after the call are not included. Rows that an archive job takes away meanwhile are skipped.
        """
    def arrow(
        self,
        *,
        batch_rows: int = 65536,
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
    ) -> ArrowStream:
        """The rows of `query` for data tools, without Python objects.

        `pyarrow.table(logs.arrow())`, `polars.DataFrame(logs.arrow(source="workflow"))`,
        `duckdb.sql("SELECT … FROM stream")`. They are read as they are asked for, in batches of at most `batch_rows`,
        in constant memory, and no transaction is open between batches. Rows that are appended after a reading began
        are not included.
        """
    def count(
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
        """How many rows `query` would return."""
    def sql(
        self,
        query: str,
        params: SqlParameters = (),
        *,
        timeout: float | None = None,
    ) -> list[tuple[Any, ...]]:
        """The rows of one read-only SQL statement, on a connection of its own.

        Tables: `logs`, `meta`, `workflow_runs`. Parameters are positional (`?`) or named (`:name`, without the colon
        in the mapping). A statement that would write, attach or change settings is a `ValueError`, and so is one that
        SQLite cannot compile. After `timeout` seconds, which may be a fraction, the statement ends with
        `QueryTimeoutError`; Ctrl-C ends it at once.
        """
    def _sql_with_names(
        self,
        query: str,
        params: SqlParameters = (),
        *,
        timeout: float | None = None,
    ) -> tuple[list[str], list[tuple[Any, ...]]]: ...
    def get_meta(self, key: str) -> str | None:
        """The value under `key`, or None."""
    def list_meta(self, prefix: str = "") -> dict[str, str]:
        """The values under all keys that begin with `prefix`, by key; with the default, of every key."""
    def set_meta(self, key: str, value: str) -> None:
        """Set the value under `key`, as durable as the store.

        The archive's own key, `archived_up_to`, is a `ValueError`.
        """
    def delete_meta(self, key: str) -> bool:
        """Remove `key`, and say whether it was there.

        The archive's own key, `archived_up_to`, is a `ValueError`.
        """
    def batch(self, *, durability: Durability | None = None, claim: RunClaim | None = None) -> WriteBatch:
        """Begin a batch: changes that are committed together, all or none, at the end of its `with` block.

        A `claim` fences all of it: a claim that is lost is a `ClaimLostError`, and nothing is changed.
        """
    def create_workflow_run(
        self,
        run_id: str,
        workflow: str,
        *,
        status: Status = "queued",
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        not_before: Timestamp | None = None,
        exist_ok: bool = False,
        durability: Durability | None = None,
    ) -> WorkflowRun:
        """Create a run that is not there, logging the row (workflow, status, run_id, payload), in one transaction.

        A run that is there is a `RunExistsError`; with `exist_ok` it is returned as it is, if it is of the same
        workflow. `not_before`, a timestamp, keeps a queued run from being claimed before. In place of `payload`,
        `json` takes a JSON value.
        """
    def claim_workflow_run(
        self,
        owner: str,
        *,
        workflow: str | Collection[str] | None = None,
        run_id: str | None = None,
        lease: float | timedelta = 60.0,
        wait: float | timedelta = 0.0,
        max_attempts: int | None = None,
        durability: Durability | None = None,
    ) -> RunClaim | None:
        """Claim a run for `owner` and return the claim; None if there is none to claim.

        A run whose lease ran out is taken over, the one whose lease ended first; else the oldest `queued` run that may
        begin becomes `started`. Each run goes to one claimant, in whatever process. Taking a run over first logs
        `crashed`. The `started` row has no payload; its id is the claim's token.

        - `workflow`, `run_id`: only runs of that workflow, or of one of several; only that run.
        - `lease`: seconds, or a timedelta, for which the run is the owner's unless `renew_claim` makes it longer.
          It is measured by a clock that no program sets, and ends when the machine is started anew.
        - `wait`: seconds, or a timedelta, to wait for a run. A commit of this process ends the wait at once, one of
          another process as soon as it is noticed, as `follow` does.
        - `max_attempts`: a run whose lease ran out and that has been claimed so often is left `crashed`.
        """
    def _is_run_free(
        self, workflow: str | Collection[str] | None, run_id: str | None, max_attempts: int | None
    ) -> bool:
        """Whether a claim may take a run now; waits for nothing."""
    def renew_claim(self, claim: RunClaim, *, lease: float | timedelta | None = None) -> RunClaim:
        """Let a claim last for another lease from now on, and return it as it is then.

        `lease` None: as long as the one before. A claim whose lease ran out can be renewed until another claimant
        takes the run over. A claim that is lost is a `ClaimLostError`.
        """
    def release_claim(self, claim: RunClaim, *, delay: float | timedelta = 0.0) -> WorkflowRun:
        """Give a claimed run back: log that it was interrupted and that it is queued again, in one commit.

        `delay`: seconds, or a timedelta, for which it is not to be claimed. Returns the run. A claim that is lost is a
        `ClaimLostError`.
        """
    def upsert_workflow_run(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        durability: Durability | None = None,
        claim: RunClaim | None = None,
    ) -> LogEntry:
        """Append `entry` and bring the run to the state `run`, both in one transaction.

        The entry's ref_id is the run, and a run that is there stays one of its workflow (`ValueError`). A run that is
        not there may begin in any state; otherwise the transition must be legal (`IllegalTransitionError`), unless
        forced. Repeating the current state is allowed and logged. The exit code of a finished run is never lost to an
        update that has none.

        While a claim's lease on the run lasts, only a call that carries the `claim`, kills the run or is forced may
        change it. A claim that is lost is a `ClaimLostError`, and nothing is changed.
        """
    def append_with_workflow_update(
        self,
        entry: Row,
        run: WorkflowRun,
        *,
        force: bool = False,
        durability: Durability | None = None,
        claim: RunClaim | None = None,
    ) -> LogEntry:
        """The predecessor's name for `upsert_workflow_run`."""
    def transition(
        self,
        run_id: str,
        status: Status,
        *,
        expect: Expected | None = None,
        exit_code: int | None = None,
        payload: str | None = None,
        json: JsonArgument = ...,
        timestamp: Timestamp | None = None,
        durability: Durability | None = None,
        claim: RunClaim | None = None,
    ) -> WorkflowRun:
        """Take an existing run to `status`, logging the row (workflow, status, run_id, payload), in one transaction.

        `expect`: the state, or states, that the run must be in now. A run that is not there, is in another state or
        cannot go there is an `IllegalTransitionError` and changes nothing. So is a change without the `claim` of a run
        that is under a claim whose lease lasts, unless it kills the run. A claim that is lost is a `ClaimLostError`.
        In place of `payload`, `json` takes a JSON value.
        """
    def get_workflow_run(self, run_id: str) -> WorkflowRun | None:
        """The run, or None. A run whose stored status is unknown is a `CorruptStoreError` that names it."""
    def get_active_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        """The queued and started runs, oldest first.

        A run whose stored status is unknown is left out and reported by name, as an error in the log of
        `logging.getLogger("nerve_store")`; `get_workflow_run` raises for it.
        """
    def get_all_workflow_runs(self, workflow: str | None = None) -> list[WorkflowRun]:
        """All runs, newest first; an unreadable one as in `get_active_workflow_runs`."""
    def query_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Expected | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> list[WorkflowRun]:
        """The runs that match every filter given, newest first unless `descending` is false.

        `workflow` and `status` take one value or a collection. `since` and `until` bound the time at which the run
        took its state, both inclusive. Runs of one timestamp are ordered by id. `after`: the last run of the previous
        page, after which this one begins. The cost follows what is returned, not the number of runs; without
        `workflow`, also the number of workflows. A run whose stored status is unknown is left out and reported, as in
        `get_active_workflow_runs`.
        """
    def iter_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Expected | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after: WorkflowRun | None = None,
        limit: int | None = None,
        descending: bool = True,
    ) -> WorkflowRunIterator:
        """The runs of `query_workflow_runs`, any number of them in constant memory, with no transaction between steps.

        A run that changes its state meanwhile may be met twice or not at all, as its place in the order is another one
        then.
        """
    def count_workflow_runs(
        self,
        *,
        workflow: str | Collection[str] | None = None,
        status: Expected | None = None,
    ) -> Counter[WorkflowRunStatus]:
        """How many runs are in each state, of the workflows and states given or of all.

        A state that no run is in is left out, and reads as 0.
        """
    def delete_workflow_runs(self, *, before: Timestamp, workflow: str | Collection[str] | None = None) -> int:
        """Delete the runs that are not active and took their state before `before`; returns how many.

        `workflow`: of this workflow, or of these. Their rows stay in the log, and a run that is made again under such
        an id sees them. Runs are deleted a thousand a transaction: what is deleted stays so when the call is
        interrupted.
        """
    def get_trigger_payload(self, run_id: str) -> Any:
        """What started the run, from its first `started` row; None if that says nothing.

        The row's object, if it has a string `prompt` and a number `maxRounds`, as `{prompt, maxRounds, dryRun}`; else
        its `triggerPayload` object by the same rule; else that object as it is. A row whose payload cannot be read is
        reported to the logger `nerve_store`, and gives None.
        """
    def get_thread_events(self, run_id: str) -> list[dict[str, Any]]:
        """The run's command events: every `thread_command_event` whose payload is an object with a string `type`.

        A row whose payload is no JSON, or whose values cannot be built, is left out and reported, with its id, to the
        logger `nerve_store`.
        """
    def get_thread_messages(self, run_id: str) -> list[ThreadMessage]:
        """The run's messages: every `thread_workflow_message` whose payload has a string `role` and `content`.

        A row whose payload is no JSON, or whose values cannot be built, is left out and reported, with its id, to the
        logger `nerve_store`.
        """
    def get_thread_round_count(self, run_id: str) -> int:
        """How many rounds the run's thread has."""
    def get_thread_rounds(self, run_id: str, *, before: int = 0, limit: int) -> list[ThreadRound]:
        """The rounds numbered below `before` (0: all), newest first, from the `limit` newest numbers.

        A round is a command event or a message whose payload is JSON and no thread start. One that is neither a
        message nor an object with a string `type` takes a number but is not returned, so that fewer than `limit`
        rounds may come back.
        """
    def archive_logs(
        self,
        *,
        now: Timestamp | None = None,
        retention: timedelta = timedelta(days=30),
        max_days: int | None = None,
        vacuum: bool | Literal["incremental"] = False,
        compression: Literal["zstd"] | None = None,
        dry_run: bool = False,
        wait: float = 0.0,
        progress: Progress | None = None,
    ) -> ArchiveResult:
        """Move the rows of every UTC day that ended before `now - retention` to that day's file.

        A day's file is staged, synced, published, read back and compared before exactly its rows are deleted; a file
        that is there already gains the new rows and loses none. Rows of queued and started runs stay. While others
        append, in whatever process, it goes at a third of its speed, so that they hardly notice.

        - `now`: milliseconds, or an aware `datetime`; None: the clock.
        - `retention`: how long rows stay; the default is `DEFAULT_RETENTION`, 30 days.
        - `max_days`: at most so many days gain rows, the oldest first.
        - `vacuum`: return the freed space to the file system. True rewrites the database in one go, and needs twice the
          space of what is left in it, in its directory; if an open read of any process keeps the file from becoming
          shorter, `vacuumed` is false. `"incremental"` shortens it in slices between which others write, and needs a
          database that was created for it (`ValueError` otherwise).
        - `compression`: `"zstd"` writes `.jsonl.zst`. A file that is compressed stays so when it gains rows; a plain
          one that gains rows is compressed if asked.
        - `dry_run`: change nothing and say what would be done; `size` is what the files would have.
        - `wait`: seconds to wait for another archive job to end.
        - `progress`: called with (rows done, rows to do) every thousand rows; an exception that it raises stops the
          job between two steps and is passed on.

        Raises `ArchiveBusyError` while another archive job is under way, `ArchiveCorruptError` if a day's file is
        damaged, `ArchiveError` if it holds other rows under the same ids.

        In a `Store` with `remote`, the files of all days are moved there afterwards. If the object store gives no
        answer, the rows have been archived here, and the next job goes on (`StoreUnavailableError`); an object of
        others that has the name of a day is left alone (`ArchiveError`, once the other days have been moved).
        """
    def _archive_logs(
        self,
        *,
        now: Timestamp | None,
        retention: timedelta,
        max_days: int | None,
        vacuum: bool | Literal["incremental"],
        compression: Literal["zstd"] | None,
        dry_run: bool,
        wait: float,
        progress: Progress | None,
    ) -> ArchiveResult: ...
    def archived_days(self) -> list[ArchivedDay]:
        """The days in the archive, oldest first, as the manifest describes them.

        A file that the manifest does not know, such as the predecessor's, is read once to describe it; the next
        archive job adopts it.
        """
    def read_archive(self, day: date) -> LogIterator:
        """The rows in the file of `day`, in id order, in constant memory; `ArchiveError` if there is none.

        Every block is compared with its checksum before its rows are returned: `ArchiveCorruptError` names the file.
        """
    def expire_archive(self, *, before: date, dry_run: bool = False) -> list[ArchivedDay]:
        """Delete the files of the days before `before`, and what the index keeps of them; returns these days in order.

        A day in which a queued or started run has rows stays. Rounds keep their numbers, and ids are not given out
        again. The rows are gone for every read at once, also if the call is killed before the files are; the next
        archive job removes these then. `dry_run`: only say which days would go.

        Raises `ArchiveBusyError` while an archive job is under way.
        """
    def _expire_archive(self, *, before: date, dry_run: bool) -> list[ArchivedDay]: ...
    def _attach_remote(self, remote: Any) -> None: ...
    @property
    def _remote(self) -> Any: ...
    @property
    def _identity(self) -> str | None: ...
    def _lock_archive(self, wait: float) -> ArchiveLock: ...
    def _objects(self) -> list[tuple[date, str, str, int, str]]: ...
    def _begin_upload(self, day: date, key: str, size: int, sha256: str, place: str) -> bool: ...
    def _finish_upload(self, key: str) -> bool: ...
    def _supersede_object(self, key: str) -> None: ...
    def _forget_object(self, key: str) -> None: ...
    def _release_day(self, day: date) -> bool: ...
    def restore_archive(self, day: date, *, progress: Progress | None = None) -> int:
        """Put the rows of `day` back into the database, under their ids; returns how many were not there.

        The file stays, and the next archive job deletes the rows again. Nothing is put back if the file is damaged
        (`ArchiveCorruptError`), if there is none, or if the database has another row under one of the ids
        (`ArchiveError`). Reads scan the restored rows until the next archive job or `reindex()`.
        `progress` is called with (rows done, rows to do).
        """
    def backup(self, target: Path, *, progress: Progress | None = None) -> BackupReport:
        """Copy the database to the file `target`, while others write; every row acknowledged before is in the copy.

        The copy is verified and synced before it gets its name. A file that is there is replaced if it is an older
        backup of this database; one that was opened for writing since, or that is anything else, is refused
        (`StoreIOError`). A damaged database is a `CorruptStoreError`, and leaves what is there. `progress` is called
        with (done, total) bytes.
        """
    def _backup_directory(self, target: Path, blobs: BlobStore, *, progress: Progress | None) -> BackupReport: ...
    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Check the database, its rows and every archive file, on all cores; what is wrong is in the report.

        SQLite's structures, the checksum of each sealed segment over its rows wherever they are, and of each file the
        sha256, every line, and what the manifest says of it. The index is compared with the rows, and the status of a
        run with the newest row that logged it. Rows of another program that cannot be read are named, and so is a file
        that cannot be. `progress` is called with (rows done, rows to do). In a `Store` with
        `remote`, days there are read as well; of those in the cache, only whether the object is there with its size.
        """
    def _verify(self, *, progress: Progress | None) -> VerifyReport: ...
    def follow(
        self,
        *,
        after_id: int | None = None,
        poll_interval: float = 0.05,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        archived: bool = True,
    ) -> LogFollower:
        """The rows that match, as they are appended by any process, each once, in id order; endless.

        `after_id` None: from now on. Rows that were archived before the follower came to them are read from the
        archive, unless `archived` is false. A commit is seen at once, by whatever process; where the system does not
        tell of other processes' writes (a network's file system), within `poll_interval` seconds. Waiting reads no
        disk. `close()`, from any thread, ends the iteration; closing the store ends it with `StoreClosedError`.
        """
    def reindex(self, *, progress: Progress | None = None) -> None:
        """Build the manifest of the archive anew from its files, and the index from the rows, in one transaction.

        Needed only if an error or `verify` says so. Files are taken as they are; missing ones are forgotten, damaged
        ones left as they are. Rows of the database that have ids of archived rows get new ids, and so do all rows
        after the first of them. What is missing in files, and what got new ids, is logged by the logger `nerve_store`.

        `progress` is called with (rows indexed, rows to index), inside the transaction: it must not write to the
        store.
        """
    def stats(self, *, exact: bool = False) -> LogStats:
        """Figures of the database, at a cost that does not grow with its rows.

        `exact`: look at each row. Without it, `row_count` and the timestamps are those that the index knows; they
        differ only if more than 8,192 rows may have been deleted since they were indexed, or were written by other
        programs.
        """
    def close(self) -> None:
        """Wait for calls under way and close; harmless when closed already. Later calls raise `StoreClosedError`."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...

@final
class BlobStore:
    """Content-addressed bytes under `<root>/<2 hex>/<62 hex>`, named by their sha256.

    Safe to share between threads and processes. Reads verify the digest and never return wrong bytes. `root` is
    created by the first write.

    `hash in store` is `exists(hash, verify=False)`. Iterating yields the hashes of all blobs, in order; a blob that is
    written or deleted meanwhile may or may not come up.
    """

    def __new__(
        cls,
        root: Path,
        *,
        durability: Durability = "full",
        read_only: bool = False,
    ) -> Self: ...
    @property
    def root(self) -> str:
        """The directory, absolute."""
    def write(self, data: Data, *, verify: bool = False) -> str:
        """Store `data` (text as UTF-8) and return its sha256, lowercase hex.

        Idempotent; a damaged copy is replaced. A blob that is there already is not read again if this object wrote or
        verified it and the file system says that it has not changed since; `verify` reads it all the same. With "full"
        durability the bytes and their directories are synced when this returns; after a flush that failed
        (`StoreIOError`) this object refuses further writes and deletions.

        Any C-contiguous buffer is taken as its bytes, without a copy if it is `bytes` or a view of them. Any other
        (`bytearray`, an array, a map of a file, and read-only views of them) is copied on the way, 256 KiB at a time:
        if it changes meanwhile, the stored blob is a mix of old and new bytes, always under the hash of that mix.
        """
    def write_many(self, items: Iterable[Data], *, verify: bool = False) -> list[str]:
        """Store many items at once and return their hashes, in their order.

        Hashes on all cores; flushes are overlapped, and each directory is flushed once. All are durable when this
        returns; if it raises, some of them may have been stored, and none is acknowledged. The items are taken in
        portions of 64 MiB, so that a generator may yield any number.
        """
    def write_file(self, file: File, *, verify: bool = False) -> str:
        """Store the content of a file, in constant memory, and return its sha256, lowercase hex.

        `file` is a path, or an object whose `read(size)` returns bytes; such an object is read from where it stands,
        and stays open. A path that cannot be read is an `OSError`.
        """
    def writer(self, *, verify: bool = False) -> BlobWriter:
        """A file to write to, whose content becomes a blob when it is closed."""
    def read(self, hash: str) -> bytes | None:
        """The bytes under `hash`; None if there are none, or if it is no sha256. `BlobCorruptError` if they differ."""
    def open(self, hash: str) -> BinaryIO:
        """The blob as a file to read from, in constant memory; `BlobNotFoundError` if there is none.

        Bytes are verified as they are read. A blob of up to 256 KiB is verified before its first byte is returned. The
        last bytes of a larger one are withheld until all are verified: a caller that reads to the end has read the
        blob, or gets `BlobCorruptError`. Do not act on bytes before the end. The file cannot seek.
        """
    def exists(self, hash: str, *, verify: bool = True) -> bool:
        """Whether the blob is there and its bytes match; `verify` False: whether a file is there."""
    def verify(self, *, progress: Progress | None = None) -> BlobVerifyReport:
        """Read every blob, on all cores.

        A damaged one is moved to `<root>/.quarantine` (not with `read_only`) and reported; the next write of its
        content heals it. What is no regular file, or cannot be read, is reported and stays where it is. `progress` is
        called with (done, total) bytes.
        """
    def collect(
        self,
        keep: Iterable[str],
        *,
        grace: timedelta = timedelta(hours=1),
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CollectReport:
        """Delete the blobs that are not in `keep` and were not written for `grace`, by default an hour.

        Writing a blob that is there renews its grace, also in another process: choose `grace` longer than it takes
        from a write until its hash can be in `keep`, and any number of writers may go on meanwhile. With no grace at
        all, there must be none. What is no sha256 in `keep` is a `ValueError`, and nothing is deleted. `progress` is
        called with (done, total) shards.
        """
    def _collect(
        self,
        keep: Iterable[str],
        *,
        grace: timedelta,
        dry_run: bool,
        progress: Progress | None,
    ) -> CollectReport: ...
    def delete(self, hash: str) -> bool:
        """Remove the blob; False if there was none."""
    def size(self, hash: str) -> int:
        """The blob's size in bytes, from the file system; `BlobNotFoundError` if there is none."""
    def stats(self) -> BlobStats:
        """How many blobs there are and how many bytes they hold; looks at every file."""
    def close(self) -> None:
        """Let go of the two directories that are kept open to save the way there; the next call opens them again.

        There is nothing else to close: no lock is held between calls, and nothing waits to be written.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def __contains__(self, hash: str, /) -> bool: ...
    def __iter__(self) -> BlobIterator: ...
