"""The cache of a log that was given none: it goes with the log, and that of a killed process with the next log."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress

from nerve_store._places import system_error

_PREFIX = "nerve-store-cache-"
"""Not that of earlier versions, which held no lock."""
_NEW = 60.0
"""Seconds in which a directory may have been made and not be locked yet."""


class Scratch:
    """A directory for as long as its process lives, which holds a lock on it."""

    def __init__(self) -> None:
        """`StoreIOError` if there is no temporary directory."""
        try:
            _remove_abandoned()
            self.path = tempfile.mkdtemp(prefix=_PREFIX)
        except OSError as error:
            reason = f"no temporary directory for days: {error.strerror}; set TMPDIR, or give cache="
            raise system_error(error, reason, error.filename or tempfile.tempdir or os.curdir) from error
        self._process = os.getpid()
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(OSError):
            # Where there are no locks, no process takes it for abandoned.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """A forked child leaves its parent's directory alone."""
        if os.getpid() == self._process:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_abandoned() -> None:
    for entry in os.scandir(tempfile.gettempdir()):
        if not entry.name.startswith(_PREFIX):
            continue
        with suppress(OSError):
            found = entry.stat(follow_symlinks=False)
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _NEW:
                _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
