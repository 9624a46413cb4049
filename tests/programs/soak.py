"""Everything that a store does, at once in one process, and what the process takes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Literal

import nerve_store as ns
from programs import say

DAY_MS = 86_400_000
SAMPLES_A_SECOND = 2
MOST_DAYS, FEWEST_DAYS = 30, 20
"""Archived days that are kept: with their number the database grows, and what the connections cache of it."""


class _Allocations(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "top",
        )
    )


def allocated() -> int | None:
    """Bytes that the process has asked for and not given back; None where the C library does not tell.

    To be run with `PYTHONMALLOC=malloc`, so that those of Python's objects are among them.
    """
    tell = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if tell is None:
        return None
    tell.restype = _Allocations
    found = tell()
    return int(found.uordblks + found.hblkhd)


class Soak:
    """A store in use; the data that it keeps in the database and in blobs stays about the same."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.logs = ns.LogStore(self.path / "logs.db")
        self.blobs = ns.BlobStore(self.path / "blobs")
        # What a claim logs has the time of the clock: it is archived with the first day.
        self.day = int(time.time() * 1000) // DAY_MS + 1
        self.stop = threading.Event()
        self.failures: list[BaseException] = []

    def row(self, random: Random) -> tuple[str, str, str | None, str, int]:
        payload = "x" * random.randrange(400)
        return ("source", f"type-{random.randrange(3)}", f"ref-{random.randrange(50)}", payload, self.day * DAY_MS)

    # --- what goes on; each is done again and again by a thread ---

    def append(self, random: Random) -> None:
        self.logs.append(*self.row(random), durability=random.choice(["full", "normal"]))
        time.sleep(0.002)

    def append_many(self, random: Random) -> None:
        self.logs.append_many([self.row(random) for _ in range(100)])
        time.sleep(0.1)

    def run(self, random: Random) -> None:
        run_id = f"run-{random.randrange(1000)}"
        run = ns.WorkflowRun(run_id, "work", ns.WorkflowRunStatus.QUEUED, self.day * DAY_MS)
        self.logs.upsert_workflow_run(("workflow", "queued", run_id, None, self.day * DAY_MS), run, force=True)
        for status in ("started", "completed"):
            self.logs.transition(run_id, status, timestamp=self.day * DAY_MS)
        self.logs.get_active_workflow_runs()
        time.sleep(0.05)

    def claim(self, random: Random) -> None:
        run_id = f"claim-{random.randrange(20)}"
        self.logs.create_workflow_run(run_id, "claimed", timestamp=self.day * DAY_MS, exist_ok=True)
        claim = self.logs.claim_workflow_run("worker", workflow="claimed")
        if claim is not None:
            claim = self.logs.renew_claim(claim, lease=90)
            if random.randrange(4) == 0:
                self.logs.release_claim(claim)
            else:
                self.logs.transition(claim.run.run_id, "completed", timestamp=self.day * DAY_MS, claim=claim)
        self.stop.wait(0.5)

    def batch(self, random: Random) -> None:
        with self.logs.batch() as batch:
            # A key is remembered for seven days.
            batch.append("source", "keyed", timestamp=self.day * DAY_MS, key=f"key-{random.randrange(50)}")
            batch.append_many([self.row(random) for _ in range(10)])
            batch.set_meta(f"key-{random.randrange(50)}", "value")
            batch.delete_meta(f"key-{random.randrange(50)}")
        time.sleep(0.05)

    def back_up(self, _random: Random) -> None:
        copy = self.path.with_name("copy")
        with ns.Store(self.path) as store:
            assert store.backup(copy).ok
        shutil.rmtree(copy)
        self.stop.wait(5)

    def archive(self, random: Random) -> None:
        self.day += 1
        compression: Literal["zstd"] | None = random.choice([None, "zstd"])
        vacuum: Literal["incremental"] | bool = random.choice([False, "incremental"])
        self.logs.archive_logs(now=self.day * DAY_MS, retention=timedelta(0), compression=compression, vacuum=vacuum)
        days = self.logs.archived_days()
        if len(days) > MOST_DAYS:
            self.logs.expire_archive(before=days[-FEWEST_DAYS].day)
        self.logs.delete_workflow_runs(before=self.day * DAY_MS, workflow="claimed")
        self.stop.wait(1)

    def write_blobs(self, random: Random) -> None:
        contents = [f"blob {random.randrange(200)} ".encode() * 500 for _ in range(5)]
        hashes = [*self.blobs.write_many(contents[:4]), self.blobs.write(contents[4])]
        assert [self.blobs.read(blob_hash) for blob_hash in hashes] == contents
        time.sleep(0.05)

    def collect(self, random: Random) -> None:
        garbage = self.blobs.write(f"garbage {random.random()}")
        os.utime(self.path / "blobs" / garbage[:2] / garbage[2:], (0, 0))
        self.blobs.collect([], grace=timedelta(hours=1))
        assert self.blobs.verify().ok
        self.stop.wait(0.5)

    def read(self, random: Random) -> None:
        newest = self.logs.query(descending=True, limit=1)
        after_id = max(0, newest[0].id - 5000) if newest else 0
        self.logs.query(after_id=after_id, archived=True, limit=1000)
        self.logs.query(ref_id=f"ref-{random.randrange(50)}", after_id=after_id, archived=True)
        for _ in itertools.islice(self.logs.iter(after_id=after_id, descending=True), 100):
            pass
        self.logs.count(type="type-1")
        self.logs.sql("SELECT count(*) FROM workflow_runs")
        time.sleep(0.05)

    def look_after(self, _random: Random) -> None:
        self.logs.stats()
        self.logs.archived_days()
        with ns.LogStore(self.path / "logs.db") as other:
            other.append("source", "other", None, None, self.day * DAY_MS)
        self.stop.wait(0.5)

    def follow(self, _random: Random) -> None:
        newest = self.logs.query(descending=True, limit=1)
        for _ in itertools.islice(self.logs.follow(after_id=newest[0].id if newest else 0, poll_interval=0.01), 300):
            if self.stop.is_set():
                break

    def be_asynchronous(self, random: Random) -> None:
        async def work() -> None:
            async with ns.AsyncStore(self.path) as store:
                while not self.stop.is_set():
                    await asyncio.gather(*(store.logs.append(*self.row(random)) for _ in range(20)))
                    await store.logs.query(limit=10, descending=True)
                    contents = [f"blob {random.randrange(200)} ".encode() * 500 for _ in range(5)]
                    hashes = await asyncio.gather(*map(store.blobs.write, contents))
                    assert [await store.blobs.read(blob_hash) for blob_hash in hashes] == contents
                    await asyncio.sleep(0.2)

        asyncio.run(work())

    # --- all of it ---

    def again(self, work: Callable[[Random], None], seed: int) -> None:
        random = Random(seed)
        try:
            while not self.stop.is_set():
                with contextlib.suppress(ns.StoreBusyError):
                    work(random)
        except BaseException as error:  # noqa: BLE001 - said by the main thread.
            self.failures.append(error)
            self.stop.set()

    def threads(self) -> list[threading.Thread]:
        works = [
            *(self.append, self.append, self.append_many, self.run, self.archive, self.write_blobs, self.collect),
            *(self.claim, self.batch, self.back_up, self.read, self.look_after, self.follow, self.be_asynchronous),
        ]
        return [threading.Thread(target=self.again, args=(work, seed)) for seed, work in enumerate(works)]

    def sample(self) -> dict[str, int | None]:
        log = self.path / "logs.db-wal"
        return {
            "allocated": allocated(),
            "memory": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
            "log": os.stat(log).st_size if log.exists() else 0,
        }


def soak(*, path: str, seconds: float, leak: bool = False) -> None:
    """Do everything for so long, and say what the process takes, some times a second. Leak: the control."""
    soak = Soak(path)
    threads = soak.threads()
    for thread in threads:
        thread.start()
    leaked: list[object] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not soak.stop.wait(1 / SAMPLES_A_SECOND):
        say(soak.sample())
        if leak:
            leaked += [bytearray(b"x" * (4 << 20)), *(os.open(os.devnull, os.O_RDONLY) for _ in range(5))]
    soak.stop.set()
    for thread in threads:
        while thread.is_alive():
            # What a follower waits for, which may have begun after the rows before.
            soak.logs.append_many([("source", "last", None, None, soak.day * DAY_MS)] * 300)
            thread.join(timeout=1)
    if soak.failures:
        raise soak.failures[0]
    assert soak.logs.verify().ok
    soak.logs.close()
