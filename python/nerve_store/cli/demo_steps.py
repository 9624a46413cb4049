"""The steps of `nerve-store demo`: work, die, recover, archive, check."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from time import perf_counter
from typing import Literal

from nerve_store import (
    ArchiveResult,
    LogStore,
    NewLogEntry,
    Store,
    WorkflowRun,
    WorkflowRunStatus,
    utc_day,
)
from nerve_store.cli import demo_plan
from nerve_store.cli.demo_plan import StateChange
from nerve_store.cli.problem import Problem
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.text import format_bytes, format_count, format_rate

__all__ = ["Demo", "Step", "die_at_work"]

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Step:
    """What was done, in words and in figures."""

    name: str
    text: str
    figures: dict[str, object]


@dataclass(slots=True)
class _Clock:
    seconds: float = 0.0

    @contextmanager
    def running(self) -> Generator[None]:
        started = perf_counter()
        yield
        self.seconds += perf_counter() - started


@dataclass(slots=True)
class Demo:
    """A daemon on a fresh data directory, and its own account of what the store acknowledged."""

    data: str
    row_count: int
    day_rows: Counter[date] = field(default_factory=Counter)
    """Rows acknowledged, by the day they are dated."""
    pinned_rows: int = 0
    """Those of the run that never ends, on the days to be archived."""
    blob_hashes: set[str] = field(default_factory=set)

    def steps(self) -> Iterator[Step]:
        """Do everything, step by step; a `Problem` if the store does not hold what it acknowledged."""
        with Store(self.data) as store:
            output_hashes, step = self._store_outputs(store)
            yield step
            yield self._work(store, demo_plan.plan(self.row_count, output_hashes))
        yield self._crash()
        with Store(self.data) as store:
            yield self._recover(store)
            yield self._archive(store)
            yield self._archive_again(store)
            yield self._verify(store)

    def _acknowledged(self, entry: NewLogEntry | StateChange) -> None:
        day = utc_day(entry.timestamp or 0)
        self.day_rows[day] += 1
        reference = entry.run_id if isinstance(entry, StateChange) else entry.ref_id
        if reference == demo_plan.LONG_RUN and day in demo_plan.ARCHIVED_DAYS:
            self.pinned_rows += 1

    def _store_outputs(self, store: Store) -> tuple[list[list[str]], Step]:
        hashes: list[list[str]] = []
        size = count = 0
        clock = _Clock()
        for output in demo_plan.outputs():
            with clock.running():
                digest = store.blobs.write(output.content)
            if output.run_number == len(hashes):
                hashes.append([])
            hashes[output.run_number].append(digest)
            self.blob_hashes.add(digest)
            size += len(output.content)
            count += 1
        blobs = len(self.blob_hashes)
        text = (
            f"{format_count(count, 'tool output')}, {format_bytes(size)}, as {format_count(blobs, 'blob')}"
            f" in {clock.seconds:.2f} s: each one synced, equal ones stored once"
        )
        figures: dict[str, object] = {"outputs": count, "blobs": blobs, "bytes": size, "seconds": clock.seconds}
        return hashes, Step("store outputs", text, figures)

    def _work(self, store: Store, events: list[NewLogEntry | StateChange]) -> Step:
        rows, changes = _Clock(), _Clock()
        row_count = change_count = batch_count = 0
        known_runs: set[str] = set()
        batch: list[NewLogEntry] = []

        def write_batch() -> None:
            nonlocal row_count, batch_count
            with rows.running():
                ids = store.logs.append_many(batch)
            row_count += len(ids)
            batch_count += 1
            for entry in batch:
                self._acknowledged(entry)
            batch.clear()

        for event in events:
            if isinstance(event, NewLogEntry):
                batch.append(event)
                if len(batch) == _BATCH:
                    write_batch()
                continue
            if batch:
                write_batch()
            with changes.running():
                _change_state(store.logs, event, is_new=event.run_id not in known_runs)
            known_runs.add(event.run_id)
            change_count += 1
            self._acknowledged(event)
        if batch:
            write_batch()
        text = (
            f"{format_count(row_count, 'row')} in {format_count(batch_count, 'transaction')},"
            f" {format_rate(row_count, rows.seconds)} rows/s;"
            f" {format_count(len(known_runs), 'run')} in {format_count(change_count, 'state change')},"
            f" {format_rate(change_count, changes.seconds)}/s, each one synced"
        )
        figures: dict[str, object] = {
            "rows": row_count,
            "batches": batch_count,
            "seconds": rows.seconds,
            "rows_per_second": row_count / max(rows.seconds, 1e-9),
            "runs": len(known_runs),
            "state_changes": change_count,
            "state_changes_per_second": change_count / max(changes.seconds, 1e-9),
        }
        return Step("work", text, figures)

    def _crash(self) -> Step:
        """Kill a daemon that is at work, in a process of its own."""
        program = "import sys; from nerve_store.cli.demo_steps import die_at_work; die_at_work(sys.argv[1])"
        command = [sys.executable, "-c", program, self.data]
        died = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - this very package
        if died.returncode != -signal.SIGKILL:
            raise Problem(f"the daemon was to be killed, and ended with {died.returncode}")
        acknowledged = int(died.stdout)
        entries = demo_plan.last_words()
        started = StateChange(
            demo_plan.NOW - 60,
            demo_plan.CRASHED_RUN,
            "review-pull-request",
            WorkflowRunStatus.STARTED,
            None,
            None,
        )
        self._acknowledged(started)
        for entry in entries:
            self._acknowledged(entry)
        with LogStore(os.path.join(self.data, "logs.db"), read_only=True) as logs:
            found = logs.count(ref_id=demo_plan.CRASHED_RUN) - 1
        _require("rows that the killed daemon had acknowledged", found, acknowledged)
        _require("rows that the killed daemon was to write", acknowledged, 1 + len(entries))
        text = f"killed the daemon (SIGKILL) at work on {demo_plan.CRASHED_RUN}: its last {found} rows are all there"
        return Step("crash", text, {"run_id": demo_plan.CRASHED_RUN, "rows": found})

    def _recover(self, store: Store) -> Step:
        """Find what was at work, mark it as crashed, and let it go on where its thread ends."""
        logs = store.logs
        told: list[str] = []
        active = logs.get_active_workflow_runs()
        for run in active:
            if run.status is WorkflowRunStatus.STARTED:
                messages = len(logs.get_thread_messages(run.run_id))
                prompt = logs.get_trigger_payload(run.run_id)
                _require(f"prompt of {run.run_id}", prompt and prompt["prompt"], f"Carry out {run.run_id}")
                self._transition(logs, run, WorkflowRunStatus.CRASHED, exit_code=255)
                self._transition(logs, run, WorkflowRunStatus.STARTED)
                told.append(f"{run.run_id} goes on after {format_count(messages, 'message')}")
            else:
                self._transition(logs, run, WorkflowRunStatus.STARTED)
                told.append(f"{run.run_id} begins")
            if run.run_id != demo_plan.LONG_RUN:
                self._transition(logs, run, WorkflowRunStatus.COMPLETED, exit_code=0)
        expected = {demo_plan.LONG_RUN, demo_plan.CRASHED_RUN, demo_plan.WAITING_RUN}
        _require("active runs after the crash", {run.run_id for run in active}, expected)
        text = f"{format_count(len(active), 'run')} had not ended: " + "; ".join(told)
        return Step("recover", text, {"active_runs": [run.run_id for run in active]})

    def _transition(
        self, logs: LogStore, run: WorkflowRun, status: WorkflowRunStatus, exit_code: int | None = None
    ) -> None:
        payload = demo_plan.trigger(run.run_id) if status is WorkflowRunStatus.STARTED else None
        logs.transition(run.run_id, status, exit_code=exit_code, payload=payload, timestamp=demo_plan.NOW)
        self._acknowledged(StateChange(demo_plan.NOW, run.run_id, run.workflow, status, exit_code, payload))

    def _archive(self, store: Store) -> Step:
        result, seconds = _timed_archive(store.logs)
        moved = sum(day.added_rows for day in result.days)
        self._require_archived("archived", result, len(demo_plan.ARCHIVED_DAYS))
        _require("rows that stay because their run is active", result.pinned_rows, self.pinned_rows)
        _require("rows archived", moved, self._old_rows() - self.pinned_rows)
        text = (
            f"{format_count(moved, 'row')} of {format_count(len(result.days), 'day')} moved to their files,"
            f" {format_rate(moved, seconds)} rows/s; {result.pinned_rows} old rows of {demo_plan.LONG_RUN} stay,"
            " it is still active"
        )
        figures: dict[str, object] = {"days": len(result.days), "rows": moved, "pinned_rows": result.pinned_rows}
        return Step("archive", text, {**figures, "seconds": seconds, "rows_per_second": moved / max(seconds, 1e-9)})

    def _archive_again(self, store: Store) -> Step:
        """End the run that pinned its rows, add a late row for the first day, and archive what that set free."""
        (run,) = store.logs.get_active_workflow_runs()
        self._transition(store.logs, run, WorkflowRunStatus.COMPLETED, exit_code=0)
        first_day = demo_plan.ARCHIVED_DAYS[0]
        late = NewLogEntry("system", "late", None, "sent when the network was back", demo_plan.NOW - 7 * 86_400_000)
        store.logs.append_many([late])
        self._acknowledged(late)
        plain_size = sum(day.size for day in store.logs.archived_days())
        result, seconds = _timed_archive(store.logs, compression="zstd")
        moved = sum(day.added_rows for day in result.days)
        size = sum(day.size for day in result.days)
        self._require_archived("archived again", result, len(demo_plan.ARCHIVED_DAYS))
        _require("rows archived after their run ended", moved, self.pinned_rows + 1)
        text = (
            f"{demo_plan.LONG_RUN} ends and a row comes late for {first_day}:"
            f" {format_count(moved, 'row')} joined the {len(result.days)} files, and no file lost one;"
            f" compressed on the way, {format_bytes(plain_size)} became {format_bytes(size)}"
        )
        figures: dict[str, object] = {"days": len(result.days), "rows": moved, "pinned_rows": result.pinned_rows}
        return Step("archive again", text, {**figures, "plain_size": plain_size, "size": size, "seconds": seconds})

    def _require_archived(self, what: str, result: ArchiveResult, days: int) -> None:
        _require(f"days {what}", len(result.days), days)
        _require("rows that cannot be archived", result.unarchivable_rows, 0)

    def _old_rows(self) -> int:
        return sum(self.day_rows[day] for day in demo_plan.ARCHIVED_DAYS)

    def _verify(self, store: Store) -> Step:
        """Let the store check itself, read everything back and compare it with what was acknowledged."""
        started = perf_counter()
        logs = store.logs
        found, found_blobs = logs.verify(), store.blobs.verify()
        problems = [problem.reason for problem in found.problems] + [problem.reason for problem in found_blobs.problems]
        _require("problems", problems, [])
        for day in logs.archived_days():
            days = Counter(utc_day(entry.timestamp) for entry in logs.read_archive(day.day))
            _require(f"rows by day in the file of {day.day}", days, {day.day: self.day_rows[day.day]})
        total = sum(self.day_rows.values())
        archived = found.archived_row_count
        _require("rows in the database", logs.count(), total - archived)
        ids = [entry.id for entry in logs.iter(archived=True)]
        _require("rows read through the archive", (len(ids), len(set(ids))), (total, total))
        _require("blobs", set(store.blobs), self.blob_hashes)
        seconds = perf_counter() - started
        text = (
            f"{format_count(archived, 'archived row')}, {format_count(total - archived, 'row')} in the database and"
            f" {format_count(found_blobs.blob_count, 'blob')} of {format_bytes(found_blobs.size)} checked and read back"
            f" in {seconds:.2f} s: {format_count(len(problems), 'problem')}, all there, each once"
        )
        figures: dict[str, object] = {
            "problems": len(problems),
            "archived_rows": archived,
            "database_rows": total - archived,
        }
        blobs = {"blobs": found_blobs.blob_count, "blob_bytes": found_blobs.size}
        return Step("verify", text, {**figures, **blobs, "seconds": seconds})


def _change_state(logs: LogStore, change: StateChange, *, is_new: bool) -> None:
    if is_new:
        entry = NewLogEntry("workflow", change.status.value, change.run_id, change.payload, change.timestamp)
        run = WorkflowRun(change.run_id, change.workflow, change.status, change.timestamp, change.exit_code)
        logs.upsert_workflow_run(entry, run)
    else:
        logs.transition(
            change.run_id,
            change.status,
            exit_code=change.exit_code,
            payload=change.payload,
            timestamp=change.timestamp,
        )


def _timed_archive(logs: LogStore, *, compression: Literal["zstd"] | None = None) -> tuple[ArchiveResult, float]:
    started = perf_counter()
    with progress_bar("archiving rows") as progress:
        result = logs.archive_logs(
            now=demo_plan.NOW, retention=demo_plan.RETENTION, compression=compression, progress=progress
        )
    return result, perf_counter() - started


def _require(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Problem(f"{what}: found {found!r}, expected {expected!r}")


def die_at_work(data: str) -> None:
    """Work on a run, print how many rows were acknowledged, and be killed without any farewell."""
    store = Store(data)
    moment = demo_plan.NOW - 60
    store.logs.transition(
        demo_plan.CRASHED_RUN,
        WorkflowRunStatus.STARTED,
        payload=demo_plan.trigger(demo_plan.CRASHED_RUN),
        timestamp=moment,
    )
    ids = store.logs.append_many(demo_plan.last_words())
    print(1 + len(ids), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
