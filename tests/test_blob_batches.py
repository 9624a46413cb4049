"""Many blobs at once, and blobs that are there already: what is vouched for, and what is read again."""

from __future__ import annotations

import array
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from support.blobs import HASH, command, is_in_memory, place, sha256, staged
from support.faults import in_memory
from support.strace import between, run_straced

# --- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_batch_is_stored_in_its_order(tmp_path: Path, durability: Any) -> None:
    blobs = ns.BlobStore(tmp_path, durability=durability)
    contents: list[bytes] = [b"%d" % number * 50 for number in range(600)] + [b"", b"x" * 300_000, b"", b"7" * 50]
    items: list[Any] = list(contents)
    items[3] = items[3].decode()
    items[5] = bytearray(items[5])
    items[6] = memoryview(items[6])
    items[7] = array.array("B", items[7])
    items[601] = bytearray(items[601])  # larger than what is copied at once
    items[9] = memoryview(bytearray(items[9]))
    for _ in range(2):
        assert blobs.write_many(items) == [sha256(content) for content in contents]
    assert {blob_hash: blobs.read(blob_hash) for blob_hash in blobs} == {sha256(one): one for one in contents}
    assert blobs.write_many(iter(items)) == blobs.write_many(tuple(items), verify=True)
    assert blobs.write_many([]) == []
    assert staged(blobs) == []


def test_a_batch_may_be_longer_than_memory(blobs: ns.BlobStore) -> None:
    def items() -> Iterator[bytes]:
        for number in range(10_000):
            yield b"%d" % (number % 50)

    assert blobs.write_many(items()) == [sha256(b"%d" % (number % 50)) for number in range(10_000)]
    large = [bytes([number]) * 9_000_000 for number in range(16)]
    assert blobs.write_many(large) == [sha256(content) for content in large]


@given(st.lists(st.binary(max_size=40) | st.binary(max_size=40).map(bytearray), max_size=20))
def test_a_batch_equals_its_single_writes(tmp_path: Path, items: list[bytes | bytearray]) -> None:
    blobs = ns.BlobStore(tmp_path / "blobs", durability="normal")
    assert blobs.write_many(items) == [blobs.write(item) for item in items]


def test_a_batch_with_something_wrong_in_it_acknowledges_nothing(blobs: ns.BlobStore) -> None:
    for wrong in (1, None, "\ud800", memoryview(b"abcdef")[::2]):
        with pytest.raises((TypeError, ValueError)):
            blobs.write_many([b"right", wrong])  # type: ignore[list-item]
    for no_items in ("text", b"bytes", 1, None):
        with pytest.raises(TypeError):
            blobs.write_many(no_items)  # type: ignore[arg-type]

    def failing() -> Iterator[bytes]:
        yield b"right"
        raise RuntimeError("from the generator")

    with pytest.raises(RuntimeError, match="generator"):
        blobs.write_many(failing())
    assert blobs.verify().ok
    assert blobs.write_many(["right"]) == [sha256(b"right")]
    assert staged(blobs) == []


BATCH = """
blobs = ns.BlobStore(sys.argv[1])
blobs.write("x")
say("begin")
names = blobs.write_many([f"content {number}" for number in range(600)])
say("end")
"""


def test_a_batch_flushes_bytes_before_names_and_each_directory_once(tmp_path: Path) -> None:
    calls = "fsync,fdatasync,syncfs,rename,renameat,renameat2,linkat,write"
    done, lines = run_straced(command(BATCH, tmp_path / "blobs"), tmp_path / "strace", calls)
    assert done.returncode == 0
    begin = next(number for number, line in enumerate(lines) if '"begin' in line)
    end = next(number for number, line in enumerate(lines) if '"end' in line)
    flushed: dict[str, int] = {}
    published: dict[str, int] = {}
    directories: list[str] = []
    for number, line in enumerate(lines[begin:end]):
        if found := re.search(r"fsync\(\d+<(.*?)>", line):
            name = os.path.relpath(found[1], tmp_path / "blobs")
            if name.startswith(".staging/"):
                flushed[name.removeprefix(".staging/")] = number
            else:
                directories.append(name)
        elif found := re.search(r'(?:rename\w*|linkat)\(\d+<([^>]*)>[^,]*, "(.*?)"', line):
            published[found[2] or os.path.basename(found[1])] = number
    assert len(published) == len(flushed) == 600
    assert all(flushed[name] < published[name] for name in published)
    shards = {sha256(f"content {number}".encode())[:2] for number in range(600)}
    assert sorted(directories) == sorted(shards | {"."})
    last = max(published.values())
    assert all("fsync" in line or "resumed" in line for line in lines[begin + last + 1 : end] if "write(" not in line)


# --- presence ----------------------------------------------------------------------------------------------------

REWRITE = """
import time
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
content = b"x" * 100_000
name = blobs.write(content)
time.sleep(0.1)
say("begin")
for _ in range(3):
    assert blobs.write(content, verify=bool(sys.argv[3])) == name
assert blobs.write_many([content], verify=bool(sys.argv[3])) == [name]
say("end")
"""


@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("verify", ["", "verify"])
def test_what_is_vouched_for_is_not_read_again(tmp_path: Path, durability: str, verify: str) -> None:
    program = command(REWRITE, tmp_path / "blobs", durability, verify)
    done, lines = run_straced(program, tmp_path / "strace", "read,pread64,readv,preadv2,fsync,openat2,write")
    assert done.returncode == 0
    lines = between(lines, '"begin', '"end')
    read = [line for line in lines if re.search(r"\bread", line) and sha256(b"x" * 100_000)[2:] in line]
    flushed = [line for line in lines if "fsync" in line]
    if is_in_memory(tmp_path):
        assert read, "a change leaves no trace in the times"
        return
    assert bool(read) == bool(verify)
    assert flushed == []


def test_a_changed_copy_is_never_vouched_for(blobs: ns.BlobStore, tmp_path: Path) -> None:
    content = b"x" * 70_000
    blob_hash = blobs.write(content)
    path = place(blobs, blob_hash)
    vouch: list[Callable[[], object]] = [
        lambda: blobs.write(content),
        lambda: blobs.write(content, verify=True),
        lambda: blobs.exists(blob_hash),
        blobs.verify,
    ]
    for turn in range(60):
        vouch[turn % 4]()
        times = path.stat()
        damaged = bytearray(content)
        damaged[turn * 1000] ^= 1 << turn % 8
        match turn % 5:
            case 0:
                path.write_bytes(damaged)
            case 1:
                with open(path, "r+b") as file:
                    file.seek(turn * 1000)
                    file.write(damaged[turn * 1000 : turn * 1000 + 1])
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            case 2:
                other = tmp_path / "other"
                other.write_bytes(damaged)
                os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
                other.rename(path)
            case 3:
                os.truncate(path, turn)
            case 4:
                with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                    mapped[turn * 1000] ^= 1
        assert blobs.write(content) == blob_hash
        assert path.read_bytes() == content, turn
        assert blobs.read(blob_hash) == content


def test_a_change_through_mapped_memory_is_seen_where_it_changes_no_time(tmp_path: Path) -> None:
    with in_memory(tmp_path) as memory:
        blobs = ns.BlobStore(memory / "blobs", durability="normal")
        content = b"x" * 5_000
        blob_hash = blobs.write(content)
        path = place(blobs, blob_hash)
        for renewed in (False, True):
            # The clock has ticked since the last change, and the grace is to be renewed or not.
            time.sleep(0.1 if renewed else 0.04)
            assert blobs.write(content) == blob_hash
            time.sleep(0.04)
            with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[1_000] ^= 1
            assert blobs.write(content) == blob_hash
            assert path.read_bytes() == content


def test_what_another_process_did_is_seen(blobs: ns.BlobStore, tmp_path: Path) -> None:
    other = ns.BlobStore(blobs.root)
    for store in (blobs, other) * 3:
        assert store.write("x") == HASH
        assert (other if store is blobs else blobs).delete(HASH)
        assert store.read(HASH) is None
        assert store.write_many(["x"]) == [HASH]
        assert place(blobs, HASH).read_bytes() == b"x"


def test_a_root_that_was_replaced_is_noticed(blobs: ns.BlobStore, tmp_path: Path) -> None:
    blobs.write("x")
    Path(blobs.root).rename(tmp_path / "moved")
    assert HASH not in blobs
    assert not blobs.exists(HASH)
    assert list(blobs) == []
    Path(blobs.root).mkdir()
    assert blobs.write("x") == HASH
    assert place(blobs, HASH).read_bytes() == b"x"
    assert list(blobs) == [HASH]


def test_writing_again_renews_the_grace(blobs: ns.BlobStore) -> None:
    handles = (blobs, ns.BlobStore(blobs.root), ns.BlobStore(blobs.root))
    old = time.time() - 7200
    for store in handles:
        for many in (False, True):
            blob_hash = store.write("x")
            os.utime(place(blobs, blob_hash), (old, old))
            assert blobs.collect([], dry_run=True).deleted_count == 1
            inode = place(blobs, blob_hash).stat().st_ino
            assert (store.write_many(["x"]) if many else [store.write("x")]) == [blob_hash]
            assert place(blobs, blob_hash).stat().st_ino == inode
            assert time.time() - place(blobs, blob_hash).stat().st_mtime < 60
            assert blobs.collect([], grace=timedelta(hours=1)).young_count == 1
    assert HASH in blobs
