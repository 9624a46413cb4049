"""The asynchronous logs: the same calls, awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend, available
from support import public_methods
from support.archive import NOW, at, day

SOON = 15.0


@asynccontextmanager
async def opened(backend: Backend) -> AsyncIterator[Any]:
    if backend.is_sqlite:
        async with ns.AsyncLogStore(backend.directory / "logs.db") as log:
            yield log
    else:
        from nerve_store.postgres import AsyncPostgresLogStore

        async with AsyncPostgresLogStore(
            backend.url, schema=backend.schema, archive=backend.archive, listen_url=backend.direct_url
        ) as log:
            yield log


def test_every_method_is_there_with_its_parameters() -> None:
    """Of the log on PostgreSQL; `test_async.py` compares the other two."""
    reason = available("postgresql-15") and available("postgresql-18")
    if reason:
        pytest.skip(reason)
    from nerve_store.postgres import AsyncPostgresLogStore as asynchronous  # noqa: N813
    from nerve_store.postgres import PostgresLogStore

    assert public_methods(asynchronous) == public_methods(PostgresLogStore)
    for name in public_methods(PostgresLogStore):
        ours, theirs = (
            inspect.signature(getattr(asynchronous, name)),
            inspect.signature(getattr(PostgresLogStore, name)),
        )
        assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
            (p.name, p.kind, p.default) for p in theirs.parameters.values()
        ], name
        assert getattr(asynchronous, name).__doc__, name


def test_rows_are_appended_read_and_followed(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            entries = await asyncio.gather(*(log.append("system", "tick", None, str(n)) for n in range(50)))
            assert sorted(entry.id for entry in entries) == list(range(1, 51))
            assert list(await log.append_many([("system", "tock", None, None, 1)] * 300)) == list(range(51, 351))
            assert await log.count() == 350
            assert [entry.id async for entry in log.iter(limit=300)] == list(range(1, 301))
            assert [entry.id for entry in await log.query(type="tick", descending=True, limit=2)] == [50, 49]
            assert await log.sql("SELECT count(*) FROM logs") == [(350,)]
            seen: list[int] = []

            async def follow() -> None:
                async for entry in log.follow(after_id=340):
                    seen.append(entry.id)
                    if len(seen) == 12:
                        return

            following = asyncio.create_task(follow())
            await asyncio.sleep(0.2)
            for _ in range(2):
                await log.append("system", "late")
            await asyncio.wait_for(following, 20)
            assert seen == list(range(341, 353))
        with pytest.raises(ns.StoreClosedError):
            await log.append("system", "tick")

    asyncio.run(work())


def test_runs_and_archive(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            await log.append_many([("workflow", "tick", "run-1", None, at(n)) for n in range(3)])
            run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
            await log.upsert_workflow_run(("workflow", "started", "run-1", None, 1), run)
            assert await log.get_active_workflow_runs() == [run]
            assert (await log.transition("run-1", "completed", exit_code=0)).exit_code == 0
            await log.archive_logs(now=NOW)
            assert [entry.timestamp async for entry in log.read_archive(day(1))] == [at(1)]
            assert await log.restore_archive(day(1)) == 1
            assert (await log.verify()).ok

    asyncio.run(work())


def test_claims_and_batches(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            waiting = [asyncio.create_task(log.claim_workflow_run(f"w{n}", wait=15)) for n in range(2)]
            await asyncio.sleep(0.1)
            async with log.batch() as batch:
                batch.create_workflow_run("a", "deploy")
                batch.create_workflow_run("b", "deploy")
            assert batch.ids == (1, 2)
            claims = await asyncio.gather(*waiting)
            assert sorted(claim.run.run_id for claim in claims) == ["a", "b"]
            async with log.batch(claim=claims[0]) as batch:
                batch.append("workflow", "tick", claims[0].run.run_id)
            await log.transition(claims[0].run.run_id, "completed", claim=claims[0])
            with pytest.raises(ns.ClaimLostError):
                await log.renew_claim(claims[0])

    asyncio.run(work())


def test_batch_is_the_same_outside_of_its_block_and_within(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            batch = log.batch()
            names = [name for name in dir(ns.WriteBatch) if not name.startswith("_")]
            async with batch as within:
                assert [name for name in names if not (hasattr(batch, name) and hasattr(within, name))] == []
                batch.append("system", "tick")
                within.append_many([("system", "tock", None, None, 1)] * 2)
                batch.create_workflow_run("run-1", "deploy")
                batch.set_meta("key", "value")
                assert batch.ids is None
            assert batch.ids == within.ids == (1, 2, 3, 4)
            assert await log.count() == 4

    asyncio.run(work())


def test_cancelled_call_frees_its_task_and_harms_nothing(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            tasks = [asyncio.create_task(log.append("system", "tick", None, str(n))) for n in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            kept = [entry for entry in done if isinstance(entry, ns.LogEntry)]
            assert len(kept) >= 10
            assert {entry.id for entry in kept} <= {entry.id for entry in await log.query()}
            assert (await log.append("system", "after")).id > max(entry.id for entry in kept)

    asyncio.run(work())


def test_follower_begins_with_its_block_and_is_closed_at_its_end(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            await log.append("system", "before")
            async with log.follow() as follower:
                assert not follower.closed
                entry = await log.append("system", "after")
                assert await asyncio.wait_for(anext(follower), SOON) == entry
            assert follower.closed
            assert [entry async for entry in follower] == []
            follower.close()
            await follower.aclose()

    asyncio.run(work())


def test_step_that_times_out_is_followed_by_the_next_row(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            follower = log.follow()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await anext(follower)
                entry = await log.append("system", "tick")
                assert await asyncio.wait_for(anext(follower), SOON) == entry
            follower.close()

    asyncio.run(work())


@pytest.mark.parametrize("reader", ["follow", "follow the archive"])
def test_step_that_is_cancelled_at_any_moment_loses_no_row(backend: Backend, reader: str) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            await log.append_many([("system", "tick", None, None, at(n % 3)) for n in range(6_000)])
            if reader == "follow the archive":
                await log.archive_logs(now=NOW)
            await log.append("system", "last")
            follower = log.follow(after_id=0)
            found: list[int] = []
            for number in range(60):
                step = asyncio.ensure_future(anext(follower))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                await asyncio.sleep(number % 5 / 1000)
                step.cancel()
                with suppress(asyncio.CancelledError):
                    found.append((await step).id)
            while len(found) < 6_001:
                found.append((await asyncio.wait_for(anext(follower), SOON)).id)
            assert found == list(range(1, 6_002))
            follower.close()

    asyncio.run(work())


def test_closing_a_follower_or_its_store_ends_the_step_that_waits(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            followers = [log.follow() for _ in range(2)]
            steps = [asyncio.ensure_future(anext(follower)) for follower in followers]
            await asyncio.sleep(0.3)
            followers[0].close()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(steps[0], SOON)
            assert not steps[1].done()
            await log.close()
            with pytest.raises(ns.StoreClosedError):
                await asyncio.wait_for(steps[1], SOON)

    asyncio.run(work())


def test_tasks_that_share_a_follower_take_each_row_once(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            await log.append_many([("system", "tick", None, None, n) for n in range(4_000)])
            follower = log.follow(after_id=0)

            async def take() -> list[int]:
                return [(await anext(follower)).id for _ in range(1_000)]

            taken = await asyncio.wait_for(asyncio.gather(*(take() for _ in range(4))), 60)
            assert sorted(id for ids in taken for id in ids) == list(range(1, 4_001))
            follower.close()

    asyncio.run(work())


def test_tasks_that_wait_keep_nobody_from_anything(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            claims = [asyncio.create_task(log.claim_workflow_run(f"w{n}", workflow="idle", wait=60)) for n in range(60)]
            followers = [log.follow() for _ in range(60)]
            steps = [asyncio.ensure_future(anext(follower)) for follower in followers]
            await asyncio.sleep(1)
            async with asyncio.timeout(SOON):
                entry = await log.append("system", "tick")
                assert [step.id for step in await asyncio.gather(*steps)] == [entry.id] * 60
                assert (await log.archive_logs(now=NOW)).days == ()
                for task in claims:
                    task.cancel()
                await asyncio.gather(*claims, return_exceptions=True)
                # None of the claims is made for one who has gone.
                await log.create_workflow_run("run-1", "idle")
                await asyncio.sleep(0.5)
                assert (await log.get_workflow_run("run-1")).status == "queued"
            for follower in followers:
                follower.close()

    asyncio.run(work())


def test_cancelled_reads_harm_none_of_those_after_them(backend: Backend) -> None:
    async def work() -> None:
        async with opened(backend) as log:
            await log.append_many([("system", "tick", None, None, n) for n in range(2_000)])
            for number in range(60):
                tasks = [asyncio.create_task(log.query(limit=500)), asyncio.create_task(log.sql("SELECT 1"))]
                await asyncio.sleep(number % 10 / 2000)
                for task in tasks:
                    task.cancel()
                # Whoever has the connection next is not cancelled in its place.
                counts = await asyncio.gather(*(log.count() for _ in range(3)))
                assert counts == [2_000] * 3
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(work())
