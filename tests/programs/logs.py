"""Programs that append, archive, restore and read."""

from __future__ import annotations

import resource
import sqlite3
import sys
from collections.abc import Callable
from datetime import date
from typing import Any, Literal

import nerve_store as ns
from programs import failure, say


def append(
    *, path: str, caller: str, count: int, durability: Literal["full", "normal"] = "full", rows_per_call: int = 1
) -> None:
    """Append rows numbered from 0, call by call, and say the ids of each call."""
    with ns.LogStore(path, durability=durability) as store:
        for first in range(0, count, rows_per_call):
            numbers = range(first, min(first + rows_per_call, count))
            if rows_per_call == 1:
                ids = [store.append("system", "tick", caller, str(first), first).id]
            else:
                ids = list(store.append_many([("system", "tick", caller, str(n), n) for n in numbers]))
            say(ids)


def runs(*, path: str, count: int) -> None:
    """Take runs through their life, saying each state as it is acknowledged."""
    with ns.LogStore(path) as store:
        for number in range(count):
            run_id = f"run-{number}"
            queued = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus.QUEUED, 1)
            store.upsert_workflow_run(("workflow", "queued", run_id, None, 1), queued)
            say([run_id, "queued"])
            for status, exit_code in (("started", None), ("completed", 0)):
                store.transition(run_id, ns.WorkflowRunStatus(status), exit_code=exit_code, timestamp=2)
                say([run_id, status])


def archive(
    *,
    path: str,
    now: int,
    max_days: int | None = None,
    vacuum: bool | Literal["incremental"] = False,
    compression: Literal["zstd"] | None = None,
    wait: float = 0.0,
    **options: Any,
) -> None:
    """One archive job; says the days that gained rows, or the error."""
    try:
        with ns.LogStore(path, **options) as store:
            result = store.archive_logs(now=now, max_days=max_days, vacuum=vacuum, compression=compression, wait=wait)
    except ns.NerveStoreError as error:
        say(failure(error))
    else:
        say({"days": {str(day.day): day.added_rows for day in result.days}})


def restore(*, path: str, day: str, **options: Any) -> None:
    """Put a day's rows back; says how many, or the error."""
    try:
        with ns.LogStore(path, **options) as store:
            restored = store.restore_archive(date.fromisoformat(day))
    except ns.NerveStoreError as error:
        say(failure(error))
    else:
        say({"restored": restored})


def expire(*, path: str, before: str, **options: Any) -> None:
    """Expire the days before one; says which, or the error."""
    try:
        with ns.LogStore(path, **options) as store:
            days = store.expire_archive(before=date.fromisoformat(before))
    except ns.NerveStoreError as error:
        say(failure(error))
    else:
        say({"expired": [str(item.day) for item in days]})


def delete_runs(*, path: str, before: int, **options: Any) -> None:
    """Delete old runs; says how many, or the error."""
    try:
        with ns.LogStore(path, **options) as store:
            deleted = store.delete_workflow_runs(before=before)
    except ns.NerveStoreError as error:
        say(failure(error))
    else:
        say({"deleted": deleted})


def reindex(*, path: str, **options: Any) -> None:
    """Build the index and the manifest anew; says so, or the error."""
    try:
        with ns.LogStore(path, **options) as store:
            store.reindex()
    except ns.NerveStoreError as error:
        say(failure(error))
    else:
        say({"done": True})


def hold_archive(*, path: str, now: int) -> None:
    """Say "holding" in the middle of an archive job, and go on when a line comes in."""

    held: list[int] = []

    def hold(done: int, _total: int) -> None:
        if not held:
            held.append(done)
            say("holding")
            sys.stdin.readline()

    with ns.LogStore(path) as store:
        result = store.archive_logs(now=now, progress=hold)
    say({"days": {str(day.day): day.added_rows for day in result.days}})


def hold_archived(*, path: str, now: int) -> None:
    """Archive, say so, and wait with the store open until a line comes in."""
    with ns.LogStore(path) as store:
        say({"days": [str(day.day) for day in store.archive_logs(now=now).days]})
        sys.stdin.readline()


def hold_lock(*, path: str) -> None:
    """Hold the database's write lock, as any program may, until a line comes in."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    say("holding")
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()


def hold_snapshot(*, path: str) -> None:
    """Hold a read transaction, as any program may, until a line comes in."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM logs").fetchone()
    say("holding")
    sys.stdin.readline()
    connection.close()


def outcomes(*, path: str, count: int, durability: Literal["full", "normal"] = "full", payload_length: int = 0) -> None:
    """Append `count` rows whatever happens, say each outcome, then what can be read."""
    with ns.LogStore(path) as store:
        for number in range(count):
            try:
                say({"id": store.append("system", "tick", None, str(number).ljust(payload_length), number).id})
            except (OSError, ValueError, ns.NerveStoreError) as error:
                say(failure(error))
        say({"read": [entry.id for entry in store.query()]})


def memory(*, path: str, calls: int, rows_per_call: int, payload_bytes: int) -> None:
    """Fill one day, read it row by row, archive it, read the archive; says what each added to the memory, in KiB."""

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with ns.LogStore(path, durability="normal") as store:
        rows = [("system", "tick", None, "x" * payload_bytes, 0)] * rows_per_call
        for _ in range(calls):
            store.append_many(rows)
        filled = peak()
        read = sum(1 for _ in store.iter())
        iterated = peak()
        (day,) = store.archive_logs().days
        archived = peak()
        again = sum(1 for _ in store.read_archive(day.day))
        say({"rows": [read, day.row_count, again], "size": day.size})
        say({"iter": iterated - filled, "archive": archived - iterated, "read_archive": peak() - archived})


def deep_payload(*, path: str, depth: int) -> None:
    """Append payloads nested `depth` levels and read them in every way there is."""
    nested = "[" * depth + "]" * depth
    payloads = [
        nested,
        f'{{"role":"coder","content":"deep","meta":{nested}}}',
        f'{{"type":"tool_call","deep":{nested}}}',
        f'{{"triggerPayload":{{"deep":{nested}}}}}',
    ]
    with ns.LogStore(path) as store:
        for payload in payloads:
            for row_type in ("started", "thread_workflow_message", "thread_command_event"):
                store.append("workflow", row_type, "run-1", payload, 0)
        say({"rows": store.count()})
        calls: dict[str, Callable[[], object]] = {
            "get_trigger_payload": lambda: store.get_trigger_payload("run-1"),
            "get_thread_events": lambda: store.get_thread_events("run-1"),
            "get_thread_messages": lambda: store.get_thread_messages("run-1"),
            "get_thread_round_count": lambda: store.get_thread_round_count("run-1"),
            "get_thread_rounds": lambda: store.get_thread_rounds("run-1", limit=100),
            "json": lambda: [entry.json() for entry in store.query()],
        }
        for name, call in calls.items():
            try:
                call()
                say({name: "answered"})
            except (RecursionError, ValueError, ns.NerveStoreError) as error:
                say({name: type(error).__name__})
        say({"rows": store.count()})
