"""Programs that make backups, and that write while others do."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta

import nerve_store as ns
from programs import failure, say


def beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(path), name)


def back_up(*, path: str, target: str = "backup") -> None:
    """Back the directory up beside it; says the number of its last id, or the error."""
    try:
        with ns.Store(path) as store:
            report = store.backup(beside(path, target))
    except ns.NerveStoreError as error:
        say(failure(error))
    else:
        say(report.last_id)


def back_up_async(*, path: str) -> None:
    """The same, in an event loop."""

    async def work() -> None:
        async with ns.AsyncStore(path) as store:
            say((await store.backup(beside(path, "backup"))).last_id)

    asyncio.run(work())


def copy_database(*, path: str) -> None:
    """Back the database up alone, to a file beside the directory."""
    with ns.LogStore(os.path.join(path, "logs.db")) as logs:
        say(logs.backup(beside(path, "copy.db")).last_id)


def copy_database_async(*, path: str) -> None:
    """The same, in an event loop."""

    async def work() -> None:
        async with ns.AsyncLogStore(os.path.join(path, "logs.db")) as logs:
            say((await logs.backup(beside(path, "copy.db"))).last_id)

    asyncio.run(work())


def write_all(*, path: str, caller: str, seconds: float, archives: bool = False) -> None:
    """Append rows, each with a blob, and archive days meanwhile; says when it has begun, and how many there were."""
    deadline = time.monotonic() + seconds
    with ns.Store(path, durability="normal") as store:
        number = 0
        while time.monotonic() < deadline:
            blob = store.blobs.write(f"{caller} {number}")
            store.logs.append("system", "tick", caller, blob, (number % 30) * 86_400_000)
            number += 1
            if number == 1:
                say(number)
            if archives and number % 100 == 0:
                store.logs.archive_logs(
                    now=10 * 86_400_000, retention=timedelta(0), wait=10, compression="zstd" if number % 200 else None
                )
    say(number)
