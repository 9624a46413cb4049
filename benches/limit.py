"""Runs the Rust benchmark `limit.rs` and reads its median."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from machine import ROOT

ROWS_PER_ROUND = 10_000
"""As in limit.rs: ten commits of a thousand."""


class Limit:
    """The compiled benchmark."""

    def __init__(self, program: Path, directory: Path) -> None:
        self._program = program
        self._directory = directory

    @classmethod
    def build(cls, directory: Path) -> Limit | None:
        """Compile it, without Python; None if there is no cargo. It will work in `directory`."""
        cargo = shutil.which("cargo")
        if cargo is None:
            return None
        options = ["--locked", "--quiet", "--no-default-features", "--bench", "limit", "--no-run"]
        messages = subprocess.run(
            [cargo, "bench", *options, "--message-format=json"], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ).stdout.splitlines()
        programs = [message.get("executable") for message in map(json.loads, messages)]
        return cls(Path(next(filter(None, reversed(programs)))), directory)

    def seconds_per_round(self) -> float:
        """Its median time of `ROWS_PER_ROUND` rows, on a database that begins empty; takes about a second."""
        home = self._directory / "criterion"
        brief = ["--warm-up-time", "0.1", "--measurement-time", "0.5", "--nresamples", "1001"]
        subprocess.run(
            [str(self._program), "--bench", "--noplot", "--quiet", *brief],
            check=True,
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "CRITERION_HOME": str(home), "NERVE_BENCH_DIRECTORY": str(self._directory)},
        )
        estimates = json.loads((home / "limit" / "append_many" / "new" / "estimates.json").read_text(encoding="utf-8"))
        return float(estimates["median"]["point_estimate"]) / 1e9
