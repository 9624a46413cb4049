"""Power cuts on the real kernel in the middle of a campaign, and the controls that must lose something.

The store lies on an ext4 in a file. `EXT4_IOC_SHUTDOWN` stops it without writing what it was not told to flush; mounted
again, it has what a disk would have after a loss of power. The acknowledgements lie elsewhere: what was written there
before the cut began is what must have survived it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from programs.tagged import DAY_MS
from support.counts import note
from support.disks import PowerCutDisk, power_cut_disk
from support.faults import in_memory
from support.foreign import UPSTREAM_SCHEMA
from support.ledger import complaints, read_ledger
from support.processes import child_command, child_environment
from support.strace import strace

STEPS_BEGIN = {"migrate": '"begin"', "reopen": '"begin"'}
"""What a work must have said before its power may be cut, if that is not that the store is open."""
MOST_SECONDS = {"migrate": 0.25, "archive and rest": 1.5, "backup": 1.5, "backup and rest": 2, "backup put back": 1.5}
"""After which the power is cut at the latest, if not 0.7."""
DISK_MIB = 1024
"""Room for the work of a quick machine, and for the archive of it; the file is sparse."""
CUTS_A_DISK = 3
"""A store goes on after its first cuts."""


@dataclass
class Tally:
    """What was cut, and what came of it."""

    cuts: int = 0
    acknowledged: int = 0
    late: int = 0
    found: list[str] = field(default_factory=list)


def without_directory_syncs(scratch: Path) -> list[str]:
    """What to put before a command so that a flush of a directory of blobs reports success and does nothing."""
    blobs = scratch / "disk" / "data" / "blobs"
    directories = [blobs.parent, blobs, *(blobs / f"{number:02x}" for number in range(256))]
    paths = [option for directory in directories for option in ("-P", str(directory))]
    return strace(Path("/dev/null"), "fsync", ["fsync:retval=0"], *paths)


def without_syncs_of_the_backup(scratch: Path) -> list[str]:
    """The same of the directories of a backup."""
    backup = scratch / "disk" / "backup"
    directories = [backup.parent, backup, backup / "archive", backup / "archive" / "logs", backup / "blobs"]
    paths = [option for directory in directories for option in ("-P", str(directory))]
    return strace(Path("/dev/null"), "fsync", ["fsync:retval=0"], *paths)


def predecessors_database(path: Path, rows: int) -> list[list[Any]]:
    """A database as the predecessor leaves it; what it holds. For a directory that no store has open."""
    content = [
        [n, "up", f"t{n % 3}", f"run{n % 50}", f"p{n} ".ljust(n % 200, "y"), (1 + n % 11) * DAY_MS + n]
        for n in range(1, rows + 1)
    ]
    connection = sqlite3.connect(path)
    connection.executescript(f"PRAGMA journal_mode = WAL; {UPSTREAM_SCHEMA}")
    connection.executemany("INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?)", content)
    connection.commit()
    connection.close()
    os.sync()
    return content


def wait_for(path: Path, text: str, child: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while text not in (path.read_text("utf-8") if path.exists() else ""):
        assert child.poll() is None, f"the work has ended: {child.communicate()}"
        assert time.monotonic() < end, f"the work does not say {text}"
        time.sleep(0.005)


def cut(
    disk: PowerCutDisk,
    acknowledgements: Path,
    kind: str,
    writer: str,
    delay: float,
    before: list[str],
    **arguments: Any,
) -> None:
    """Let the work begin, cut the power after a while, and switch it on again."""
    path = str(disk.directory / "data")
    common = {"path": path, "acknowledgements": str(acknowledgements), "kind": kind, "writer": writer, "seconds": 60}
    child = subprocess.Popen(
        [*before, *child_command("work", **common, **arguments)],
        env=child_environment(),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = STEPS_BEGIN.get(kind, '"open"')
    wait_for(acknowledgements, f'"writer": "{writer}", {said}', child)
    time.sleep(delay)
    offset = acknowledgements.stat().st_size
    disk.cut_power()
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=60)
    with acknowledgements.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps({'cut': offset})}\n")
    disk.power_up()


@contextlib.contextmanager
def a_disk(scratch: Path) -> Iterator[tuple[PowerCutDisk, Path]]:
    with in_memory(scratch, DISK_MIB << 21) as memory, power_cut_disk(memory, size_mib=DISK_MIB) as disk:
        yield disk, memory / "acknowledgements"


def cut_power(
    scratch: Path,
    kind: str,
    cuts: int,
    *,
    seed: int = 0,
    before: Callable[[Path], list[str]] = lambda _: [],
    **arguments: Any,
) -> Tally:
    """Cut the power of a kind of work so many times, and check the store after each."""
    random = Random(f"{kind} {seed}")
    tally = Tally()
    a_store = 1 if kind in ("migrate", "checkpoint") else CUTS_A_DISK
    for first in range(0, cuts, a_store):
        with a_disk(scratch) as (disk, acknowledgements):
            data = disk.directory / "data"
            data.mkdir()
            os.sync()
            upstream = predecessors_database(data / "logs.db", 30_000) if kind == "migrate" else None
            acknowledged = 0
            for number in range(first, min(first + a_store, cuts)):
                delay = random.uniform(0, MOST_SECONDS.get(kind, 0.7))
                cut(
                    disk,
                    acknowledgements,
                    kind,
                    f"s{seed}-{number}",
                    delay,
                    before(acknowledgements.parent),
                    **arguments,
                )
                ledger = read_ledger(acknowledgements, power=True)
                kept = Path(shutil.copytree(data, acknowledgements.with_name("kept"), dirs_exist_ok=True))
                found = complaints(data, ledger, upstream)
                acknowledged, tally.late = ledger.count, tally.late + ledger.late
                tally.cuts += 1
                tally.found += [f"{kind}, cut {number}: {each}" for each in found]
                if found:
                    # As the power cut left it.
                    shutil.copytree(kept, scratch / f"cut-{number}", dirs_exist_ok=True)
                    shutil.copy(acknowledgements, scratch / f"cut-{number}")
                    break
                shutil.rmtree(kept)
            tally.acknowledged += acknowledged
    note(
        "power cuts",
        kind,
        cuts=tally.cuts,
        acknowledgements=tally.acknowledged,
        late=tally.late,
        complaints=len(tally.found),
    )
    return tally
