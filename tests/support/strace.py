"""What a program asks of the kernel, call by call, with the paths: for the order of calls, and for faults of one file.

`support.faults` is for sweeps. This is for what a sweep does not say: which file a call was for, a fault of one file
alone, a call that hangs.
"""

from __future__ import annotations

import functools
import itertools
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from support.processes import run_command

WRITES = "pwrite64,write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,ftruncate,unlink,unlinkat,mkdir,mkdirat"
"""The calls that change or flush files."""


@functools.cache
def _refusal() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getpid", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "strace may not trace here"
    return None


def strace(log: Path, calls: str, faults: Iterable[str] = (), *options: str) -> list[str]:
    """What to put before a command to have its `calls` written to `log`, with the paths behind descriptors.

    A fault is what strace calls an injection, "fsync:error=EIO:when=2"; it counts by thread and by name.
    """
    if (reason := _refusal()) is not None:
        pytest.skip(reason)
    # No --seccomp-bpf: with it an injected signal is silently dropped.
    injections = [option for fault in faults for option in ("-e", f"inject={fault}")]
    return ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={calls}", *injections, *options]


def run_straced(
    command: Sequence[str],
    log: Path,
    calls: str = WRITES,
    faults: Iterable[str] = (),
    *,
    file: Path | None = None,
    options: Sequence[str] = (),
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a command to its end; also the lines that strace wrote, of the calls for `file` alone if it is given."""
    options = [*options, *(() if file is None else ("-P", str(file)))]
    done = run_command([*strace(log, calls, faults, *options), *command])
    return done, log.read_text("utf-8", "replace").splitlines()


def between(lines: Iterable[str], begin: str, end: str | None = None) -> list[str]:
    """The lines from the one that has `begin` in it to the one before that which has `end`."""
    kept = itertools.dropwhile(lambda line: begin not in line, lines)
    return list(itertools.takewhile(lambda line: end is None or end not in line, kept))
