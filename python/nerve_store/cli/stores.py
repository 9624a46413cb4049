"""Opening the parts of the data directory that `--data` names."""

from __future__ import annotations

import os

from nerve_store import BlobStore, LogStore
from nerve_store.cli.problem import Problem

__all__ = ["blob_root", "log_path", "open_blobs", "open_logs", "require_directory"]


def log_path(data: str) -> str:
    """The log database of the data directory."""
    return os.path.join(data, "logs.db")


def blob_root(data: str) -> str:
    """The blob store of the data directory."""
    return os.path.join(data, "blobs")


def require_directory(data: str) -> None:
    """Refuse to go on without a data directory, rather than create one by looking for it."""
    if os.path.isdir(data):
        return
    if os.path.lexists(data):
        raise Problem(f"{data!r} is not a directory; name the data directory with --data DIR")
    raise Problem(f"there is no data directory {data!r}; name it with --data DIR or NERVE_STORE_DATA")


def open_logs(data: str, *, writable: bool = False) -> LogStore:
    """The log of an existing data directory, read-only unless `writable`."""
    require_directory(data)
    path = log_path(data)
    if not os.path.lexists(path):
        raise Problem(f"there is no log database {path!r}; is {data!r} a data directory?")
    return LogStore(path, read_only=not writable)


def open_blobs(data: str, *, writable: bool = False) -> BlobStore:
    """The blobs of an existing data directory, read-only unless `writable`."""
    require_directory(data)
    return BlobStore(blob_root(data), read_only=not writable)
