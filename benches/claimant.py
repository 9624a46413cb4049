"""A process that takes work and completes it, beside others.

    python benches/claimant.py NAME DIRECTORY

For each number on its standard input it does so much, and says so. NAME: "ours", or one of `queue_peers.SHARED`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nerve_store as ns
from queue_peers import open_queue

OURS = "ours"


def take_and_complete(store: ns.LogStore, count: int) -> None:
    """Claim so many runs, and complete each under its claim."""
    for _ in range(count):
        claim = store.claim_workflow_run("me")
        assert claim is not None
        store.transition(claim.run.run_id, "completed", exit_code=0, claim=claim)


class Claimants:
    """Processes that work at the same time."""

    def __init__(self, name: str, directory: Path, processes: int) -> None:
        command = [sys.executable, __file__, name, str(directory)]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        self.work(0)

    def work(self, count: int) -> None:
        """Have each take and complete so much, and wait for all."""
        for process in self._processes:
            assert process.stdin is not None
            print(count, file=process.stdin, flush=True)
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{count}\n"

    def close(self) -> None:
        """Have them end."""
        for process in self._processes:
            with process:
                pass
            assert process.returncode == 0


def main(name: str, directory: Path) -> None:
    if name == OURS:
        with ns.LogStore(directory / "logs.db") as store:
            for line in sys.stdin:
                take_and_complete(store, int(line))
                print(line, end="", flush=True)
        return
    queue = open_queue(name, directory)
    for line in sys.stdin:
        for _ in range(int(line)):
            queue.complete(queue.take())
        print(line, end="", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
