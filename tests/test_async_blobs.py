"""`AsyncBlobStore`: every method awaitable, batches, and nothing lost amid a call."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support.event_loops import run

MISSING = "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


def test_every_method_is_there_with_the_same_parameters() -> None:
    for name in vars(ns.BlobStore):
        if name.startswith("_") or name == "close":
            continue
        original, ours = getattr(ns.BlobStore, name), getattr(ns.AsyncBlobStore, name)
        documentation = inspect.getdoc(inspect.getattr_static(ns.BlobStore, name))
        found = inspect.getdoc(inspect.getattr_static(ns.AsyncBlobStore, name))
        assert documentation is not None
        assert found is not None
        assert found.startswith(documentation)
        if callable(original):
            theirs = [(p.name, p.default) for p in inspect.signature(original).parameters.values()]
            assert [(p.name, p.default) for p in inspect.signature(ours).parameters.values()] == theirs


def test_methods_do_what_the_blob_store_does(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")

    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            hashes = [
                await blobs.write("grüß dich"),
                await blobs.write(bytearray(b"changeable")),
                await blobs.write(memoryview(b"view")),
                await blobs.write(b"verified", verify=True),
                *await blobs.write_many([b"one", "two"]),
                await blobs.write_file(tmp_path / "file"),
                await blobs.write_file(io.BytesIO(b"from an object")),
            ]
            plain = ns.BlobStore(root)
            assert sorted(hashes) == list(plain) == [hash async for hash in blobs]
            assert await blobs.read(hashes[0]) == "grüß dich".encode()
            assert await blobs.read(MISSING) is None
            assert await blobs.exists(hashes[1])
            assert await blobs.exists(hashes[1], verify=False)
            assert await blobs.size(hashes[2]) == 4
            assert await blobs.stats() == plain.stats()
            assert (await blobs.verify()).blob_count == len(hashes)
            assert await blobs.delete(hashes[0])
            assert not await blobs.delete(hashes[0])
            assert (await blobs.collect(hashes[1:])).kept_count == len(hashes) - 1
            with pytest.raises(ns.BlobNotFoundError):
                await blobs.size(MISSING)
            assert blobs.root == str(root)
        assert blobs.closed
        with pytest.raises(ns.StoreClosedError):
            await blobs.read(MISSING)

    run(main())


# --- writes that share a batch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_writes_at_once_are_each_their_own(root: Path, durability: Any) -> None:
    items = [os.urandom(random.Random(n).randrange(3000)) for n in range(700)]

    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability=durability) as blobs:
            hashes = await asyncio.gather(*map(blobs.write, items))
            assert hashes == [ns.blob_hash(item) for item in items]
            assert await asyncio.gather(*map(blobs.read, hashes)) == items

    run(main())


def test_what_is_wrong_fails_its_own_write_alone(root: Path) -> None:
    wrong: list[Any] = [7, None, "\ud800", memoryview(b"abcd")[::2]]

    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            jobs = [blobs.write(wrong[n // 2 % 4] if n % 2 else str(n)) for n in range(80)]
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            for n, outcome in enumerate(outcomes):
                if n % 2:
                    assert isinstance(outcome, TypeError | ValueError)
                    assert "data" in str(outcome)
                else:
                    assert outcome == ns.blob_hash(str(n))

    run(main())


def test_a_batch_that_fails_gives_each_write_its_own_outcome(root: Path) -> None:
    root.mkdir()
    blocked = next(data for n in range(10**6) if ns.blob_hash(data := str(n)).startswith("00"))
    (root / "00").write_bytes(b"a file in the place of a directory")

    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            others = [data for n in range(20) if not ns.blob_hash(data := f"o{n}").startswith("00")]
            outcomes = await asyncio.gather(*map(blobs.write, [blocked, *others]), return_exceptions=True)
            assert isinstance(outcomes[0], OSError)
            assert outcomes[1:] == [ns.blob_hash(data) for data in others]

    run(main())


def test_a_cancelled_write_harms_no_other(root: Path) -> None:
    async def main() -> None:
        async with ns.AsyncBlobStore(root) as blobs:
            tasks = [asyncio.create_task(blobs.write(str(n))) for n in range(300)]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            await asyncio.sleep(0.005)
            for task in tasks[1::3]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            for n, outcome in enumerate(outcomes):
                assert outcome == ns.blob_hash(str(n)) or isinstance(outcome, asyncio.CancelledError)
            assert [outcomes[n] for n in range(2, 300, 3)] == [ns.blob_hash(str(n)) for n in range(2, 300, 3)]
        assert not list((root / ".staging").glob("*")) if (root / ".staging").exists() else True

    run(main())


SOURCE_BYTES = 2 << 30


class Zeros(io.RawIOBase):
    def __init__(self) -> None:
        self.left = SOURCE_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(self.left, len(memoryview(buffer)))
        self.left -= count
        return count


@pytest.mark.parametrize("is_path", [False, True])
def test_a_cancelled_write_file_ends_in_its_thread(root: Path, tmp_path: Path, is_path: bool) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(SOURCE_BYTES)

    async def main() -> None:
        async with ns.AsyncBlobStore(root) as blobs:
            writing = asyncio.create_task(blobs.write_file(source if is_path else Zeros()))
            await until(lambda: any((root / ".staging").glob("*")))
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            await until(lambda: not any((root / ".staging").glob("*")))
            after = await blobs.write("after")
            assert [hash async for hash in blobs] == [after], "what was cancelled was not stored"

    run(main())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - a file tells of nothing
            await asyncio.sleep(0.005)


def test_close_lets_writes_finish(root: Path) -> None:
    async def main() -> None:
        blobs = ns.AsyncBlobStore(root)
        tasks = [asyncio.create_task(blobs.write(str(n))) for n in range(200)]
        await asyncio.sleep(0)
        await blobs.close()
        assert await asyncio.gather(*tasks) == [ns.blob_hash(str(n)) for n in range(200)]
        await blobs.close()

    run(main())


def test_reads_do_not_queue_behind_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread of the writes waits for a file that gives nothing, and reads go on."""
    release = threading.Event()

    class Slow:
        def read(self, size: int, /) -> bytes:
            release.wait(30)
            return b""

    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            hash = await blobs.write(b"x")
            slow = [asyncio.create_task(blobs.write_file(Slow())) for _ in range(20)]
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            for _ in range(20):
                assert await blobs.read(hash) == b"x"
                assert await blobs.exists(hash)
                async with blobs.open(hash) as file:
                    assert await file.read() == b"x"
            assert time.monotonic() - begun < 10
            release.set()
            assert set(await asyncio.gather(*slow)) == {ns.blob_hash(b"")}

    run(main())


def test_two_loops_write_at_once(root: Path) -> None:
    blobs = ns.AsyncBlobStore(root, durability="normal")

    async def write(name: str) -> list[str]:
        return await asyncio.gather(*(blobs.write(f"{name}{n}") for n in range(200)))

    found: dict[str, list[str]] = {}
    threads = [threading.Thread(target=lambda n=name: found.update({n: asyncio.run(write(n))})) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [ns.blob_hash(f"{name}{n}") for n in range(200)] for name in "ab"}
    asyncio.run(blobs.close())


# --- ends in the middle ------------------------------------------------------------------------------------------


def test_a_loop_that_ends_in_the_middle_leaves_the_store_usable(root: Path) -> None:
    blobs = ns.AsyncBlobStore(root, durability="normal")
    left: list[Any] = []

    async def leave() -> None:
        left.extend(asyncio.ensure_future(blobs.write(str(n))) for n in range(100))
        writer = blobs.writer()
        await writer.write(b"x")
        left.append(asyncio.ensure_future(writer.write(b"y")))
        await asyncio.sleep(0)

    async def use() -> None:
        assert await blobs.write("after") == ns.blob_hash("after")
        assert await blobs.read(ns.blob_hash("after")) == b"after"
        await blobs.close()

    asyncio.run(leave())
    run(use())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_refused(root: Path) -> None:
    async def main() -> None:
        blobs = ns.AsyncBlobStore(root, durability="normal")
        await blobs.write("x")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                blobs.write("y").send(None)
            except ns.ForkedStoreError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # noqa: ASYNC222 - it ends at once
        await blobs.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn_explicit", lambda *_, **__: None)
        run(main())
