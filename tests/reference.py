"""The store's rules in plain Python, slow and obvious: what the tests compare the Rust core with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

DAY_MS = 86_400_000
MAX_TIMESTAMP = 253_402_300_799_999
"""The last millisecond of the year 9999."""

ALLOWED: dict[str, frozenset[str]] = {
    "queued": frozenset({"started", "dropped", "killed", "interrupted", "failed"}),
    "started": frozenset({"completed", "failed", "crashed", "interrupted", "dropped", "killed"}),
    "crashed": frozenset({"started", "queued", "completed", "failed", "dropped", "killed"}),
    "interrupted": frozenset({"started", "queued", "completed", "failed", "dropped", "killed"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "dropped": frozenset(),
    "killed": frozenset(),
}
STATUSES = tuple(ALLOWED)
ACTIVE = frozenset({"queued", "started"})
TERMINAL = frozenset({"completed", "failed", "dropped", "killed"})
SETTLED = TERMINAL | {"crashed", "interrupted"}
"""Whose rows may be archived. Any other status, an unknown one too, pins the rows of its run."""


class Row(NamedTuple):
    """A row of the log."""

    id: int
    source: str
    type: str
    ref_id: str | None
    payload: str | None
    timestamp: int


# --- JSON as JavaScript prints it -----------------------------------------------------------------------------------


class NotJson:
    """The type of `NOT_JSON`: unlike None, no value of JSON."""


NOT_JSON = NotJson()


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def parse_payload(payload: str | None) -> Any:
    """The payload as JSON, or `NOT_JSON`."""
    if payload is None:
        return NOT_JSON
    try:
        return json.loads(payload, parse_constant=_refuse_constant)
    except ValueError:
        return NOT_JSON


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float) -> str:
    """A number as `Number.prototype.toString` prints it."""
    double = float(value)
    if double == 0:
        return "0"
    sign, digit_tuple, exponent = Decimal(repr(double)).as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, digit_tuple))
    point = len(digits) + exponent
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        text = f"{digits[0]}{fraction}e{point - 1:+d}"
    return f"-{text}" if sign else text


def stringify(value: Any) -> str:
    """`value` as `JSON.stringify` prints it, but integers of 64 bits stay exact and keys stay in their order."""
    if is_number(value):
        return str(value) if isinstance(value, int) and -(2**63) <= value < 2**64 else _number(value)
    if isinstance(value, list):
        return f"[{','.join(map(stringify, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{stringify(k)}:{stringify(v)}' for k, v in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


# --- time and archive files --------------------------------------------------------------------------------------


def utc_day(timestamp: int) -> date:
    return datetime.fromtimestamp(timestamp // 1000, UTC).date()


def day_start(day: date) -> int:
    """The first millisecond of `day`."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def last_archivable_day(boundary: int) -> date:
    return utc_day(boundary) - timedelta(days=1)


def is_archivable_timestamp(timestamp: Any) -> bool:
    return type(timestamp) is int and 0 <= timestamp <= MAX_TIMESTAMP


def archive_line(row: Row) -> str:
    """The row's line in a day file, without the newline: what upstream's `JSON.stringify` wrote."""
    record = {
        "id": row.id,
        "source": row.source,
        "type": row.type,
        "refId": row.ref_id,
        "payload": row.payload,
        "timestamp": row.timestamp,
    }
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def parse_archive_line(line: str) -> Row:
    record = json.loads(line)
    return Row(record["id"], record["source"], record["type"], record["refId"], record["payload"], record["timestamp"])


# --- threads -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    role: str
    content: str
    meta: Any
    timestamp: int


@dataclass(frozen=True)
class Round:
    round: int
    log_id: int
    timestamp: int
    message: Message


def _message(value: Any) -> Message | None:
    if not (isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)):
        return None
    timestamp: Any = value.get("timestamp")
    return Message(value["role"], value["content"], value.get("meta"), int(timestamp) if is_number(timestamp) else 0)


def _typed_event(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _of_run(rows: Iterable[Row], run_id: str, *types: str) -> Iterator[Row]:
    return (r for r in rows if r.source == "workflow" and r.type in types and r.ref_id == run_id)


def thread_messages(rows: Iterable[Row], run_id: str) -> list[Message]:
    found = (_message(parse_payload(r.payload)) for r in _of_run(rows, run_id, "thread_workflow_message"))
    return [message for message in found if message is not None]


def thread_events(rows: Iterable[Row], run_id: str) -> list[dict[str, Any]]:
    values = (parse_payload(r.payload) for r in _of_run(rows, run_id, "thread_command_event"))
    return [value for value in values if _typed_event(value)]


def _numbered(rows: Iterable[Row], run_id: str) -> list[tuple[int, Row, Any]]:
    """The rows that count as a round, with their numbers and parsed payloads."""
    counted: list[tuple[int, Row, Any]] = []
    for row in _of_run(rows, run_id, "thread_command_event", "thread_workflow_message"):
        value = parse_payload(row.payload)
        if value is NOT_JSON:
            continue
        if isinstance(value, dict) and (value.get("type") == "thread_start" or value.get("role") == "__start__"):
            continue
        counted.append((len(counted) + 1, row, value))
    return counted


def thread_round_count(rows: Iterable[Row], run_id: str) -> int:
    return len(_numbered(rows, run_id))


def thread_rounds(rows: Iterable[Row], run_id: str, before: int, limit: int) -> list[Round]:
    counted = [item for item in _numbered(rows, run_id) if not before or item[0] < before]
    window = counted[-limit:] if limit else []
    rounds: list[Round] = []
    for number, row, value in reversed(window):
        message = _message(value)
        if message is None and _typed_event(value):
            role, content = value.get("role"), value.get("content")
            message = Message(
                role if isinstance(role, str) else value["type"],
                content if isinstance(content, str) else stringify(value),
                value,
                row.timestamp,
            )
        if message is not None:
            rounds.append(Round(number, row.id, row.timestamp, message))
    return rounds


def _trigger(value: Any) -> dict[str, Any] | None:
    if isinstance(value, dict) and isinstance(value.get("prompt"), str) and is_number(value.get("maxRounds")):
        return {"prompt": value["prompt"], "maxRounds": value["maxRounds"], "dryRun": value.get("dryRun") is True}
    return None


def trigger_payload(rows: Iterable[Row], run_id: str) -> dict[str, Any] | None:
    first = next(_of_run(rows, run_id, "started"), None)
    value = parse_payload(first.payload) if first is not None else NOT_JSON
    if not isinstance(value, dict):
        return None
    inner = value.get("triggerPayload")
    return _trigger(value) or _trigger(inner) or (inner if isinstance(inner, dict) else None)


# --- runs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    run_id: str
    workflow: str
    status: str
    timestamp: int
    exit_code: int | None = None


def is_legal(current: str | None, status: str) -> bool:
    """Whether a run in the state `current` (None: there is no run) may be brought to `status` unforced."""
    return current is None or current == status or status in ALLOWED[current]


def merged_exit_code(current: Run | None, status: str, exit_code: int | None, *, force: bool = False) -> int | None:
    """The exit code after the run `current` is brought to `status` with `exit_code`."""
    if current is None:
        return exit_code
    repeated, finished = status == current.status, current.status in TERMINAL
    if repeated and finished and not force:
        return current.exit_code
    if exit_code is None and (repeated or finished):
        return current.exit_code
    return exit_code


# --- the log as a whole ------------------------------------------------------------------------------------------


@dataclass
class ArchivePlan:
    """What an archive job must do."""

    days: dict[date, list[Row]]
    """The rows that each day's file gains."""
    removed: set[int]
    """The ids that leave the database; more than the gained ones where an earlier run was cut short."""
    pinned: list[Row]
    unarchivable: list[Row]
    watermark: date | None


@dataclass
class Log:
    """A log database and its archive."""

    database: dict[int, Row] = field(default_factory=dict)
    files: dict[date, dict[int, Row]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    unknown_runs: set[str] = field(default_factory=set)
    """Runs whose stored status is none of ours."""

    def append(self, row: Row) -> None:
        assert not self.database or row.id > max(self.database)
        self.database[row.id] = row

    def rows(self) -> list[Row]:
        return [self.database[i] for i in sorted(self.database)]

    def everything(self) -> dict[int, Row]:
        """Every row ever appended, by id."""
        return {**self.database, **{i: r for rows in self.files.values() for i, r in rows.items()}}

    def query(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: int | None = None,
        until: int | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
    ) -> list[Row]:
        found = [
            row
            for row in self.rows()
            if (source is None or row.source == source)
            and (type is None or row.type == type)
            and (ref_id is None or row.ref_id == ref_id)
            and (since is None or row.timestamp >= since)
            and (until is None or row.timestamp <= until)
            and (after_id is None or row.id > after_id)
            and (before_id is None or row.id < before_id)
        ]
        if descending:
            found.reverse()
        return found if limit is None else found[:limit]

    def is_pinned(self, row: Row) -> bool:
        if row.ref_id is None:
            return False
        run = self.runs.get(row.ref_id)
        return row.ref_id in self.unknown_runs or (run is not None and run.status not in SETTLED)

    def plan(self, now: int, retention: timedelta, max_days: int | None = None) -> ArchivePlan:
        boundary = now - retention // timedelta(milliseconds=1)
        last = last_archivable_day(boundary)
        plan = ArchivePlan({}, set(), [], [], None)
        ripe: dict[date, list[Row]] = {}
        for row in self.rows():
            if not is_archivable_timestamp(row.timestamp):
                plan.unarchivable.append(row)
            elif utc_day(row.timestamp) <= last:
                if self.is_pinned(row):
                    plan.pinned.append(row)
                else:
                    ripe.setdefault(utc_day(row.timestamp), []).append(row)
        for day in sorted(ripe):
            if max_days is not None and len(plan.days) >= max_days:
                break
            if gained := [row for row in ripe[day] if row.id not in self.files.get(day, {})]:
                plan.days[day] = gained
            plan.removed.update(row.id for row in ripe[day])
            plan.watermark = day
        else:
            if ripe:
                plan.watermark = last
        return plan

    def apply(self, plan: ArchivePlan) -> None:
        for day, rows in plan.days.items():
            self.files.setdefault(day, {}).update({row.id: row for row in rows})
        for row_id in plan.removed:
            del self.database[row_id]
        if plan.watermark is not None:
            before = self.meta.get("archived_up_to")
            self.meta["archived_up_to"] = max(before or "", plan.watermark.isoformat())
