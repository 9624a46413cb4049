"""No more threads to be had (`RLIMIT_NPROC`, a pids cgroup): every public call goes on with those there are.

The limit does not bind root: there the program gives its rights up first.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns

PROGRAM = """
import asyncio, encodings.idna, concurrent.futures.thread, io, json, os, resource, sys, threading
from datetime import date, timedelta
import nerve_store as ns
import nerve_store.exceptions, nerve_store.records
ns.Store, ns.AsyncLogStore

path = sys.argv[1]
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
DAY = 86_400_000
FIRST, SECOND = date(1970, 1, 2), date(1970, 1, 3)
store = ns.Store(path, durability="normal")
logs, blobs = store.logs, store.blobs
logs.append_many([("s", "t", "r", "x" * 200, DAY + i) for i in range(5000)])
logs.archive_logs()
logs.append_many([("s", "t", "r", "x" * 200, 2 * DAY + i) for i in range(5000)])
# Two blocks of a day file.
logs.append_many([("s", "t", "r", str(i) * 500_000, 3 * DAY + i) for i in range(9)])
run = ns.WorkflowRun(run_id="r", workflow="w", status="started", timestamp=4 * DAY)
message = json.dumps({"role": "user", "content": "x"})
logs.upsert_workflow_run(("r", "message", "r", message, 4 * DAY), run)
hashes = blobs.write_many(str(i) * 100 for i in range(20))
open(path + "/large", "wb").write(os.urandom(6 << 20))

resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    sys.exit("the limit does not bind")

def writer():
    with blobs.writer() as file:
        file.write(os.urandom(300_000))

claims = []

def in_a_batch():
    with logs.batch() as batch:
        batch.append("s", "t")
        batch.set_meta("b", "v")

def opened():
    with ns.LogStore(path + "/logs.db", read_only=True) as other:
        return other.count()

LOGS = {
    "append": lambda: logs.append("s", "t"),
    "append_many": lambda: logs.append_many([("s", "t", None, None, 5)] * 100),
    "query": lambda: logs.query(limit=10, archived=True),
    "iter": lambda: sum(1 for _ in logs.iter(archived=True)),
    "count": lambda: logs.count(archived=True),
    "sql": lambda: logs.sql("SELECT count(*) FROM logs"),
    "get_meta": lambda: logs.get_meta("k"),
    "set_meta": lambda: logs.set_meta("k", "v"),
    "upsert_workflow_run": lambda: logs.upsert_workflow_run(("r", "message", "r", message, None), run),
    "append_with_workflow_update": lambda: logs.append_with_workflow_update(("r", "message", "r", message, None), run),
    "transition": lambda: logs.transition("r", "completed"),
    "create_workflow_run": lambda: logs.create_workflow_run("c", "w"),
    "claim_workflow_run": lambda: claims.append(logs.claim_workflow_run("me")),
    "renew_claim": lambda: claims.append(logs.renew_claim(claims[-1])),
    "release_claim": lambda: logs.release_claim(claims[-1]),
    "batch": in_a_batch,
    "delete_meta": lambda: logs.delete_meta("k"),
    "list_meta": lambda: logs.list_meta(),
    "query_workflow_runs": lambda: logs.query_workflow_runs(limit=5),
    "iter_workflow_runs": lambda: list(logs.iter_workflow_runs()),
    "count_workflow_runs": lambda: logs.count_workflow_runs(),
    "delete_workflow_runs": lambda: logs.delete_workflow_runs(before=1),
    "arrow": lambda: logs.arrow(archived=True).__arrow_c_stream__(),
    "backup": lambda: logs.backup(path + "/copy.db"),
    "get_workflow_run": lambda: logs.get_workflow_run("r"),
    "get_active_workflow_runs": lambda: logs.get_active_workflow_runs(),
    "get_all_workflow_runs": lambda: logs.get_all_workflow_runs(),
    "get_trigger_payload": lambda: logs.get_trigger_payload("r"),
    "get_thread_events": lambda: logs.get_thread_events("r"),
    "get_thread_messages": lambda: logs.get_thread_messages("r"),
    "get_thread_round_count": lambda: logs.get_thread_round_count("r"),
    "get_thread_rounds": lambda: logs.get_thread_rounds("r", limit=5),
    "archive_logs": lambda: [
        logs.archive_logs(dry_run=True).days,
        logs.archive_logs(max_days=1, compression="zstd"),
        logs.archive_logs(vacuum=True, progress=lambda done, total: None),
    ],
    "archived_days": lambda: logs.archived_days(),
    "read_archive": lambda: sum(1 for _ in logs.read_archive(SECOND)),
    "restore_archive": lambda: logs.restore_archive(FIRST),
    "verify": lambda: [bool(logs.verify().ok), bool(logs.verify(progress=lambda done, total: None).ok)],
    "follow": lambda: next(iter(logs.follow(after_id=0))),
    "reindex": lambda: logs.reindex(progress=lambda done, total: None),
    "expire_archive": lambda: logs.expire_archive(before=date(1970, 1, 1)),
    "stats": lambda: logs.stats(),
}
BLOBS = {
    "write": lambda: blobs.write(os.urandom(5 << 20)),
    "write_many": lambda: blobs.write_many([os.urandom(1000) for _ in range(50)]),
    "write_file": lambda: [blobs.write_file(path + "/large"), blobs.write_file(io.BytesIO(os.urandom(6 << 20)))],
    "writer": writer,
    "read": lambda: blobs.read(hashes[0]),
    "open": lambda: blobs.open(hashes[0]).read(),
    "exists": lambda: blobs.exists(hashes[0]),
    "size": lambda: blobs.size(hashes[0]),
    "stats": lambda: blobs.stats(),
    "verify": lambda: [bool(blobs.verify().ok), bool(blobs.verify(progress=lambda done, total: None).ok)],
    "collect": lambda: blobs.collect(hashes[:10], grace=timedelta(0)),
    "delete": lambda: blobs.delete(hashes[0]),
}

said = {}

def tell(name, call):
    try:
        said[name] = str(call())[:80]
    except BaseException as error:
        said[name] = f"! {type(error).__mro__[-3:]} {type(error).__name__}: {error}"

async def tell_all():
    other = ns.AsyncLogStore(path + "/logs.db")
    async def follow():
        async for row in other.follow(after_id=0):
            return row
    calls = {
        "append": lambda: asyncio.gather(*(other.append("s", "t") for _ in range(40))),
        "append_many": lambda: other.append_many([("s", "t", None, None, 5)] * 300),
        "query": lambda: asyncio.gather(*(other.query(limit=10) for _ in range(20))),
        "count": lambda: other.count(archived=True),
        "sql": lambda: other.sql("SELECT 1"),
        "set_meta": lambda: other.set_meta("k", "v"),
        "get_meta": lambda: other.get_meta("k"),
        "get_workflow_run": lambda: other.get_workflow_run("r"),
        "get_thread_messages": lambda: other.get_thread_messages("r"),
        "archive_logs": lambda: other.archive_logs(),
        "verify": lambda: other.verify(),
        "follow": follow,
        "close": lambda: other.close(),
    }
    for name, call in calls.items():
        try:
            said["async." + name] = str(await asyncio.wait_for(call(), 60))[:80]
        except BaseException as error:
            said["async." + name] = f"! {type(error).__name__}: {error}"

for name, call in LOGS.items():
    tell("logs." + name, call)
for name, call in BLOBS.items():
    tell("blobs." + name, call)
tell("open", opened)
asyncio.run(tell_all())
count = logs.count(archived=True)
tell("logs.close", logs.close)
tell("blobs.close", blobs.close)
print(json.dumps({"said": said, "count": count}))
"""

NOT_CALLED = {"path", "archive_dir", "read_only", "closed", "root"}
"""Attributes."""
ROWS = 5000 + 5000 + 9 + 1
APPENDED = 1 + 100 + 2 + 1 + 4 + 1 + 40 + 300
"""What the calls under the limit append: with the messages of the runs, the event of the transition, those of a run
that is created, claimed and released, and the row of a batch."""


@pytest.fixture(scope="module")
def outcome() -> Iterator[dict[str, Any]]:
    # Not pytest's own directory, which other users may not enter.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield run_program(Path(directory))


def run_program(directory: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, directory / "data"], capture_output=True, text=True, timeout=300, check=False
    )
    if "does not bind" in done.stderr:
        pytest.skip("RLIMIT_NPROC does not bind this user")
    assert done.returncode == 0, done.stderr
    assert "panicked" not in done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_every_call_goes_on_without_another_thread(outcome: dict[str, Any]) -> None:
    assert {name: text for name, text in outcome["said"].items() if text.startswith("!") or "False" in text} == {}


def test_no_row_is_lost_or_doubled(outcome: dict[str, Any]) -> None:
    assert outcome["count"] == ROWS + APPENDED


@pytest.mark.parametrize("prefix", ["logs", "blobs"])
def test_no_public_call_is_left_out(outcome: dict[str, Any], prefix: str) -> None:
    kind = {"logs": ns.LogStore, "blobs": ns.BlobStore}[prefix]
    public = {name for name in dir(kind) if not name.startswith("_")} - NOT_CALLED
    assert {f"{prefix}.{name}" for name in public} <= set(outcome["said"])
