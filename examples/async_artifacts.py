"""An event loop that stores artifacts as blobs while another task follows the log; and the log for data tools.

Run it with `python examples/async_artifacts.py [DIRECTORY]`.
"""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import nerve_store as ns
from nerve_store.logging import StoreHandler

ARTIFACTS = 20


async def produce(store: ns.AsyncStore) -> None:
    """Store artifacts at once, and log where they are."""

    async def one(number: int) -> None:
        hash = await store.blobs.write(f"artifact {number}\n" * 100)
        await store.logs.append("workflow", "artifact", "run-1", json={"number": number, "blob": hash})

    await asyncio.gather(*map(one, range(ARTIFACTS)))


async def watch(follower: ns.AsyncLogFollower, blobs: ns.AsyncBlobStore) -> int:
    """Read each artifact as soon as it is logged."""
    size = 0
    for _ in range(ARTIFACTS):
        entry = await anext(follower)
        async with blobs.open(entry.json()["blob"]) as file:
            size += len(await file.read())
    return size


async def run(directory: str) -> None:
    async with ns.AsyncStore(directory) as store:
        async with store.logs.follow(type="artifact") as follower:
            watching = asyncio.create_task(watch(follower, store.blobs))
            await produce(store)
            print(f"{ARTIFACTS} artifacts, {await watching} bytes")
        async with store.blobs.writer() as writer:
            async for entry in store.logs.iter(ref_id="run-1"):
                await writer.write(f"{entry.time:%H:%M} {entry.payload}\n")
        print(f"the report is blob {writer.hash[:12]}")


def log(directory: str) -> None:
    """Log by `logging`, into the same log."""
    with ns.LogStore(Path(directory, "logs.db")) as logs:
        handler = StoreHandler(logs)
        logger = logging.getLogger("example")
        logger.addHandler(handler)
        logger.warning("%d artifacts are stored", ARTIFACTS, extra={"run": "run-1"})
        handler.close()
        for identity, source, kind, ref_id, payload, _ in logs.query(source="logging"):
            print(identity, source, kind, ref_id, payload is not None)
        stream = logs.arrow(archived=True)
        print("for pyarrow, Polars or DuckDB:", type(stream).__name__)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        data = sys.argv[1] if len(sys.argv) > 1 else temporary
        asyncio.run(run(data))
        log(data)
