"""Followers learn of each commit at once, whoever made it, wait at no cost, and can be closed."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import nerve_store as ns
from support import child_environment, foreign_sql
from support.event_loops import run

SLOW = 20.0
"""A `poll_interval` that no test waits for."""
SOON = 10.0


def append_now_and_then(path: str, count: str) -> None:
    """Append rows whose payload is the time after the commit before them; for a process of its own."""
    with ns.LogStore(path, durability="normal") as store:
        for number in range(int(count)):
            store.append("other", "tick", None, str(number))
            print(time.monotonic(), flush=True)
            time.sleep(0.02)


def of_another_process(path: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, str(path), str(count)], env=child_environment(), stdout=subprocess.PIPE, text=True
    )


def committed_at(child: subprocess.Popen[str]) -> list[float]:
    out, _ = child.communicate(timeout=60)
    return [float(line) for line in out.split()]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_at_once(delays: list[float]) -> None:
    """A quarter of the rows came at once, on however busy a machine: a poll takes seconds here."""
    assert statistics.quantiles(delays)[0] < 0.5, sorted(delays)


def test_another_process_is_seen_at_once(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store, store.follow(poll_interval=SLOW) as follower:
        child = of_another_process(path, 40)
        seen = []
        for _ in range(40):
            next(follower)
            seen.append(time.monotonic())
        delays = [at - committed for at, committed in zip(seen, committed_at(child), strict=True)]
    assert_at_once(delays)


def test_another_process_is_seen_at_once_in_an_event_loop(data_dir: Path) -> None:
    path = data_dir / "logs.db"

    async def main() -> list[float]:
        async with ns.AsyncLogStore(path) as store, store.follow(poll_interval=SLOW) as follower:
            child = of_another_process(path, 40)
            seen = []
            async for _ in follower:
                seen.append(time.monotonic())
                if len(seen) == 40:
                    break
            committed = await asyncio.to_thread(committed_at, child)
            return [at - there for at, there in zip(seen, committed, strict=True)]

    assert_at_once(run(main()))


def test_a_row_of_the_same_process_is_seen_at_once_in_an_event_loop(data_dir: Path) -> None:
    async def main() -> list[float]:
        delays = []
        store = ns.AsyncLogStore(data_dir / "logs.db", durability="normal")
        async with store, store.follow(poll_interval=SLOW) as follower:
            for _ in range(50):
                waiting = asyncio.ensure_future(anext(follower))
                await asyncio.sleep(0.005)
                entry = await store.append("s", "t")
                begun = time.perf_counter()
                assert await waiting == entry
                delays.append(time.perf_counter() - begun)
        return delays

    assert_at_once(run(main()))


@pytest.mark.parametrize("batch", [1, 31, 32, 33, 2_000])
def test_a_follower_that_has_read_everything_asks_a_thread_for_many_rows_alone(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    calls: list[object] = []
    rounds = 20 if batch <= 32 else 3

    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db", durability="normal") as logs:
            threads, seen = logs._threads.read, list[int]()
            submit = threads.submit
            async with logs.follow(poll_interval=SLOW) as follower:
                # Everything that there is has been read.
                first = (await logs.append("s", "t")).id
                seen.append((await anext(follower)).id)
                waiting = asyncio.create_task(anext(follower))
                await asyncio.sleep(0.05)

                def counted(call: Callable[[], object]) -> object:
                    calls.append(call)
                    return submit(call)

                monkeypatch.setattr(threads, "submit", counted)
                for _ in range(rounds):
                    await logs.append_many([("s", "t", None, None, None)] * batch)
                    for _ in range(batch):
                        seen.append((await waiting).id)
                        waiting = asyncio.create_task(anext(follower))
                        await asyncio.sleep(0)
                waiting.cancel()
            assert seen == list(range(first, first + 1 + rounds * batch))

    run(main())
    if batch < 32:
        # On a machine that is so busy that a read of one row lasts, a thread is asked now and then.
        assert len(calls) < rounds
    if batch > 32:
        assert len(calls) >= rounds


def test_a_read_that_lasts_is_left_to_a_thread_and_loses_nothing(log_store: ns.LogStore) -> None:
    follower = log_store.follow(type="wanted")
    assert follower._poll_briefly() == []
    filling = [("s", "other", f"r{number % 7}", "x" * 100, None) for number in range(50_000)]
    log_store.append_many([*filling, ("s", "wanted", None, "1", None), *filling, ("s", "wanted", None, "2", None)])
    found: list[str | None] = []
    attempts = 0
    while len(found) < 2:
        page = follower._poll_briefly()
        attempts += 1
        assert attempts < 1_000
        found += [entry.payload for entry in (follower._poll() if page is None else page)]
    assert found == ["1", "2"]
    assert follower._poll_briefly() == []
    follower.close()
    assert follower._poll_briefly() == []


def test_what_is_large_is_left_to_a_thread(log_store: ns.LogStore) -> None:
    follower = log_store.follow()
    for length, is_read in ((1_000, True), (100_000, False)):
        log_store.append("s", "t", None, "x" * length)
        assert (follower._poll_briefly() is not None) == is_read
        if not is_read:
            assert [len(entry.payload or "") for entry in follower._poll()] == [length]
    assert follower._poll_briefly() == []


def append_and_announce(other: ns.LogStore) -> None:
    """The loop stands still until the watcher has seen the row: a follower that looks again finds it."""
    other.append("s", "t")
    time.sleep(0.003)


def test_rows_without_a_pause_between_them_leave_other_tasks_their_turn(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That a few followers alone read in the loop would end a turn, too.
    monkeypatch.setattr("nerve_store.aio.follow._MOST_BRIEF_READS", 1_000_000)

    async def main() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        path = data_dir / "logs.db"
        async with ns.AsyncLogStore(path, durability="normal") as logs:
            with ns.LogStore(path, durability="normal") as other:
                async with logs.follow(poll_interval=SLOW) as follower:
                    task = asyncio.create_task(others())
                    other.append("s", "t")
                    for _ in range(200):
                        await anext(follower)
                        append_and_announce(other)
                    task.cancel()
        return turns

    assert run(main()) >= 200


def test_of_many_followers_a_few_read_in_the_loop_each_time_it_is_woken(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    followers, most = 30, 8
    calls: list[object] = []

    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db", durability="normal") as logs:
            threads = logs._threads.read
            submit = threads.submit
            opened = [logs.follow(poll_interval=SLOW) for _ in range(followers)]
            first = [asyncio.create_task(anext(follower)) for follower in opened]
            await asyncio.sleep(0.1)  # all of them wait

            def counted(call: Callable[[], object]) -> object:
                calls.append(call)
                return submit(call)

            monkeypatch.setattr(threads, "submit", counted)
            entry = await logs.append("s", "t")
            assert await asyncio.gather(*first) == [entry] * followers

    run(main())
    assert len(calls) >= followers - most


def test_the_log_may_be_reset_and_made_again(data_dir: Path) -> None:
    """A checkpoint begins the write-ahead log anew; the last close removes it."""
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    assert not Path(f"{path}-wal").exists()
    store = ns.LogStore(path, read_only=True)
    with store, store.follow(after_id=0, poll_interval=SLOW) as follower, ThreadPoolExecutor(1) as pool:
        for number in range(6):
            waiting = pool.submit(next, follower)
            time.sleep(0.05)
            begun = time.monotonic()
            with ns.LogStore(path) as writer:
                writer.append("s", "t", None, "x" * (1000 * number))
            assert waiting.result(timeout=SLOW).id == number + 1
            assert time.monotonic() - begun < SOON
            foreign_sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")


def test_many_waiting_followers_cost_nothing(data_dir: Path) -> None:
    """400 that polled at 50 ms used 28 % of a core."""

    async def main() -> float:
        async with ns.AsyncLogStore(data_dir / "logs.db", durability="normal") as store:
            await store.append("s", "t")
            followers = [store.follow(source=f"s{n}") for n in range(400)]
            waiting = [asyncio.ensure_future(anext(follower)) for follower in followers]
            await asyncio.sleep(1.5)
            before = time.process_time()
            await asyncio.sleep(3.0)
            used = time.process_time() - before
            for n in range(400):
                await store.append(f"s{n}", "t")
            rows = await asyncio.gather(*waiting)
            assert [row.source for row in rows] == [f"s{n}" for n in range(400)]
            return used / 3.0

    assert run(main()) < 0.02


def test_watching_takes_one_thread_for_all_and_ends_with_them(data_dir: Path) -> None:
    def watchers() -> int:
        names = [Path(f"/proc/self/task/{task}/comm") for task in os.listdir("/proc/self/task")]
        return sum(name.exists() and name.read_text().startswith("nerve_store-wat") for name in names)

    stores = [ns.LogStore(data_dir / f"{n}" / "logs.db") for n in range(3)]
    wait_until(lambda: watchers() == 0)
    followers = [store.follow() for store in stores for _ in range(5)]
    # A thread takes its name when it first runs.
    wait_until(lambda: watchers() > 0)
    time.sleep(0.1)
    assert watchers() == 1
    for follower in followers:
        follower.close()
    del followers, follower
    gc.collect()
    wait_until(lambda: watchers() == 0)
    for store in stores:
        store.close()


# --- closing -----------------------------------------------------------------------------------------------------


def test_close_ends_the_iteration_in_another_thread(log_store: ns.LogStore) -> None:
    follower = log_store.follow(poll_interval=SLOW)
    rows: list[ns.LogEntry] = []
    thread = threading.Thread(target=lambda: rows.extend(follower))
    thread.start()
    entry = log_store.append("s", "t")
    deadline = time.monotonic() + 10
    while not rows and time.monotonic() < deadline:
        time.sleep(0.01)
    follower.close()
    thread.join(SOON)
    assert not thread.is_alive()
    assert rows == [entry]
    assert follower.closed
    assert list(follower) == []
    follower.close()


def test_a_context_closes_its_follower(log_store: ns.LogStore) -> None:
    log_store.append("s", "t")
    with log_store.follow(after_id=0) as follower:
        assert next(follower).id == 1
        assert not follower.closed
    assert follower.closed
    assert next(follower, None) is None


def test_close_ends_a_waiting_task(data_dir: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db") as store:
            async with store.follow(poll_interval=SLOW) as follower:
                waiting = asyncio.ensure_future(anext(follower, None))
                await asyncio.sleep(0.05)
                begun = time.monotonic()
                follower.close()
                assert await waiting is None
                assert time.monotonic() - begun < SOON
            assert [entry async for entry in follower] == []

    run(main())


@pytest.mark.parametrize("timeout", [0.0005, 0.01])
def test_a_cancelled_step_loses_no_row(data_dir: Path, timeout: float) -> None:
    async def main() -> None:
        store = ns.AsyncLogStore(data_dir / "logs.db", durability="normal")
        async with store, store.follow() as follower:
            seen = []
            for number in range(60):
                await store.append_many([("s", "t", None, None, number)] * 3)
                while True:
                    try:
                        seen.append((await asyncio.wait_for(anext(follower), timeout)).id)
                    except TimeoutError:
                        if number % 2 or len(seen) == 3 * (number + 1):
                            break
                        await asyncio.sleep(0.005)
            while len(seen) < 180:
                seen.append((await asyncio.wait_for(anext(follower), 10)).id)
            assert seen == list(range(1, 181))

    run(main())


def test_a_closed_store_ends_waiting_tasks_at_once(data_dir: Path) -> None:
    async def main() -> None:
        store = ns.AsyncLogStore(data_dir / "logs.db")
        waiting = [asyncio.ensure_future(anext(store.follow(poll_interval=SLOW))) for _ in range(5)]
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await store.close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ns.StoreClosedError}
        assert time.monotonic() - begun < SOON

    run(main())


def test_a_loop_that_ends_in_the_middle_leaves_the_store_usable(data_dir: Path) -> None:
    store = ns.AsyncLogStore(data_dir / "logs.db")

    async def leave() -> None:
        asyncio.ensure_future(anext(store.follow(poll_interval=SLOW)))  # noqa: RUF006 - it is left behind
        await asyncio.sleep(0.02)

    async def use() -> None:
        async with store.follow(poll_interval=SLOW) as follower:
            entry = await store.append("s", "t")
            assert await anext(follower) == entry
        await store.close()

    run(leave())
    run(use())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_follows_by_a_watcher_of_its_own(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    program = f"""
import os, sys, threading, time
import nerve_store as ns
store = ns.LogStore({str(path)!r})
follower = store.follow(poll_interval=20.0)
pid = os.fork()
if pid == 0:
    try:
        next(follower)
    except ns.ForkedStoreError:
        pass
    follower.close()
    with ns.LogStore({str(path)!r}) as own, own.follow(poll_interval=20.0) as following:
        open({str(path)!r} + ".ready", "w").close()
        found = next(following).type
    del follower, store
    os._exit(0 if found == "to the child" else 1)
while not os.path.exists({str(path)!r} + ".ready"):
    time.sleep(0.01)
store.append("s", "to the child")
begun = time.monotonic()
assert next(follower).type == "to the child"
status = os.waitpid(pid, 0)[1]
assert time.monotonic() - begun < 10, "the child polled"
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=child_environment(), timeout=60, check=False
    )
    assert done.returncode == 0


def test_an_exit_while_followers_wait(data_dir: Path) -> None:
    program = f"""
import asyncio, threading
import nerve_store as ns
store = ns.LogStore({str(data_dir / "logs.db")!r})
threading.Thread(target=lambda: list(store.follow()), daemon=True).start()
async def main():
    follower = ns.AsyncLogStore(store.path).follow()
    asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0.05)
asyncio.run(main())
store.append("s", "t")
"""
    done = subprocess.run([sys.executable, "-c", program], env=child_environment(), timeout=60, check=False)
    assert done.returncode == 0


if __name__ == "__main__":
    append_now_and_then(*sys.argv[1:])
