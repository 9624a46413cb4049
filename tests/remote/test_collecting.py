"""Deleting blobs while others write them: no acknowledged write is lost."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import PLACES, Place, made

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote.blobs import collect, turns, write
from nerve_store.remote.blobs.keys import COLLECTING
from nerve_store.remote.bucket import Bucket, Found
from remote.controls import CONTROLS

Patch = pytest.MonkeyPatch
HASH = ns.blob_hash(b"x")


@pytest.fixture(params=PLACES[1:])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return made(request.param, tmp_path)


def collect_between(patch: Patch, during: Callable[[], None]) -> None:
    """Have something happen after a collector has listed and before it deletes."""
    original = collect.Collection._delete

    def delete(self: Any, old: list[Found], held: Any) -> bool:
        during()
        return original(self, old, held)

    patch.setattr(collect.Collection, "_delete", delete)


@pytest.mark.parametrize("control", [None, *CONTROLS])
def test_blob_that_is_written_again_amid_a_collection_is_not_lost(
    place: Place, monkeypatch: Patch, control: Callable[[Patch], None] | None
) -> None:
    """The two rules that look right without the lease lose it: they are the controls."""
    blobs, writer = place.open(), place.open()
    assert blobs.write("x") == HASH
    monkeypatch.setattr(write, "is_young", lambda found, grace: False)
    if control is not None:
        control(monkeypatch)
    put = threading.Event()
    original = Bucket.put

    def noticed(self: Bucket, key: str, data: bytes) -> None:
        original(self, key, data)
        put.set()

    monkeypatch.setattr(Bucket, "put", noticed)
    with ThreadPoolExecutor(1) as pool:
        writes: list[Any] = []

        def write_meanwhile() -> None:
            writes.append(pool.submit(writer.write, "x"))
            if control is not None:
                writes[0].result()
            else:
                assert put.wait(60)

        collect_between(monkeypatch, write_meanwhile)
        blobs.collect([], grace=timedelta(0))
        assert writes[0].result() == HASH
    assert (writer.read(HASH) == b"x") is (control is None)


def test_lease_of_a_collector_that_died_is_taken_over(place: Place, monkeypatch: Patch) -> None:
    monkeypatch.setattr(turns, "LEASE", 0.3)
    blobs = place.open()
    blobs.write("x")
    place.bucket().put(COLLECTING, b"of one that was killed")
    assert blobs.collect([], grace=timedelta(0)).deleted_count == 1
    assert place.bucket().head(COLLECTING) is None


def test_writer_waits_for_a_lease_and_no_longer_than_it_lasts(memory: Place, monkeypatch: Patch) -> None:
    monkeypatch.setattr(write, "is_young", lambda found, grace: False)
    blobs = memory.open()
    blobs.write("x")
    bucket = memory.bucket()
    bucket.put(COLLECTING, b"held")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(blobs.write, "x")
        time.sleep(0.3)
        assert not writing.done()
        bucket.delete([COLLECTING])
        assert writing.result(30) == HASH
        bucket.put(COLLECTING, b"held by one that died")
        monkeypatch.setattr(turns, "LEASE", 0.2)
        assert pool.submit(blobs.write, "x").result(30) == HASH


@pytest.mark.parametrize(("age", "is_waited_for"), [(0, True), (100, True), (130, False), (86_400, False)])
def test_lease_that_the_server_dates_long_ago_is_not_waited_for(
    directory: Place, monkeypatch: Patch, age: int, is_waited_for: bool
) -> None:
    """As one that a killed collector left, or one whose credentials may delete nothing."""
    watched: list[Found | None] = []
    monkeypatch.setattr(turns, "_watch", lambda bucket, first: watched.append(first))
    monkeypatch.setattr(write, "is_young", lambda found, grace: False)
    blobs = directory.open()
    blobs.write("x")
    directory.bucket().put(COLLECTING, b"left")
    then = time.time() - age
    os.utime(directory.path / COLLECTING, (then, then))
    assert blobs.write("x") == HASH
    assert len(watched) == is_waited_for


@pytest.mark.parametrize("call", ["write", "delete", "collect"])
def test_lease_that_has_run_out_is_waited_for_once(memory: Place, monkeypatch: Patch, call: str) -> None:
    monkeypatch.setattr(write, "is_young", lambda found, grace: False)
    monkeypatch.setattr(turns, "LEASE", 0.2)
    blobs, other = memory.open(), memory.open()
    blobs.write_many(["x", "y"])
    memory.bucket().put(COLLECTING, b"left")
    waits: list[float] = []
    original = time.sleep

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        original(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    blobs.write("x")
    assert waits
    waits.clear()
    match call:
        case "write":
            other.write("y")
        case "delete":
            assert other.delete(HASH)
        case _:
            assert other.collect([], grace=timedelta(0)).deleted_count == 2
    assert waits == []
    if call == "collect":
        # Another lease is another one's.
        memory.bucket().put(COLLECTING, b"held")
        monkeypatch.setattr(turns, "LEASE", 0.01)
        blobs.write("x")
        blobs.write("x")
        assert waits


def test_new_blobs_wait_for_nobody(memory: Place) -> None:
    blobs = memory.open()
    memory.bucket().put(COLLECTING, b"held")
    assert blobs.write("x") == blobs.write("x") == HASH


def test_two_collectors_take_turns(place: Place) -> None:
    blobs, other = place.open(), place.open()
    blobs.write_many(str(number) for number in range(60))
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda store: store.collect([], grace=timedelta(0)), (blobs, other)))
    assert sum(report.deleted_count for report in reports) == 60
    assert list(blobs) == []


def test_lease_that_has_no_time_left_begins_anew(memory: Place, monkeypatch: Patch) -> None:
    """A collection that takes longer than a lease goes on in the next one, and counts each blob once."""
    blobs = memory.open()
    contents = [b"%d" % number for number in range(1500)]
    hashes = blobs.write_many(contents)
    leases: list[datetime] = []
    original = turns.Turn.delete

    def delete(self: turns.Turn, keys: list[str]) -> None:
        original(self, keys)
        if self.began not in leases:
            leases.append(self.began)
        monkeypatch.setattr(turns, "ROUND", -1.0 if len(leases) < 4 and leases[-1] == self.began else 20.0)

    monkeypatch.setattr(turns.Turn, "delete", delete)
    taken = turns._taken

    def fresh(bucket: Bucket) -> Any:
        monkeypatch.setattr(turns, "ROUND", 20.0)
        return taken(bucket)

    monkeypatch.setattr(turns, "_taken", fresh)
    report = blobs.collect(hashes[:10], grace=timedelta(0))
    assert (report.deleted_count, report.kept_count, report.young_count) == (1490, 10, 0)
    assert len(leases) >= 4
    assert list(blobs) == sorted(hashes[:10])


def test_deletion_that_went_unanswered_leaves_the_lease_to_run_out(memory: Place, monkeypatch: Patch) -> None:
    """It may still arrive; a writer must not rely on what it stored before."""
    blobs = memory.open()
    blobs.write("x")
    error = ns.StoreUnavailableError("no answer")

    def delete(self: Bucket, keys: list[str]) -> None:
        if keys != [COLLECTING]:
            raise error
        original(self, keys)

    original = Bucket.delete
    monkeypatch.setattr(Bucket, "delete", delete)
    with pytest.raises(ns.StoreUnavailableError):
        blobs.collect([], grace=timedelta(0))
    assert memory.bucket().head(COLLECTING) is not None
    monkeypatch.setattr(turns, "LEASE", 0.2)
    monkeypatch.setattr(Bucket, "delete", original)
    assert blobs.collect([], grace=timedelta(0)).deleted_count == 1


def test_what_heals_a_damaged_blob_amid_verify_stays(memory: Place, monkeypatch: Patch) -> None:
    """The verifier reads once more under its lease, and a writer looks again when that has ended."""
    blobs, writer = memory.open(), memory.open()
    hash = blobs.write("content")
    memory.damage(hash, b"damaged")
    original = turns.Turn.delete
    with ThreadPoolExecutor(1) as pool:
        writes: list[Any] = []

        def delete(self: turns.Turn, keys: list[str]) -> None:
            # The latest moment: the damaged bytes are copied, and their deletion is under way.
            writes.append(pool.submit(lambda: writer.write("content", verify=True)))
            end = time.monotonic() + 60
            while memory.bucket().get(keys[0], longest=100) != b"content" and time.monotonic() < end:
                time.sleep(0.01)
            original(self, keys)

        monkeypatch.setattr(turns.Turn, "delete", delete)
        (problem,) = blobs.verify().problems
        assert problem.quarantine is not None
        assert writes[0].result() == hash
    assert writer.read(hash) == b"content"
    assert blobs.verify().ok


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_progress_that_raises_ends_the_collection_and_its_lease(place: Place, error: type[BaseException]) -> None:
    blobs = place.open()
    blobs.write_many(str(number) for number in range(1200))

    def stop(done: int, total: int) -> None:
        if done:
            raise error

    with pytest.raises(error):
        blobs.collect([], grace=timedelta(0), progress=stop)
    gc.collect()
    assert place.bucket().head(COLLECTING) is None
    assert 0 < len(list(blobs)) < 1200
    blobs.collect([], grace=timedelta(0))
    assert list(blobs) == []
