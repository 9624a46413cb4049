"""Everything at once for long: memory, descriptors, threads and the write-ahead log do not grow."""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.counts import LONG, note
from support.processes import child_command, child_environment

LOG_CAP = 16 << 20
"""What docs/durability.md promises: no transaction here is large, and no read lasts."""
MOST_DRIFT = {"allocated": 1.05, "memory": 1.05, "descriptors": 1.05, "threads": 1.05}
FLUCTUATION = {"allocated": 0, "memory": 0, "descriptors": 4, "threads": 4}
"""How many more there may be by chance: files that are open at the moment of a sample."""

ALLOCATOR = {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "2"}
"""Python asks the C library for all of its memory, so that what is in use can be told. glibc keeps what was freed in
arenas, eight a processor, each as large as it ever was: with all of them a process grows for long without a leak.
"""

Samples = list[dict[str, Any]]


def soaked(scratch: Path, seconds: float, **arguments: Any) -> Samples:
    """What a process took that did everything at once for so long."""
    command = child_command("soak", path=str(scratch / "data"), seconds=seconds, **arguments)
    environment = child_environment() | ALLOCATOR
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=seconds * 2 + 120
    )
    # Kept with what else a failed test leaves.
    (scratch / "samples.jsonl").write_text(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def median(samples: Samples, name: str, begin: float, end: float) -> float:
    part = samples[int(len(samples) * begin) : int(len(samples) * end)]
    return float(statistics.median(sample[name] for sample in part))


def complaints(samples: Samples) -> list[str]:
    """What has grown between the middle and the end."""
    found = []
    for name, most in MOST_DRIFT.items():
        if samples[0][name] is None:
            continue
        middle, last = median(samples, name, 0.4, 0.6), median(samples, name, 0.8, 1)
        note("soak", name, **{f"{name} in the middle": round(middle), f"{name} at the end": round(last)})
        if last > middle * most + FLUCTUATION[name]:
            found.append(f"{name} has grown from {middle:,.0f} to {last:,.0f}")
    largest = max(sample["log"] for sample in samples)
    note("soak", "write-ahead log", bytes=largest)
    if largest > LOG_CAP:
        found.append(f"the write-ahead log took {largest:,} bytes")
    return found


def test_everything_at_once_goes_well(tmp_path: Path) -> None:
    """Too short for figures but that of the log."""
    samples = soaked(tmp_path, 4)
    assert len(samples) >= 2
    assert max(sample["log"] for sample in samples) <= LOG_CAP


@pytest.mark.torture
def test_nothing_grows_in_a_long_time(tmp_path: Path) -> None:
    # The caches of all connections are full after a minute.
    assert complaints(soaked(tmp_path, 1800 if LONG else 180)) == []


def test_soak_catches_what_leaks(tmp_path: Path) -> None:
    samples = soaked(tmp_path, 6, leak=True)
    named = [complaint.split()[0] for complaint in complaints(samples)]
    assert {"memory", "descriptors"} <= set(named)
    assert "allocated" in named or samples[0]["allocated"] is None
