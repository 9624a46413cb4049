"""Streams of an `AsyncBlobStore`: written and read with `await`, and nothing published by halves."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support.event_loops import run

MISSING = "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.mark.parametrize("size", [0, 1, 300_000, 1_000_000])
def test_streams_write_and_read(root: Path, size: int) -> None:
    content = os.urandom(size)

    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            async with blobs.writer() as writer:
                for start in range(0, size, 70_001):
                    piece = content[start : start + 70_001]
                    assert await writer.write(piece) == len(piece)
                assert not writer.closed
                with pytest.raises(ValueError, match="no hash yet"):
                    assert writer.hash
            assert writer.hash == ns.blob_hash(content)
            assert writer.closed
            async with blobs.open(writer.hash) as file:
                assert await file.read(10) == content[:10]
                assert await file.read() == content[10:]
                assert await file.read() == b""
            assert file.closed
            opened = await blobs.open(writer.hash)
            assert b"".join([piece async for piece in opened]) == content
            await opened.close()

    run(main())


def test_a_stream_without_async_with(root: Path) -> None:
    async def main() -> None:
        blobs = ns.AsyncBlobStore(root, durability="normal")
        writer = blobs.writer()
        await writer.write("text")
        await writer.close()
        await writer.close()
        assert writer.hash == ns.blob_hash("text")
        gone = blobs.writer()
        await gone.write("gone")
        await gone.discard()
        assert gone.closed
        assert not await blobs.exists(ns.blob_hash("gone"))
        await blobs.close()
        with pytest.raises(ns.StoreClosedError):
            blobs.writer()

    run(main())


def test_an_exception_discards_what_was_written(root: Path) -> None:
    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            with suppress(LookupError):
                async with blobs.writer() as writer:
                    await writer.write("lost")
                    raise LookupError
            assert writer.closed
            assert [hash async for hash in blobs] == []
            with pytest.raises(ns.BlobNotFoundError):
                async with blobs.open(MISSING):
                    pass

    run(main())


def test_a_cancelled_write_of_a_stream_publishes_nothing(root: Path) -> None:
    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            writer = blobs.writer()
            await writer.write(b"first")
            writing = asyncio.create_task(writer.write(b"x" * 50_000_000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            for call in (writer.write(b"more"), writer.close()):
                with pytest.raises(ValueError, match="cancelled"):
                    await call
            await writer.discard()
            assert [hash async for hash in blobs] == []

    run(main())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("place", ["directory", "memory"])
def test_cancelled_reads_of_a_stream_lose_nothing(root: Path, place: str, seed: int) -> None:
    dice = random.Random(seed)
    content = dice.randbytes(3_000_000)

    async def main() -> None:
        blobs: Any
        if place == "memory":
            pytest.importorskip("obstore")
            blobs = ns.AsyncObjectBlobStore(f"memory:///{seed}")
        else:
            blobs = ns.AsyncBlobStore(root, durability="normal")
        async with blobs:
            hash, found, cancelled = await blobs.write(content), bytearray(), 0
            async with blobs.open(hash) as file:
                while True:
                    size = dice.choice([1, 1_000, 65_536, 300_000])
                    reading = asyncio.create_task(file.read(size))
                    for _ in range(dice.randrange(4)):
                        await asyncio.sleep(0)
                    if dice.random() < 0.7:
                        if dice.random() < 0.3:
                            await asyncio.sleep(0.002)
                        reading.cancel()
                    try:
                        piece = await reading
                    except asyncio.CancelledError:
                        cancelled += 1
                        continue
                    assert len(piece) == min(size, len(content) - len(found))
                    if not piece:
                        break
                    found += piece
            assert cancelled
            assert found == content
            async with blobs.open(hash) as file:  # the whole of it
                reading = asyncio.create_task(file.read())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                assert await file.read() == content

    run(main())


def test_damage_is_found_in_a_stream(root: Path) -> None:
    content = os.urandom(600_000)

    async def main() -> None:
        async with ns.AsyncBlobStore(root, durability="normal") as blobs:
            hash = await blobs.write(content)
            path = root / hash[:2] / hash[2:]
            damaged = bytearray(content)
            damaged[-1] ^= 1
            path.write_bytes(damaged)
            async with blobs.open(hash) as file:
                assert await file.read(500_000) == content[:500_000]
                with pytest.raises(ns.BlobCorruptError):
                    await file.read()

    run(main())
