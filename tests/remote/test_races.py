"""Old blobs are written again beside a collector that never rests: no acknowledged write is lost.

The same sweep with the two rules that look right, and that lose blobs, is its control.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from support import objects
from support.counts import note, scaled

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote.blobs import turns
from remote.controls import CONTROLS

RACES = scaled(800, long=10_000)
WRITERS = 4
OWN_BLOBS = 50
"""Blobs of each writer: what is deleted is there again when its turn comes."""


class Collector:
    """A thread that collects without end, and counts what it did."""

    def __init__(self, blobs: Any) -> None:
        self._blobs = blobs
        self._ended = threading.Condition()
        self._is_over = False
        self._pool = ThreadPoolExecutor(1)
        self.round_count = 0
        self.deleted_count = 0

    def __enter__(self) -> Self:
        self._work = self._pool.submit(self._collect_all)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._pool.shutdown()
        self._work.result()

    def _collect_all(self) -> None:
        while not self._is_over:
            self.deleted_count += self._blobs.collect([]).deleted_count
            with self._ended:
                self.round_count += 1
                self._ended.notify_all()

    def wait_for_the_end_of_this_round(self) -> None:
        """Return once the collection that runs now has ended; the next one lists what was stored before it."""
        with self._ended:
            now = self.round_count
            assert self._ended.wait_for(lambda: self.round_count > now, 60)


def raced(place: Place, objects_path: Path, races: int) -> tuple[int, Collector]:
    """Write old blobs again beside a collector; how many that were acknowledged were lost, and what it deleted."""
    contents = [b"%d" % number for number in range(WRITERS * OWN_BLOBS)]

    def age(hash: str) -> None:
        with suppress(FileNotFoundError):  # collected
            os.utime(objects_path / hash[:2] / hash[2:], (0, 0))

    def write_again(number: int) -> int:
        chance, own, lost = random.Random(number), place.open(), 0
        for race in range(races // WRITERS):
            content = contents[number * OWN_BLOBS + race % OWN_BLOBS]
            if race < OWN_BLOBS:
                own.write(content)
            age(ns.blob_hash(content))
            time.sleep(chance.random() / 200)
            hash = own.write(content)
            # It is young now: nobody may delete it for half an hour.
            collector.wait_for_the_end_of_this_round()
            lost += own.read(hash) is None
        return lost

    with Collector(place.open()) as collector, ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(write_again, range(WRITERS))), collector


@pytest.fixture(params=["file", "s3-versitygw"])
def aging(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Place, Path]:
    """A place whose objects are files, and the directory in which their age can be set."""
    # A collection of so few blobs takes milliseconds, and so should the wait for its end.
    monkeypatch.setattr(turns, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(turns, "_LONGEST_PAUSE", 0.005)
    place = made(request.param, tmp_path)
    if request.param == "file":
        return place, place.path
    return place, objects.shared("versitygw").directory / place.url.removeprefix("s3://")


def test_writes_beside_a_collector_that_never_rests(aging: tuple[Place, Path]) -> None:
    place, path = aging
    lost, collector = raced(place, path, RACES)
    note("collector races", place.name, writes=RACES, lost=lost, deleted=collector.deleted_count)
    # The collector did meet old blobs: otherwise nothing was tried.
    assert collector.deleted_count > RACES / 20
    assert lost == 0


@pytest.mark.parametrize("control", CONTROLS)
def test_rules_without_the_lease_lose_blobs_and_the_check_sees_it(
    aging: tuple[Place, Path], monkeypatch: pytest.MonkeyPatch, control: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The control of the test above."""
    control(monkeypatch)
    lost = writes = 0
    while not lost and writes < 16_000:
        writes += 800
        lost += raced(*aging, 800)[0]
    note("collector races, control", f"{control.__name__}, {aging[0].name}", writes=writes, lost=lost)
    assert lost
