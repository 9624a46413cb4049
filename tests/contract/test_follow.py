"""Following the log: every row of every store, once, in id order, soon."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log
from support import day_files
from support.archive import NOW, at, day

SOON = 10.0


def take(follower: Iterator[ns.LogEntry], count: int) -> list[ns.LogEntry]:
    return list(itertools.islice(follower, count))


@pytest.mark.parametrize("after_id", [0, -1, 3, 10])
def test_from_an_id(log: Log, after_id: int) -> None:
    log.append_many([("system", "tick", None, None, n) for n in range(20)])
    expected = log.query(after_id=after_id)
    assert take(iter(log.follow(after_id=after_id)), len(expected)) == expected


def test_from_now_on(log: Log) -> None:
    log.append_many([("system", "before", None, None, n) for n in range(20)])
    follower = log.follow()
    entry = log.append("system", "after")
    assert next(follower) == entry


def test_only_what_matches(log: Log) -> None:
    follower = log.follow(type="tick", ref_id="run-1")
    log.append("system", "tick", "run-2")
    log.append("system", "tock", "run-1")
    wanted = log.append("system", "tick", "run-1")
    assert next(follower) == wanted


def test_row_of_another_store_wakes_a_follower_that_waits(backend: Backend) -> None:
    log, other = backend.open(), backend.open()
    follower = log.follow()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, follower)
        time.sleep(0.3)
        began = time.monotonic()
        entry = other.append("system", "tick")
        assert waiting.result(SOON) == entry
        assert time.monotonic() - began < SOON


def test_followers_beside_eight_writers_miss_nothing(backend: Backend) -> None:
    stores = [backend.open(durability="normal") for _ in range(2)]
    rows_each, writers = 50, 8
    followers = [store.follow() for store in stores for _ in range(2)]

    def write(number: int) -> None:
        for position in range(rows_each):
            stores[number % 2].append("system", f"w{number}", None, str(position), 1)

    with ThreadPoolExecutor(writers + len(followers)) as pool:
        taken = [pool.submit(take, follower, rows_each * writers) for follower in followers]
        for done in [pool.submit(write, number) for number in range(writers)]:
            done.result()
        rows = [[entry.id for entry in item.result(60)] for item in taken]
    assert rows == [list(range(1, rows_each * writers + 1))] * len(followers)


def test_closing_the_store_ends_a_follower_that_waits(backend: Backend) -> None:
    log = backend.open()
    follower = log.follow()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, follower)
        time.sleep(0.2)
        log.close()
        with pytest.raises(ns.StoreClosedError):
            waiting.result(SOON)


def test_closing_the_follower_ends_its_iteration(log: Log) -> None:
    follower = log.follow()
    closing = threading.Timer(0.2, follower.close)
    closing.start()
    assert list(follower) == []
    closing.join()
    assert log.append("system", "tick").id == 1


def test_day_that_is_missing_for_a_moment_is_skipped_by_none(backend: Backend) -> None:
    log = backend.open()
    log.append_many([("system", "tick", None, None, at(n // 3_000)) for n in range(9_000)])
    log.archive_logs(now=NOW)
    follower = log.follow(after_id=0)
    found = take(follower, 100)
    path = day_files(backend.archive)[day(1)]
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(ns.ArchiveCorruptError):
        found.extend(itertools.islice(follower, 8_900))
    away.rename(path)
    found += take(follower, 9_000 - len(found))
    assert [entry.id for entry in found] == list(range(1, 9_001))


def test_threads_that_share_a_follower_take_each_row_once(log: Log) -> None:
    log.append_many([("system", "tick", None, None, n) for n in range(5_000)])
    follower = log.follow(after_id=0)
    with ThreadPoolExecutor(4) as pool:
        taken = [done.result(60) for done in [pool.submit(take, follower, 1_250) for _ in range(4)]]
    assert sorted(entry.id for entries in taken for entry in entries) == list(range(1, 5_001))


def test_follower_is_closed_at_the_end_of_its_block(log: Log) -> None:
    log.append_many([("system", "tick", None, None, n) for n in range(3)])
    with log.follow(after_id=0) as follower:
        assert next(follower).id == 1
        assert not follower.closed
    assert follower.closed
    assert list(follower) == []
    follower.close()


def test_follow_refuses_intervals_that_are_none(log: Log) -> None:
    for interval in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="poll_interval"):
            log.follow(poll_interval=interval)


@pytest.mark.parametrize("wanted", [{}, {"source": "import"}, {"ref_id": "ref-1"}])
def test_rows_that_are_archived_before_a_follower_comes_to_them_are_returned(log: Log, wanted: dict[str, Any]) -> None:
    """An import of old rows, and a job, while the follower lags or waits."""
    first = log.append("live", "tick", "ref-1", None, NOW).id
    expected = [first] if wanted.get("source") is None else []
    with log.follow(after_id=0, **wanted) as rows:
        found = [next(rows).id] if expected else []
        for count in range(3):
            # More than a page of them.
            ids = log.append_many([("import", "tick", f"ref-{n % 3}", None, at(count, n)) for n in range(3_000)])
            expected += [row_id for n, row_id in enumerate(ids) if wanted.get("ref_id") in (None, f"ref-{n % 3}")]
            if count == 1:  # the follower has a page of them
                found += [next(rows).id for _ in range(10)]
            log.archive_logs(now=NOW)
            if count == 2:  # and no row comes after them
                found += [next(rows).id for _ in range(len(expected) - len(found))]
            else:
                last = log.append("import", "end", "ref-1", None, NOW).id
                expected.append(last)
                while found[-1:] != [last]:
                    found.append(next(rows).id)
            assert found == expected
