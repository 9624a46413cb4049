"""Claims of several processes, some of which are killed: every run ends once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest

import nerve_store as ns
from support.counts import note
from support.faults import in_memory
from support.processes import child_command, child_environment


def claim_and_kill(tmp_path: Path, runs: int, processes: int, threads: int, kills: int, seed: int = 0) -> None:
    """Processes claim runs and end them; some are killed, and others come. Every run ends once, and none is lost."""
    dice = Random(seed)
    with in_memory(tmp_path) as place:
        path = place / "logs.db"
        with ns.LogStore(path, durability="normal") as store:
            for first in range(0, runs, 1000):
                with store.batch() as batch:
                    for number in range(first, min(runs, first + 1000)):
                        batch.create_workflow_run(f"run-{number}", "w", timestamp=number)

        def start() -> subprocess.Popen[bytes]:
            output = (place / f"said-{len(started)}").open("wb")
            command = child_command("claim_all", path=str(path), threads=threads, lease=1.0, name=str(len(started)))
            process = subprocess.Popen(command, env=child_environment(), stdout=output)
            output.close()
            started.append(process)
            return process

        started: list[subprocess.Popen[bytes]] = []
        running = [start() for _ in range(processes)]
        for _ in range(kills):
            time.sleep(dice.uniform(0.1, 0.6))
            at = dice.randrange(processes)
            running[at].kill()
            running[at].wait()
            running[at] = start()
        for process in running:
            assert process.wait(timeout=3600) == 0
        said = [
            json.loads(line)
            for number in range(len(started))
            for line in (place / f"said-{number}").read_bytes().split(b"\n")[:-1]
        ]
        check_claims(path, runs, said)
        note("claims", f"{processes} processes, {threads} threads", runs=runs, kills=kills, claims=len(said))


def check_claims(path: Path, runs: int, said: list[list[object]]) -> None:
    tokens = [token for what, _, token in said if what == "claimed"]
    assert len(tokens) == len(set(tokens)), "a token was given out twice"
    ended = Counter(run_id for what, run_id, _ in said if what == "ended")
    assert max(ended.values()) == 1, "a run was ended twice"
    with ns.LogStore(path) as store:
        everything = store.get_all_workflow_runs()
        assert len(everything) == runs
        assert {found.status for found in everything} == {ns.WorkflowRunStatus.COMPLETED}
        rows: dict[str | None, list[ns.LogEntry]] = defaultdict(list)
        for row in store.iter(source="workflow"):
            rows[row.ref_id].append(row)
        for run_id, of_run in rows.items():
            check_life(run_id, [row.type for row in of_run])
        assert store.verify().ok


def check_life(run_id: str | None, types: list[str]) -> None:
    """A run is queued, started and crashed in turn, and ends once; no row of a lost claim follows the next claim."""
    changes = [kind for kind in types if kind not in ("work", "last")]
    crashes = changes.count("crashed")
    assert changes == ["queued", *(["started", "crashed"] * crashes), "started", "completed"], (run_id, types)
    # One row of work a claim, before its end.
    for one in "".join(
        {"started": "s", "crashed": "c", "work": "w", "last": "l"}.get(kind, "") for kind in types
    ).split("s"):
        assert one in ("", "c", "w", "wc", "wl"), (run_id, types)


def test_processes_that_are_killed_end_every_run_once(tmp_path: Path) -> None:
    claim_and_kill(tmp_path, runs=600, processes=3, threads=4, kills=3)


@pytest.mark.torture
def test_many_processes_that_are_killed_end_every_run_once(tmp_path: Path) -> None:
    claim_and_kill(tmp_path, runs=50_000, processes=4, threads=8, kills=60)


def test_the_example_of_workers_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "workers.py"
    done = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "data")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "12 runs completed" in done.stdout
    assert "taken over" in done.stdout
