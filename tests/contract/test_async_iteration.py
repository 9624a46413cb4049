"""Asynchronous iterators whose steps are cancelled, or taken by many tasks: no item is lost, none comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from contract.test_async import opened
from support.archive import NOW, at, day
from support.event_loops import LIMIT, run, take_with_cancellations

COUNT = 1_500
"""Items of each iteration, more than some pages of it."""
ITERATORS: dict[str, Callable[[Any], AsyncIterator[Any]]] = {
    "iter": lambda log: log.iter(),
    "iter backwards": lambda log: log.iter(descending=True),
    "iter archived": lambda log: log.iter(archived=True),
    "iter limited": lambda log: log.iter(archived=True, limit=COUNT // 2),
    "read_archive": lambda log: log.read_archive(day(1)),
    "iter_workflow_runs": lambda log: log.iter_workflow_runs(),
    "iter_workflow_runs limited": lambda log: log.iter_workflow_runs(limit=COUNT // 2, descending=False),
}


async def fill(log: Any) -> None:
    async with log.batch() as batch:
        for number in range(COUNT):
            row = ("workflow", "started", f"run-{number}", "x" * (number % 50), at(40))
            batch.upsert_workflow_run(row, ns.WorkflowRun(f"run-{number}", "deploy", "started", number))
    await log.append_many([("system", "tick", str(number), None, at(1) + number) for number in range(COUNT)])
    await log.archive_logs(now=NOW)
    await log.append_many([("system", "tick", None, None, at(40))] * 10)


@pytest.mark.parametrize("name", ITERATORS)
def test_a_cancelled_step_loses_no_item(backend: Backend, name: str) -> None:
    async def main() -> None:
        async with opened(backend) as log:
            await fill(log)
            expected = [item async for item in ITERATORS[name](log)]
            assert len(expected) >= COUNT // 2
            cancelled = 0
            for seed in range(5):
                found, count = await take_with_cancellations(ITERATORS[name](log), seed)
                assert found == expected
                cancelled += count
            assert cancelled

    run(main())


@pytest.mark.parametrize("name", ITERATORS)
def test_many_tasks_take_the_items_of_one_iterator(backend: Backend, name: str) -> None:
    """Some of which are cancelled; each item goes to one of them, and those of each are in order."""

    async def main() -> None:
        async with opened(backend) as log:
            await fill(log)
            expected = [item async for item in ITERATORS[name](log)]
            items = ITERATORS[name](log)
            found: list[list[Any]] = [[] for _ in range(8)]

            async def consume(own: list[Any]) -> None:
                async for item in items:
                    own.append(item)
                    if len(own) % 20 == 0:
                        await asyncio.sleep(0)

            consumers = [asyncio.create_task(consume(own)) for own in found]
            await asyncio.sleep(0.002)
            for consumer in consumers[:4]:
                consumer.cancel()
            await asyncio.wait(consumers, timeout=LIMIT)
            places = {repr(item): place for place, item in enumerate(expected)}
            by_task = [[places[repr(item)] for item in own] for own in found]
            assert all(own == sorted(own) for own in by_task)
            assert sorted(place for own in by_task for place in own) == [*range(len(expected))]

    run(main())


@pytest.mark.parametrize("name", ITERATORS)
def test_close_ends_an_iteration(backend: Backend, name: str) -> None:
    """Before its first step, between two steps, and while a task waits in it."""

    async def main() -> None:
        async with opened(backend) as log:
            await fill(log)
            for steps in range(3):
                items: Any = ITERATORS[name](log)
                for _ in range(steps):
                    await anext(items)
                await items.aclose()
                assert [item async for item in items] == []
            items = ITERATORS[name](log)
            step = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            await items.aclose()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(step, LIMIT)

    run(main())
