"""What the blob tests share: where a blob lies, and programs that write blobs in a process of their own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import nerve_store as ns
from support import FAULT_CALLS, child_environment


def sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


HASH = sha256(b"x")


def place(blobs: ns.BlobStore, blob_hash: str) -> Path:
    return Path(blobs.root, blob_hash[:2], blob_hash[2:])


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

def say(text):
    try:
        os.write(1, f"{text}\\n".encode())
    except OSError:
        pass  # Not acknowledged.

contents = [content for number in range(3) for content in
            (f"text {number}", b"b" * 5000 + bytes([number]), bytearray([number + 1]) * 600_000)]
"""
CONTENTS = {
    sha256(content): bytes(content)
    for number in range(3)
    for content in (f"text {number}".encode(), b"b" * 5000 + bytes([number]), bytearray([number + 1]) * 600_000)
}
WRITER = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
for content in contents:
    try:
        say(blobs.write(content))
    except ns.StoreIOError as error:
        say(f"{type(error).__name__} {error.errno}")
"""
OTHER_WAYS = """
import io

def stream(content):
    with blobs.writer() as writer:
        writer.write(content)
    return [writer.hash]

blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
plain = [content.encode() if isinstance(content, str) else content for content in contents]
for way in (
    lambda: blobs.write_many(plain[:5]),
    lambda: stream(plain[5]),
    lambda: [blobs.write_file(io.BytesIO(plain[6]))],
    lambda: stream(plain[7]),
    lambda: [blobs.write_file(io.BytesIO(plain[8]))],
):
    try:
        for name in way():
            say(name)
    except ns.StoreIOError as error:
        say(f"{type(error).__name__} {error.errno}")
"""
CARETAKER = """
from datetime import timedelta
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
try:
    names = blobs.write_many(contents)
    for name in names:
        os.utime(f"{sys.argv[1]}/{name[:2]}/{name[2:]}", (0, 0))
    # Of four, the grace is renewed; four are on the list; one is neither.
    for name in blobs.write_many(contents[:4]):
        say(name)
    assert not blobs.collect(names[4:8]).missing
    for name in names[4:8]:
        say(name)
    assert blobs.verify().ok
    say(blobs.write(contents[8]))
except OSError as error:
    say(f"{type(error).__name__} {error.errno}")
"""
QUARANTINER = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
try:
    names = blobs.write_many(contents)
    for name in names[:3]:
        with open(f"{sys.argv[1]}/{name[:2]}/{name[2:]}", "r+b", buffering=0) as file:
            file.write(b"#")
    say("damaged")
    found = blobs.verify()
    assert [problem.hash for problem in found.problems] == sorted(names[:3])
    for problem in found.problems:
        say("StoreIOError 0" if problem.quarantine is None else problem.hash)
except OSError as error:
    say(f"{type(error).__name__} {error.errno}")
"""
COLLECTOR = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
try:
    names = blobs.write_many(contents)
    for name in names:
        os.utime(f"{sys.argv[1]}/{name[:2]}/{name[2:]}", (0, 0))
    say("old")
    assert blobs.collect(names[:4]).deleted_count == 5
    say("collected")
except OSError as error:
    say(f"{type(error).__name__} {error.errno}")
"""
CARELESS_QUARANTINER = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
os.mkdir(f"{sys.argv[1]}/.quarantine")
for number, name in enumerate(blobs.write_many(contents)):
    path = f"{sys.argv[1]}/{name[:2]}/{name[2:]}"
    if number < 3:
        with open(path, "r+b", buffering=0) as file:
            file.write(b"#")
        if number == 2:
            say("damaged")
        else:
            continue
        # Copied and removed, where one move would do.
        with open(path, "rb") as file, open(f"{sys.argv[1]}/.quarantine/{name}", "wb", buffering=0) as target:
            target.write(file.read())
        os.unlink(path)
"""
CARELESS_WRITER = """
import hashlib
for content in contents:
    content = content.encode() if isinstance(content, str) else content
    name = hashlib.sha256(content).hexdigest()
    os.makedirs(f"{sys.argv[1]}/{name[:2]}", exist_ok=True)
    file = os.open(f"{sys.argv[1]}/{name[:2]}/{name[2:]}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for half in (content[: len(content) // 2], content[len(content) // 2 :]):
        os.write(file, half)
    say(name)
"""
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


def command(program: str, root: str | Path, *arguments: object, prefix: Sequence[str] = ()) -> list[str]:
    return [*prefix, sys.executable, "-c", PRELUDE + program, str(root), *map(str, arguments or ("full",))]


def run(program: str, root: str | Path, *arguments: object, prefix: Sequence[str] = ()) -> tuple[int, list[str]]:
    """The exit code of a program, and the whole lines that it said."""
    done = subprocess.run(
        command(program, root, *arguments, prefix=prefix),
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.split("\n")[:-1]


NO_THREADS = ["-e", "inject=clone,clone3:error=EAGAIN"]
"""The library does without the threads that it cannot have; then a program makes the same calls in every run."""


def traced(log: str | Path, calls: str, *, threads: bool) -> list[str]:
    without = [] if threads else NO_THREADS
    return ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls},clone,clone3", *without]


def inject(call: str, fault: str, when: int | str, *, threads: bool = True) -> list[str]:
    return [*traced(os.devnull, call, threads=threads), "-e", f"inject={call}:{fault}:when={when}"]


def count_calls(program: str, directory: Path, *, threads: bool = True) -> dict[str, int]:
    """How often the busiest thread of a whole run makes each of the calls that change, flush or lock files."""
    log = directory / "strace"
    prefix = traced(log, ",".join((*FAULT_CALLS, "utimensat", "flock")), threads=threads)
    code, said = run(program, directory / "counted", prefix=prefix)
    assert code == 0
    assert said
    assert [line for line in said if "Error" in line] == []
    counts: dict[str, int] = {}
    for (_, call), times in Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE)).items():
        counts[call] = max(times, counts.get(call, 0))
    return {call: times for call, times in counts.items() if not call.startswith("clone")}


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
