"""`examples/fleet.py` does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nerve_store as ns
from nerve_store.postgres import PostgresLogStore
from support import TESTS, child_environment
from support.servers import Server


def test_the_example_of_a_fleet_runs(own_server: Server, tmp_path: Path) -> None:
    example = TESTS.parent / "examples" / "fleet.py"
    for turn in range(2):
        done = subprocess.run(
            [sys.executable, example, own_server.url, str(tmp_path / "days")],
            env=child_environment(), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "12 runs completed" in done.stdout, done.stdout + done.stderr
        assert "was taken over from a process that had died" in done.stdout
        # The one that was killed did some of the 48 steps, and the others the rest of them.
        steps = [int(line.split()[-2]) for line in done.stdout.splitlines() if line.endswith(" steps")]
        assert sum(steps) == 48, done.stdout
        with PostgresLogStore(own_server.url, schema="fleet", archive=tmp_path / "days") as log:
            assert log.verify().ok
            assert log.count_workflow_runs()[ns.WorkflowRunStatus.COMPLETED] == 12 * (turn + 1)
