"""A directory of files by their sha256, of which those that were used last stay."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

from nerve_store._places import make_directory

STAGED = ".stage-"
"""What the names of files begin with that are being written."""
_ABANDONED = 3600.0
"""Seconds after the last write to it, in which a staged file is taken for one that a killed process left."""
_WHOLE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_STAGE = re.compile(rf"{re.escape(STAGED)}[a-z0-9_]{{8,16}}", re.ASCII)
"""What the cache and archive jobs call their files. All else in the directory is the user's."""

_Stamp = tuple[int, int, int]


class Cache:
    """Shared by threads and processes. A file is whole under its name, and is never changed there."""

    def __init__(self, directory: str, most_bytes: int) -> None:
        """Keep at most so many bytes, or the one file that was asked for last."""
        self.directory = directory
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        """Held for moments only."""
        self._fetching = threading.Lock()
        self._pinned: Counter[str] = Counter()
        self._newest: str | None = None
        self._verified: dict[str, _Stamp] = {}
        """The files whose content this process has compared, as they were then."""

    def path_of(self, sha256: str, size: int, pieces: Callable[[], Iterator[bytes]]) -> str:
        """The path of a file with this content; `pieces` gives it if it is not there.

        This process keeps the file until `unpin`; another one may remove it. An exception of `pieces` leaves no file.
        """
        path = os.path.join(self.directory, sha256)
        with self._lock:
            self._pinned[path] += 1
            self._newest = path
            if self._is_verified(path):
                self._touch(path)
                return path
        try:
            # One at a time: a thread that wants the same file waits for it, and one that wants another finds the room.
            with self._fetching:
                if not self._is_verified(path) and not self._verify(path, sha256):
                    make_directory(self.directory)
                    with self._lock:
                        self._make_room(size)
                    self._store(path, pieces())
                self._touch(path)
        except BaseException:
            self._pinned[path] -= 1
            raise
        return path

    def unpin(self, path: str) -> None:
        """Let go of a file."""
        with self._lock:
            self._pinned[path] -= 1
            self._make_room(0)

    def _is_verified(self, path: str) -> bool:
        known = self._verified.get(path)
        return known is not None and known == _stamp(path)

    def _verify(self, path: str, sha256: str) -> bool:
        """Whether a file that another process has stored is whole; one that is not is removed."""
        stamp = _stamp(path)
        if stamp is None:
            return False
        with suppress(OSError), open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256 and stamp == _stamp(path):
                self._verified[path] = stamp
                return True
        with suppress(OSError):
            os.unlink(path)
        return False

    def _store(self, path: str, pieces: Iterator[bytes]) -> None:
        staged = os.path.join(self.directory, f"{STAGED}{secrets.token_hex(8)}")
        try:
            with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.writelines(pieces)
            stamp = _stamp(staged)
            os.rename(staged, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged)
        if stamp is not None:
            self._verified[path] = stamp

    def _touch(self, path: str) -> None:
        """Note that it was used, where that can be written; the time of its last change stays."""
        with suppress(OSError):
            os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))

    def _make_room(self, size: int) -> None:
        """Remove what was used longest ago, until there is room for `size` bytes, or what is left cannot be removed."""
        files: list[tuple[int, int, str]] = []
        total = size
        for path, found, is_staged in self._own_files():
            if is_staged and time.time() - found.st_mtime > _ABANDONED:
                with suppress(OSError):
                    os.unlink(path)
                continue
            total += found.st_size
            is_needed = self._pinned[path] > 0 or (not size and path == self._newest)
            if not is_staged and not is_needed:
                files.append((found.st_atime_ns, found.st_size, path))
        for _, freed, path in sorted(files):
            if total <= self._most_bytes:
                return
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError:
                continue
            self._verified.pop(path, None)
            total -= freed

    def _own_files(self) -> Iterator[tuple[str, os.stat_result, bool]]:
        """The files that a cache has made, and whether each is still being written."""
        try:
            entries = list(os.scandir(self.directory))
        except OSError:  # who reads a day or writes one is told
            return
        for entry in entries:
            is_staged = _STAGE.fullmatch(entry.name) is not None
            if is_staged or _WHOLE.fullmatch(entry.name):
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield entry.path, found, is_staged


def _stamp(path: str) -> _Stamp | None:
    """What tells one state of a file from another; None if there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
