"""Opening what `--data` and `--remote` name: a data directory and its parts, or a log on a server."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from nerve_store import ArchivedDay, BlobStore, LogStore, StoreUnavailableError
from nerve_store._places import COPY_DATABASE, below, is_url
from nerve_store.cli.place import Place
from nerve_store.cli.problem import Problem
from nerve_store.store import attach_days

if TYPE_CHECKING:
    from nerve_store.postgres import PostgresLogStore
    from nerve_store.protocols import Log
    from nerve_store.remote import ObjectBlobStore

__all__ = [
    "OTHER_USER",
    "AbsentLog",
    "Forbidden",
    "absent_log",
    "blob_root",
    "is_there",
    "last_id",
    "log_path",
    "missing_days",
    "open_blobs",
    "open_logs",
    "open_server",
    "refuse_server",
    "remote_of",
    "require_directory",
    "require_log",
    "way_to",
]

_BUSY_SECONDS = 10.0
"""How long a command waits for a server that does not answer."""
OTHER_USER = "run the command as the user that the daemon runs as"
"""What to do where the files may not be read."""
_FINISH = "finish it with nerve-store copy --finish, or remove the directory"
_PUT_BACK = "put it back, or restore a backup, before any program opens the store: it would begin anew"
"""What to do where the database is gone."""
_DAYS = "/logs/"
"""What follows a remote in the URL of a day."""


class Forbidden(Problem):
    """Nobody can tell this user whether anything is at the path."""

    def __init__(self, path: str) -> None:
        """The path may not be looked at."""
        super().__init__(f"{path!r} may not be looked at by this user; {OTHER_USER}")
        self.path = path


def is_there(path: str) -> bool:
    """Whether anything is at the path, be it a link that leads nowhere; `Forbidden` where that is not told."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except PermissionError:
        raise Forbidden(path) from None
    return True


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except PermissionError:
        raise Forbidden(path) from None


def log_path(data: str) -> str:
    """The log database of the data directory."""
    return os.path.join(data, "logs.db")


def blob_root(data: str) -> str:
    """The blob store of the data directory."""
    return os.path.join(data, "blobs")


def refuse_server(place: Place, what: str) -> None:
    """Refuse a URL where only a directory will do."""
    if place.is_server:
        raise Problem(f"{what} works on a data directory, and {place.shown!r} is a log on a server")


def require_directory(place: Place, what: str = "this command") -> None:
    """Refuse to go on without a data directory, rather than create one by looking for it."""
    refuse_server(place, what)
    data = place.data
    if _is_directory(data):
        return
    if is_there(data):
        raise Problem(f"{data!r} is not a directory; name the data directory with --data DIR")
    raise Problem(f"there is no data directory {data!r}; name it with --data DIR or NERVE_STORE_DATA")


def require_log(place: Place) -> str:
    """The path of the log database of an existing data directory."""
    require_directory(place)
    path = log_path(place.data)
    absent = absent_log(place.data)
    if absent is not None:
        raise Problem(absent.reason if absent.way_out is None else f"{absent.reason}; {absent.way_out}")
    if not is_there(path):
        raise Problem(f"there is no log database {path!r}; is {place.data!r} a data directory?")
    return path


class AbsentLog(NamedTuple):
    """What is wrong where there is no log database."""

    reason: str
    way_out: str | None
    """None where none was there."""


def absent_log(data: str) -> AbsentLog | None:
    """What is wrong where there is no log database, or an empty file in the place of one that has an archive.

    None if there is one, or if the directory is one of blobs alone.
    """
    path = log_path(data)
    is_empty = is_there(path)
    if is_empty and os.lstat(path).st_size > 0:
        return None
    # What a database that was just created has beside it, an empty one may have.
    names = [] if is_empty else _names_in(data)
    if COPY_DATABASE in names:
        return AbsentLog(f"{data!r} holds a copy that was not finished", _FINISH)
    beside = [os.path.join(data, name) for name in names if name.startswith("logs.db-")]
    archive = os.path.join(data, "archive", "logs")
    left = [*beside, *([archive] if _names_in(archive) else [])]
    if left:
        what = "empty" if is_empty else "missing"
        reason = f"the log database {path!r} is {what}, and what belongs to it is there: {', '.join(left)}"
        return AbsentLog(reason, _PUT_BACK)
    if is_empty or _is_directory(blob_root(data)):
        return None
    return AbsentLog(f"there is no log database {path!r}; is {data!r} a data directory?", None)


def _names_in(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        raise Forbidden(directory) from None


def open_logs(place: Place, *, writable: bool = False) -> LogStore | PostgresLogStore:
    """The log of an existing data directory or schema, read-only unless `writable`."""
    if place.is_server:
        return open_server(place, writable=writable)
    logs = LogStore(require_log(place), read_only=not writable)
    if place.remote is not None:
        try:
            attach_days(logs, place.data, place.remote, place.options, place.max_cache_bytes)
        except ImportError as error:
            raise Problem(str(error)) from None
    return logs


def open_server(place: Place, *, writable: bool = False) -> PostgresLogStore:
    """The log in an existing schema; none is created by looking for it."""
    try:
        from nerve_store.postgres import PostgresLogStore
        from nerve_store.postgres.address import Address
    except ImportError as error:
        raise Problem(str(error)) from None
    address = Address.of(place.data)
    if place.remote is not None and address.archive is not None:
        raise Problem(
            f"{place.shown!r} names an archive, and --remote or NERVE_STORE_REMOTE another one: leave out one of them"
        )

    def opened(*, read_only: bool) -> PostgresLogStore:
        return PostgresLogStore(
            address.url,
            schema=address.schema,
            archive=address.archive if place.remote is None else place.remote,
            archive_options=place.options,
            max_cache_bytes=place.max_cache_bytes,
            listen_url=address.listen_url,
            read_only=read_only,
            busy_timeout=_BUSY_SECONDS,
        )

    store = opened(read_only=True)
    if not writable:
        return store
    store.close()
    return opened(read_only=False)


def last_id(store: Log) -> int:
    """The greatest id of a row, wherever the row is."""
    live = next(iter(store.iter(descending=True, limit=1)), None)
    archived = max((day.last_id or 0 for day in store.archived_days()), default=0)
    return max(archived, 0 if live is None else live.id)


def missing_days(store: Log) -> list[ArchivedDay]:
    """The archived days whose files are not where they should be; of days in an object store nothing is told."""

    def missing() -> list[ArchivedDay]:
        return [day for day in store.archived_days() if "://" not in day.path and _is_gone(day.path)]

    # A job of another process may have moved or expired a day between its listing and the look for its file.
    return missing() and missing()


def _is_gone(path: str) -> bool:
    """Whether nothing is there: what may not be looked at is no missing file."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def open_blobs(place: Place, *, writable: bool = False, create: bool = False) -> BlobStore | ObjectBlobStore:
    """The blobs, read-only unless `writable`; only with `create` the data directory is made if there is none.

    With a remote they lie there, and the data directory is not looked at.
    """
    if place.remote is not None:
        try:
            from nerve_store.remote import ObjectBlobStore
        except ImportError as error:
            raise Problem(str(error)) from None
        return ObjectBlobStore(below(place.remote, "blobs"), options=place.options, read_only=not writable)
    refuse_server(place, "a blob command without --remote")
    if not create:
        require_directory(place)
    return BlobStore(blob_root(place.data), read_only=not writable)


def remote_of(url: str) -> str:
    """The remote that has a day at this URL."""
    return url.rpartition(_DAYS)[0]


def way_to(error: StoreUnavailableError, place: Place) -> Exception:
    """The error; where a day lies in an object store that was not named, one that names the option."""
    path = str(error.path or "")
    if place.remote is not None or is_url(path) or _DAYS not in path:
        return error
    return Problem(
        f"{path}: the day lies in an object store; name it: --remote {remote_of(path)}, or NERVE_STORE_REMOTE"
    )
