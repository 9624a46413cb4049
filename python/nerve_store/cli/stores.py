"""Opening what `--data` names: a data directory and its parts, or a log on a server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nerve_store import BlobStore, LogStore
from nerve_store._places import is_url
from nerve_store.cli.problem import Problem

if TYPE_CHECKING:
    from nerve_store.postgres import PostgresLogStore
    from nerve_store.protocols import Log

__all__ = [
    "blob_root",
    "last_id",
    "log_path",
    "open_blobs",
    "open_logs",
    "open_server",
    "refuse_server",
    "require_directory",
    "shown",
]

_BUSY_SECONDS = 10.0
"""How long a command waits for a server that does not answer."""


def log_path(data: str) -> str:
    """The log database of the data directory."""
    return os.path.join(data, "logs.db")


def blob_root(data: str) -> str:
    """The blob store of the data directory."""
    return os.path.join(data, "blobs")


def shown(data: str) -> str:
    """What `--data` names, without a password."""
    if not is_url(data):
        return data
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(data)
    if parts.password is None:
        return data
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}@{parts.netloc.rpartition('@')[2]}"))


def refuse_server(data: str, what: str) -> None:
    """Refuse a URL where only a directory will do."""
    if is_url(data):
        raise Problem(f"{what} works on a data directory, and {shown(data)!r} is a log on a server")


def require_directory(data: str, what: str = "this command") -> None:
    """Refuse to go on without a data directory, rather than create one by looking for it."""
    refuse_server(data, what)
    if os.path.isdir(data):
        return
    if os.path.lexists(data):
        raise Problem(f"{data!r} is not a directory; name the data directory with --data DIR")
    raise Problem(f"there is no data directory {data!r}; name it with --data DIR or NERVE_STORE_DATA")


def open_logs(data: str, *, writable: bool = False) -> LogStore | PostgresLogStore:
    """The log of an existing data directory or schema, read-only unless `writable`."""
    if is_url(data):
        return open_server(data, writable=writable)
    require_directory(data)
    path = log_path(data)
    if not os.path.lexists(path):
        raise Problem(f"there is no log database {path!r}; is {data!r} a data directory?")
    return LogStore(path, read_only=not writable)


def open_server(url: str, *, writable: bool = False) -> PostgresLogStore:
    """The log in an existing schema; none is created by looking for it."""
    try:
        from nerve_store.postgres import PostgresLogStore
        from nerve_store.postgres.address import Address
    except ImportError as error:
        raise Problem(str(error)) from None
    address = Address.of(url)

    def opened(*, read_only: bool) -> PostgresLogStore:
        return PostgresLogStore(
            address.url,
            schema=address.schema,
            archive=address.archive,
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


def open_blobs(data: str, *, writable: bool = False) -> BlobStore:
    """The blobs of an existing data directory, read-only unless `writable`."""
    require_directory(data, "a blob command")
    return BlobStore(blob_root(data), read_only=not writable)
