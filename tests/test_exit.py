"""The end of the interpreter while a daemon thread is in a call: the process ends with 0, whatever the call does.

CPython stops daemon threads where they next ask for the interpreter. Inside of native code that must not become an
abort, a crash or a hang.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROGRAM = """
import random, sys, threading, time
from datetime import date
import nerve_store as ns

path, seed = sys.argv[1], float(sys.argv[2])
DAY = 86_400_000
store = ns.Store(path, durability="normal")
logs, blobs = store.logs, store.blobs
ready = threading.Event()

def step(done, total):
    sum(range(50))

class Pieces:
    def __init__(self):
        self.left = 400
    def read(self, size):
        self.left -= 1
        return b"x" * min(size, 4096 + self.left) if self.left > 0 else b""

{prepare}

def work():
    ready.set()
    while True:
        {call}

threading.Thread(target=work, daemon=True).start()
ready.wait()
time.sleep(seed)
"""

ROWS = "logs.append_many([('s', 't', 'r', '\"' + 'x' * 100 + '\"', 300 * DAY + i) for i in range(8000)])"
BLOBS = "blobs.write_many(str(i) * 1000 for i in range(100))"
ARCHIVED = "logs.append_many([('s', 't', 'r', None, DAY + i) for i in range(3000)]); logs.archive_logs()"
RUN = """
run = ns.WorkflowRun(run_id="r", workflow="w", status="started", timestamp=1)
logs.upsert_workflow_run(("r", "status", "r", None, 1), run)
logs.append_many([("r", "message", "r", '{"role": "user", "content": "x"}', 300 * DAY + i) for i in range(200)])
"""

CALLS = {
    "append": ("", "logs.append('s', 't')"),
    "append_many": ("", "logs.append_many([('s', 't', None, None, 1)] * 50)"),
    "query": (ROWS, "logs.query(limit=500)"),
    "records": (ROWS, "[entry.json() for entry in logs.query(limit=50)]; logs.stats()"),
    "sql": (ROWS, "logs.sql('SELECT * FROM logs LIMIT 100')"),
    "follow": (ROWS, "next(iter(logs.follow(after_id=0)))"),
    "verify": (ROWS, "logs.verify()"),
    "verify with progress": (ROWS, "logs.verify(progress=step)"),
    "reindex": (ROWS, "logs.reindex(progress=step)"),
    "archive_logs": (
        "",
        (
            "logs.append_many([('s', 't', None, None, DAY * (1 + i % 3)) for i in range(3000)]); "
            "logs.archive_logs(progress=step)"
        ),
    ),
    "dry run": (ROWS, "logs.archive_logs(dry_run=True, progress=step)"),
    "restore_archive": (ARCHIVED, "logs.restore_archive(date(1970, 1, 2), progress=step); logs.archive_logs()"),
    "read_archive": (ARCHIVED, "list(logs.read_archive(date(1970, 1, 2)))"),
    "archived_days": (ARCHIVED, "logs.archived_days()"),
    "threads of runs": (RUN, "logs.get_thread_messages('r'); logs.get_thread_rounds('r', limit=10)"),
    "errors": ("", "\n        try: blobs.size('0' * 64)\n        except ns.BlobNotFoundError: pass"),
    "blob write": ("", "blobs.write(str(time.time()))"),
    "blob write_many": ("", "blobs.write_many(str(time.time() + i) for i in range(40))"),
    "blob write_file": ("", "blobs.write_file(Pieces())"),
    "blob writer": ("", "\n        with blobs.writer() as writer: writer.write('x' * 70_000)"),
    "blob read": (BLOBS, "[blobs.read(hash) for hash in blobs]"),
    "blob open": (BLOBS, "[blobs.open(hash).read() for hash in blobs]"),
    "blob verify": (BLOBS, "blobs.verify()"),
    "blob verify with progress": (BLOBS, "blobs.verify(progress=step)"),
    "blob collect": (BLOBS, "blobs.collect(iter(list(blobs)), dry_run=True, progress=step)"),
}

EXITS = 6
MOST_EXITS = 60


def exits(directory: Path, name: str, count: int) -> list[str]:
    """What went wrong at `count` exits of a process with a daemon thread in the call."""
    prepare, call = CALLS[name]
    program = PROGRAM.format(prepare=prepare, call=call)

    def run(number: int) -> str | None:
        at = directory / str(number)
        at.mkdir()
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-W",
                    "ignore:timestamp",
                    "-c",
                    program,
                    at / "data",
                    str(0.002 + 0.15 * number / count),
                ],
                cwd=at,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "it hangs"
        return f"{done.returncode}: {done.stderr.strip()[-500:]}" if done.returncode or done.stderr else None

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        return [wrong for wrong in threads.map(run, range(count)) if wrong]


@pytest.mark.parametrize("name", CALLS)
def test_daemon_thread_in_a_call_does_not_disturb_the_exit(tmp_path: Path, name: str) -> None:
    assert exits(tmp_path, name, EXITS) == []


@pytest.mark.torture
@pytest.mark.parametrize("name", CALLS)
def test_daemon_thread_in_a_call_disturbs_none_of_many_exits(tmp_path: Path, name: str) -> None:
    assert exits(tmp_path, name, MOST_EXITS) == []


DYING = """
import ctypes, sys, threading, time
import nerve_store as ns

path = sys.argv[1]
DAY = 86_400_000
store = ns.Store(path, durability="normal")
logs, blobs = store.logs, store.blobs
logs.append_many([("s", "t", "r", "x" * 100, DAY + i) for i in range(9000)])
hashes = blobs.write_many(str(i) * 1000 for i in range(50))

def die(*_):
    # What CPython does to a thread that asks for the interpreter after its end; the call lets other threads run.
    ctypes.CDLL(None).pthread_exit(None)

class Dying:
    __iter__ = read = __fspath__ = die

def items():
    yield from ()
    die()
    yield


{prepare}

def work():
    {call}
    print("alive")

thread = threading.Thread(target=work, daemon=True)
thread.start()
thread.join(1.0)
logs.append("s", "t")
print("done", flush=True)
"""

DYING_CALLS = {
    "progress of verify": ("", "logs.verify(progress=die)"),
    "progress of archive_logs": ("", "logs.archive_logs(progress=die)"),
    "progress of reindex": ("", "logs.reindex(progress=die)"),
    "progress of blobs.verify": ("", "blobs.verify(progress=die)"),
    "progress of collect": ("", "blobs.collect(hashes, progress=die)"),
    "source of write_file": ("", "blobs.write_file(Dying())"),
    "path": ("", "ns.BlobStore(Dying())"),
    "items of write_many": ("", "blobs.write_many(items())"),
    "iterable of write_many": ("", "blobs.write_many(Dying())"),
    "items of collect": ("", "blobs.collect(items())"),
    "items of append_many": ("", "logs.append_many(items())"),
    "error": ("ns.BlobNotFoundError.__init__ = die", "blobs.size('0' * 64)"),
    "parameters of sql": ("", "logs.sql('SELECT ?', items())"),
}


@pytest.mark.parametrize("name", DYING_CALLS)
def test_thread_that_is_ended_inside_of_python_code_that_a_call_runs_sleeps(tmp_path: Path, name: str) -> None:
    """The same end, made to come where a call of ours has Python code beneath it."""
    prepare, call = DYING_CALLS[name]
    program = DYING.format(prepare=prepare, call=call)
    done = subprocess.run(
        [sys.executable, "-W", "ignore:timestamp", "-c", program, tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
