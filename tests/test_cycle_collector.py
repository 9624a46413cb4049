"""A call never loses what a signal handler raises to the collector of cycles.

A collection calls Python code: the functions of `gc.callbacks`, and finalizers. The handler of a signal that is pending
runs there, CPython prints what it raises there and drops it, and the call that was interrupted goes on. So a call must
not begin a collection while a signal may be pending. Before 3.12 a collection begins in the allocation of an object.
Since 3.12 it begins between two instructions of Python code, after the handlers of pending signals have run, and in
`PyErr_CheckSignals`, before they run.

A signal that arrives while a collection runs is lost in any program. So these tests send no signals at random moments
and count which were lost. They ask whether the call itself began a collection, and make a signal pending before it.
"""

from __future__ import annotations

import _thread
import gc
import json
import operator
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest

import nerve_store as ns
from support.signals import Interrupted, handler, interrupt

DAY_MS = 86_400_000
TODAY = 20_001 * DAY_MS

pytestmark = pytest.mark.thread_unsafe(reason="signals reach the main thread alone, and the collector is the process's")


def queued(run_id: str) -> ns.WorkflowRun:
    return ns.WorkflowRun(run_id, "work", ns.WorkflowRunStatus.QUEUED, TODAY)


def repeat_for(seconds: float, call: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        call()


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ns.LogStore]:
    """A store of which each of `MAKERS` makes thousands of objects."""
    message = json.dumps({"role": "assistant", "content": "hello", "round": 1})
    with ns.LogStore(tmp_path_factory.mktemp("talkative") / "logs.db", durability="normal") as store:
        store.append_many([("system", "tick", None, "x" * 40, 20_000 * DAY_MS + n) for n in range(20_000)])
        store.archive_logs(now=TODAY, retention=timedelta(0))
        store.upsert_workflow_run(("workflow", "queued", "talk", None, TODAY), queued("talk"))
        store.append_many([("workflow", "thread_workflow_message", "talk", message, TODAY)] * 20_000)
        store.append("system", "large", None, json.dumps([[{} for _ in range(1_000)] for _ in range(50)]))
        assert len(store.get_thread_messages("talk")) == 20_000
        yield store


# --- whatever the moment -----------------------------------------------------------------------------------------

ROWS = [("system", "tick", None, None, None)] * 10
DAY = ns.utc_day(20_000 * DAY_MS)
HASH = ns.blob_hash("blob")

# Functions in C, between whose calls no Python code runs. What they iterate over is an iterator, so that none has to be
# made, with which a collection might begin before 3.12.
CALLS: dict[str, Callable[[ns.Store], Callable[[], object]]] = {
    "append": lambda store: partial(store.logs.append, "system", "tick"),
    "append_many": lambda store: partial(store.logs.append_many, iter(ROWS)),
    "batch": lambda store: store.logs.batch,
    "query": lambda store: store.logs.query,
    "iter": lambda store: store.logs.iter,
    "rows": lambda store: partial(all, store.logs.iter()),
    "follow": lambda store: store.logs.follow,
    "arrow": lambda store: store.logs.arrow,
    "count": lambda store: store.logs.count,
    "sql": lambda store: partial(store.logs.sql, "SELECT * FROM logs"),
    "sql without rows": lambda store: partial(store.logs.sql, "SELECT 1 WHERE 0"),
    "stats": lambda store: store.logs.stats,
    "reindex": lambda store: store.logs.reindex,
    "json": lambda store: store.logs.query(type="nested")[0].json,
    "get_meta": lambda store: partial(store.logs.get_meta, "key"),
    "list_meta": lambda store: store.logs.list_meta,
    "set_meta": lambda store: partial(store.logs.set_meta, "key", "value"),
    "archived_days": lambda store: store.logs.archived_days,
    "read_archive": lambda store: partial(store.logs.read_archive, DAY),
    "archived rows": lambda store: partial(all, store.logs.read_archive(DAY)),
    "claim_workflow_run": lambda store: partial(store.logs.claim_workflow_run, "owner"),
    "get_workflow_run": lambda store: partial(store.logs.get_workflow_run, "talk"),
    "get_all_workflow_runs": lambda store: store.logs.get_all_workflow_runs,
    "get_active_workflow_runs": lambda store: store.logs.get_active_workflow_runs,
    "query_workflow_runs": lambda store: store.logs.query_workflow_runs,
    "iter_workflow_runs": lambda store: store.logs.iter_workflow_runs,
    "runs": lambda store: partial(all, store.logs.iter_workflow_runs()),
    "count_workflow_runs": lambda store: store.logs.count_workflow_runs,
    "get_trigger_payload": lambda store: partial(store.logs.get_trigger_payload, "talk"),
    "get_thread_events": lambda store: partial(store.logs.get_thread_events, "talk"),
    "get_thread_messages": lambda store: partial(store.logs.get_thread_messages, "talk"),
    "get_thread_messages of none": lambda store: partial(store.logs.get_thread_messages, "none"),
    "get_thread_round_count": lambda store: partial(store.logs.get_thread_round_count, "talk"),
    "write a blob": lambda store: partial(store.blobs.write, "another blob"),
    "write_many": lambda store: partial(store.blobs.write_many, iter(["a", "b"])),
    "writer": lambda store: store.blobs.writer,
    "read": lambda store: partial(store.blobs.read, HASH),
    "open": lambda store: partial(store.blobs.open, HASH),
    "exists": lambda store: partial(store.blobs.exists, HASH),
    "hashes": lambda store: partial(iter, store.blobs),
    "stats of blobs": lambda store: store.blobs.stats,
    "verify blobs": lambda store: store.blobs.verify,
}


@pytest.fixture
def small(data_dir: Path) -> Iterator[ns.Store]:
    """A store with something of all."""
    nested, message = json.dumps([[{}], [{}]]), json.dumps({"role": "assistant", "content": "hello", "round": 1})
    with ns.Store(data_dir, durability="normal") as store:
        logs = store.logs
        logs.append("system", "tick", None, None, 20_000 * DAY_MS)
        logs.archive_logs(now=TODAY, retention=timedelta(0))
        trigger = json.dumps({"type": "trigger", "payload": {"a": [1]}})
        logs.upsert_workflow_run(("workflow", "queued", "talk", trigger, TODAY), queued("talk"))
        for number in range(20):
            logs.upsert_workflow_run(("workflow", "queued", str(number), None, TODAY), queued(str(number)))
        logs.append_many([("workflow", "thread_workflow_message", "talk", message, TODAY)] * 5)
        logs.append("system", "nested", None, nested)
        logs.set_meta("key", "value")
        store.blobs.write("blob")
        yield store


@pytest.fixture
def collections() -> Iterator[list[str]]:
    """With every second object a collection is due. Python code, in which handlers run, adds each to the list."""
    began: list[str] = []

    def collected(phase: str, _info: dict[str, int]) -> None:
        began.append(phase)

    thresholds = gc.get_threshold()
    gc.freeze()
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    try:
        yield began
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)
        gc.unfreeze()


def in_one_instruction(*functions: Callable[[], object]) -> list[Any]:
    """What these functions in C return, called without an instruction of Python code between them."""
    assert not any(isinstance(getattr(function, "func", function), MethodType) for function in functions)
    # Objects that CPython keeps for later use are not counted; a whole collection lets go of them.
    gc.collect()
    return list(map(operator.call, functions))


@pytest.mark.parametrize("call", CALLS)
def test_no_collection_begins_while_a_call_makes_its_result(small: ns.Store, collections: list[str], call: str) -> None:
    CALLS[call](small)()  # the first call imports what results are made of
    for attempt in range(6):
        function = CALLS[call](small)
        # The lists count as well: in half of the attempts a collection is due at the first object of the result.
        results = in_one_instruction(*[list] * attempt, collections.__len__, function, collections.__len__)
        assert results[-1] == results[-3]
    assert collections, "the control: there are collections"


@pytest.mark.parametrize("call", CALLS)
def test_a_call_with_a_pending_signal_raises_what_the_handler_raises(
    small: ns.Store, collections: list[str], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    CALLS[call](small)()
    for attempt in range(6):
        function = CALLS[call](small)
        with handler(interrupt, signal.SIGALRM), pytest.raises(Interrupted):
            # `interrupt_main` leaves the signal pending, as its arrival does.
            in_one_instruction(*[list] * attempt, partial(_thread.interrupt_main, signal.SIGALRM), function)
    assert not lost
    assert collections, "the control: there are collections"


# --- large results -----------------------------------------------------------------------------------------------

# What makes many Python objects without running Python code; the cycle collector may, in their allocations.
MAKERS: dict[str, Callable[[ns.LogStore], Callable[[], object]]] = {
    "query": lambda store: store.query,
    "iter": lambda store: partial(all, store.iter()),
    "read_archive": lambda store: partial(all, store.read_archive(DAY)),
    "sql": lambda store: partial(store.sql, "SELECT * FROM logs"),
    "get_thread_messages": lambda store: partial(store.get_thread_messages, "talk"),
    "json": lambda store: store.query(type="large")[0].json,
}


@pytest.mark.parametrize("maker", MAKERS)
def test_no_collection_begins_while_a_large_result_is_made(
    talkative: ns.LogStore, collections: list[str], maker: str
) -> None:
    MAKERS[maker](talkative)()
    function = MAKERS[maker](talkative)
    results = in_one_instruction(collections.__len__, function, collections.__len__)
    assert results[0] == results[-1]
    assert collections, "the control: there are collections"


# --- other threads -----------------------------------------------------------------------------------------------


def found_by_another_thread(seconds: float, call: Callable[[], object]) -> list[bool]:
    """Whether the collector is on, as often as another thread asks while this one makes calls."""
    is_done = threading.Event()
    found: list[bool] = []

    def look() -> None:
        while not is_done.is_set():
            found.append(gc.isenabled())

    looking = threading.Thread(target=look)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the other thread runs whenever this one lets go of the lock
    try:
        looking.start()
        repeat_for(seconds, call)
    finally:
        sys.setswitchinterval(interval)
        is_done.set()
        looking.join(30)
    return found


@pytest.mark.parametrize("maker", MAKERS)
def test_no_other_thread_finds_the_collector_turned_off_for_a_large_result(talkative: ns.LogStore, maker: str) -> None:
    """Without a global lock another thread runs while a result is made."""

    def make_and_call() -> object:
        return MAKERS[maker](talkative)()

    found = found_by_another_thread(0.2, make_and_call)
    assert found
    assert all(found)


@pytest.mark.parametrize("call", CALLS)
def test_no_other_thread_finds_the_collector_turned_off(small: ns.Store, call: str) -> None:
    """Nor does one that runs because a call lets go of the global lock in the middle."""

    def make_and_call() -> object:
        return CALLS[call](small)()

    found = found_by_another_thread(0.1, make_and_call)
    assert found
    assert all(found)
