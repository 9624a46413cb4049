"""What a blob handle relies on from one call to the next: its root, what it has flushed, its process, its locks."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from support import child_environment
from support.blobs import HASH, command, place, run, scribbled_on, sha256, staged
from support.disks import tiny_disk
from support.strace import between, run_straced


def flushed(lines: Iterable[str], root: Path) -> list[str]:
    """What was flushed, in its order; names relative to `root`."""
    found = re.findall(r"^\d+ +f(?:data)?sync\(\d+<(.*?)>(?: \(deleted\))?", "\n".join(lines), re.MULTILINE)
    return [os.path.relpath(path, root) for path in found]


# --- what was flushed --------------------------------------------------------------------------------------------

REPLACED_ROOT = """
blobs = ns.BlobStore(sys.argv[1])
blobs.write("x")
os.rename(sys.argv[1], sys.argv[1] + ".old")
ns.BlobStore(sys.argv[1], durability="normal").write("x")
say("begin")
blobs.write("x")
"""


def test_what_was_flushed_of_one_root_is_not_believed_of_another(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    done, lines = run_straced(command(REPLACED_ROOT, root), tmp_path / "strace", "fsync,write")
    assert (done.returncode, done.stdout) == (0, "begin\n")
    assert flushed(between(lines, '"begin'), root) == [f"{HASH[:2]}/{HASH[2:]}", HASH[:2], ".", ".."]


WAYS = """
import threading, time
os.mkdir(sys.argv[1])
blobs = ns.BlobStore(sys.argv[1])
thread = threading.Thread(target=blobs.write, args=("x",))
thread.start()
time.sleep(1.5)
say("begin")
blobs.write_many(["x", "y"])
say("end")
thread.join()
"""


def test_a_batch_flushes_the_way_that_another_thread_has_half_flushed(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    # The thread flushes its file, its shard, the root, and stays in the flush of the root's own entry.
    delay = "fsync:delay_enter=4000000:when=4"
    done, lines = run_straced(command(WAYS, root), tmp_path / "strace", "fsync,write", [delay])
    assert (done.returncode, done.stdout) == (0, "begin\nend\n")
    assert "." in flushed(between(lines, '"begin', '"end'), root)


FLUSH_FAILS = """
ns.BlobStore(sys.argv[1], durability="normal").write("x")
name = ns.blob_hash("x")
inode = lambda: os.stat(f"{sys.argv[1]}/{name[:2]}/{name[2:]}").st_ino
say(inode())
try:
    ns.BlobStore(sys.argv[1]).write("x")
except ns.StoreIOError:
    ns.BlobStore(sys.argv[1]).write("x")
say(inode())
"""


def test_a_copy_whose_flush_failed_is_replaced_before_it_is_acknowledged(tmp_path: Path) -> None:
    program = command(FLUSH_FAILS, tmp_path / "blobs")
    done, _ = run_straced(program, tmp_path / "strace", "fsync", ["fsync:error=EIO:when=1"])
    assert done.returncode == 0
    said = done.stdout.splitlines()
    # The system may report success from then on, whatever became of the first copy's bytes.
    assert said[0] != said[1]


# --- the process -------------------------------------------------------------------------------------------------

FORKED_WRITER = """
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
writer = blobs.writer()
writer.write("parent ")
if (child := os.fork()) == 0:
    refused = 0
    for act in (lambda: writer.write("child "), writer.close):
        try:
            act()
        except ns.ForkedStoreError:
            refused += 1
    del writer, act
    os._exit(0 if refused == 2 else 1)
say(os.waitpid(child, 0)[1])
writer.write("again")
writer.close()
say(blobs.read(writer.hash).decode())
"""


def test_a_forked_child_leaves_its_parents_writer_alone(tmp_path: Path) -> None:
    code, said = run(FORKED_WRITER, tmp_path / "blobs")
    assert (code, said) == (0, ["0", "parent again"])


# --- writers that wait, and writers that failed ------------------------------------------------------------------


def test_the_grace_of_a_new_blob_runs_from_its_end(blobs: ns.BlobStore) -> None:
    writer = blobs.writer()
    writer.write("slow")
    time.sleep(3)
    writer.close()
    assert blobs.collect([], grace=timedelta(seconds=2.5)).young_count == 1
    assert blobs.read(writer.hash) == b"slow"


def test_a_writer_that_could_not_write_acknowledges_nothing(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "1m") as resize:
        blobs = ns.BlobStore(tmp_path / "disk" / "blobs")
        writer = blobs.writer()
        with pytest.raises(ns.StoreFullError):
            writer.write(b"x" * 2_000_000)
        resize("8m")
        with pytest.raises(ValueError, match="failed"):
            writer.write(b"more")
        with pytest.raises(ValueError, match="failed"):
            writer.close()
        with pytest.raises(ValueError, match="discarded"):
            _ = writer.hash
        assert list(blobs) == []
        assert staged(blobs) == []


# --- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["write", "collect"])
def test_a_lock_that_is_never_given_back_is_an_error(blobs: ns.BlobStore, operation: str) -> None:
    path = place(blobs, blobs.write("x"))
    os.utime(path, (0, 0))
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(ns.StoreIOError, match="lock") as caught:
            _ = blobs.write("x") if operation == "write" else blobs.collect([])
        assert (caught.value.errno, caught.value.path) == (errno.ETIMEDOUT, str(path.parent))
        assert 4 < time.monotonic() - start < 20
    finally:
        os.close(directory)
    assert blobs.write("x") == HASH
    assert blobs.collect([], grace=timedelta(0)).deleted_count == 1


# --- closing -----------------------------------------------------------------------------------------------------


def test_a_closed_store_holds_nothing_open_and_opens_again(blobs: ns.BlobStore) -> None:
    def held() -> list[str]:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [os.readlink(link) for link in links if os.path.lexists(link) and blobs.root in os.readlink(link)]

    with blobs as entered:
        assert entered is blobs
        assert blobs.write("x") == HASH
        assert sorted(held()) == [blobs.root, f"{blobs.root}/.staging"]
    assert held() == []
    blobs.close()
    assert blobs.read(HASH) == b"x"
    assert blobs.write("y") in blobs
    assert len(held()) == 2


# --- memory that changes -----------------------------------------------------------------------------------------


def test_a_read_only_view_of_memory_that_changes_is_stored_under_its_own_hash(blobs: ns.BlobStore) -> None:
    data = bytearray(1_000_000)
    view = memoryview(data).toreadonly()
    with scribbled_on(data):
        for _ in range(30):
            hashes = [blobs.write(view), *blobs.write_many([view, view[:90_000]])]
            for blob_hash in hashes:
                content = blobs.read(blob_hash)
                assert content is not None
                assert sha256(content) == blob_hash


# --- damage that moves -------------------------------------------------------------------------------------------


def test_verify_of_a_root_that_cannot_be_opened_is_an_error(blobs: ns.BlobStore) -> None:
    Path(blobs.root).parent.mkdir()
    Path(blobs.root).write_bytes(b"no directory")
    with pytest.raises(ns.StoreIOError) as caught:
        blobs.verify()
    assert caught.value.errno == errno.ENOTDIR


def test_a_damaged_blob_that_never_holds_still_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    blobs = ns.BlobStore(root, durability="normal")
    content = bytes(8_000_000)
    path = place(blobs, blobs.write(content))
    program = """
say("ready")
while True:
    file = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
    for _ in range(100):
        os.pwrite(file, os.urandom(8), 0)
    os.close(file)
"""
    restless = subprocess.Popen(
        command(program, root, path), env=child_environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert restless.stdout is not None
        assert restless.stdout.readline() == "ready\n"
        time.sleep(0.1)
        (problem,) = blobs.verify().problems
        while problem.quarantine is not None:
            # On a busy machine it held still for once.
            os.rename(problem.quarantine, path)
            (problem,) = blobs.verify().problems
        assert "changes" in problem.reason
    finally:
        restless.kill()
        restless.communicate()
    (problem,) = blobs.verify().problems
    assert problem.quarantine is not None
