"""No thread waits for a lock while it holds the interpreter, and no Python runs while the store holds a lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

import nerve_store as ns
from support.signals import RUNAWAY

DAY_MS = 86_400_000
NOW = 20_010 * DAY_MS

Outcome = TypeVar("Outcome")

LONGEST_GAP = 1.5
"""Seconds that a thread that only sleeps may stand still on a loaded machine."""


class Ticker:
    """A thread that does nothing but note the time: it stands still when another holds the interpreter."""

    def __init__(self) -> None:
        self._ticks = [time.monotonic()]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over.wait(0.02):
            self._ticks.append(time.monotonic())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._ticks.append(time.monotonic())

    @property
    def longest_gap(self) -> float:
        return max(later - earlier for earlier, later in zip(self._ticks, self._ticks[1:], strict=False))


def in_time(call: Callable[[], object], seconds: float = 60) -> object:
    """The outcome of `call`, which must come: a deadlock fails the test instead of hanging it."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001, it is an outcome
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, "the call hangs"
    return outcome[0]


# --- getters ------------------------------------------------------------------------------------------------------


def enter(store: ns.LogStore) -> object:
    with pytest.raises(ns.StoreClosedError), store:
        pass
    return None


PROBES: dict[str, Callable[[ns.LogStore], object]] = {
    "closed": lambda store: store.closed,
    "repr": repr,
    "path": lambda store: store.path,
    "archive_dir": lambda store: store.archive_dir,
    "read_only": lambda store: store.read_only,
    "enter": enter,
}


def while_a_close_waits(directory: Path, probe: Callable[[ns.LogStore], Outcome]) -> Outcome:
    """What `probe` says while a close waits for a statement; on a busy machine not at the first attempt."""
    for seconds in (3.0, 12.0, 40.0):
        store = ns.LogStore(directory / f"{seconds}" / "logs.db")
        reading = threading.Thread(target=in_time, args=(lambda s=store, t=seconds: s.sql(RUNAWAY, timeout=t),))
        reading.start()
        time.sleep(seconds / 15)
        closing = threading.Thread(target=store.close)
        closing.start()
        while not store.closed:
            time.sleep(0.01)
        outcome = probe(store)
        was_waiting = closing.is_alive()
        reading.join()
        closing.join()
        if was_waiting:
            return outcome
    pytest.fail("the statement was to last longer")


@pytest.mark.parametrize("probe", PROBES)
def test_what_is_asked_while_a_close_waits_stops_no_other_thread(data_dir: Path, probe: str) -> None:
    def measure(store: ns.LogStore) -> tuple[float, float]:
        with Ticker() as ticker:
            began = time.monotonic()
            PROBES[probe](store)
            took = time.monotonic() - began
        return took, ticker.longest_gap

    took, longest_gap = while_a_close_waits(data_dir, measure)
    assert took < LONGEST_GAP
    assert longest_gap < LONGEST_GAP


def test_a_call_that_begins_while_the_store_closes_is_refused_at_once(data_dir: Path) -> None:
    calls: list[Callable[[ns.LogStore], object]] = [
        lambda store: store.count(),
        lambda store: store.append("system", "tick"),
        lambda store: store.sql("SELECT 1"),
        lambda store: store.verify(),
    ]

    def measure(store: ns.LogStore) -> list[float]:
        seconds = []
        for call in calls:
            began = time.monotonic()
            with pytest.raises(ns.StoreClosedError):
                call(store)
            seconds.append(time.monotonic() - began)
        return seconds

    assert max(while_a_close_waits(data_dir, measure)) < LONGEST_GAP


# --- progress functions -------------------------------------------------------------------------------------------


def filled(path: Path) -> ns.LogStore:
    store = ns.LogStore(path, durability="normal")
    for day in range(4):
        store.append_many([("system", "tick", f"run-{n % 9}", None, (20_000 + day) * DAY_MS + n) for n in range(6_000)])
    store.archive_logs(now=20_002 * DAY_MS, retention=timedelta(0))
    return store


WORK: dict[str, Callable[[ns.LogStore, Callable[[int, int], object]], object]] = {
    "archive_logs": lambda store, progress: store.archive_logs(now=NOW, retention=timedelta(0), progress=progress),
    "reindex": lambda store, progress: store.reindex(progress=progress),
    "restore_archive": lambda store, progress: store.restore_archive(ns.utc_day(20_000 * DAY_MS), progress=progress),
    "verify": lambda store, progress: store.verify(progress=progress),
}


def read_everything(store: ns.LogStore) -> None:
    assert store.closed is False
    assert "closed" not in repr(store)
    assert store.get_meta("none") is None
    assert store.count(archived=True) == 24_000
    assert len(list(store.iter(limit=10))) <= 10
    assert store.sql("SELECT 1") == [(1,)]
    store.stats()
    store.archived_days()


@pytest.mark.parametrize("work", WORK)
def test_a_progress_function_may_call_anything_that_reads(data_dir: Path, work: str) -> None:
    with filled(data_dir / "logs.db") as store:
        calls: list[int] = []

        def progress(_done: int, _total: int) -> None:
            calls.append(1)
            if len(calls) <= 3:
                read_everything(store)

        outcome = in_time(lambda: WORK[work](store, progress))
        assert not isinstance(outcome, Exception), outcome
        assert calls


@pytest.mark.parametrize("thread", ["the same", "another"])
@pytest.mark.parametrize("work", WORK)
def test_a_write_from_a_progress_function_does_not_hang(data_dir: Path, work: str, thread: str) -> None:
    with filled(data_dir / "logs.db") as store:
        written: list[Any] = []

        def write() -> None:
            written.append(store.append("progress", "tick", timestamp=20_020 * DAY_MS))

        def progress(_done: int, _total: int) -> None:
            if written:
                return
            if thread == "the same":
                write()
            else:
                other = threading.Thread(target=write)
                other.start()
                other.join()

        outcome = in_time(lambda: WORK[work](store, progress))
        assert not isinstance(outcome, Exception), outcome
        assert [entry.id for entry in store.query(source="progress")] == [written[0].id]
        assert store.verify().ok


@pytest.mark.parametrize("thread", ["the same", "another"])
@pytest.mark.parametrize("work", WORK)
def test_a_progress_function_that_closes_the_store_ends_the_work(data_dir: Path, work: str, thread: str) -> None:
    path = data_dir / "logs.db"
    store = filled(path)
    closing = threading.Thread(target=store.close)

    def progress(_done: int, _total: int) -> None:
        if thread == "the same":
            store.close()
        elif not closing.ident:
            closing.start()
            time.sleep(0.2)
            # As the daemon's display does, while the close waits for the work.
            assert store.closed
            assert "closed" in repr(store)
            with pytest.raises(ns.StoreClosedError):
                store.get_meta("none")

    outcome = in_time(lambda: WORK[work](store, progress))
    assert outcome is None or isinstance(outcome, ns.StoreClosedError), outcome
    if closing.ident:
        closing.join(30)
        assert not closing.is_alive()
    with ns.LogStore(path) as again:
        assert again.count(archived=True) == 24_000
        assert again.verify().ok


@pytest.mark.parametrize("work", WORK)
def test_an_exception_of_a_progress_function_is_raised(data_dir: Path, work: str) -> None:
    with filled(data_dir / "logs.db") as store:

        def progress(_done: int, _total: int) -> None:
            raise LookupError("on purpose")

        outcome = in_time(lambda: WORK[work](store, progress))
        assert isinstance(outcome, LookupError)
        assert store.verify().ok
        assert store.count(archived=True) == 24_000


@pytest.mark.parametrize("work", ["verify", "collect"])
def test_progress_of_blobs_may_use_the_blobs(data_dir: Path, work: str) -> None:
    blobs = ns.BlobStore(data_dir / "blobs", durability="normal")
    hashes = blobs.write_many(str(n) * 100 for n in range(200))
    seen: list[int] = []

    def progress(_done: int, _total: int) -> None:
        seen.append(blobs.stats().blob_count)
        assert blobs.exists(blobs.write(f"new {len(seen)}"))

    call = blobs.verify if work == "verify" else lambda progress: blobs.collect(hashes, progress=progress)
    outcome = in_time(lambda: call(progress=progress))
    assert not isinstance(outcome, Exception), outcome
    assert seen
