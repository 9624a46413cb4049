"""Keeping house among blobs: `verify` with its quarantine, `collect`, the sweep, and all of it at once by many."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

import nerve_store as ns
from support import child_environment, is_one_line, tree
from support.blobs import HASH, command, place, sha256, staged
from support.disks import read_only_directory

T = TypeVar("T")


def quarantine(blobs: ns.BlobStore) -> Path:
    return Path(blobs.root, ".quarantine")


def age(blobs: ns.BlobStore, blob_hash: str, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(place(blobs, blob_hash), (moment, moment))


# --- verify ------------------------------------------------------------------------------------------------------


def test_what_is_damaged_is_moved_aside_and_healed_by_the_next_write(blobs: ns.BlobStore) -> None:
    contents = [b"%d" % number * 300 for number in range(300)]
    hashes = blobs.write_many(contents)
    assert blobs.verify() == ns.BlobVerifyReport(300, sum(map(len, contents)), ())
    damaged = sorted(hashes[:20])
    for turn in range(1, 3):
        for blob_hash in damaged:
            place(blobs, blob_hash).write_bytes(b"damaged")
        found = blobs.verify()
        assert not found.ok
        assert found.blob_count == 300
        assert [problem.hash for problem in found.problems] == damaged
        for problem in found.problems:
            assert problem.hash is not None
            assert problem.actual_hash == sha256(b"damaged")
            assert problem.path == str(place(blobs, problem.hash))
            assert is_one_line(Exception(problem.reason))
            name = problem.hash if turn == 1 else f"{problem.hash}.{turn}"
            assert problem.quarantine == str(quarantine(blobs) / name)
            assert Path(problem.quarantine).read_bytes() == b"damaged"
            assert blobs.read(problem.hash) is None
        assert blobs.verify() == ns.BlobVerifyReport(280, sum(map(len, contents[20:])), ())
        assert blobs.write_many(contents) == hashes
        assert [blobs.read(blob_hash) for blob_hash in hashes] == contents
        assert list(blobs) == sorted(hashes)


def test_a_thousand_flipped_bits_are_each_found(blobs: ns.BlobStore) -> None:
    chance = random.Random(1)
    contents = [chance.randbytes(size) for size in (1, 64, 5000, 256 * 1024, 700_000)]
    hashes = blobs.write_many(contents)
    for turn in range(1000):
        number = chance.randrange(len(contents)) if turn % 20 == 0 else chance.randrange(3)
        content, path = contents[number], place(blobs, hashes[number])
        at, bit = chance.randrange(len(content)), 1 << chance.randrange(8)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([content[at] ^ bit]))
        with pytest.raises(ns.BlobCorruptError):
            blobs.read(hashes[number])
        with blobs.open(hashes[number]) as stream, pytest.raises(ns.BlobCorruptError):
            list(iter(lambda: stream.read(100_000), b""))
        assert not blobs.exists(hashes[number])
        (problem,) = blobs.verify().problems
        assert problem.hash == hashes[number]
        assert blobs.write(content) == hashes[number]
        assert blobs.read(hashes[number]) == content
    assert len(list(quarantine(blobs).iterdir())) == 1000


def test_a_store_that_may_not_be_written_is_verified_in_place(blobs: ns.BlobStore, tmp_path: Path) -> None:
    place(blobs, blobs.write("x")).write_bytes(b"y")
    before = tree(tmp_path)
    (problem,) = ns.BlobStore(blobs.root, read_only=True).verify().problems
    assert (problem.hash, problem.quarantine) == (HASH, None)
    with read_only_directory(Path(blobs.root)):
        (problem,) = ns.BlobStore(blobs.root).verify().problems
        assert (problem.hash, problem.quarantine) == (HASH, None)
    assert tree(tmp_path) == before
    assert ns.BlobStore(tmp_path / "missing").verify() == ns.BlobVerifyReport(0, 0, ())


def test_progress_is_told_in_bytes_and_may_stop_it(blobs: ns.BlobStore) -> None:
    blobs.write_many(bytes([number]) * 3_000_000 for number in range(40))
    told: list[tuple[int, int]] = []
    blobs.verify(progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 120_000_000)
    assert told[-1] == (120_000_000, 120_000_000)
    assert told == sorted(told)
    assert all(done <= total for done, total in told)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blobs.verify(progress=stop)
    with pytest.raises(TypeError, match="progress"):
        blobs.verify(progress=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress"):
        blobs.collect([], progress=3)  # type: ignore[arg-type]


# --- collect -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_nobody_keeps_and_is_old_is_deleted(tmp_path: Path, durability: str) -> None:
    blobs = ns.BlobStore(tmp_path / "blobs", durability=durability)  # type: ignore[arg-type]
    kept, old, young = (blobs.write_many(f"{kind} {number}" for number in range(40)) for kind in ("kept", "old", "new"))
    for blob_hash in kept + old:
        age(blobs, blob_hash, 4000)
    absent = sha256(b"absent")
    told: list[tuple[int, int]] = []
    size = sum(blobs.size(blob_hash) for blob_hash in old)
    expected = ns.CollectReport(40, size, 40, 40, (absent,), dry_run=True)
    keep = [*kept, absent, kept[0].upper()]
    assert blobs.collect(iter(keep), dry_run=True) == expected
    assert len(list(blobs)) == 120
    report = blobs.collect(keep, progress=lambda done, total: told.append((done, total)))
    assert report == ns.CollectReport(40, size, 40, 40, (absent,))
    assert list(blobs) == sorted(kept + young)
    assert told[0] == (0, 256)
    assert told[-1] == (256, 256)
    # What was deleted is not vouched for.
    assert blobs.write_many(f"old {number}" for number in range(40)) == old
    assert [blobs.read(blob_hash) for blob_hash in old] == [b"old %d" % number for number in range(40)]
    assert blobs.collect([], grace=timedelta(0)).deleted_count == 120
    assert list(blobs) == []


def test_a_wrong_list_deletes_nothing(blobs: ns.BlobStore) -> None:
    blobs.write("x")
    age(blobs, HASH, 8000)
    for wrong, error in (([HASH[:-1]], ValueError), (["../x"], ValueError), ([1], TypeError), (HASH, ValueError),
                         (None, TypeError), ([HASH.encode()], TypeError)):  # fmt: skip
        with pytest.raises(error):
            blobs.collect(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        blobs.collect([], grace=timedelta(seconds=-1))
    with pytest.raises(ns.StoreIOError, match="read_only"):
        ns.BlobStore(blobs.root, read_only=True).collect([])
    assert ns.BlobStore(blobs.root, read_only=True).collect([], dry_run=True).deleted_count == 1
    assert HASH in blobs


def test_the_grace_is_kept_to_the_second(blobs: ns.BlobStore) -> None:
    for seconds, deleted in ((3590, 0), (3610, 1)):
        blobs.write("x")
        age(blobs, HASH, seconds)
        assert blobs.collect([]).deleted_count == deleted
    blobs.write("x")
    age(blobs, HASH, -3600)  # a clock that ran ahead
    assert blobs.collect([]).young_count == 1


# --- who comes second sees what the first did ----------------------------------------------------------------------


class Held:
    """A shard's lock, held as another process would hold it, while something waits for it."""

    def __init__(self, blobs: ns.BlobStore, kind: int) -> None:
        self._directory = os.open(place(blobs, HASH).parent, os.O_RDONLY)
        fcntl.flock(self._directory, kind)

    def release_to(self, waiting: Callable[[], T], before: Callable[[], object]) -> T:
        """Start `waiting`, see that it waits, do `before`, let go."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(waiting)
            time.sleep(0.3)
            assert not future.done(), "it did not take the lock"
            before()
            os.close(self._directory)
            return future.result(timeout=30)


def test_a_writer_sees_that_a_collector_was_faster(blobs: ns.BlobStore) -> None:
    path = place(blobs, blobs.write("x"))
    for writer in (blobs, ns.BlobStore(blobs.root)):
        age(blobs, HASH, 8000)
        assert Held(blobs, fcntl.LOCK_EX).release_to(partial(writer.write, "x"), path.unlink) == HASH
        assert blobs.read(HASH) == b"x"


def test_a_collector_sees_that_a_writer_was_faster(blobs: ns.BlobStore) -> None:
    path = place(blobs, blobs.write("x"))
    age(blobs, HASH, 8000)
    report = Held(blobs, fcntl.LOCK_SH).release_to(lambda: blobs.collect([]), lambda: os.utime(path))
    assert (report.deleted_count, report.young_count) == (0, 1)
    assert blobs.read(HASH) == b"x"


def test_a_verifier_sees_that_a_writer_has_healed(blobs: ns.BlobStore, tmp_path: Path) -> None:
    path = place(blobs, blobs.write("x"))
    path.write_bytes(b"y")
    (tmp_path / "healed").write_bytes(b"x")
    report = Held(blobs, fcntl.LOCK_SH).release_to(blobs.verify, lambda: (tmp_path / "healed").rename(path))
    assert report == ns.BlobVerifyReport(1, 1, ())
    assert blobs.read(HASH) == b"x"


def test_neither_a_delete_nor_a_repair_comes_between_a_collectors_look_and_its_deletion(blobs: ns.BlobStore) -> None:
    path = place(blobs, blobs.write("x"))
    assert Held(blobs, fcntl.LOCK_EX).release_to(lambda: blobs.delete(HASH), lambda: None)
    blobs.write("x")
    path.write_bytes(b"damaged")
    assert Held(blobs, fcntl.LOCK_EX).release_to(lambda: blobs.write("x"), path.unlink) == HASH
    assert blobs.read(HASH) == b"x"


# --- the sweep ---------------------------------------------------------------------------------------------------


def test_opening_sweeps_what_dead_writers_staged_a_day_ago(blobs: ns.BlobStore) -> None:
    blobs.write("x")
    staging = Path(blobs.root, ".staging")
    for name, days in ((".stage-dead", 1.1), (".stage-alive", 0.9), ("foreign", 9.0)):
        (staging / name).write_bytes(b"torn")
        moment = time.time() - days * 86_400
        os.utime(staging / name, (moment, moment))
    ns.BlobStore(blobs.root, read_only=True)
    assert sorted(staged(blobs)) == [".stage-alive", ".stage-dead", "foreign"]
    again = ns.BlobStore(blobs.root)
    assert sorted(staged(blobs)) == [".stage-alive", "foreign"]
    assert again.read(HASH) == b"x"


# --- everything at once ------------------------------------------------------------------------------------------

CROWD = """
import random, threading, time
from datetime import timedelta
seed, seconds = int(sys.argv[3]), float(sys.argv[4])
blobs = ns.BlobStore(sys.argv[1], durability=sys.argv[2])
# Some are everybody's and are deleted by anybody; those that are kept are written, collected around, and never lost.
shared = [bytes([number]) * (1 + number * 4000) for number in range(24)]
kept = [b"kept %d" % number * 50 for number in range(24)]
names = {ns.blob_hash(content): content for content in shared + kept}
kept_names = {ns.blob_hash(content) for content in kept}
problems = []
say("ready")
sys.stdin.read(1)
end = time.monotonic() + seconds

def work(number):
    chance = random.Random(seed * 100 + number)
    mine = {}
    turn = 0
    while time.monotonic() < end and not problems:
        turn += 1
        act = chance.randrange(12)
        content = chance.choice(shared + kept)
        name = ns.blob_hash(content)
        if act < 3:
            assert blobs.write(content, verify=act == 0) == name
        elif act == 3:
            some = chance.sample(shared + kept, 6)
            assert blobs.write_many(some) == [ns.blob_hash(one) for one in some]
        elif act == 4:
            with blobs.writer() as writer:
                writer.write(content)
            assert writer.hash == name
        elif act == 5 and name not in kept_names:
            blobs.delete(name)
        elif act == 6:
            blobs.collect(kept_names, grace=timedelta(seconds=60))
        elif act == 7 and turn % 3 == 0:
            found = blobs.verify()
            assert found.ok, found
        elif act == 8:
            # Old enough to be collected, written again: from here on it has its grace, whoever collects meanwhile.
            fresh = b"own %d %d" % (seed * 100 + number, turn % 5)
            own = blobs.write(fresh)
            try:
                os.utime(f"{sys.argv[1]}/{own[:2]}/{own[2:]}", (0, 0))
            except FileNotFoundError:
                problems.append("collected within its grace")
            assert blobs.write(fresh) == own
            assert blobs.read(own) == fresh, "collected within its grace"
            mine[own] = fresh
        else:
            found = blobs.read(name)
            assert found in (content, None), "wrong bytes"
            if found is not None:
                mine[name] = content
        if act in (0, 1, 2, 4) and name in kept_names:
            assert blobs.read(name) == content, "a kept blob was lost"
        if turn % 40 == 0:
            listed = list(blobs)
            assert listed == sorted(set(listed))
            for name in set(listed) & set(mine):
                assert blobs.read(name) in (mine[name], None), "wrong bytes"

def guarded(number):
    try:
        work(number)
    except BaseException as error:
        problems.append(f"{type(error).__name__}: {error}".replace("\\n", " "))

threads = [threading.Thread(target=guarded, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
say("; ".join(problems) or "done")
"""


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.torture)])
def test_four_processes_of_eight_threads_agree_with_a_model(tmp_path: Path, seconds: int) -> None:
    root = tmp_path / "blobs"
    crowd = [
        subprocess.Popen(
            command(CROWD, root, durability, seed, seconds),
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, durability in enumerate(("full", "normal", "normal", "full"))
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("g")
        process.stdin.flush()
    said = [process.communicate(timeout=seconds + 120)[0] for process in crowd]
    assert said == ["done\n"] * 4
    blobs = ns.BlobStore(root)
    assert blobs.verify().ok
    assert not (root / ".quarantine").exists()
    assert staged(blobs) == []
    kept = {sha256(b"kept %d" % number * 50) for number in range(24)}
    blobs.collect(kept, grace=timedelta(0))
    assert set(blobs) <= kept
