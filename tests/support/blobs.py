"""What the blob tests share: where a blob lies, and programs that write blobs in a process of their own."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import nerve_store as ns
from programs.blobs import PLAIN
from support.processes import run_command


def sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


HASH = sha256(b"x")


def place(blobs: ns.BlobStore, blob_hash: str) -> Path:
    return Path(blobs.root, blob_hash[:2], blob_hash[2:])


def is_in_memory(directory: Path) -> bool:
    """Whether a write through mapped memory changes no time of a file there, so that no copy is vouched for."""
    path = directory / "mapped"
    path.write_bytes(b"x")
    os.utime(path, (0, 0))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 1) as mapped:
        mapped[0] ^= 1  # Read first: the page is then mapped, and the write meets no fault.
    changed = path.stat().st_mtime_ns
    path.unlink()
    return changed == 0


def staged(blobs: ns.BlobStore) -> list[str]:
    return os.listdir(Path(blobs.root, ".staging"))


@contextlib.contextmanager
def scribbled_on(data: bytearray) -> Iterator[None]:
    """Another thread changes `data` here and there, again and again, until the block ends."""
    stop = threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            for at in range(0, len(data), 4096):
                data[at] = (data[at] + 1) % 256

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- programs ----------------------------------------------------------------------------------------------------

PRELUDE = """
import os, sys
import nerve_store as ns
from programs.blobs import CONTENTS as contents

def say(text):
    try:
        os.write(1, f"{text}\\n".encode())
    except OSError:
        pass  # Not acknowledged.
"""
CONTENTS = {sha256(content): content for content in PLAIN}
COMPETITOR = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
say("ready")
sys.stdin.read(1)
for turn in range(4):
    for content in contents[turn:] + contents[:turn]:
        name = blobs.write(content)
        assert blobs.read(name) in (content.encode() if isinstance(content, str) else content, None)
        if sys.argv[3]:
            blobs.delete(name)
            blobs.write(content)
say("done")
"""
FORKER = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
before = blobs.write("before")
if (child := os.fork()) == 0:
    os._exit(0 if blobs.read(before) == b"before" and blobs.read(blobs.write("child")) == b"child" else 1)
assert os.waitpid(child, 0)[1] == 0
blobs.write("parent")
say(" ".join(blobs.read(name).decode() for name in blobs))
"""


def command(program: str, root: str | Path, *arguments: object) -> list[str]:
    return [sys.executable, "-c", PRELUDE + program, str(root), *map(str, arguments or ("full",))]


def run(program: str, root: str | Path, *arguments: object) -> tuple[int, list[str]]:
    """The exit code of a program, and the whole lines that it said."""
    done = run_command(command(program, root, *arguments))
    return done.returncode, done.stdout.split("\n")[:-1]


def assert_whole(root: Path, said: Sequence[str]) -> None:
    """No acknowledged blob is lost, none is wrong, nothing but staging is left besides, and writing goes on."""
    blobs = ns.BlobStore(root)
    for blob_hash in said:
        if "Error" not in blob_hash:
            assert blobs.read(blob_hash) == CONTENTS[blob_hash]
    for blob_hash in blobs:
        assert blobs.read(blob_hash) == CONTENTS[blob_hash]
    files = {path for path in root.rglob("*") if not path.is_dir() and path.parent.name != ".staging"}
    assert files == {place(blobs, blob_hash) for blob_hash in blobs}
    for content in CONTENTS.values():
        blobs.write(content)
    assert list(blobs) == sorted(CONTENTS)


DAMAGED = {blob_hash: b"#" + content[1:] for blob_hash, content in list(CONTENTS.items())[:3]}


def assert_set_aside(root: Path, said: Sequence[str]) -> None:
    """What is damaged is in its place or in the quarantine, never lost; all else is whole; healing works."""
    aside: list[str] = []
    in_place: list[str] = []
    whole: list[str] = []
    for path in root.rglob("*"):
        if path.is_dir() or path.parent.name == ".staging":
            continue
        is_aside = path.parent.name == ".quarantine"
        name = path.name if is_aside else path.parent.name + path.name
        if path.read_bytes() == CONTENTS[name] and not is_aside:
            whole.append(name)
        else:
            assert path.read_bytes() == DAMAGED[name]
            (aside if is_aside else in_place).append(name)
    if "damaged" in said:
        assert sorted(aside + in_place) == sorted(DAMAGED)
        assert sorted(whole) == sorted(CONTENTS.keys() - DAMAGED.keys())
        assert set(aside) >= {line for line in said if len(line) == 64}
    blobs = ns.BlobStore(root)
    assert [problem.hash for problem in blobs.verify().problems] == sorted(in_place)
    assert blobs.verify().ok
    for content in CONTENTS.values():
        blobs.write(content)
    assert {blob_hash: blobs.read(blob_hash) for blob_hash in blobs} == CONTENTS


def assert_collected(root: Path, said: Sequence[str]) -> None:
    """What is kept is there, the rest is whole or gone, and nothing else is left."""
    blobs = ns.BlobStore(root)
    there = {blob_hash: blobs.read(blob_hash) for blob_hash in blobs}
    if "old" in said:
        assert there.keys() >= set(list(CONTENTS)[:4])
    if "collected" in said:
        assert there.keys() == set(list(CONTENTS)[:4])
    assert_whole(root, [])
