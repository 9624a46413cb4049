"""A signal whose handler raises while a thread of an asynchronous store begins: the program still ends.

The handler runs where Python waits for the new thread to have begun, and the pool never learns of that thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, sys, threading
import nerve_store as ns

path, kind, moment, error = sys.argv[1:]
raised = {"interrupt": KeyboardInterrupt, "exit": SystemExit}[error]
start, left = threading.Thread.start, [1]

def begin(thread):
    start(thread)
    if thread.name.startswith("nerve_store-" + moment) and left and left.pop():
        raise raised

threading.Thread.start = begin

async def used(store):
    if kind == "AsyncBlobStore":
        await store.write(b"blob")
        await store.stats()
    else:
        logs = store if kind == "AsyncLogStore" else store.logs
        await logs.append("s", "t")
        await logs.archive_logs()
        await logs.query()
        if kind == "AsyncStore":
            await store.blobs.write(b"blob")

async def main():
    global kept
    kept = store = getattr(ns, kind)(path)  # as a program that never closes it
    if moment == "close":
        async with store:
            pass
    else:
        await used(store)

try:
    asyncio.run(main())
except raised:
    assert not left, "nothing was raised"
    sys.exit(3)
"""


MOMENTS = {
    "AsyncLogStore": ["read", "job", "close"],
    "AsyncBlobStore": ["write", "job", "close"],
    "AsyncStore": ["read", "write", "job", "close"],
}


@pytest.mark.parametrize("error", ["interrupt", "exit"])
@pytest.mark.parametrize(("kind", "moment"), [(kind, moment) for kind in MOMENTS for moment in MOMENTS[kind]])
def test_a_program_ends_whose_handler_raised_as_a_thread_began(
    tmp_path: Path, kind: str, moment: str, error: str
) -> None:
    path = tmp_path / ("logs.db" if kind == "AsyncLogStore" else "data")
    arguments = [sys.executable, "-c", PROGRAM, str(path), kind, moment, error]
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ, PYTHONDEVMODE="")
    )
    assert done.returncode == 3, done.stderr
