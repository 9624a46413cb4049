"""Full disks, quotas, limits of file sizes and memory: nothing is acknowledged, nothing is poisoned, nothing aborts."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from programs.blobs import write_each
from support.blobs import CONTENTS
from support.faults import run_faulted

FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
name_of = errno.errorcode.__getitem__


def with_failed_flush(directory: Path, number: int, flush: int) -> list[str]:
    """What the writes say if one of the flushes, counted from 0, fails with this error."""
    for attempt in range(20):
        calls = run_faulted(write_each, path=str(directory / f"counted-{attempt}")).calls
        at = [at for at, call in enumerate(calls, 1) if call == "fsync"][flush]
        run = run_faulted(write_each, number, at, path=str(directory / f"blobs-{attempt}"))
        # How often the clock of the file system is looked at first differs from run to run.
        if run.call == "fsync" and run.calls[:at].count("fsync") == flush + 1:
            return [str(line) for line in run.said]
    raise AssertionError("the flush was never struck")


@pytest.mark.parametrize("number", FULL, ids=name_of)
def test_full_disk_that_shows_in_the_flush_of_a_staged_blob_does_not_poison(tmp_path: Path, number: int) -> None:
    # The first flush is that of the new root's entry.
    said = with_failed_flush(tmp_path, number, 1)
    assert said == [f"StoreFullError {number}", *list(CONTENTS)[1:]]


@pytest.mark.parametrize("number", [*FULL, errno.EIO], ids=name_of)
def test_failed_flush_of_entries_poisons_for_whatever_reason(tmp_path: Path, number: int) -> None:
    # The third flush is that of the first shard, where the blob is published already.
    said = with_failed_flush(tmp_path, number, 2)
    assert said == [f"StoreIOError {number}"] * len(CONTENTS)


def run(program: str, directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, directory], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_limit_of_file_sizes_acknowledges_nothing_and_recovers(tmp_path: Path) -> None:
    program = """
import errno, io, resource, sys
import nerve_store as ns
blobs = ns.BlobStore(sys.argv[1])
big = b"x" * (3 << 20)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
def by_writer():
    with blobs.writer() as file:
        file.write(big)
whole = [lambda: blobs.write(big), lambda: blobs.write_many([big])]
for write in [*whole, lambda: blobs.write_file(io.BytesIO(big)), by_writer]:
    try:
        write()
    except ns.StoreFullError as error:
        assert error.errno == errno.EFBIG, error
    else:
        sys.exit("it was written")
    assert blobs.write("small") in blobs
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert blobs.read(blobs.write(big)) == big
assert len(list(blobs)) == 2
"""
    run(program, tmp_path / "blobs")


def test_file_that_claims_more_than_memory_holds_is_an_error(tmp_path: Path) -> None:
    program = """
import os, resource, sys
import nerve_store as ns
blobs = ns.BlobStore(sys.argv[1])
blob_hash = blobs.write("x")
os.truncate(f"{sys.argv[1]}/{blob_hash[:2]}/{blob_hash[2:]}", 1 << 43)
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
file = blobs.open(blob_hash)
by_file = [lambda: blobs.open(blob_hash).read(), lambda: file.raw.readall()]
for read in [lambda: blobs.read(blob_hash), *by_file]:
    try:
        read()
    except MemoryError:
        pass
    else:
        sys.exit("it was read")
assert blobs.write("x") == blob_hash
assert blobs.read(blob_hash) == b"x"
"""
    run(program, tmp_path / "blobs")
