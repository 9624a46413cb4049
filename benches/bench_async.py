"""Appending from asyncio tasks, all at once, beside one commit each."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from conftest import OpenPeers
from figures import Target
from peers import PeerLog, on_each
from turns import Compare
from workload import Row, Workload

TASKS = 1000
AsyncLogStore: Any = getattr(ns, "AsyncLogStore", None)


@pytest.mark.skipif(AsyncLogStore is None, reason="nerve_store has no AsyncLogStore yet")
def bench_append_from_tasks(open_peers: OpenPeers, compare: Compare, tmp_path: Path) -> None:
    workload = Workload()

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> Any:
            return await stack.enter_async_context(AsyncLogStore(tmp_path / "ours" / "logs.db"))

        store = runner.run(opened())

        async def append_all(rows: list[Row]) -> None:
            await asyncio.gather(*(store.append(*row) for row in rows))

        compare(
            f"AsyncLogStore.append, {TASKS:,} tasks at once, full",
            ours=lambda rows: runner.run(append_all(rows)),
            peers=on_each(open_peers("full"), PeerLog.append_each),
            work=lambda: workload.rows(TASKS),
            rows=TASKS,
            rounds=20,
            target=Target(bound=20),
        )
        runner.run(stack.aclose())
