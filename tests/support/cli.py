"""Running the command line in this process or on a terminal, and a data directory to run it on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.cli import main
from support import child_environment

COMMAND = [sys.executable, "-m", "nerve_store"]
MISSING_HASH = "0" * 64
DAY = 86_400_000
T0 = 1_710_115_200_000  # 2024-03-11T00:00Z


@dataclass
class Outcome:
    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Cli:
    """Runs commands on one data directory."""

    def __init__(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self.capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        self.capsys.readouterr()
        exit_code = main(["--data", str(self.data), *arguments])
        captured = self.capsys.readouterr()
        return Outcome(exit_code, captured.out, captured.err)

    def refused(self, *arguments: str) -> str:
        """The one line that the command says on standard error when it finds a problem."""
        outcome = self(*arguments)
        assert outcome.exit_code == 1, outcome
        assert outcome.err.startswith("nerve-store: error: ")
        assert outcome.err.endswith("\n")
        assert len(outcome.err.splitlines()) == 1
        return outcome.err

    def misused(self, *arguments: str) -> str:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--data", str(self.data)])
        assert exit_.value.code == 2
        return self.capsys.readouterr().err


def on_a_terminal(*arguments: str, columns: int = 0) -> tuple[int, bytes]:
    """The exit code of the command line on a terminal, which may not tell its size, and what it shows there."""
    control, terminal = os.openpty()
    if columns:
        termios.tcsetwinsize(terminal, (24, columns))
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env={**child_environment(), "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        shown = read_all(control)
        return process.wait(timeout=60), shown


def read_all(descriptor: int) -> bytes:
    """Everything until the other end of the terminal is closed, which Linux reports as an error."""
    content = b""
    try:
        while part := os.read(descriptor, 65536):
            content += part
    except OSError:
        pass
    os.close(descriptor)
    return content


def fill(data: Path) -> None:
    """Eight log rows, two runs and a blob."""
    with ns.Store(data) as store:
        first = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, T0)
        trigger = json.dumps({"prompt": "go", "maxRounds": 3})
        store.logs.upsert_workflow_run(("workflow", "started", "run-1", trigger, T0), first)
        rounds = [
            ("thread_command_event", {"type": "thread_start"}),
            ("thread_workflow_message", {"role": "planner", "content": "plan", "meta": {"k": [1.5]}, "timestamp": 7}),
            ("thread_command_event", {"type": "tool_result", "ok": True}),
            ("thread_workflow_message", {"role": "coder", "content": "two\nlines \x1b[31mred"}),
        ]
        store.logs.append_many([("workflow", type_, "run-1", json.dumps(payload), T0 + 1) for type_, payload in rounds])
        store.logs.transition("run-1", "failed", exit_code=1, timestamp=T0 + DAY)
        second = ns.WorkflowRun("run-2", "report", ns.WorkflowRunStatus.QUEUED, T0 + 2 * DAY)
        store.logs.upsert_workflow_run(("workflow", "queued", "run-2", None, T0 + 2 * DAY), second)
        store.logs.append("system", "tick", None, "clear\x1b[2J\u202e\u009b", T0 + 3 * DAY)
        store.blobs.write(b"bytes \x00\xff")
