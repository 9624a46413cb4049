"""Closing while others use the store: their calls go on, or are told that it is closed."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote.bucket import Bucket

COUNT = 300
CALLS: dict[str, Callable[[Any], Any]] = {
    "write_many": lambda blobs: len(blobs.write_many(b"new %d" % number for number in range(COUNT))),
    "verify": lambda blobs: blobs.verify().blob_count,
    "stats": lambda blobs: blobs.stats().blob_count,
    "iteration": lambda blobs: len(list(blobs)),
    "collect": lambda blobs: blobs.collect([], grace=timedelta(0)).deleted_count,
    "dry run": lambda blobs: blobs.collect([], grace=timedelta(0), dry_run=True).deleted_count,
}


@pytest.fixture
def filled(memory: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Blobs that are listed shard by shard."""
    monkeypatch.setattr("nerve_store.remote.bucket.PAGE", 100)
    monkeypatch.setattr("nerve_store.remote.blobs.listing.PAGE", 100)
    memory.open().write_many(b"%d" % number for number in range(COUNT))
    return memory


@pytest.fixture
def under_way(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a thread of the pool asks for something; each of these takes a moment."""
    event = threading.Event()

    def slow(name: str) -> None:
        original = getattr(Bucket, name)

        def call(self: Bucket, *arguments: Any, **options: Any) -> Any:
            if threading.current_thread().name.startswith("nerve_store-objects"):
                event.set()
                time.sleep(0.002)
            return original(self, *arguments, **options)

        monkeypatch.setattr(Bucket, name, call)

    for name in ("create", "list", "get_parts", "delete"):
        slow(name)
    return event


@pytest.mark.parametrize("call", CALLS)
def test_call_goes_on_while_another_thread_closes(filled: Place, under_way: threading.Event, call: str) -> None:
    blobs = filled.open()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(CALLS[call], blobs)
        while not result.done():
            under_way.wait(0.1)
            blobs.close()
        assert result.result() == COUNT


@pytest.mark.parametrize("call", [name for name in CALLS if name not in {"iteration", "dry run"}])
def test_asynchronous_call_goes_on_while_another_task_closes(
    filled: Place, under_way: threading.Event, call: str
) -> None:
    async def both() -> Any:
        blobs = filled.open_async()
        calls = {
            "write_many": lambda: blobs.write_many([b"new %d" % number for number in range(COUNT)]),
            "verify": blobs.verify,
            "stats": blobs.stats,
            "collect": lambda: blobs.collect([], grace=timedelta(0)),
        }
        task = asyncio.ensure_future(calls[call]())
        await asyncio.to_thread(under_way.wait, 30)
        await blobs.close()
        return await task

    result = asyncio.run(both())
    counts = {"verify": "blob_count", "stats": "blob_count", "collect": "deleted_count"}
    assert (len(result) if call == "write_many" else getattr(result, counts[call])) == COUNT


def test_close_of_a_directory_with_objects_lets_calls_end(
    filled: Place, under_way: threading.Event, tmp_path: Any
) -> None:
    store = ns.Store(tmp_path, remote=os.path.dirname(f"{filled.url}/x"))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(CALLS["write_many"], store.blobs)
        under_way.wait(30)
        store.close()
        assert result.result() == COUNT
