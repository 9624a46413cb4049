"""Every write of a `LogStore` that is killed or failed at any of its calls has happened as a whole or not at all."""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from programs import say
from programs.faulted import ASYNC_WRITES, Durability, write_async
from support import LOG_STORE_WRITES, as_row, claim_of, database_rows, foreign_sql
from support.archive import NOW, at, day, fill
from support.counts import note
from support.faults import FAULTS, KILL, NONE, Run, Scenario, SweepError, in_memory, kind_of, run_faulted, sweep

SEGMENT_ROWS = 8
WRITES: dict[str, Callable[[ns.LogStore], object]] = {
    **LOG_STORE_WRITES,
    # With what they find to do in the store of `prepare`.
    "claim_workflow_run": lambda store: store.claim_workflow_run("worker", run_id="waiting"),
    "delete_workflow_runs": lambda store: store.delete_workflow_runs(before=NOW + 1),
    "archive_logs": lambda store: store.archive_logs(now=NOW),
    "expire_archive": lambda store: store.expire_archive(before=day(1)),
    "append once": lambda store: store.append("system", "tick", key="key"),
    "append under a claim": lambda store: store.append("step", "tick", "claimed", claim=claim_of(store)),
    "transition under a claim": lambda store: store.transition("claimed", "completed", claim=claim_of(store)),
    "claim_workflow_run whose lease ran out": lambda store: store.claim_workflow_run("worker", run_id="left"),
}
"""By the method, and what is particular about it."""
WITHOUT_TRACE = {"reindex"}
"""What a reader does not notice."""
MODES: tuple[Durability, ...] = ("full", "normal")


def write(*, path: str, name: str, durability: Durability = "full") -> None:
    """One of the writes, in its own opening of the store."""
    with ns.LogStore(path, durability=durability, segment_rows=SEGMENT_ROWS, busy_timeout=1) as store:
        WRITES[name](store)
        say(name)


def append_in_two_calls(*, path: str, name: str) -> None:
    """The control: what should be one write, in two."""
    with ns.LogStore(path, segment_rows=SEGMENT_ROWS) as store:
        for _ in range(2):
            WRITES["append"](store)
        say(name)


@dataclass
class States:
    """What a reader sees before the write and after it."""

    before: Any
    live: Any
    """The rows of the database before it."""
    after: Any = field(default=None)


def state(store: ns.LogStore) -> tuple[Any, ...]:
    """All that a reader can see but the time, which a write may take from the clock."""
    rows = [as_row(entry)[:-1] for entry in store.query(archived=True)]
    runs = [(run.run_id, run.workflow, run.status, run.exit_code) for run in store.get_all_workflow_runs()]
    kept = ("SELECT run_id, attempt, token, owner, lease, status FROM run_claims", "SELECT key, id FROM append_keys")
    ours = [store.sql(query) for query in kept]
    return rows, store.count(archived=True), runs, store.get_meta("key"), store.get_meta("other"), ours


def prepare(directory: Path) -> States:
    """Archived days, days to be archived, a row in no segment, and runs: under way, claimed, waiting, left, ended."""
    with ns.LogStore(directory / "logs.db", segment_rows=SEGMENT_ROWS) as store:
        fill(store, days=4, per_day=5)
        store.archive_logs(now=NOW, max_days=2)
        store.set_meta("other", "value")
        started = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, NOW)
        store.upsert_workflow_run(("workflow", "started", "run-1", '{"role":"a","content":""}', NOW), started)
        store.append("system", "tick", timestamp=at(0))
        store.create_workflow_run("claimed", "deploy", timestamp=NOW)
        assert store.claim_workflow_run("worker", lease=1_000_000) is not None
        store.create_workflow_run("left", "deploy", timestamp=NOW)
        assert store.claim_workflow_run("dead", run_id="left", lease=0.001) is not None
        store.create_workflow_run("waiting", "deploy", timestamp=NOW)
        for status in ("queued", "started", "completed"):
            run = ns.WorkflowRun("ended", "deploy", ns.WorkflowRunStatus(status), NOW)
            store.upsert_workflow_run(("workflow", status, "ended", None, NOW), run)
        return States(state(store), database_rows(store))


def check(directory: Path, states: States, run: Run) -> None:
    path = directory / "logs.db"
    assert all(failure["is_ours"] for failure in run.failures)
    with ns.LogStore(path, segment_rows=SEGMENT_ROWS) as store:
        found = state(store)
        if run.fault == NONE:
            states.after = found
            has_changed = (found, database_rows(store)) != (states.before, states.live)
            assert has_changed or WITHOUT_TRACE.issuperset(run.acknowledged), "there was nothing to do"
        assert found in (states.before, states.after), "half a write"
        if run.acknowledged:
            assert found == states.after, "an acknowledged write is lost"
        report = store.verify()
        assert report.ok, report.problems
        last = store.append("system", "next", timestamp=NOW)
        assert store.query(archived=True)[-1] == last
    assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]


def swept(
    name: str,
    tmp_path: Path,
    fault: int,
    per_call: int | None,
    *,
    by: Callable[..., None] = write,
    reads: bool = False,
    **arguments: Any,
) -> Counter[str]:
    scenario = Scenario(by, check, prepare=prepare, arguments={"name": name, **arguments}, reads=reads)
    runs = sweep(scenario, tmp_path, fault, per_call=per_call)
    assert all(run.killed or run.failures or run.acknowledged for run in runs), "neither acknowledged nor refused"
    calls = Counter(run.call for run in runs)
    kind = kind_of(fault) + (" of reads" if reads else "")
    note(f"faults of {by.__name__}", f"{name} {arguments}", points=calls.total(), **{kind: calls.total()})
    return calls


def swept_async(name: str, tmp_path: Path, fault: int, per_call: int | None, durability: Durability) -> Counter[str]:
    options: dict[str, Any] = {"durability": durability, "segment_rows": SEGMENT_ROWS}
    return swept(name, tmp_path, fault, per_call, by=write_async, **options)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", WRITES)
def test_write_that_is_cut_short_happened_or_did_not(tmp_path: Path, name: str, fault: int) -> None:
    assert swept(name, tmp_path, fault, 1).total() >= 3


@pytest.mark.parametrize("name", WRITES)
def test_normal_write_that_is_killed_happened_or_did_not(tmp_path: Path, name: str) -> None:
    assert swept(name, tmp_path, KILL, 1, durability="normal").total() >= 3


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", ["append", "transition", "archive_logs"])
def test_asynchronous_write_that_is_cut_short_happened_or_did_not(tmp_path: Path, name: str, fault: int) -> None:
    assert swept_async(name, tmp_path, fault, 1, "full").total() >= 3


def test_every_asynchronous_write_is_swept() -> None:
    assert ASYNC_WRITES.keys() == WRITES.keys()


@pytest.mark.parametrize("name", WRITES)
def test_write_that_cannot_read_happened_or_did_not(tmp_path: Path, name: str) -> None:
    assert swept(name, tmp_path, errno.EIO, 1, reads=True).total() >= 3


def test_a_call_for_a_lock_that_fails_once_keeps_no_call_waiting(tmp_path: Path) -> None:
    """A lock that is not given back would bar the other connections of the process."""
    with in_memory(tmp_path) as place:
        prepare(place / "template")

        def one(fault: int, when: int) -> Run:
            directory = Path(shutil.copytree(place / "template", place / str(when)))
            return run_faulted(write, fault, when, reads=True, path=str(directory / "logs.db"), name="set_meta")

        calls = one(NONE, 0).calls
        locks = [number for number, call in enumerate(calls, 1) if call == "fcntl"]
        assert len(locks) >= 50
        for when in locks:
            began = time.monotonic()
            run = one(errno.EIO, when)
            assert run.returncode == 0, run
            assert time.monotonic() - began < 25, run
            shutil.rmtree(place / str(when))


@pytest.mark.torture
@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", WRITES)
def test_write_that_is_cut_short_at_any_call_happened_or_did_not(
    tmp_path: Path, name: str, fault: int, durability: Durability
) -> None:
    assert swept(name, tmp_path, fault, None, durability=durability).total() >= 6


@pytest.mark.torture
@pytest.mark.parametrize("durability", MODES)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", ASYNC_WRITES)
def test_asynchronous_write_that_is_cut_short_at_any_call_happened_or_did_not(
    tmp_path: Path, name: str, fault: int, durability: Durability
) -> None:
    assert swept_async(name, tmp_path, fault, None, durability).total() >= 6


@pytest.mark.torture
@pytest.mark.parametrize("name", WRITES)
def test_write_that_cannot_read_at_any_call_happened_or_did_not(tmp_path: Path, name: str) -> None:
    assert swept(name, tmp_path, errno.EIO, None, reads=True).total() >= 20


def test_sweep_catches_a_write_in_two_transactions(tmp_path: Path) -> None:
    scenario = Scenario(append_in_two_calls, check, prepare=prepare, arguments={"name": "two"})
    with pytest.raises(SweepError, match="half a write"):
        sweep(scenario, tmp_path, KILL)
