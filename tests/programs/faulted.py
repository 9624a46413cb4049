"""Calls for the fault sweeps: every read, every write of blobs, asynchronous writes, each in a process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import nerve_store as ns
from programs import failure, say
from support.archive import NOW
from support.calls import claim_of, fill_batch

Durability = Literal["full", "normal"]
DAY = date(2026, 1, 1)


def plain(value: Any) -> Any:
    """A result as plain JSON values."""
    if isinstance(value, ns.LogEntry):
        return [value.id, value.source, value.type, value.ref_id, value.payload, value.timestamp]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key: plain(each) for key, each in vars_of(value).items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return str(value)


def vars_of(record: Any) -> dict[str, Any]:
    """The fields that do not depend on where the store lies."""
    names = [field.name for field in dataclasses.fields(record) if "path" not in field.name]
    return {name: getattr(record, name) for name in names}


LOG_READS: dict[str, Callable[[ns.LogStore], object]] = {
    "query": lambda logs: logs.query(),
    "query archived": lambda logs: logs.query(archived=True),
    "query of a reference": lambda logs: logs.query(ref_id="ref-1", archived=True),
    "iter": lambda logs: list(logs.iter(archived=True, descending=True)),
    "count": lambda logs: [logs.count(), logs.count(archived=True, source="system")],
    "follow": lambda logs: list(itertools.islice(logs.follow(after_id=0), 12)),
    "sql": lambda logs: logs.sql("SELECT id, payload FROM logs ORDER BY id"),
    "meta": lambda logs: logs.get_meta("key"),
    "runs": lambda logs: [
        logs.get_workflow_run("run-1"),
        logs.get_active_workflow_runs(),
        logs.get_all_workflow_runs(),
    ],
    "threads": lambda logs: [
        logs.get_trigger_payload("run-1"),
        logs.get_thread_events("run-1"),
        logs.get_thread_messages("run-1"),
        logs.get_thread_round_count("run-1"),
        logs.get_thread_rounds("run-1", limit=10),
    ],
    "archived_days": lambda logs: logs.archived_days(),
    "read_archive": lambda logs: list(logs.read_archive(DAY)),
    "dry run": lambda logs: logs.archive_logs(dry_run=True),
    "stats": lambda logs: logs.stats(),
    "queries of runs": lambda logs: [logs.query_workflow_runs(limit=5), dict(logs.count_workflow_runs())],
    "list_meta": lambda logs: logs.list_meta(),
}
BLOB_READS: dict[str, Callable[[ns.BlobStore], object]] = {
    "read": lambda blobs: [blobs.read(blob_hash) for blob_hash in blobs],
    "open": lambda blobs: [stream(blobs, blob_hash) for blob_hash in blobs],
    "exists": lambda blobs: [blobs.exists(blob_hash) for blob_hash in [*blobs, "0" * 64]],
    "contains": lambda blobs: [blob_hash in blobs for blob_hash in [*blobs, "0" * 64]],
    "list": list,
    "size": lambda blobs: [blobs.size(blob_hash) for blob_hash in blobs],
    "stats": lambda blobs: blobs.stats(),
    "dry run": lambda blobs: blobs.collect([], grace=timedelta(0), dry_run=True),
}


def stream(blobs: ns.BlobStore, blob_hash: str) -> bytes:
    with blobs.open(blob_hash) as file:
        return file.read()


def read_twice(*, path: str, name: str, of: Literal["logs", "blobs"]) -> None:
    """Open a store and read; after an error go on with the same store, or open it if it did not open."""
    opened: Any = None
    for _ in range(2):
        try:
            if opened is None:
                opened = ns.LogStore(path, busy_timeout=1) if of == "logs" else ns.BlobStore(path)
            result = LOG_READS[name](opened) if of == "logs" else BLOB_READS[name](opened)
            say({"result": hashlib.sha256(json.dumps(plain(result)).encode()).hexdigest()})
        except (ns.NerveStoreError, OSError) as error:
            say(failure(error))


POLLS: dict[str, Callable[[ns.LogStore, int], object]] = {
    "after_id": lambda logs, last: logs.query(after_id=last),
    "since": lambda logs, last: logs.query(since=10**12, after_id=last),
    "newest": lambda logs, last: logs.query(after_id=last - 10, source="system"),
    "descending": lambda logs, last: logs.query(after_id=last - 10, descending=True),
    "iter": lambda logs, last: list(logs.iter(after_id=last)),
}


def poll(*, path: str, name: str, count: int) -> None:
    """Ask a number of times for what comes after the newest row."""
    with ns.LogStore(path, read_only=True) as logs:
        (newest,) = logs.query(descending=True, limit=1)
        for _ in range(count):
            POLLS[name](logs, newest.id)
        say({"polls": count})


def read_carelessly(*, path: str) -> None:
    """The control: takes a file that it cannot read for one that is not there."""
    for _ in range(2):
        found = []
        for name in ("a", "b"):
            try:
                with open(f"{path}/{name}", "rb", buffering=0) as file:
                    found.append(file.read().decode())
            except OSError:
                found.append("")
        say({"result": found})


# --- writes of blobs ---------------------------------------------------------------------------------------------

OLD = [b"old %d " % number + b"." * (number * 3001) for number in range(4)]
NEW = [b"new %d " % number + b"." * (number * 3001) for number in range(4)]
HASHES = [hashlib.sha256(content).hexdigest() for content in OLD]


def stored_at(path: str | Path, blob_hash: str) -> Path:
    return Path(path) / blob_hash[:2] / blob_hash[2:]


def write_by_writer(blobs: ns.BlobStore) -> str:
    with blobs.writer() as writer:
        writer.write(NEW[3])
    return writer.hash


def write_and_discard(blobs: ns.BlobStore) -> None:
    writer = blobs.writer()
    writer.write(NEW[3])
    writer.discard()


BLOB_WRITES: dict[str, Callable[[ns.BlobStore], object]] = {
    "write": lambda blobs: blobs.write(NEW[1]),
    "write what is there": lambda blobs: blobs.write(OLD[1], verify=True),
    "write_many": lambda blobs: blobs.write_many(NEW),
    "write_file": lambda blobs: blobs.write_file(io.BytesIO(NEW[2])),
    "writer": write_by_writer,
    "writer whose blob is discarded": write_and_discard,
    "delete": lambda blobs: blobs.delete(HASHES[0]),
    "collect": lambda blobs: blobs.collect(HASHES[2:]),
    "verify": lambda blobs: blobs.verify(),
    "write over what is damaged": lambda blobs: blobs.write(OLD[3]),
}


def write_blobs(*, path: str, name: str, durability: Durability) -> None:
    """One of the writes of blobs, in its own opening of the store."""
    blobs = ns.BlobStore(path, durability=durability)
    BLOB_WRITES[name](blobs)
    say(name)


async def write_by_async_writer(blobs: ns.AsyncBlobStore) -> str:
    async with blobs.writer() as writer:
        await writer.write(NEW[3])
    return writer.hash


async def write_and_discard_async(blobs: ns.AsyncBlobStore) -> None:
    async with blobs.writer() as writer:
        await writer.write(NEW[3])
        await writer.discard()


ASYNC_BLOB_WRITES: dict[str, Callable[[ns.AsyncBlobStore], Awaitable[object]]] = {
    "write": lambda blobs: blobs.write(NEW[1]),
    "write what is there": lambda blobs: blobs.write(OLD[1], verify=True),
    "write_many": lambda blobs: blobs.write_many(NEW),
    "write_file": lambda blobs: blobs.write_file(io.BytesIO(NEW[2])),
    "writer": write_by_async_writer,
    "writer whose blob is discarded": write_and_discard_async,
    "delete": lambda blobs: blobs.delete(HASHES[0]),
    "collect": lambda blobs: blobs.collect(HASHES[2:]),
    "verify": lambda blobs: blobs.verify(),
    "write over what is damaged": lambda blobs: blobs.write(OLD[3]),
}


def write_blobs_async(*, path: str, name: str, durability: Durability) -> None:
    """One of the writes of an `AsyncBlobStore`, in an event loop of its own."""

    async def write() -> None:
        async with ns.AsyncBlobStore(path, durability=durability) as blobs:
            await ASYNC_BLOB_WRITES[name](blobs)
            say(name)

    asyncio.run(write())


def delete_before_writing(*, path: str, name: str, durability: Durability) -> None:
    """The control: heals a blob by removing it first."""
    os.unlink(stored_at(path, HASHES[1]))
    write_blobs(path=path, name="write what is there", durability=durability)


# --- asynchronous writes -----------------------------------------------------------------------------------------

ENTRY = ("system", "tick", "run-1", None, 0)
RUN = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 0)


def claimed(logs: Any) -> ns.RunClaim:
    """The claim that the run "claimed" is under."""
    return claim_of(logs._store)


async def write_batch(logs: Any) -> None:
    async with logs.batch() as batch:
        fill_batch(batch)


ASYNC_WRITES: dict[str, Callable[[Any], Awaitable[object]]] = {
    "append": lambda logs: logs.append("system", "tick"),
    "append_many": lambda logs: logs.append_many([ENTRY]),
    "set_meta": lambda logs: logs.set_meta("key", "value"),
    "delete_meta": lambda logs: logs.delete_meta("other"),
    "batch": write_batch,
    "create_workflow_run": lambda logs: logs.create_workflow_run("new", "deploy", not_before=5),
    "claim_workflow_run": lambda logs: logs.claim_workflow_run("worker", run_id="waiting"),
    "renew_claim": lambda logs: logs.renew_claim(claimed(logs), lease=100),
    "release_claim": lambda logs: logs.release_claim(claimed(logs), delay=5),
    "append once": lambda logs: logs.append("system", "tick", key="key"),
    "append under a claim": lambda logs: logs.append("step", "tick", "claimed", claim=claimed(logs)),
    "transition under a claim": lambda logs: logs.transition("claimed", "completed", claim=claimed(logs)),
    "claim_workflow_run whose lease ran out": lambda logs: logs.claim_workflow_run("worker", run_id="left"),
    "upsert_workflow_run": lambda logs: logs.upsert_workflow_run(ENTRY, RUN),
    "append_with_workflow_update": lambda logs: logs.append_with_workflow_update(ENTRY, RUN),
    "transition": lambda logs: logs.transition("run-1", "completed"),
    "delete_workflow_runs": lambda logs: logs.delete_workflow_runs(before=NOW + 1),
    "archive_logs": lambda logs: logs.archive_logs(now=NOW),
    "expire_archive": lambda logs: logs.expire_archive(before=DAY + timedelta(days=1)),
    "restore_archive": lambda logs: logs.restore_archive(DAY),
    "reindex": lambda logs: logs.reindex(),
}


def write_async(*, path: str, name: str, durability: Durability, segment_rows: int) -> None:
    """One of the writes of an `AsyncLogStore`, in an event loop of its own."""

    async def write() -> None:
        options: dict[str, Any] = {"segment_rows": segment_rows, "busy_timeout": 1}
        async with ns.AsyncLogStore(path, durability=durability, **options) as logs:
            await ASYNC_WRITES[name](logs)
            say(name)

    asyncio.run(write())
