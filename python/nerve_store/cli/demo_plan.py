"""What the daemon of `nerve-store demo` lives through: the same on every machine, and dated in the past."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from nerve_store import NewLogEntry, WorkflowRunStatus, utc_day

__all__ = [
    "ARCHIVED_DAYS",
    "CRASHED_RUN",
    "LONG_RUN",
    "NOW",
    "RETENTION",
    "WAITING_RUN",
    "Output",
    "StateChange",
    "last_words",
    "outputs",
    "plan",
    "trigger",
]

_SEED = 20260316
_SECOND = 1_000
_HOUR = 3_600 * _SECOND
_DAY = 24 * _HOUR
_DAY_COUNT = 8

NOW = int(datetime(2026, 3, 16, 18, tzinfo=UTC).timestamp()) * _SECOND
"""The demo's clock."""
_START = NOW - NOW % _DAY - (_DAY_COUNT - 1) * _DAY
RETENTION = timedelta(days=3)
ARCHIVED_DAYS: tuple[date, ...] = tuple(utc_day(_START + number * _DAY) for number in range(4))
"""The days that ended more than `RETENTION` before `NOW`."""

LONG_RUN = "run-00-index-repository"
"""Works through all the days, and so keeps its rows out of the archive."""
CRASHED_RUN = "run-97-review-pull-request"
"""Is at work when the daemon is killed."""
WAITING_RUN = "run-98-nightly-report"
"""Is queued when the daemon is killed."""

_WORKFLOWS = ("review-pull-request", "nightly-report", "triage-inbox", "index-repository")
_ROLES = ("planner", "coder", "reviewer")
_WORDS = (
    "read the test",
    "change",
    "the parser",
    "keep",
    "the diff small",
    "ask",
    "before a new dependency",
    "run it",
    "again",
)
_QUEUED, _STARTED = WorkflowRunStatus.QUEUED, WorkflowRunStatus.STARTED
_INTERRUPTED, _COMPLETED = WorkflowRunStatus.INTERRUPTED, WorkflowRunStatus.COMPLETED
_LIVES: tuple[tuple[tuple[WorkflowRunStatus, int | None], ...], ...] = (
    *((((_QUEUED, None), (_STARTED, None), (_COMPLETED, 0)),) * 3),
    ((_QUEUED, None), (_STARTED, None), (WorkflowRunStatus.FAILED, 1)),
    ((_STARTED, None), (_COMPLETED, 0)),
    ((_QUEUED, None), (_STARTED, None), (WorkflowRunStatus.KILLED, 137)),
    ((_QUEUED, None), (_STARTED, None), (_INTERRUPTED, None), (_STARTED, None), (_COMPLETED, 0)),
    ((_QUEUED, None), (WorkflowRunStatus.DROPPED, None)),
    ((_QUEUED, None), (_STARTED, None), (WorkflowRunStatus.FAILED, 2)),
    ((_QUEUED, None), (_STARTED, None), (WorkflowRunStatus.CRASHED, 255), (_STARTED, None), (_COMPLETED, 0)),
)
"""The states that a run passes through, with their exit codes; two runs live each life."""


class StateChange(NamedTuple):
    """A run takes a new state; the first one brings it into being."""

    timestamp: int
    run_id: str
    workflow: str
    status: WorkflowRunStatus
    exit_code: int | None
    payload: str | None


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool printed: too long for a log row, so that the row carries its hash."""

    run_number: int
    content: bytes


def outputs() -> Iterator[Output]:
    """Tool outputs of 8 to 120 kB, two for a run; the second run of each life prints one that was there already."""
    generator = _random(_SEED)
    for run_number in range(2 * len(_LIVES)):
        size = generator.randrange(8_000, 120_000)
        yield Output(run_number, " ".join(generator.choices(_WORDS, k=size // 5)).encode()[:size])
        same = _random(run_number % len(_LIVES))
        yield Output(run_number, same.randbytes(16_000))


def trigger(run_id: str) -> str:
    """The payload of a run's first `started` row."""
    return json.dumps({"prompt": f"Carry out {run_id}", "maxRounds": 12, "dryRun": False})


def plan(row_count: int, output_hashes: list[list[str]]) -> list[NewLogEntry | StateChange]:
    """About `row_count` rows in the order of their time, the state changes of the runs among them."""
    generator = _random(_SEED + 1)
    events: list[tuple[int, NewLogEntry | StateChange]] = []
    for number in range(2 * len(_LIVES)):
        events += _life(generator, number, output_hashes[number])
    events += _long_life(generator)
    events += [
        (change.timestamp, change)
        for change in (_change(NOW - 2 * _HOUR, WAITING_RUN, _QUEUED), _change(NOW - 90, CRASHED_RUN, _QUEUED))
    ]
    events += _background(generator, max(row_count - len(events), 0))
    return [event for _, event in sorted(events, key=lambda dated: dated[0])]


def last_words() -> list[NewLogEntry]:
    """What the daemon wrote in `CRASHED_RUN` just before it was killed."""
    generator = _random(_SEED + 2)
    return [_round(generator, CRASHED_RUN, number, NOW - 60 + number, None) for number in range(40)]


def _life(generator: random.Random, number: int, hashes: list[str]) -> Iterator[tuple[int, NewLogEntry | StateChange]]:
    """One run from its first state to its last, with a thread wherever it is started."""
    life = _LIVES[number % len(_LIVES)]
    run_id = f"run-{number + 1:02}-{_WORKFLOWS[number % len(_WORKFLOWS)]}"
    moment = _START + generator.randrange((_DAY_COUNT - 1) * _DAY)
    round_number = 0
    for status, exit_code in life:
        yield moment, _change(moment, run_id, status, exit_code)
        if status is not _STARTED:
            moment += generator.randrange(_SECOND, 60 * _SECOND)
            continue
        if round_number == 0:
            moment += 1
            yield moment, _row(run_id, "thread_command_event", {"type": "thread_start", "prompt": run_id}, moment)
        for _ in range(generator.randrange(6, 18)):
            moment += generator.randrange(_SECOND, 120 * _SECOND)
            output = hashes.pop() if hashes and round_number >= 3 else None
            yield moment, _round(generator, run_id, round_number, moment, output)
            round_number += 1


def _long_life(generator: random.Random) -> Iterator[tuple[int, NewLogEntry | StateChange]]:
    """A run that begins on the first day and still works on the last."""
    yield _START, _change(_START, LONG_RUN, _STARTED)
    for number in range(10 * _DAY_COUNT):
        moment = _START + number * _DAY // 10 + 1
        if moment < NOW:
            yield moment, _round(generator, LONG_RUN, number, moment, None)


def _background(generator: random.Random, count: int) -> Iterator[tuple[int, NewLogEntry]]:
    """System ticks and reflexes."""
    for number in range(count):
        moment = generator.randrange(_START, NOW)
        if number % 4:
            payload: dict[str, object] = {
                "load": round(generator.random() * 4, 2),
                "memory_mb": generator.randrange(300, 900),
            }
            yield moment, NewLogEntry("system", "tick", None, json.dumps(payload), moment)
        else:
            reflex = f"reflex-{generator.randrange(12)}"
            payload = {"sense": generator.choice(_WORDS), "took_ms": generator.randrange(1, 400)}
            yield moment, NewLogEntry("reflex", "fired", reflex, json.dumps(payload), moment)


def _random(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same numbers on every machine is what it is for


def _change(timestamp: int, run_id: str, status: WorkflowRunStatus, exit_code: int | None = None) -> StateChange:
    payload = trigger(run_id) if status is _STARTED else None
    return StateChange(timestamp, run_id, run_id.split("-", 2)[2], status, exit_code, payload)


def _round(generator: random.Random, run_id: str, number: int, timestamp: int, output_hash: str | None) -> NewLogEntry:
    """A message, or now and then a tool's event; `output_hash` names the blob that holds what the tool printed."""
    if output_hash is not None:
        event: dict[str, object] = {"type": "tool_result", "tool": "shell", "output": output_hash}
        return _row(run_id, "thread_command_event", event, timestamp)
    content = " ".join(generator.choices(_WORDS, k=generator.randrange(6, 60)))
    message: dict[str, object] = {"role": _ROLES[number % len(_ROLES)], "content": content, "timestamp": timestamp}
    return _row(run_id, "thread_workflow_message", message, timestamp)


def _row(run_id: str, type: str, payload: dict[str, object], timestamp: int) -> NewLogEntry:
    return NewLogEntry("workflow", type, run_id, json.dumps(payload), timestamp)
