"""The programs that tests run in a process of their own, to be killed, starved, or to compete with the test.

`child.py PROGRAM ARGUMENTS`, with the arguments as a JSON object; each prints one JSON value a line. A line that was
printed is an acknowledgement: it is written by one `write` call as soon as the store's call has returned.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import nerve_store as ns


def say(value: Any) -> None:
    os.write(1, (json.dumps(value, default=str) + "\n").encode())


def failure(error: BaseException) -> dict[str, Any]:
    """What a program says about an error, in place of a result."""
    return {
        "error": type(error).__name__,
        "errno": getattr(error, "errno", None),
        "is_ours": isinstance(error, ns.NerveStoreError),
        "message": str(error),
    }


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
                store.transition(run_id, status, exit_code=exit_code, timestamp=2)
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
    """One archive run; says the days that gained rows, or the error."""
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
    """Say "holding" in the middle of an archive run, and go on when a line comes in."""

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


def outcomes(*, path: str, count: int, durability: Literal["full", "normal"] = "full", payload_length: int = 0) -> None:
    """Append `count` rows whatever happens, say each outcome, then what can be read."""
    with ns.LogStore(path) as store:
        for number in range(count):
            try:
                say({"id": store.append("system", "tick", None, str(number).ljust(payload_length), number).id})
            except (OSError, ValueError, ns.NerveStoreError) as error:
                say(failure(error))
        say({"read": [entry.id for entry in store.query()]})


def call_forked(*, path: str) -> None:
    """Fork with an open store; the child uses it, the parent goes on. Says what the child saw, then what it sees."""
    store = ns.LogStore(path)
    store.append("system", "before", None, None, 0)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(20)
        seen: dict[str, str] = {}
        calls: dict[str, Callable[[], object]] = {
            "append": lambda: store.append("system", "child"),
            "query": store.query,
            "archive_logs": store.archive_logs,
            "set_meta": lambda: store.set_meta("a", "b"),
            "iter": lambda: list(store.iter()),
        }
        for name, call in calls.items():
            try:
                call()
                seen[name] = "no error"
            except ns.NerveStoreError as error:
                seen[name] = type(error).__name__
        try:
            store.close()
            seen["close"] = "no error"
        except ns.NerveStoreError as error:
            seen["close"] = type(error).__name__
        with ns.LogStore(path) as own:
            own.append("system", "own", None, None, 0)
        os.write(writer, json.dumps(seen).encode())
        os._exit(0)
    os.close(writer)
    seen_by_child = json.loads(os.read(reader, 65536) or b"{}")
    _, status = os.waitpid(child, 0)
    say({"status": status, "seen": seen_by_child})
    store.append("system", "after", None, None, 0)
    say([entry.type for entry in store.query()])
    store.close()


def drop_forked(*, path: str) -> None:
    """Fork with an open store; the child forgets it and ends as any program does. Says what the parent can still do."""
    store = ns.LogStore(path)
    rows = store.iter()
    store.append("system", "before", None, None, 0)
    if (child := os.fork()) == 0:
        signal.alarm(20)
        del store, rows
        gc.collect()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    say({"status": status})
    for _ in range(3):
        store.append("system", "after", None, None, 0)
        say(counted_by_another_program(path))
    store.close()


def counted_by_another_program(path: str) -> int:
    script = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM logs').fetchone())"
    return int(subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True).stdout)


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


def read_on_a_small_stack(*, path: str, opening: str, closing: str, levels: int, stack_kib: int) -> None:
    """Read nested payloads in every way there is, on a thread with a stack of `stack_kib` KiB."""
    nested = opening * levels + "1" + closing * levels
    payloads = [
        f'{{"role":"coder","content":"deep","type":"t","meta":{nested}}}',
        f'{{"triggerPayload":{{"deep":{nested}}}}}',
    ]
    said: dict[str, int] = {}

    def work() -> None:
        with ns.Store(path) as store:
            logs = store.logs
            for payload in payloads:
                for row_type in ("started", "thread_workflow_message", "thread_command_event"):
                    logs.append("workflow", row_type, "run-1", payload, 0)
            said["messages"] = len(logs.get_thread_messages("run-1"))
            said["events"] = len(logs.get_thread_events("run-1"))
            said["rounds"] = len(logs.get_thread_rounds("run-1", limit=100))
            said["round_count"] = logs.get_thread_round_count("run-1")
            said["trigger"] = logs.get_trigger_payload("run-1") is not None
            said["json"] = len([entry.json() for entry in logs.query(type="started")])
            logs.archive_logs()
            said["archived"] = len(logs.get_thread_messages("run-1"))
            said["archived_rounds"] = len(logs.get_thread_rounds("run-1", limit=100))
            assert logs.verify().ok
            logs.reindex()
            said["reindexed"] = logs.get_thread_round_count("run-1")

    threading.stack_size(stack_kib * 1024)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    say(said)


def archive_badly(*, path: str, now: int) -> None:
    """The control of the kill sweeps: an archiver that deletes first and writes afterwards. A sweep must catch it."""
    connection = sqlite3.connect(path, isolation_level=None)
    boundary = now - timedelta(days=30) // timedelta(milliseconds=1)
    boundary -= boundary % 86_400_000
    rows = connection.execute("SELECT * FROM logs WHERE timestamp < ? ORDER BY id", (boundary,)).fetchall()
    connection.execute("DELETE FROM logs WHERE timestamp < ?", (boundary,))
    connection.close()
    directory = os.path.join(os.path.dirname(path), "archive", "logs")
    os.makedirs(directory, exist_ok=True)
    days: dict[date, list[str]] = {}
    for row in rows:
        record = dict(zip(("id", "source", "type", "refId", "payload", "timestamp"), row, strict=True))
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        days.setdefault(datetime.fromtimestamp(row[5] // 1000, UTC).date(), []).append(line + "\n")
    for day, lines in days.items():
        with open(os.path.join(directory, f"{day}.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(lines)
    say({"days": len(days)})


PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__: program
    for program in (
        append,
        runs,
        archive,
        restore,
        reindex,
        hold_archive,
        hold_archived,
        hold_lock,
        outcomes,
        call_forked,
        drop_forked,
        memory,
        deep_payload,
        read_on_a_small_stack,
        archive_badly,
    )
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](**json.loads(sys.argv[2]))
