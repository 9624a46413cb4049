"""Forked children and object stores: a child works, or is told how it would; none hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.blob_places import available, made
from support import child_environment

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

PROGRAM = """
import asyncio, json, multiprocessing, os, signal, sys, warnings
import nerve_store as ns

url, options, directory, kind, use = json.loads(sys.argv[1])
warnings.simplefilter("ignore")

def blobs():
    with ns.ObjectBlobStore(url, options=options) as store:
        store.write("x")

def async_blobs():
    async def write():
        async with ns.AsyncObjectBlobStore(url, options=options) as store:
            await store.write("x")
    asyncio.run(write())

def days():
    with ns.Store(f"{directory}/{os.getpid()}", remote=f"{url}/{os.getpid()}", remote_options=options) as store:
        store.blobs.write("x")
        store.logs.append("system", "tick", timestamp=1)
        store.logs.archive_logs()

work = {"blobs": blobs, "async blobs": async_blobs, "days": days}[kind]

def told(call):
    try:
        call()
    except ns.ForkedStoreError as error:
        return str(error)
    return "works"

def in_child(call):
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(60)
        answer = "failed"
        try:
            answer = told(call)
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    return os.read(reader, 10_000).decode() or "hung"

def first_then_in_child():
    work()
    raise ns.ForkedStoreError(in_child(work))

if __name__ == "__main__":
    if use == "nothing":
        found = [in_child(work), in_child(first_then_in_child)]
    else:
        inherited = ns.ObjectBlobStore(url, options=options)
        work()
        found = [in_child(work), in_child(lambda: in_child(work) == "works" or work())]
        found.append(in_child(lambda: inherited.write("y")))
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found.append(pool.apply_async(told, (work,)).get(60))
        if kind == "blobs":
            for method in ("spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    assert pool.apply_async(told, (work,)).get(60) == "works"
    work()
    print(json.dumps(found))
"""


@pytest.fixture(params=["file", "memory", "s3-versitygw", "azurite"])
def arguments(request: pytest.FixtureRequest, tmp_path: Path) -> list[Any]:
    if (reason := available(request.param)) is not None:
        pytest.skip(reason)
    place = made(request.param, tmp_path)
    return [place.url, place.options, str(tmp_path / "data")]


def answers(tmp_path: Path, *arguments: Any) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program, json.dumps(arguments)],
        env=child_environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["blobs", "async blobs", "days"])
def test_child_of_a_process_that_used_no_object_store_works(arguments: list[Any], tmp_path: Path, kind: str) -> None:
    own, grandchild = answers(tmp_path, *arguments, kind, "nothing")
    assert own == "works"
    assert "spawn" in grandchild


@pytest.mark.parametrize("kind", ["blobs", "async blobs", "days"])
def test_child_of_a_process_that_used_an_object_store_is_told(arguments: list[Any], tmp_path: Path, kind: str) -> None:
    found = answers(tmp_path, *arguments, kind, "used")
    assert len(found) == 4
    assert all("spawn" in answer for answer in found)
