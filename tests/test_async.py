"""`AsyncLogStore`: the same names, shared commits, one wake-up a commit, and cancelling that harms nobody."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from reference import DAY_MS
from support import INSERT_ROW, foreign_sql, is_one_line, public_methods
from support.event_loops import run, take


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "logs.db"


# --- names -------------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_log_store() -> None:
    assert public_methods(ns.LogStore) - public_methods(ns.AsyncLogStore) == set()
    assert public_methods(ns.AsyncLogStore) - public_methods(ns.LogStore) == set()


def test_properties_are_those_of_the_log_store() -> None:
    def properties(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_") and not callable(getattr(cls, name))}

    assert properties(ns.LogStore) - properties(ns.AsyncLogStore) == set()


def test_options_are_those_of_the_log_store() -> None:
    ours = set(inspect.signature(ns.AsyncLogStore).parameters)
    assert set(inspect.signature(ns.LogStore).parameters) - ours == set()


def test_calls_answer_as_those_of_the_log_store(path: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(path, segment_rows=7) as store:
            assert store.path == str(path)
            await store.append_many(
                [("workflow", "thread_workflow_message", "r1", '{"role":"a","content":"b"}', 5)] * 30
            )
            await store.upsert_workflow_run(
                ("workflow", "queued", "r1", None, 1), ns.WorkflowRun("r1", "deploy", ns.WorkflowRunStatus.QUEUED, 1)
            )
            await store.transition("r1", "started")
            await store.set_meta("key", "value")
            with ns.LogStore(path, read_only=True) as plain:
                calls: dict[str, dict[str, Any]] = {
                    "query": {"ref_id": "r1"},
                    "count": {"source": "workflow"},
                    "sql": {"query": "SELECT count(*) FROM logs"},
                    "get_meta": {"key": "key"},
                    "get_workflow_run": {"run_id": "r1"},
                    "get_active_workflow_runs": {},
                    "get_all_workflow_runs": {"workflow": "deploy"},
                    "get_trigger_payload": {"run_id": "r1"},
                    "get_thread_events": {"run_id": "r1"},
                    "get_thread_messages": {"run_id": "r1"},
                    "get_thread_round_count": {"run_id": "r1"},
                    "get_thread_rounds": {"run_id": "r1", "limit": 5},
                    "archived_days": {},
                    "stats": {},
                }
                for name, options in calls.items():
                    assert await getattr(store, name)(**options) == getattr(plain, name)(**options), name
            await store.reindex()
            assert await store.count() == 32

    run(main())


# --- appending ---------------------------------------------------------------------------------------------------


def test_a_thousand_appends_at_once(path: Path) -> None:
    wake_ups: list[int] = []

    async def main() -> list[ns.LogEntry]:
        loop = asyncio.get_running_loop()
        original = loop.add_reader

        def counted(fd: Any, callback: Callable[..., object], *arguments: Any) -> None:
            def called() -> None:
                wake_ups.append(fd)
                callback(*arguments)

            original(fd, called)

        loop.add_reader = counted  # type: ignore[method-assign, assignment]
        async with ns.AsyncLogStore(path) as store:
            return await asyncio.gather(*(store.append("s", "t", f"r{n}", str(n), n) for n in range(1_000)))

    entries = run(main())
    assert [entry.payload for entry in entries] == [str(n) for n in range(1_000)]
    assert sorted(entry.id for entry in entries) == list(range(1, 1_001))
    with ns.LogStore(path) as store:
        assert store.query() == sorted(entries, key=lambda entry: entry.id)
    assert 1 <= len(wake_ups) < 50


def test_appends_of_one_caller_keep_their_order(path: Path) -> None:
    async def caller(store: ns.AsyncLogStore, name: str) -> list[int]:
        ids: list[int] = []
        for number in range(40):
            if number % 3:
                ids.append((await store.append("s", "t", name, str(number), 5)).id)
            else:
                ids += await store.append_many([("s", "t", name, str(number), 5)] * (number % 4))
        return ids

    async def main() -> list[list[int]]:
        async with ns.AsyncLogStore(path) as store:
            return list(await asyncio.gather(*(caller(store, f"c{n}") for n in range(25))))

    results = run(main())
    with ns.LogStore(path) as store:
        for number, ids in enumerate(results):
            assert ids == sorted(set(ids)) == [entry.id for entry in store.query(ref_id=f"c{number}")]
        assert store.count() == sum(map(len, results))


def test_batches_stay_together(path: Path) -> None:
    async def main() -> list[range]:
        async with ns.AsyncLogStore(path) as store:
            assert await store.append_many([]) == range(0)
            return await asyncio.gather(*(store.append_many([("s", "t", None, str(n), 5)] * n) for n in range(1, 60)))

    ranges = run(main())
    assert sorted(i for ids in ranges for i in ids) == list(range(1, sum(range(60)) + 1))
    with ns.LogStore(path) as store:
        rows = {entry.id: entry.payload for entry in store.iter()}
    assert all({rows[i] for i in ids} == {str(n)} and len(ids) == n for n, ids in enumerate(ranges, 1))


BAD_ROWS: list[tuple[tuple[Any, ...], type[Exception]]] = [
    (("s", "t", None, None, 1.5), TypeError),
    (("s", "t", None, None, -1), ValueError),
    (("s", 7, None, None, 1), TypeError),
    (("s", "\ud800", None, None, 1), ValueError),
    (("s", "t", None, b"x", 1), TypeError),
]


def test_bad_rows_leave_others_alone(path: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(path) as store:
            jobs: list[Any] = []
            for number in range(200):
                row, _ = BAD_ROWS[number % len(BAD_ROWS)]
                jobs += [store.append("s", "good", None, str(number), 5), store.append(*row)]
                jobs.append(store.append_many([("s", "never", None, None, 5), row]))
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            for number in range(200):
                good, *bad = outcomes[3 * number : 3 * number + 3]
                assert isinstance(good, ns.LogEntry)
                for error in bad:
                    assert isinstance(error, BAD_ROWS[number % len(BAD_ROWS)][1])
                    assert is_one_line(error)
            with pytest.raises((TypeError, ValueError)):
                await store.append("s", "t", durability="sometimes")  # type: ignore[arg-type]
            assert await store.count() == await store.count(type="good") == 200
            assert len(await asyncio.gather(*(store.append("s", "t") for _ in range(10_000)))) == 10_000

    run(main())


def test_more_appends_than_may_wait(path: Path) -> None:
    """Beyond the bound callers wait for room, and every refusal gives its place back."""

    async def main() -> None:
        async with ns.AsyncLogStore(path, durability="normal") as store:
            jobs = [store.append("s", "t" if n % 2 else "\ud800", None, None, 5) for n in range(30_000)]
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            assert Counter(type(outcome) for outcome in outcomes) == {ns.LogEntry: 15_000, UnicodeEncodeError: 15_000}
            assert await store.count() == 15_000

    run(main())


def test_large_rows_wait_for_room_before_they_are_copied(path: Path) -> None:
    """The bound counts bytes too: 64 MiB and one row more are on their way at most."""
    payload = "x" * (8 << 20)

    async def main() -> None:
        async with ns.AsyncLogStore(path, durability="normal") as store:
            tasks = [asyncio.create_task(store.append("s", "t", None, payload)) for _ in range(12)]
            await asyncio.sleep(0)
            channel = store._channels.get(asyncio.get_running_loop())
            assert channel is not None
            assert len(channel.futures()) == 8
            assert len(await asyncio.gather(*tasks)) == 12
            assert channel.free == 8192

    run(main())


def test_waiting_for_room_costs_little(path: Path) -> None:
    """Each row costs the loop about the same time of a processor, however many callers wait."""

    async def timed(store: ns.AsyncLogStore, count: int) -> float:
        begun = time.thread_time()
        await asyncio.gather(*(store.append("s", "t", None, None, 5) for _ in range(count)))
        return time.thread_time() - begun

    async def main() -> None:
        async with ns.AsyncLogStore(path, durability="normal") as store:
            few = min([await timed(store, 4_000) for _ in range(3)])
            assert min([await timed(store, 40_000) for _ in range(2)]) < 60 * few

    run(main())


# --- iterators ---------------------------------------------------------------------------------------------------


def test_iterators_give_what_the_log_store_gives(path: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(path, segment_rows=50) as store:
            await store.append_many([("s", f"t{n % 3}", None, str(n), n // 100 * DAY_MS) for n in range(1_000)])
            rows = await store.query()
            assert [entry async for entry in store.iter()] == rows
            assert [e async for e in store.iter(type="t1", descending=True)] == [e for e in rows if e.type == "t1"][
                ::-1
            ]
            assert await take(store.follow(after_id=0), 1_000) == rows
            result = await store.archive_logs(now=36 * DAY_MS, retention=timedelta(days=30))
            archived = [e for day in result.days for e in [entry async for entry in store.read_archive(day.day)]]
            assert archived + await store.query() == rows
            with pytest.raises(ns.ArchiveError):
                await take(store.read_archive(date(2020, 1, 1)), 1)

    run(main())


def test_follow_sees_every_row_and_ends_with_the_store(path: Path) -> None:
    async def main() -> None:
        store = ns.AsyncLogStore(path)
        watching = [asyncio.create_task(take(store.follow(poll_interval=0.01), 450)) for _ in range(6)]
        endless = asyncio.create_task(take(store.follow(poll_interval=0.01), 10_000))
        cancelled = asyncio.create_task(take(store.follow(poll_interval=0.01), 10_000))
        await asyncio.sleep(0.1)
        await asyncio.gather(*(store.append("s", "t", None, str(n), n) for n in range(400)))
        await asyncio.to_thread(
            lambda: [foreign_sql(path, INSERT_ROW, ("s", "foreign", None, None, 5)) for _ in range(50)]
        )
        cancelled.cancel()
        rows = await store.query()
        for task in watching:
            assert await task == rows
        await store.close()
        with pytest.raises(ns.StoreClosedError):
            await endless
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    run(main())


def test_loop_runs_on_while_a_call_is_slow(path: Path) -> None:
    async def main() -> int:
        async with ns.AsyncLogStore(path, durability="normal") as store:
            await store.append_many([("s", "t", None, "x" * 100, n) for n in range(60_000)])
            reading = asyncio.create_task(store.sql("SELECT count(*) FROM logs a, (SELECT 1 FROM logs LIMIT 100)"))
            turns = 0
            while not reading.done():
                await asyncio.sleep(0.001)
                turns += 1
            assert await reading == [(6_000_000,)]
            return turns

    assert run(main()) > 5
