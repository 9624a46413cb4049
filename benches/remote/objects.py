"""`python -m remote.objects`: blobs on an S3 server of this machine, beside boto3 alone, in turns.

boto3 stores under keys of its own choice, neither hashed nor conditional. `NERVE_BENCH_BLOBS` is the number of small
blobs, `NERVE_BENCH_MIB` the size of the large one, `NERVE_BENCH_LISTED` the number of those that are listed.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

import nerve_store as ns
from support import objects

BLOBS = int(os.environ.get("NERVE_BENCH_BLOBS", "1000"))
MIB = int(os.environ.get("NERVE_BENCH_MIB", "1024"))
LISTED = int(os.environ.get("NERVE_BENCH_LISTED", "100000"))
ROUNDS = 5
ROUND_TRIP = 0.02


def client(port: int) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=objects.KEY,
        aws_secret_access_key=objects.KEY,
        region_name="us-east-1",
        config=Config(max_pool_connections=64),
    )


def delayed(port: int) -> int:
    """A port by way of which each direction takes half the round trip."""
    ready = threading.Event()
    ports: list[int] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            loop.call_later(ROUND_TRIP / 2, writer.write, data)
        loop.call_later(ROUND_TRIP / 2, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(to, writer), return_exceptions=True)

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    ready.wait()
    return ports[0]


def in_turns(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of each, medians."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, took in zip((ours, theirs), times, strict=True):
            started = time.perf_counter()
            call()
            took.append(time.perf_counter() - started)
    return {"ours": statistics.median(times[0]), "boto3": statistics.median(times[1])}


def small(server: objects.S3Server, port: int) -> dict[str, float]:
    url, _ = server.bucket()
    peer, bucket = client(port), url.split("/")[2]
    number = iter(range(1 << 30))

    def contents() -> list[bytes]:
        return [os.urandom(4088) + next(number).to_bytes(8) for _ in range(BLOBS)]

    with ns.ObjectBlobStore(url, options=server.options(port)) as blobs, ThreadPoolExecutor(32) as pool:

        def put(content: bytes) -> None:
            peer.put_object(Bucket=bucket, Key=f"peer/{next(number)}", Body=content)

        return in_turns(lambda: blobs.write_many(contents()), lambda: list(pool.map(put, contents())))


def large(server: objects.S3Server, directory: Path) -> dict[str, float]:
    url, options = server.bucket()
    peer, bucket = client(server.port), url.split("/")[2]
    path = directory / "large"

    def fresh() -> str:
        with path.open("wb") as file:
            for _ in range(MIB):
                file.write(os.urandom(1 << 20))
        return str(path)

    with ns.ObjectBlobStore(url, options=options) as blobs:
        times: dict[str, list[float]] = {"ours": [], "boto3": [], "ours_down": [], "boto3_down": []}
        for _ in range(3):
            name = fresh()
            started = time.perf_counter()
            hash = blobs.write_file(name)
            times["ours"].append(time.perf_counter() - started)
            started = time.perf_counter()
            peer.upload_file(name, bucket, "peer")
            times["boto3"].append(time.perf_counter() - started)
            started = time.perf_counter()
            with blobs.open(hash) as file, open(os.devnull, "wb") as sink:
                while piece := file.read(1 << 20):
                    sink.write(piece)
            times["ours_down"].append(time.perf_counter() - started)
            started = time.perf_counter()
            peer.download_file(bucket, "peer", str(directory / "down"))
            times["boto3_down"].append(time.perf_counter() - started)
            blobs.delete(hash)
    return {name: statistics.median(took) for name, took in times.items()}


MEMORY = """
import sys
import nerve_store as ns
from support import objects

def most():
    # Not `getrusage`, which counts the parent's memory, too.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

blobs = ns.ObjectBlobStore(sys.argv[1], options=objects.S3Server.options(int(sys.argv[2])))
before = most()
blobs.write_file(sys.argv[3])
print((most() - before) / 1024)
"""


def memory(server: objects.S3Server, path: Path) -> float:
    """MiB that the upload of the large file adds."""
    url, _ = server.bucket()
    command = [sys.executable, "-c", MEMORY, url, str(server.port), str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def listing(server: objects.S3Server) -> dict[str, float]:
    url, options = server.bucket()
    peer, bucket = client(server.port), url.split("/")[2]
    root = server.directory / url.removeprefix("s3://")
    for number in range(LISTED):
        key = ns.blob_hash(b"%d" % number)
        (root / key[:2]).mkdir(parents=True, exist_ok=True)
        (root / key[:2] / key[2:]).touch()
    found: list[int] = []
    with ns.ObjectBlobStore(url, options=options) as blobs:

        def theirs() -> None:
            pages = peer.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="some/prefix/")
            found.append(sum(len(page.get("Contents", ())) for page in pages))

        result = in_turns(lambda: found.append(sum(1 for _ in blobs)), theirs, 3)
    if min(found) < LISTED:
        raise RuntimeError(f"{min(found)} of {LISTED} were listed")
    return result


def main() -> None:
    reason = objects.missing("versitygw")
    if reason is not None:
        raise SystemExit(reason)
    server = objects.shared("versitygw")
    with tempfile.TemporaryDirectory(prefix="nerve-store-bench-") as name:
        directory = Path(name)
        figures: dict[str, Any] = {
            f"{BLOBS} blobs of 4 KiB, s": small(server, server.port),
            f"the same at {ROUND_TRIP * 1000:.0f} ms round trip, s": small(server, delayed(server.port)),
            f"{MIB} MiB from a file, s": large(server, directory),
            "memory of that, MiB": {"ours": memory(server, directory / "large")},
            f"listing {LISTED}, s": listing(server),
        }
    print(f"nerve_store {ns.__version__}, boto3 {boto3.__version__}, build {ns.BUILD_PROFILE}", file=sys.stderr)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
