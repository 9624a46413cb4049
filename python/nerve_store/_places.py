"""Where a log lies: in a directory, or on a server."""

from __future__ import annotations

import os


def is_url(place: str) -> bool:
    """Whether it names a log on a server, and no directory."""
    return place.startswith(("postgresql://", "postgres://"))


def sync_directory(path: str) -> None:
    """Make the names in it durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
