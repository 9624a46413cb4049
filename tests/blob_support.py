"""What the blob tests share: where a blob lies, and programs that write blobs in a process of their own."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
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
except ns.StoreIOError as error:
    say(f"{type(error).__name__} {error.errno}")
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


def inject(call: str, fault: str, when: int) -> list[str]:
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}"]


def count_calls(program: str, directory: Path) -> dict[str, int]:
    """How often the busiest thread of a whole run makes each of the calls that change or flush files."""
    log = directory / "strace"
    prefix = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(FAULT_CALLS)}"]
    code, said = run(program, directory / "counted", prefix=prefix)
    assert (code, len(said)) == (0, len(CONTENTS))
    counts: dict[str, int] = {}
    for (_, call), times in Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE)).items():
        counts[call] = max(times, counts.get(call, 0))
    return counts


def assert_whole(root: Path, said: Sequence[str]) -> None:
    """No acknowledged blob is lost, none is wrong, nothing but staging is left besides, and writing goes on."""
    blobs = ns.BlobStore(root)
    for blob_hash in said:
        if not blob_hash.startswith("Store"):
            assert blobs.read(blob_hash) == CONTENTS[blob_hash]
    for blob_hash in blobs:
        assert blobs.read(blob_hash) == CONTENTS[blob_hash]
    files = {path for path in root.rglob("*") if not path.is_dir() and path.parent.name != ".staging"}
    assert files == {place(blobs, blob_hash) for blob_hash in blobs}
    for content in CONTENTS.values():
        blobs.write(content)
    assert list(blobs) == sorted(CONTENTS)
