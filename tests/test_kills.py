"""Processes at mixed work on one directory are killed at random: nothing that one of them acknowledged is lost."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

import nerve_store as ns
from support.counts import amount, note
from support.faults import in_memory
from support.ledger import Ledger, complaints, complaints_about_follower, read_ledger
from support.processes import child_command, child_environment

WORKERS = 3
"""Beside a process that follows the log."""
KILLS_A_STORE = 50
"""After so many the store is checked, and another one begun."""


class Processes:
    """Processes that work on one directory, and are started again when they were killed."""

    def __init__(self, directory: Path, acknowledgements: Path, **arguments: Any) -> None:
        self.common = {"path": str(directory), "acknowledgements": str(acknowledgements)}
        self.acknowledgements = acknowledgements
        self.arguments = arguments
        self.started = 0
        self.running = [self.start(at) for at in range(WORKERS + 1)]

    def start(self, at: int) -> subprocess.Popen[bytes]:
        self.started += 1
        writer = f"w{at}-{self.started}"
        if at < WORKERS:
            command = child_command("work_among_others", writer=writer, **self.common, **self.arguments)
        else:
            followed = read_ledger(self.acknowledgements, power=False).followed
            command = child_command("follow", writer=writer, after_id=followed[-1] if followed else 0, **self.common)
        return subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def kill(self, at: int, *, last: bool = False) -> None:
        process = self.running[at]
        assert process.poll() is None, f"a process has ended by itself: {process.communicate()[1].decode()}"
        process.kill()
        process.communicate(timeout=60)
        if not last:
            self.running[at] = self.start(at)

    def kill_all(self) -> None:
        for at in range(WORKERS + 1):
            self.kill(at, last=True)


def killed(scratch: Path, kills: int, seed: int, **arguments: Any) -> tuple[list[str], Ledger]:
    """What is wrong after so many kills, and what was acknowledged until then."""
    random = Random(seed)
    directory, acknowledgements = scratch / "data", scratch / "acknowledgements"
    directory.mkdir()
    processes = Processes(directory, acknowledgements, **arguments)
    for _ in range(kills - WORKERS - 1):
        time.sleep(random.uniform(0.02, 0.5))
        processes.kill(random.randrange(WORKERS + 1))
    time.sleep(0.5)
    processes.kill_all()
    ledger = read_ledger(acknowledgements, power=False)
    with ns.LogStore(directory / "logs.db") as logs:
        rows = logs.query(archived=True)
    return [*complaints_about_follower(ledger, rows), *complaints(directory, ledger)], ledger


def assert_nothing_lost(tmp_path: Path, kills: int, seed: int) -> None:
    with in_memory(tmp_path) as scratch:
        found, ledger = killed(scratch, kills, seed)
    note("kills", str(seed), kills=kills, acknowledgements=ledger.count, followed=len(ledger.followed))
    assert found == []
    assert ledger.rows
    assert ledger.runs
    assert ledger.blobs
    assert ledger.followed


def test_kills_among_processes_lose_nothing(tmp_path: Path) -> None:
    assert_nothing_lost(tmp_path, 12, 0)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1, amount(10) + 1))
def test_many_kills_among_processes_lose_nothing(tmp_path: Path, seed: int) -> None:
    assert_nothing_lost(tmp_path, KILLS_A_STORE, seed)


def test_kills_catch_an_acknowledgement_that_comes_too_early(tmp_path: Path) -> None:
    for seed in range(5):
        with in_memory(tmp_path) as scratch:
            found, _ = killed(scratch, 10, seed, early=True)
        if any("lost row of tag" in each for each in found):
            return
    pytest.fail("a row that was acknowledged before it was there was never lost")
