"""Programs that write blobs, keep them and collect them; each says the names of the blobs that it has stored.

A failure is said as its name and its number, and the program goes on, or ends, as its docstring says.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from typing import Literal

import nerve_store as ns
from programs import say

CONTENTS: list[str | bytes | bytearray] = [
    content
    for number in range(3)
    for content in (f"text {number}", b"b" * 5000 + bytes([number]), bytearray([number + 1]) * 600_000)
]
PLAIN = [content.encode() if isinstance(content, str) else bytes(content) for content in CONTENTS]
Durability = Literal["full", "normal"]


def say_failure(error: OSError) -> None:
    say(f"{type(error).__name__} {error.errno}")


def location(path: str, name: str) -> str:
    return f"{path}/{name[:2]}/{name[2:]}"


def damage(path: str, name: str) -> None:
    with open(location(path, name), "r+b", buffering=0) as file:
        file.write(b"#")


def write_each(*, path: str, durability: Durability = "full") -> None:
    """One call a blob; goes on after a failure."""
    blobs = ns.BlobStore(path, durability=durability)
    for content in CONTENTS:
        try:
            say(blobs.write(content))
        except ns.StoreIOError as error:
            say_failure(error)


def write_in_other_ways(*, path: str, durability: Durability = "full") -> None:
    """A batch, streams and files; goes on after a failure."""
    blobs = ns.BlobStore(path, durability=durability)

    def stream(content: bytes) -> list[str]:
        with blobs.writer() as writer:
            writer.write(content)
        return [writer.hash]

    ways: list[Callable[[], list[str]]] = [
        lambda: blobs.write_many(PLAIN[:5]),
        lambda: stream(PLAIN[5]),
        lambda: [blobs.write_file(io.BytesIO(PLAIN[6]))],
        lambda: stream(PLAIN[7]),
        lambda: [blobs.write_file(io.BytesIO(PLAIN[8]))],
    ]
    for way in ways:
        try:
            for name in way():
                say(name)
        except ns.StoreIOError as error:
            say_failure(error)


def take_care(*, path: str, durability: Durability = "full") -> None:
    """Renew the grace of four old blobs, keep four by the list, collect, verify; ends with a failure."""
    blobs = ns.BlobStore(path, durability=durability)
    try:
        names = blobs.write_many(CONTENTS)
        for name in names:
            os.utime(location(path, name), (0, 0))
        # Of four, the grace is renewed; four are on the list; one is neither.
        for name in blobs.write_many(CONTENTS[:4]):
            say(name)
        assert not blobs.collect(names[4:8]).missing
        for name in names[4:8]:
            say(name)
        assert blobs.verify().ok
        say(blobs.write(CONTENTS[8]))
    except OSError as error:
        say_failure(error)


def set_aside(*, path: str, durability: Durability = "full") -> None:
    """Damage three blobs and verify; ends with a failure."""
    blobs = ns.BlobStore(path, durability=durability)
    try:
        names = blobs.write_many(CONTENTS)
        for name in names[:3]:
            damage(path, name)
        say("damaged")
        found = blobs.verify()
        assert [problem.hash for problem in found.problems] == sorted(names[:3])
        for problem in found.problems:
            say("StoreIOError 0" if problem.quarantine is None else problem.hash)
    except OSError as error:
        say_failure(error)


def collect(*, path: str, durability: Durability = "full") -> None:
    """Let all blobs be old, and collect those that are not on the list; ends with a failure."""
    blobs = ns.BlobStore(path, durability=durability)
    try:
        names = blobs.write_many(CONTENTS)
        for name in names:
            os.utime(location(path, name), (0, 0))
        say("old")
        assert blobs.collect(names[:4]).deleted_count == 5
        say("collected")
    except OSError as error:
        say_failure(error)


def write_without_staging(*, path: str) -> None:
    """A control of the sweeps: a writer that writes under the blob's own name. A sweep must catch it."""
    for content in PLAIN:
        name = hashlib.sha256(content).hexdigest()
        os.makedirs(f"{path}/{name[:2]}", exist_ok=True)
        file = os.open(location(path, name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        for half in (content[: len(content) // 2], content[len(content) // 2 :]):
            os.write(file, half)
        say(name)


def set_aside_by_copying(*, path: str) -> None:
    """A control of the sweeps: a quarantine that copies and removes, where one move would do. A sweep must catch it."""
    blobs = ns.BlobStore(path)
    os.makedirs(f"{path}/.quarantine")
    names = blobs.write_many(CONTENTS)
    for name in names[:3]:
        damage(path, name)
    say("damaged")
    with open(location(path, names[2]), "rb") as file, open(f"{path}/.quarantine/{names[2]}", "wb", buffering=0) as to:
        to.write(file.read())
    os.unlink(location(path, names[2]))
