"""Blobs among hostile files, on read-only and full disks, and under threads."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from support import is_one_line, tree
from support.blobs import HASH, command, place, scribbled_on, sha256, staged
from support.disks import read_only_directory, tiny_disk
from support.strace import run_straced


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
    for call in every_call(blobs).values():
        with pytest.raises(ns.StoreIOError) as caught:
            call()
        assert caught.value.path == str(path)
        assert is_one_line(caught.value)
    assert list(blobs) == []
    assert blobs.stats().blob_count == 0
    assert blobs.collect([], grace=timedelta(0)).deleted_count == 0
    (problem,) = blobs.verify().problems
    assert (problem.hash, problem.path, problem.quarantine) == (HASH, str(path), None)
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert staged(blobs) == []


def every_call(blobs: ns.BlobStore) -> dict[str, Callable[[], object]]:
    return {
        "read": lambda: blobs.read(HASH),
        "open": lambda: blobs.open(HASH),
        "exists": lambda: blobs.exists(HASH),
        "in": lambda: HASH in blobs,
        "size": lambda: blobs.size(HASH),
        "delete": lambda: blobs.delete(HASH),
        "write": lambda: blobs.write("x"),
        "write_many": lambda: blobs.write_many(["x"]),
        "write_file": lambda: blobs.write_file(io.BytesIO(b"x")),
    }


def test_a_linked_shard_is_not_followed(blobs: ns.BlobStore, tmp_path: Path) -> None:
    path = place(blobs, blobs.write("x"))
    path.parent.rename(tmp_path / "elsewhere")
    path.parent.symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    calls = every_call(blobs) | {
        "list": lambda: list(blobs),
        "stats": blobs.stats,
        "collect": lambda: blobs.collect([], grace=timedelta(0)),
    }
    for name, call in calls.items():
        with pytest.raises(ns.StoreIOError, match="symbolic link") as caught:
            call()
        assert (caught.value.errno, caught.value.path) == (errno.ELOOP, str(path.parent)), name
        assert is_one_line(caught.value)
    (problem,) = blobs.verify().problems
    assert (problem.hash, problem.path, problem.quarantine) == (None, str(path.parent), None)
    assert tree(tmp_path / "elsewhere") == before
    assert staged(blobs) == []


@pytest.mark.parametrize("name", [".staging", ".quarantine"])
def test_no_link_leads_the_way_out_of_the_root(blobs: ns.BlobStore, tmp_path: Path, name: str) -> None:
    path = place(blobs, blobs.write("x"))
    (tmp_path / "elsewhere").mkdir()
    if (directory := Path(blobs.root, name)).exists():
        directory.rmdir()
    directory.symlink_to(tmp_path / "elsewhere")
    path.write_bytes(b"y")
    if name == ".staging":
        blobs = ns.BlobStore(blobs.root)  # The first one keeps its directory open, and uses no name in it.
        for call in (lambda: blobs.write("z"), blobs.writer, lambda: blobs.write_many(["z"])):
            with pytest.raises(ns.StoreIOError, match="symbolic link"):
                call()
    (problem,) = blobs.verify().problems
    assert (problem.quarantine is None) == (name == ".quarantine")
    assert os.listdir(tmp_path / "elsewhere") == []
    assert ns.BlobStore(blobs.root).root == blobs.root


def test_a_root_behind_a_link_is_its_owners_affair(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "blobs").symlink_to(tmp_path / "disk")
    blobs = ns.BlobStore(tmp_path / "blobs")
    assert blobs.read(blobs.write("x")) == b"x"
    assert list(blobs) == [HASH]
    assert (tmp_path / "disk" / HASH[:2]).is_dir()


def test_a_special_file_is_never_opened_for_reading(blobs: ns.BlobStore, tmp_path: Path) -> None:
    path = place(blobs, blobs.write("x"))
    path.unlink()
    os.mkfifo(path)
    # Who waits for a reader of the fifo would be let go by the open itself.
    program = """
blobs = ns.BlobStore(sys.argv[1])
for call in (blobs.read, blobs.open, blobs.exists, blobs.size, blobs.delete, lambda _: blobs.write("x"),
             lambda _: blobs.verify()):
    try:
        call(sys.argv[2])
        say("returned")
    except ns.StoreIOError as error:
        say(error.errno)
"""
    done, lines = run_straced(command(program, blobs.root, HASH), tmp_path / "strace", "openat,openat2,open")
    assert (done.returncode, done.stdout.splitlines()) == (0, [str(errno.EINVAL)] * 6 + ["returned"])
    opened = [line for line in lines if HASH[2:] + '"' in line]
    assert len(opened) >= 7
    assert [line for line in opened if "O_PATH" not in line] == []


def test_a_kernel_without_openat2_follows_no_link_either(blobs: ns.BlobStore, tmp_path: Path) -> None:
    blobs.write("x")
    program = """
import errno
blobs = ns.BlobStore(sys.argv[1])
name = blobs.write("x")
blobs.write("z")
assert blobs.read(name) == b"x" and blobs.exists(name) and name in blobs and blobs.verify().ok
shard = f"{sys.argv[1]}/{name[:2]}"
os.rename(shard, sys.argv[2])
os.symlink(sys.argv[2], shard)
for call in (blobs.read, blobs.exists, blobs.size, blobs.delete, lambda _: blobs.write("x")):
    try:
        call(name)
        say("returned")
    except ns.StoreIOError as error:
        say(errno.errorcode[error.errno])
"""
    for fault in ("ENOSYS", "EPERM"):
        elsewhere = tmp_path / fault
        program_at = command(program, blobs.root, elsewhere)
        done, _ = run_straced(program_at, tmp_path / "strace", "openat2", [f"openat2:error={fault}"])
        assert (done.returncode, done.stdout.splitlines()) == (0, ["ELOOP"] * 5)
        Path(blobs.root, HASH[:2]).unlink()
        elsewhere.rename(Path(blobs.root, HASH[:2]))


def test_another_name_of_the_same_file_is_not_written_through(blobs: ns.BlobStore, tmp_path: Path) -> None:
    path = place(blobs, blobs.write("x"))
    os.link(path, tmp_path / "other")
    (tmp_path / "other").write_bytes(b"y")
    with pytest.raises(ns.BlobCorruptError):
        blobs.read(HASH)
    assert blobs.write("x") == HASH
    assert blobs.read(HASH) == b"x"
    assert (tmp_path / "other").read_bytes() == b"y"


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
    with scribbled_on(data):
        hashes = {blobs.write(data) for _ in range(30)}
    assert set(blobs) == hashes
    for blob_hash in hashes:
        content = blobs.read(blob_hash)
        assert content is not None
        assert (len(content), sha256(content)) == (len(data), blob_hash)
    data.clear()  # A BufferError if an export had been left behind.
