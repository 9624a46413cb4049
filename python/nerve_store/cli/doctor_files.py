"""What `doctor` looks at around the store: the file system, permissions, space, leftovers, other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nerve_store._places import COPY_DATABASE, COPY_MARK
from nerve_store.cli.doctor_permissions import examine_permissions
from nerve_store.cli.findings import Finding
from nerve_store.cli.stores import blob_root, log_path
from nerve_store.cli.text import format_bytes, format_count

__all__ = ["COPY_AGAIN", "examine_files", "left_of_a_copy"]

COPY_AGAIN = "call nerve-store copy once more, as before: it ends what is left of it"

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "virtiofs")
_FLEETING = ("tmpfs", "ramfs", "overlay")
_LARGE_LOG = 64 << 20
_UNFINISHED = ".nerve-store-unfinished"
_STAGED = (".stage-", ".export-")


def examine_files(data: str) -> Iterator[Finding]:
    """What is found without opening the store."""
    yield from _file_system(data)
    yield from examine_permissions(data)
    if not os.access(data, os.R_OK | os.X_OK):
        # Nothing can be told of what is inside.
        return
    yield from _space(data)
    yield from _leftovers(data)
    yield from _write_ahead_log(data)


def _file_system(data: str) -> Iterator[Finding]:
    kind = _kind_of_file_system(data)
    if kind is None:
        return
    if kind in _NETWORK:
        action = "move the data directory to a local disk: the write-ahead log needs memory that processes share"
        yield Finding("error", "file system", f"{kind}, a network file system", action)
    elif kind in _FLEETING:
        action = "use a disk or a volume, unless the data may be lost"
        yield Finding("warning", "file system", f"{kind}, which does not outlive the machine or the container", action)
    else:
        yield Finding("ok", "file system", kind)


def _kind_of_file_system(data: str) -> str | None:
    """Of the mount that `data` is on; None where the system does not tell."""
    with suppress(OSError):
        device = os.stat(data).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == number:
                return after.split()[0]
    return None


def _space(data: str) -> Iterator[Finding]:
    free = os.statvfs(data)
    available = free.f_bavail * free.f_frsize
    size = sum(_size(log_path(data) + suffix) for suffix in ("", "-wal"))
    days = [_size(entry.path) for entry in _entries(os.path.join(data, "archive", "logs"))]
    needed = 2 * max([size, *days], default=0)
    message = f"{format_bytes(available)} free"
    if available < needed:
        action = (
            "free some space beside the store, for nothing in it can be deleted without some; "
            "then archive --zstd --max-days 1 --incremental-vacuum, which needs least: a day's file, and what the "
            "write-ahead log has once more"
        )
        what = f"{message}; an archive job or a full vacuum may need {format_bytes(needed)}"
        yield Finding("warning", "space", what, action)
    else:
        yield Finding("ok", "space", f"{message}, an archive job or a full vacuum needs {format_bytes(needed)}")


def _leftovers(data: str) -> Iterator[Finding]:
    if os.path.exists(os.path.join(data, _UNFINISHED)):
        yield Finding("error", "leftovers", "a backup into this directory was not finished", "make the backup again")
    if not os.path.exists(os.path.join(data, COPY_DATABASE)):
        yield from left_of_a_copy(os.path.join(data, "archive", "logs"))
    staged = [
        entry.path
        for directory in (data, os.path.join(data, "archive", "logs"), os.path.join(blob_root(data), ".staging"))
        for entry in _entries(directory)
        if entry.name.startswith(_STAGED)
    ]
    if staged:
        action = "nothing: the next opening removes those that are older than a day"
        what = f"{format_count(len(staged), 'staged file')} of writers that were killed, or are at work"
        yield Finding("ok", "leftovers", what, action)
    damaged = [entry.path for entry in _entries(os.path.join(blob_root(data), ".quarantine"))]
    if damaged:
        action = "write their content again, then remove the files"
        yield Finding("warning", "blobs", f"{format_count(len(damaged), 'damaged blob')} moved aside", action)


def left_of_a_copy(archive: str) -> Iterator[Finding]:
    """The mark of a copy that has made this log, and was interrupted before it removed the mark; "" has no archive."""
    mark = os.path.join(archive, COPY_MARK)
    if archive and os.path.exists(mark):
        yield Finding("warning", "leftovers", f"{mark} is of a copy whose last step was interrupted", COPY_AGAIN)


def _write_ahead_log(data: str) -> Iterator[Finding]:
    size = _size(log_path(data) + "-wal")
    holders = _holders(log_path(data))
    held = f"open in {', '.join(holders)}" if holders else ""
    if size > _LARGE_LOG:
        action = "end long reads of other programs: as long as one lasts, the log is not emptied"
        yield Finding(
            "warning", "write-ahead log", f"{format_bytes(size)}; {held or 'no process has the database open'}", action
        )
    else:
        yield Finding("ok", "write-ahead log", f"{format_bytes(size)}{'; ' + held if held else ''}")
    locks = _lock_holders(log_path(data))
    if locks:
        yield Finding("ok", "locks", f"held by {', '.join(locks)}")


def _holders(path: str) -> list[str]:
    """The processes that have the database open, as far as this user may know: name and process id."""
    found: list[str] = []
    wanted = os.path.realpath(path)
    for process in _entries("/proc"):
        is_other = process.name.isdigit() and int(process.name) != os.getpid()
        if is_other and any(_link(descriptor.path) == wanted for descriptor in _entries(f"{process.path}/fd")):
            found.append(_named(process.name))
    return found


def _link(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)
    return ""


def _lock_holders(path: str) -> list[str]:
    """The processes that hold locks on the database or on the index of its log."""
    inodes: set[str] = set()
    for suffix in ("", "-shm"):
        with suppress(OSError):
            inodes.add(str(os.stat(path + suffix).st_ino))
    pids: dict[str, None] = {}
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.replace("-> ", "").split()
            if fields[5].rpartition(":")[2] in inodes and fields[4].isdigit() and int(fields[4]) != os.getpid():
                pids[_named(fields[4])] = None
    return list(pids)


def _named(pid: str) -> str:
    with suppress(OSError):
        return f"{Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()} {pid}"
    return pid


def _size(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_size
    return 0


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(directory) as entries:
        return list(entries)
    return []
