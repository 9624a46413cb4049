"""`AsyncLogStore` when appends are cancelled, commits fail, and stores are closed under their callers."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import as_rows, foreign_script, foreign_sql, is_one_line
from support.event_loops import LIMIT, run, take
from support.signals import RUNAWAY

REFUSE = """
CREATE TRIGGER refuse BEFORE INSERT ON logs WHEN new.type = 'refused' BEGIN SELECT RAISE(ABORT, 'no room today'); END;
"""


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "logs.db"


# --- cancelling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_program_that_cancels_all_its_tasks_cancels_none_of_the_store(data_dir: Path, seed: int) -> None:
    """No row that a follower was to return is lost, and no call whose own task goes on is left without an outcome."""
    dice = random.Random(seed)

    async def main() -> None:
        ours = asyncio.all_tasks()
        async with ns.AsyncStore(data_dir, durability="normal") as store:
            await store.logs.append_many([("s", "t", None, "x" * 100, 5)] * 20_000)
            rows = store.logs.follow(after_id=0)
            seen: list[int] = []

            async def consume() -> None:
                async for row in rows:
                    seen.append(row.id)
                    if row.id % 50 == 0:
                        await asyncio.sleep(0)

            for count in range(40):
                consumer = asyncio.create_task(consume())
                writes = [
                    asyncio.ensure_future(call)
                    for call in (
                        store.logs.append("s", "t", None, None, 5),
                        store.logs.set_meta("key", str(count)),
                        *(store.blobs.write(f"{count}-{number}") for number in range(10)),
                    )
                ]
                await asyncio.sleep(dice.random() * 0.003)
                for task in asyncio.all_tasks() - ours - {*writes}:
                    task.cancel()
                await asyncio.wait_for(asyncio.gather(*writes), LIMIT)
                await asyncio.gather(consumer, return_exceptions=True)
            # The consumers may have read all there is: one more row ends the iteration in any case.
            last = (await store.logs.append("s", "t", None, None, 5)).id
            async for row in rows:
                seen.append(row.id)
                if row.id == last:
                    break
            assert seen == list(range(1, 20_042))

    run(main())


@pytest.mark.parametrize("seed", range(4))
def test_cancelled_appends_harm_nobody(path: Path, seed: int) -> None:
    dice = random.Random(seed)

    async def main() -> tuple[list[asyncio.Task[Any]], int]:
        async with ns.AsyncLogStore(path) as store:
            tasks: list[asyncio.Task[Any]] = []
            for number in range(3_000):
                tasks.append(asyncio.create_task(store.append("s", "t", None, str(number), 5)))
                if dice.random() < 0.05:
                    await asyncio.sleep(dice.choice([0, 0, 0.001]))
                if dice.random() < 0.5:
                    dice.choice(tasks).cancel()
            await asyncio.wait(tasks)
            return tasks, (await store.append("s", "last", None, None, 5)).id

    tasks, last = run(main())
    with ns.LogStore(path) as store:
        rows = {entry.id: entry.payload for entry in store.query(type="t")}
        assert store.query(type="last")[0].id == last
    assert max(Counter(rows.values()).values()) == 1
    acknowledged = {n: task.result().id for n, task in enumerate(tasks) if not task.cancelled()}
    assert 0 < len(acknowledged) < len(tasks)
    assert all(rows[row_id] == str(n) for n, row_id in acknowledged.items())


def test_timeout_of_an_append_leaves_the_store_usable(path: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(path) as store:
            for _ in range(50):
                try:
                    async with asyncio.timeout(0):
                        await store.append("s", "hurried")
                except TimeoutError:
                    pass
            assert (await store.append("s", "calm")).type == "calm"
            assert await store.count(type="hurried") <= 50

    run(main())


# --- closing -----------------------------------------------------------------------------------------------------


def test_close_lets_appends_in_flight_finish(path: Path) -> None:
    async def main() -> list[Any]:
        store = ns.AsyncLogStore(path)
        tasks = [asyncio.create_task(store.append("s", "t", None, str(n), 5)) for n in range(500)]
        await asyncio.sleep(0)
        await store.close()
        assert store.closed
        await store.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = run(main())
    acknowledged = [outcome.id for outcome in outcomes if isinstance(outcome, ns.LogEntry)]
    assert all(isinstance(outcome, ns.LogEntry | ns.StoreClosedError) for outcome in outcomes)
    with ns.LogStore(path) as store:
        assert [entry.id for entry in store.query()] == sorted(acknowledged)
    assert len(acknowledged) == 500


def test_closed_store_refuses_everything(path: Path) -> None:
    async def main() -> None:
        store = ns.AsyncLogStore(path)
        await store.append("s", "t")
        await store.close()
        calls: list[Callable[[], Any]] = [
            lambda: store.append("s", "t"),
            lambda: store.append_many([]),
            store.query,
            store.count,
            store.stats,
            lambda: take(store.iter(), 1),
            lambda: take(store.follow(), 1),
            lambda: take(store.read_archive(date(2026, 1, 1)), 1),
            store.__aenter__,
        ]
        for call in calls:
            with pytest.raises(ns.StoreClosedError):
                await call()
        assert "closed" in repr(store)

    run(main())


def test_loops_in_threads_share_a_store_until_one_closes_it(path: Path) -> None:
    """Whatever a loop was told is so, and none is left waiting."""
    for attempt in range(8):
        store = ns.AsyncLogStore(path.with_name(f"{attempt}.db"), durability="normal")
        go_on = threading.Barrier(4)

        async def work(store: ns.AsyncLogStore, name: str, closes: bool, go_on: threading.Barrier) -> list[int]:
            ids: list[int] = []
            go_on.wait(timeout=30)
            for number in itertools.count():
                jobs = (store.append("s", "t", name, None, 5) for _ in range(20))
                outcomes = await asyncio.gather(*jobs, return_exceptions=True)
                ids += [outcome.id for outcome in outcomes if isinstance(outcome, ns.LogEntry)]
                errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
                assert all(isinstance(error, ns.StoreClosedError) for error in errors)
                if errors:
                    break
                if closes and number == 5:
                    await store.close()
            return ids

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(run, work(store, f"loop-{n}", n == 0, go_on)) for n in range(4)]
            told = [future.result(timeout=LIMIT) for future in futures]
        with ns.LogStore(store.path) as reopened:
            for number, ids in enumerate(told):
                there = [entry.id for entry in reopened.query(ref_id=f"loop-{number}")]
                assert set(ids) <= set(there)
                assert len(ids) == len(set(ids))


def test_a_second_close_waits_for_the_first(path: Path) -> None:
    """The first may have been cancelled; what runs when the last returns is nothing of the store."""

    async def main() -> None:
        for timeout in (None, 0.1):
            store = ns.AsyncLogStore(path)
            await store.append("s", "t")
            reading = asyncio.create_task(store.sql(RUNAWAY, timeout=1.5))
            await asyncio.sleep(0.1)
            first = asyncio.create_task(store.close())
            await asyncio.wait([first], timeout=timeout or 0.05)
            if timeout is not None:
                first.cancel()
            await store.close()
            assert not path.with_name("logs.db-wal").exists()
            await asyncio.gather(first, reading, return_exceptions=True)

    run(main())


def test_cancelled_close_closes_all_the_same(path: Path) -> None:
    async def main() -> None:
        store = ns.AsyncLogStore(path)
        appending = asyncio.create_task(store.append("s", "t"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert (await appending).source == "s"
        await asyncio.to_thread(store._store.close)  # waits for the one under way
        assert store.closed

    run(main())


def test_loop_that_is_closed_with_appends_in_flight_leaves_the_store_to_others(path: Path) -> None:
    store = ns.AsyncLogStore(path)
    abandoned = asyncio.new_event_loop()
    waiting = abandoned.create_task(store.append("s", "abandoned"))
    abandoned.call_soon(lambda: abandoned.call_soon(abandoned.stop))
    abandoned.run_forever()
    abandoned.close()

    async def main() -> ns.LogEntry:
        async with store:
            return await store.append("s", "t")

    assert run(main()).type == "t"
    assert not waiting.done()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_store_that_was_dropped_is_not_watched_any_more(path: Path) -> None:
    """A loop that runs on keeps neither the store nor its descriptors."""

    async def main() -> None:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        store = ns.AsyncLogStore(path)
        await store.append("s", "t")
        del store
        async with asyncio.timeout(LIMIT / 2):
            # What earlier tests left may end meanwhile.
            while len(os.listdir("/proc/self/fd")) > before:
                gc.collect()
                await asyncio.sleep(0.01)

    run(main())


# --- failing commits ---------------------------------------------------------------------------------------------


def test_failing_commit_is_told_to_all_who_waited_for_it(path: Path) -> None:
    """Another program's trigger stands for whatever makes a commit fail."""
    ns.LogStore(path).close()
    foreign_script(path, REFUSE)

    async def main() -> list[Any]:
        async with ns.AsyncLogStore(path) as store:
            jobs = [store.append("s", "refused" if n % 100 == 50 else "t", None, str(n), 5) for n in range(1_000)]
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            alone = [asyncio.create_task(store.append("s", "refused")) for _ in range(20)]
            alone[3].cancel()
            assert len(await asyncio.gather(*alone, return_exceptions=True)) == 20
            foreign_sql(path, "DROP TRIGGER refuse")
            assert (await store.append("s", "refused", None, "again", 5)).payload == "again"
            return outcomes

    outcomes = run(main())
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert errors
    assert all(isinstance(error, ns.NerveStoreError) and is_one_line(error) for error in errors)
    assert len({id(error) for error in errors}) == len(errors)
    assert all(isinstance(outcomes[n], BaseException) for n in range(50, 1_000, 100))
    acknowledged = [outcome for outcome in outcomes if isinstance(outcome, ns.LogEntry)]
    with ns.LogStore(path) as store:
        assert as_rows(store.query(type="t")) == as_rows(sorted(acknowledged, key=lambda entry: entry.id))
