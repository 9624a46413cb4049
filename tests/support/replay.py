"""Images that a loss of power could leave, built from what a program asked of the kernel.

`strace` records every write, truncation, name and flush of a program, and its acknowledgements among them. Up to a
moment of the recording, a file has what was flushed, and any of the rest: none of it, all of it, the first of it, or a
subset with torn sectors. Names likewise: a flush of a directory makes its names certain; whether the others are there
is chance. An image is what one such choice leaves on the disk.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

CALLS = (
    "openat,openat2,pwrite64,write,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir"
)
OPTIONS = ("-xx", "-s", "4000000")
"""Strings as bytes, and whole."""
SECTOR = 512
Mode = Literal["strict", "all", "prefix", "any"]
MODES: tuple[Mode, ...] = ("strict", "all", "prefix", "any", "any", "any")


@dataclass(frozen=True)
class Event:
    """One thing that a program did to a file."""

    kind: Literal[
        "create", "unnamed", "directory", "write", "truncate", "rename", "link", "unlink", "say", "flush", "flushed"
    ]
    path: str
    offset: int = 0
    data: bytes = b""
    to: str = ""
    task: bytes = b""


# --- the recording -----------------------------------------------------------------------------------------------

QUOTED = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
DESCRIPTOR = re.compile(rb"(\d+)<((?:\\x..|[^>])*)>(.*)", re.DOTALL)
NAME = re.compile(rb'(?:(?:AT_FDCWD|\d+)<((?:\\x..|[^>])*)>)|"((?:\\x[0-9a-f]{2})*)"')
CALL = re.compile(rb"(\w+)\((.*)\)\s+= (-?\d+)(?:<((?:\\x..|[^>])*)>)?", re.DOTALL)


def plain(text: bytes) -> str:
    """A path as strace writes it behind a descriptor."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text).decode("utf-8", "replace")


def unquoted(text: bytes) -> bytes:
    return bytes.fromhex(text.decode().replace("\\x", ""))


def names(arguments: bytes) -> list[str]:
    """The paths that a call names, relative ones resolved against the directory before them."""
    found: list[str] = []
    directory = ""
    for match in NAME.finditer(arguments):
        if match[1] is not None:
            directory = plain(match[1])
        else:
            name = unquoted(match[2]).decode()
            # An empty path, and one below /proc, stand for the descriptor's own file.
            found.append(name if name.startswith("/") else os.path.join(directory, name) if name else directory)
    return found


class Recording:
    """The events of a trace, for files below `root`; what was written to `acknowledgements` is said."""

    def __init__(self, trace: Path, root: Path, acknowledgements: Path) -> None:
        self.root = str(root)
        self.acknowledgements = str(acknowledgements)
        self.positions: dict[tuple[bytes, int], int] = {}
        self.unfinished: dict[bytes, bytes] = {}
        self.unnamed: dict[int, str] = {}
        """Files without a name, by descriptor."""
        with trace.open("rb") as lines:
            self.events = [
                event for line in lines for event in self.events_of(line.rstrip(b"\n")) if self.is_ours(event)
            ]

    def is_ours(self, event: Event) -> bool:
        return event.kind == "say" or event.path.startswith(self.root)

    def events_of(self, line: bytes) -> Iterator[Event]:
        task, _, text = line.partition(b" ")
        text = text.lstrip()
        if text.endswith(b"<unfinished ...>"):
            self.unfinished[task] = text.removesuffix(b"<unfinished ...>")
            # What is written while a flush runs is not made certain by it.
            if text.startswith((b"fsync", b"fdatasync")) and (match := DESCRIPTOR.match(text.partition(b"(")[2])):
                yield Event("flush", plain(match[2]), task=task)
            return
        resumed = re.match(rb"<\.\.\. \w+ resumed>(.*)", text, re.DOTALL)
        if resumed:
            text = self.unfinished.pop(task, b"") + resumed[1]
        call = CALL.match(text)
        if call is None or int(call[3]) < 0:
            return
        yield from self.events_of_call(task, call, was_begun=resumed is not None)

    def events_of_call(self, task: bytes, call: re.Match[bytes], *, was_begun: bool) -> Iterator[Event]:
        name, arguments, result = call[1].decode(), call[2], int(call[3])
        descriptor = DESCRIPTOR.match(arguments)
        path = plain(descriptor[2]) if descriptor else ""
        match name:
            case "openat" | "openat2":
                yield from self.opened(arguments, result, plain(call[4] or b""))
            case "write" | "pwrite64" | "ftruncate" if descriptor is not None:
                yield from self.written(name, descriptor, result)
            case "fsync" | "fdatasync":
                if not was_begun:
                    yield Event("flush", path, task=task)
                yield Event("flushed", path, task=task)
            case _:
                yield from self.named(name, names(arguments))

    def named(self, name: str, paths: list[str]) -> Iterator[Event]:
        match name:
            case "rename" | "renameat" | "renameat2":
                yield Event("rename", paths[0], to=paths[1])
            case "link" | "linkat":
                first, second = paths
                if by_number := re.fullmatch(r"/proc/self/fd/(\d+)", first):
                    first = self.unnamed[int(by_number[1])]
                yield Event("link", first, to=second)
            case "unlink" | "unlinkat" | "rmdir":
                yield Event("unlink", paths[0])
            case "mkdir" | "mkdirat":
                yield Event("directory", paths[0])
            case _:
                pass

    def opened(self, arguments: bytes, descriptor: int, path: str) -> Iterator[Event]:
        self.positions[path.encode(), descriptor] = 0
        if b"O_TMPFILE" in arguments:
            self.unnamed[descriptor] = path
            yield Event("unnamed", path)
        elif b"O_CREAT" in arguments:
            yield Event("create", path)
        if b"O_TRUNC" in arguments:
            yield Event("truncate", path)

    def written(self, name: str, descriptor: re.Match[bytes], count: int) -> Iterator[Event]:
        number, path = int(descriptor[1]), plain(descriptor[2])
        if name == "ftruncate":
            yield Event("truncate", path, int(descriptor[3].rpartition(b", ")[2]))
            return
        quoted = QUOTED.search(descriptor[3])
        data = unquoted(quoted[1])[:count] if quoted else b""
        assert len(data) == count, "the trace has not all of a write"
        if path == self.acknowledgements:
            yield Event("say", path, data=data)
            return
        key = (path.encode(), number)
        if name == "pwrite64":
            offset = int(descriptor[3].rpartition(b", ")[2])
        else:
            offset = self.positions.get(key, 0)
            self.positions[key] = offset + count
        yield Event("write", path, offset, data)


# --- the disk ----------------------------------------------------------------------------------------------------

DIRECTORY = 0
"""In place of a file's number."""


@dataclass(frozen=True)
class Change:
    """Of a file's bytes that no flush has made certain; `data` is None for a truncation."""

    number: int
    offset: int
    data: bytes | None


@dataclass(frozen=True, eq=False)
class Naming:
    """A change of names that no flush has made certain."""

    kind: Literal["add", "move", "remove"]
    path: str
    to: str = ""
    file: int = DIRECTORY

    @property
    def directories(self) -> set[str]:
        return {os.path.dirname(self.path), os.path.dirname(self.to)} if self.to else {os.path.dirname(self.path)}

    def apply(self, names: dict[str, int]) -> None:
        if self.kind == "add":
            names[self.path] = self.file
        else:
            names.pop(self.path, None)
            if self.kind == "move":
                names[self.to] = self.file


@dataclass
class File:
    """What is certain of a file, and what is not."""

    certain: bytes = b""
    changes: list[Change] = field(default_factory=list)


def changed(content: bytes, changes: list[Change]) -> bytes:
    result = bytearray(content)
    for change in changes:
        end = change.offset + len(change.data or b"")
        if change.data is None:
            result = result[: change.offset]
        result.extend(bytes(max(0, end - len(result))))
        if change.data is not None:
            result[change.offset : end] = change.data
    return bytes(result)


class Disk:
    """Files and names as the program sees them, and what of them is certain."""

    def __init__(self, root: str, *, directory_syncs: bool = True, flushes: bool = True) -> None:
        self.root = root
        self.directory_syncs = directory_syncs
        self.flushes = flushes
        self.names: dict[str, int] = {root: DIRECTORY}
        self.certain_names: dict[str, int] = {root: DIRECTORY}
        self.namings: list[Naming] = []
        self.files: dict[int, File] = defaultdict(File)
        self.begun: dict[bytes, tuple[int, list[Naming]]] = {}
        """By task: the changes and the names at the begin of its flush."""
        self.changes = 0
        self.count = 0

    def file_at(self, path: str) -> int | None:
        """Also of a file that has lost its name, or never had one: strace says "(deleted)" of it."""
        for name in (path, f"{path} (deleted)", path.removesuffix(" (deleted)")):
            if name in self.names:
                return self.names[name]
        return None

    def name(self, naming: Naming) -> None:
        naming.apply(self.names)
        self.namings.append(naming)

    def new_file(self) -> int:
        self.count += 1
        return self.count

    def apply(self, event: Event) -> None:
        file = self.file_at(event.path)
        match event.kind:
            case "create" if file is None or event.path not in self.names:
                self.name(Naming("add", event.path, file=self.new_file()))
            case "unnamed":
                self.names[event.path] = self.new_file()
            case "directory":
                self.name(Naming("add", event.path))
            case "write" | "truncate" if file:
                self.changes += 1
                data = event.data if event.kind == "write" else None
                self.files[file].changes.append(Change(self.changes, event.offset, data))
            case "rename" if file is not None:
                self.name(Naming("move", event.path, event.to, file))
            case "link" if file is not None:
                self.name(Naming("add", event.to, file=file))
            case "unlink" if file is not None:
                self.name(Naming("remove", event.path, file=file))
                self.names[f"{event.path} (deleted)"] = file
            case "flush":
                self.begun[event.task] = (self.changes, list(self.namings))
            case "flushed" if self.flushes:
                self.flushed(event, file)
            case _:
                pass

    def flushed(self, event: Event, file: int | None) -> None:
        changes, namings = self.begun.pop(event.task)
        if file:
            kept = self.files[file]
            done = [change for change in kept.changes if change.number <= changes]
            kept.certain = changed(kept.certain, done)
            kept.changes = kept.changes[len(done) :]
        elif self.directory_syncs:
            begun = {id(naming) for naming in namings}
            synced = [naming for naming in self.namings if id(naming) in begun and event.path in naming.directories]
            # What happened to a file's names before happened before, on the disk, too.
            last = {naming.file: at for at, naming in enumerate(self.namings) if naming in synced and naming.file}
            waiting = []
            for at, naming in enumerate(self.namings):
                if naming in synced or at <= last.get(naming.file, -1):
                    naming.apply(self.certain_names)
                else:
                    waiting.append(naming)
            self.namings = waiting

    # --- an image ---

    def write_image(self, to: Path, random: Random, mode: Mode) -> None:
        """What a loss of power leaves now, by one choice."""
        names = dict(self.certain_names)
        for naming in chosen(self.namings, random, mode):
            naming.apply(names)
        inside = {path: file for path, file in names.items() if path.startswith(self.root)}
        for path in sorted(path for path, file in inside.items() if file == DIRECTORY):
            (to / os.path.relpath(path, self.root)).mkdir(parents=True, exist_ok=True)
        for path, file in inside.items():
            place = to / os.path.relpath(path, self.root)
            # The index of the write-ahead log is written through memory, and made anew after a loss of power.
            if file == DIRECTORY or path.endswith("-shm") or not place.parent.is_dir():
                continue
            kept = self.files[file]
            changes = chosen(kept.changes, random, mode)
            if mode == "any":
                changes = [piece for change in changes for piece in torn(change, random)]
            place.write_bytes(changed(kept.certain, changes))


def chosen(items: list[Any], random: Random, mode: Mode) -> list[Any]:
    if mode == "strict":
        return []
    if mode == "all":
        return items
    if mode == "prefix":
        return items[: random.randrange(len(items) + 1)]
    return [item for item in items if random.random() < 0.6]


def torn(change: Change, random: Random) -> Iterator[Change]:
    """The change, or one in four times some sectors of it."""
    if change.data is None or len(change.data) <= SECTOR or random.random() < 0.75:
        yield change
        return
    for start in range(0, len(change.data), SECTOR):
        if random.random() < 0.5:
            yield Change(change.number, change.offset + start, change.data[start : start + SECTOR])
