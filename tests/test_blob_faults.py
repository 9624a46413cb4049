"""Blobs among hostile files, on read-only and full disks, and under threads."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import nerve_store as ns
from blob_support import HASH, place, sha256, staged
from support import is_one_line, read_only_directory, tiny_disk, tree


@pytest.fixture
def blobs(tmp_path: Path) -> ns.BlobStore:
    return ns.BlobStore(tmp_path / "data" / "blobs")


# --- strangers in the directory ----------------------------------------------------------------------------------


def _make_directory(path: Path) -> None:
    path.mkdir()


def _make_link(path: Path) -> None:
    target = path.parent / "target"
    target.write_bytes(b"x")
    path.symlink_to(target)


STRANGERS: dict[str, Callable[[Path], None]] = {
    "directory": _make_directory,
    "symlink": _make_link,
    "dangling": lambda path: path.symlink_to("nowhere"),
    "fifo": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_what_is_no_regular_file_is_an_error_and_stays(blobs: ns.BlobStore, stranger: str) -> None:
    path = place(blobs, blobs.write("x"))
    path.unlink()
    STRANGERS[stranger](path)
    before = path.lstat()
    calls: list[Callable[[], object]] = [
        lambda: blobs.read(HASH),
        lambda: blobs.exists(HASH),
        lambda: HASH in blobs,
        lambda: blobs.size(HASH),
        lambda: blobs.delete(HASH),
        lambda: blobs.write("x"),
    ]
    for call in calls:
        with pytest.raises(ns.StoreIOError) as caught:
            call()
        assert caught.value.path == str(path)
        assert is_one_line(caught.value)
    assert list(blobs) == []
    assert blobs.stats().blob_count == 0
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert staged(blobs) == []


def test_a_linked_shard_yields_verified_bytes_alone(blobs: ns.BlobStore, tmp_path: Path) -> None:
    # A link in place of a shard is followed for now; what lies behind it is verified like anything else.
    path = place(blobs, blobs.write("x"))
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(tmp_path / "elsewhere")
    assert blobs.read(HASH) == b"x"
    assert list(blobs) == [HASH]
    path.write_bytes(b"y")
    assert not blobs.exists(HASH)
    assert blobs.write("x") == HASH
    assert blobs.read(HASH) == b"x"


# --- read-only and full disks ------------------------------------------------------------------------------------


def test_a_read_only_store_changes_nothing(blobs: ns.BlobStore, tmp_path: Path) -> None:
    blobs.write("x")
    before = tree(tmp_path)
    for root, content in ((blobs.root, b"x"), (tmp_path / "missing", None)):
        read_only = ns.BlobStore(root, read_only=True)
        for data in ("y", bytearray(1_000_000)):
            with pytest.raises(ns.StoreIOError, match="read_only") as caught:
                read_only.write(data)
            assert caught.value.errno == errno.EROFS
        with pytest.raises(ns.StoreIOError, match="read_only"):
            read_only.delete(HASH)
        assert read_only.read(HASH) == content
        assert list(read_only) == ([HASH] if content else [])
    assert tree(tmp_path) == before
    assert not (tmp_path / "missing").exists()


def test_a_read_only_file_system_is_read(blobs: ns.BlobStore) -> None:
    blob_hash = blobs.write("x")
    with read_only_directory(Path(blobs.root)):
        for call in (lambda: blobs.write("y"), lambda: blobs.delete(blob_hash)):
            with pytest.raises(ns.StoreIOError) as caught:
                call()
            assert caught.value.errno == errno.EROFS
        assert blobs.read(blob_hash) == b"x"
    assert blobs.write("y") in blobs


@pytest.mark.parametrize("wrap", [bytes, bytearray])
def test_a_full_disk_acknowledges_nothing_and_recovers(tmp_path: Path, wrap: type[bytes | bytearray]) -> None:
    with tiny_disk(tmp_path / "disk", "1m") as resize:
        blobs = ns.BlobStore(tmp_path / "disk" / "blobs")
        small, big = blobs.write(b"small"), wrap(b"x") * (2 * 1024 * 1024)
        for _ in range(2):
            with pytest.raises(ns.StoreFullError) as caught:
                blobs.write(big)
            assert caught.value.errno == errno.ENOSPC
            assert is_one_line(caught.value)
            assert list(blobs) == [small]
            assert staged(blobs) == []
            assert blobs.read(small) == b"small"
        resize("4m")
        assert blobs.read(blobs.write(big)) == big


# --- threads -----------------------------------------------------------------------------------------------------


def test_threads_write_and_delete_the_same_blobs(blobs: ns.BlobStore) -> None:
    contents = [bytes([number]) * (number * 9000) for number in range(8)]
    barrier = threading.Barrier(8)

    def work(seed: int) -> None:
        barrier.wait()
        for step in range(24):
            content = contents[(seed + step) % 8]
            blob_hash = blobs.write(content if step % 2 else bytearray(content))
            assert blob_hash == sha256(content)
            if seed == 0 and step % 3 == 0:
                blobs.delete(blob_hash)
            assert blobs.read(blob_hash) in (content, None)
            assert set(blobs) <= {sha256(content) for content in contents}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    for content in contents:
        assert blobs.read(blobs.write(content)) == content
    assert len(list(blobs)) == 8
    assert staged(blobs) == []


def test_a_buffer_that_changes_meanwhile_is_stored_under_the_hash_of_what_was_stored(blobs: ns.BlobStore) -> None:
    data = bytearray(1_000_000)
    stop = threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            for at in range(0, len(data), 4096):
                data[at] = (data[at] + 1) % 256

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        hashes = {blobs.write(data) for _ in range(30)}
    finally:
        stop.set()
        thread.join()
    assert set(blobs) == hashes
    for blob_hash in hashes:
        content = blobs.read(blob_hash)
        assert content is not None
        assert (len(content), sha256(content)) == (len(data), blob_hash)
    data.clear()  # A BufferError if an export had been left behind.
