"""What a run was measured on: versions, processor, disk."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import apsw
import pytest

import nerve_store as ns
from workload import SCALE

ROOT = Path(__file__).parent.parent


def conditions(directory: Path) -> dict[str, str | int]:
    """The conditions of a run whose databases are in `directory`, flat, for the header and the JSON."""
    load = os.getloadavg()[0]
    return {
        "nerve_store": f"{ns.__version__} ({ns.BUILD_PROFILE}), SQLite {ns.SQLITE_VERSION}",
        "commit": commit(),
        "sqlite3": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "apsw": f"{apsw.apsw_version()}, SQLite {apsw.sqlite_lib_version()}",
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "disk": f"{file_system(directory)}, {flush_time(directory) * 1000:.2f} ms a flush (median), load {load:.1f}",
        "rows": SCALE,
    }


def commit() -> str:
    """The commit that is checked out, marked when files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's own name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system(directory: Path) -> str:
    """The file system under the databases; one in memory is refused."""
    command = ["df", "--output=fstype", str(directory)]
    name: str = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    if name in {"tmpfs", "ramfs"}:
        raise pytest.UsageError(f"{directory} is on {name}, where a flush costs nothing: give --basetemp on a disk")
    return name


def flush_time(directory: Path) -> float:
    """What overwriting one page costs when it must survive a power loss: the floor of a full commit."""
    pages = 50
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        os.write(file.fileno(), bytes(4096 * pages))
        os.fsync(file.fileno())
        for page in range(pages):
            start = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, page * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)
