"""Blobs, beside `hashlib` and `os`, with the same durability, on the same file system.

The row "one core" compares with our own work, one blob after another, instead of with a peer. The rows "beside os.stat"
say what 2,000 looks cost more than `os.stat`; the peer of "beside the slower of hash and disk" is whichever of hashing
zeros in memory and copying the file (and flushing it, if full) took longer in that round.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nerve_store as ns
from blob_peers import HashlibBlobs
from figures import Kind, Target
from turns import Compare, Seconds

KIB, MIB, GIB = 1024, 1024**2, 1024**3
SERIAL = itertools.count()


def fresh(size: int) -> bytes:
    """Bytes that were never stored before."""
    head = next(SERIAL).to_bytes(8, "little")
    return head + bytes(size - 8)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    # Gigabytes are not kept for the next benchmark.
    shutil.rmtree(tmp_path, ignore_errors=True)


def bench_hash(compare: Compare) -> None:
    data = fresh(64 * MIB)
    compare(
        "hash 64 MiB in memory",
        ours=ns.blob_hash,
        peers={"hashlib": lambda content: hashlib.sha256(content).hexdigest()},
        work=lambda: data,
        rows=1,
        rounds=9,
        target=Target(bound=0.95),
    )


def bench_write_small(root: Path, compare: Compare) -> None:
    blobs = ns.BlobStore(root / "ours", durability="normal")
    peer = HashlibBlobs(root / "peer", durable=False)
    make_shards(blobs, peer)

    def ours(contents: list[bytes]) -> None:
        for content in contents:
            blobs.write(content)

    def theirs(contents: list[bytes]) -> None:
        for content in contents:
            peer.write(content)

    def contents() -> list[bytes]:
        return [fresh(4 * KIB) for _ in range(500)]

    compare(
        "write 4 KiB, normal",
        ours=ours,
        peers={"hashlib": theirs},
        work=contents,
        rows=500,
        rounds=15,
        target=Target(bound=1.5),
    )


def make_shards(blobs: ns.BlobStore, peer: HashlibBlobs) -> None:
    """A store that has been in use has all its directories."""
    blobs.write("first")
    for number in range(256):
        for directory in (blobs.root, peer.root):
            os.makedirs(f"{directory}/{number:02x}", exist_ok=True)


def bench_write_many_small(root: Path, compare: Compare) -> None:
    blobs = ns.BlobStore(root / "ours")
    peer = HashlibBlobs(root / "peer", durable=True)
    make_shards(blobs, peer)
    compare(
        "write_many 1,000 times 4 KiB, full",
        ours=blobs.write_many,
        peers={"hashlib": peer.write_many},
        work=lambda: [fresh(4 * KIB) for _ in range(1000)],
        rows=1000,
        rounds=9,
        target=Target(bound=6),
    )


@pytest.mark.parametrize("durability", ["full", "normal"])
def bench_write_present(root: Path, compare: Compare, durability: str) -> None:
    blobs = ns.BlobStore(root / "ours", durability=durability)  # type: ignore[arg-type]
    peer = HashlibBlobs(root / "peer", durable=durability == "full")
    data = fresh(MIB)
    assert blobs.write(data) == peer.write(data)

    def repeated(write: Callable[[bytes], object]) -> Callable[[bytes], None]:
        def run(content: bytes) -> None:
            for _ in range(20):
                write(content)

        return run

    case = f"write of a blob that is there, 1 MiB, {durability}"
    compare(
        case,
        ours=repeated(blobs.write),
        peers={"hashlib": repeated(peer.write)},
        work=lambda: data,
        rows=20,
        rounds=15,
        target=Target(bound=1.8),
    )


@pytest.mark.parametrize(("size", "times", "rounds"), [(4 * KIB, 500, 15), (64 * MIB, 1, 9)])
def bench_read(root: Path, compare: Compare, size: int, times: int, rounds: int) -> None:
    blobs = ns.BlobStore(root / "ours", durability="normal")
    peer = HashlibBlobs(root / "peer", durable=False)
    contents = [fresh(size) for _ in range(times)]
    hashes = [blobs.write(content) for content in contents]
    assert hashes == peer.write_many(contents)
    del contents

    def every(read: Callable[[str], object]) -> Callable[[list[str]], None]:
        def run(names: list[str]) -> None:
            for name in names:
                read(name)

        return run

    case = f"read {size // KIB} KiB" if size < MIB else f"read {size // MIB} MiB"
    compare(
        case,
        ours=every(blobs.read),
        peers={"hashlib": every(peer.read)},
        work=lambda: hashes,
        rows=times,
        rounds=rounds,
        target=Target(bound=1.5 if size < MIB else 0.95),
    )


@pytest.fixture
def big_file(root: Path) -> Path:
    path = root / "source"
    block = os.urandom(MIB)
    with open(path, "wb") as file:
        file.writelines(block for _ in range(1024))
        os.fsync(file.fileno())
    return path


@pytest.mark.parametrize("durability", ["normal", "full"])
def bench_write_file(root: Path, big_file: Path, compare: Compare, durability: str) -> None:
    blobs = ns.BlobStore(root / "ours", durability=durability)  # type: ignore[arg-type]
    peer = HashlibBlobs(root / "peer", durable=durability == "full")

    def empty() -> Path:
        for blob_hash in list(blobs):
            blobs.delete(blob_hash)
        shutil.rmtree(peer.root)
        os.mkdir(peer.root)
        return big_file

    case = f"write_file 1 GiB, {durability}"
    compare(case, ours=blobs.write_file, peers={"hashlib": peer.write_file}, work=empty, rows=1, rounds=3)


@pytest.mark.parametrize("durability", ["normal", "full"])
def bench_write_file_beside_hash_and_disk(root: Path, big_file: Path, compare: Compare, durability: str) -> None:
    blobs = ns.BlobStore(root / "ours", durability=durability)  # type: ignore[arg-type]
    target = root / "written"
    buffer = bytearray(MIB)

    def hash_alone() -> None:
        hasher = hashlib.sha256()
        for _piece in range(1024):
            hasher.update(buffer)

    def disk_alone(source: Path) -> None:
        with open(source, "rb", buffering=0) as file, open(target, "wb", buffering=0) as written:
            done = 0
            while done < GIB:
                done += os.sendfile(written.fileno(), file.fileno(), done, GIB)
            if durability == "full":
                os.fsync(written.fileno())

    def slower(source: Path) -> Seconds:
        start = time.perf_counter()
        hash_alone()
        between = time.perf_counter()
        disk_alone(source)
        return Seconds(max(between - start, time.perf_counter() - between))

    def empty() -> Path:
        for blob_hash in list(blobs):
            blobs.delete(blob_hash)
        target.unlink(missing_ok=True)
        return big_file

    compare(
        f"write_file 1 GiB, {durability}, beside the slower of hash and disk",
        ours=blobs.write_file,
        peers={"hashlib": slower},
        work=empty,
        rows=1,
        rounds=5,
        target=Target(bound=0.9),
    )


MEMORY = """
import sys
import nerve_store as ns

def most():
    # Not `getrusage`, which counts the parent's memory, too.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

blobs = ns.BlobStore(sys.argv[2], durability="normal")
blobs.write_many([b"warm", b"up"])
before = most()
name = blobs.write_file(sys.argv[1])
with blobs.open(name) as file:
    while file.read(1 << 20):
        pass
print(most() - before)
"""


def bench_memory_of_streams(root: Path, big_file: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(big_file), str(root / "ours")]
    grown_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"\nwrite_file and open of 1 GiB: the process grew by {grown_kib / 1024:.1f} MiB")
    assert grown_kib <= 16 * KIB


def bench_write_many_large(root: Path, compare: Compare) -> None:
    blobs = ns.BlobStore(root / "ours", durability="normal")
    single = ns.BlobStore(root / "single", durability="normal")

    def one_core(contents: list[bytes]) -> None:
        for content in contents:
            single.write(content)

    def contents() -> list[bytes]:
        for store in (blobs, single):
            for blob_hash in list(store):
                store.delete(blob_hash)
        return [fresh(4 * MIB) for _ in range(64)]

    case = "write_many 64 times 4 MiB beside one core"
    compare(
        case,
        ours=blobs.write_many,
        peers={"hashlib": one_core},
        work=contents,
        rows=64,
        rounds=7,
        target=Target(bound=1.7),
    )


def bench_verify(root: Path, compare: Compare) -> None:
    blobs = ns.BlobStore(root / "ours", durability="normal")
    peer = HashlibBlobs(root / "ours", durable=False)
    blobs.write_many(fresh(4 * MIB) for _ in range(256))
    staging = Path(blobs.root, ".staging")
    staging.rmdir()  # The peer takes every directory for a shard.
    assert peer.verify() == 256

    def ours(_: None) -> None:
        assert blobs.verify().blob_count == 256

    def theirs(_: None) -> None:
        assert peer.verify() == 256

    compare(
        "verify 1 GiB beside one core",
        ours=ours,
        peers={"hashlib": theirs},
        work=lambda: None,
        rows=256,
        rounds=5,
        target=Target(bound=1.7),
    )


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of a million blobs, as far as presence can tell."""
    root = tmp_path_factory.mktemp("million")
    for number in range(256):
        shard = root / f"{number:02x}"
        shard.mkdir()
        directory = os.open(shard, os.O_RDONLY)
        first = f"{0:062x}"
        os.close(os.open(first, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
        for name in range(1, 3907):
            os.link(first, f"{name:062x}", src_dir_fd=directory, dst_dir_fd=directory)
        os.close(directory)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("how", ["in", "exists"])
def bench_presence(million: Path, compare: Compare, how: str) -> None:
    blobs = ns.BlobStore(million, durability="normal")
    hashes = [f"{number % 256:02x}{number * 7 % 3907:062x}" for number in range(2000)]
    paths = [f"{million}/{name[:2]}/{name[2:]}" for name in hashes]
    assert all(name in blobs for name in hashes)

    def ours(_: None) -> None:
        if how == "in":
            for name in hashes:
                assert name in blobs
        else:
            for name in hashes:
                assert blobs.exists(name, verify=False)

    def theirs(_: None) -> None:
        for path in paths:
            assert os.stat(path)

    case = f"2,000 times presence among 1,000,000 ({how}) beside os.stat"
    most = Target(Kind.EXTRA, 5e-6 * 2000)
    compare(case, ours=ours, peers={"hashlib": theirs}, work=lambda: None, rows=2000, rounds=15, target=most)
    times = {}
    for name, run in (("ours", ours), ("os.stat", theirs)):
        rounds = []
        for _ in range(9):
            # The thread's own time: what it costs, not who else was let run meanwhile.
            start = time.thread_time()
            run(None)
            rounds.append((time.thread_time() - start) / 2000 * 1e6)
        times[name] = statistics.median(rounds)
    print(f"\n{how}: {times['ours']:.2f} us, os.stat: {times['os.stat']:.2f} us")
    assert times["ours"] - times["os.stat"] <= 5
