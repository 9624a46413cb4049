"""What `doctor` looks at of the files of a data directory: whose they are, and who may read them."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from nerve_store.cli.findings import Finding
from nerve_store.cli.stores import OTHER_USER, blob_root, log_path

__all__ = ["examine_permissions"]

_MOST_FILES = 20_000
"""How many files and shards are looked at beside the database."""
_COPY = (
    "run as the user that the daemon runs as; chown none of them: some are files of a store and of its backup at once "
    "(hard links), and change in both; copy the directory with cp -R, and chown the copy"
)
_SHOWN = 3
_IS_EFFECTIVE = os.access in os.supports_effective_ids


@dataclass(slots=True)
class _Seen:
    """What is to be said of the files that were looked at."""

    open_to_others: list[str] = field(default_factory=list[str])
    foreign: list[str] = field(default_factory=list[str])
    closed: list[str] = field(default_factory=list[str])
    """What this user may not read."""
    is_shared: bool = False
    """Some of those of another user have a name in another directory as well."""

    def look(self, path: str, *, is_within: bool) -> None:
        """Look at a file or directory; one `is_within` a directory is closed to others by that."""
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # A directory that may not be entered has been looked at itself.
            return
        except OSError:
            self.closed.append(path)
            return
        if not is_within and stat.S_IMODE(found.st_mode) & 0o077:
            self.open_to_others.append(path)
        if found.st_uid != os.geteuid():
            self.foreign.append(path)
            self.is_shared = self.is_shared or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1)
        if not _may_read(path, found):
            self.closed.append(path)


def examine_permissions(data: str) -> Iterator[Finding]:
    """What is found of the directories, of the database, and of day files and blobs, of which there may be too many."""
    seen = _Seen()
    database, archive, blobs = log_path(data), os.path.join(data, "archive", "logs"), blob_root(data)
    for path in (data, database, archive, blobs):
        seen.look(path, is_within=False)
    shards = list(_shards(blobs))
    files = chain((f"{database}-wal", f"{database}-shm"), _files_in(archive), shards, *map(_files_in, shards))
    for path in islice(files, _MOST_FILES):
        seen.look(path, is_within=True)
    is_all = next(files, None) is None
    ways = _ways(data, is_shared=seen.is_shared)
    if seen.closed:
        yield Finding("error", "permissions", f"this user may not read {_named(seen.closed)}", ways.to_read)
    if seen.foreign:
        yield Finding("warning", "owner", f"of another user than this one: {_named(seen.foreign)}", ways.to_own)
    if seen.open_to_others:
        action = f"chmod go= {shlex.join(seen.open_to_others)}"
        yield Finding("warning", "permissions", f"open to other users: {', '.join(seen.open_to_others)}", action)
    if not seen.closed and not seen.foreign and not seen.open_to_others:
        some = "" if is_all else f"; looked at {_MOST_FILES:,} of them"
        yield Finding("ok", "permissions", f"the files are this user's alone{some}")


class _Ways(NamedTuple):
    """What to do."""

    to_read: str
    to_own: str


def _ways(data: str, *, is_shared: bool) -> _Ways:
    if os.stat(data).st_uid == os.geteuid():
        give = f"as root: chown -R {os.geteuid()} {shlex.quote(data)}"
        return _Ways(f"{give} && chmod -R u+rwX {shlex.quote(data)}", give)
    if is_shared:
        return _Ways(OTHER_USER, _COPY)
    return _Ways(OTHER_USER, "run as the user that the daemon runs as, or give the files to it with chown -R")


def _files_in(directory: str) -> Iterator[str]:
    """Its files; none where it may not be listed, which is said of the directory."""
    try:
        with os.scandir(directory) as entries:
            yield from (entry.path for entry in entries)
    except OSError:
        return


def _shards(blobs: str) -> Iterator[str]:
    """The directories of blobs; only they have names of two digits."""
    for path in _files_in(blobs):
        if len(os.path.basename(path)) == 2:
            yield path


def _may_read(path: str, found: os.stat_result) -> bool:
    needed = os.R_OK | os.X_OK if stat.S_ISDIR(found.st_mode) else os.R_OK
    return os.access(path, needed, effective_ids=_IS_EFFECTIVE)


def _named(paths: list[str]) -> str:
    rest = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
