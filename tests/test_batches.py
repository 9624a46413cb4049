"""Batches: one commit for many changes, whole or absent, beside others that share it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from nerve_store.types import StatusName
from support import claim_of, fill_batch, foreign_sql, refused
from support.event_loops import run
from support.faults import in_memory
from support.processes import child_command, child_environment


def everything(store: ns.LogStore) -> tuple[Any, ...]:
    rows = [(row.id, row.source, row.type, row.ref_id, row.payload) for row in store.query()]
    kept = ("SELECT * FROM run_claims", "SELECT key, id FROM append_keys", "SELECT * FROM meta")
    return rows, store.get_all_workflow_runs(), [store.sql(query) for query in kept]


def written(
    store: ns.LogStore, *uses: Callable[[ns.WriteBatch], object], claim: ns.RunClaim | None = None
) -> tuple[int, ...]:
    """The ids of a batch that `uses` fill."""
    with store.batch(claim=claim) as batch:
        for use in uses:
            use(batch)
    assert batch.ids is not None
    return batch.ids


def test_ids_are_those_of_all_rows_in_the_order_of_the_calls(log_store: ns.LogStore) -> None:
    first = log_store.append("s", "keyed", key="there")
    log_store.create_workflow_run("there", "w")
    with log_store.batch() as batch:
        assert not batch.ids
        batch.append("s", "a")
        batch.append_many([("s", "b", None, None, 1), ("s", "c", None, None, 1)])
        batch.append("s", "keyed", key="there")
        batch.append("s", "d", key="new")
        batch.create_workflow_run("there", "w", exist_ok=True)
        batch.create_workflow_run("new", "w")
        batch.transition("new", "started")
        batch.set_meta("k", "v")
        batch.delete_meta("k")
        batch.upsert_workflow_run(
            ("s", "e", "new", None, 1), ns.WorkflowRun("new", "w", ns.WorkflowRunStatus.FAILED, 1)
        )
        batch.append("s", "d", key="new")
        assert log_store.count() == 2
    assert batch.ids == (3, 4, 5, first.id, 6, 7, 8, 9, 6)
    types = {row.id: row.type for row in log_store.query()}
    assert [types[row_id] for row_id in batch.ids] == [
        "a", "b", "c", "keyed", "d", "queued", "started", "e", "d",
    ]  # fmt: skip


def test_a_refused_digest_in_a_batch_names_the_key(log_store: ns.LogStore) -> None:
    def use(batch: ns.WriteBatch) -> None:
        batch.append("s", "d", key="new")
        batch.append("s", "f", key="new")

    assert "new" in str(refused(ns.IdempotencyError, lambda: written(log_store, use)))
    assert log_store.count() == 0


REFUSALS: dict[str, tuple[type[Exception], Callable[[ns.WriteBatch], object]]] = {
    "an illegal transition": (ns.IllegalTransitionError, lambda batch: batch.transition("ended", "started")),
    "no such run": (ns.IllegalTransitionError, lambda batch: batch.transition("none", "started")),
    "a run that is there": (ns.RunExistsError, lambda batch: batch.create_workflow_run("ended", "w")),
    "another workflow": (ns.RunExistsError, lambda batch: batch.create_workflow_run("ended", "x", exist_ok=True)),
    "a key of another row": (ns.IdempotencyError, lambda batch: batch.append("s", "other", key="key")),
    "a run under a lease": (ns.IllegalTransitionError, lambda batch: batch.transition("claimed", "failed")),
    "a changed workflow": (
        ValueError,
        lambda batch: batch.upsert_workflow_run(
            ("s", "t", "ended", None, 1), ns.WorkflowRun("ended", "x", ns.WorkflowRunStatus.COMPLETED, 1)
        ),
    ),
}


@pytest.fixture
def busy(data_dir: Path) -> ns.LogStore:
    """A store with small segments, an ended run, a claimed one and a key."""
    store = ns.LogStore(data_dir / "logs.db", segment_rows=7)
    store.create_workflow_run("ended", "w", status="completed")
    store.create_workflow_run("claimed", "w")
    store.claim_workflow_run("me", lease=1000)
    store.append("s", "t", key="key")
    store.set_meta("other", "value")
    return store


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("before", [True, False])
def test_a_refused_change_fails_all_of_it(busy: ns.LogStore, refusal: str, before: bool) -> None:
    expected, refuse = REFUSALS[refusal]
    was = everything(busy)
    uses = [refuse, fill_batch] if before else [fill_batch, refuse]
    refused(expected, lambda: written(busy, *uses))
    assert everything(busy) == was
    assert busy.append("s", "next").id == len(was[0]) + 1, "an id was lost"
    assert len(written(busy, fill_batch)) == 25
    assert busy.verify().ok
    busy.close()


def test_an_exception_in_the_block_discards_everything(busy: ns.LogStore) -> None:
    was = everything(busy)
    kept: list[ns.WriteBatch] = []

    def fail(batch: ns.WriteBatch) -> None:
        kept.append(batch)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        written(busy, fill_batch, fail)
    assert everything(busy) == was
    (batch,) = kept
    assert batch.ids is None
    for use in (lambda: batch.append("s", "t"), batch.__enter__, batch.__exit__):
        refused(RuntimeError, use)
    busy.close()


def test_arguments_are_checked_at_once(busy: ns.LogStore) -> None:
    was = everything(busy)
    with busy.batch() as batch:
        refused(ValueError, lambda: batch.append("s", "t", timestamp=-1))
        refused(ValueError, lambda: batch.append("\ud800", "t"))
        refused(ValueError, lambda: batch.append_many([("s", "t", None, None, 1), ("s", "t", None, None, -1)]))
        refused(ValueError, lambda: batch.set_meta(ns.ARCHIVED_UP_TO, "2026-01-01"))
        refused(ValueError, lambda: batch.delete_meta(ns.ARCHIVED_UP_TO))
        refused(ValueError, lambda: batch.transition("claimed", "unknown"))  # type: ignore[arg-type]
        refused(TypeError, lambda: batch.append(1, "t"))  # type: ignore[arg-type]
    assert everything(busy) == was
    assert batch.ids == ()
    busy.close()


def test_a_claim_fences_a_batch_and_carries_its_changes(busy: ns.LogStore) -> None:
    claim = claim_of(busy)
    with busy.batch(claim=claim) as batch:
        batch.transition("claimed", "completed")
        batch.create_workflow_run("next", "w")
        batch.append("s", "about the next", "next")
    assert busy.get_workflow_run("claimed").status == "completed"  # type: ignore[union-attr]
    busy.create_workflow_run("claimed-2", "w", timestamp=0)
    assert busy.claim_workflow_run("me", run_id="claimed-2") is not None
    claim = claim_of(busy, "claimed-2")
    foreign_sql(busy.path, "UPDATE workflow_runs SET status = 'killed', timestamp = 1 WHERE run_id = 'claimed-2'")
    was = everything(busy)
    refused(ns.ClaimLostError, lambda: written(busy, fill_batch, claim=claim))
    assert everything(busy) == was
    busy.close()


def test_a_batch_sees_its_own_changes(log_store: ns.LogStore) -> None:
    with log_store.batch() as batch:
        for number in range(20):
            batch.create_workflow_run(str(number), "w")
            batch.transition(str(number), "started", expect="queued")
            batch.transition(str(number), "completed", expect="started")
    assert {found.status for found in log_store.get_all_workflow_runs()} == {"completed"}


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "many", "key", "create", "go", "meta"]), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=10,
)


def add(batch: ns.WriteBatch, step: tuple[str, int, int]) -> None:
    what, name, value = step
    statuses: list[StatusName] = ["started", "completed", "queued", "killed"]
    match what:
        case "append":
            batch.append("s", "t", str(name))
        case "many":
            batch.append_many([("s", "m", str(name), None, 1)] * (9 * value))
        case "key":
            batch.append("s", "k", payload=str(value), key=str(name))
        case "create":
            batch.create_workflow_run(str(name), "w", exist_ok=value % 2 == 0)
        case "go":
            batch.transition(str(name), statuses[value])
        case "meta":
            batch.set_meta(str(name), str(value))


@given(batches=st.lists(STEPS, min_size=1, max_size=8))
def test_batches_that_share_a_commit_behave_as_if_each_were_alone(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, int, int]]]
) -> None:
    """The one store commits the batches one by one, the other all at once."""
    place = tmp_path_factory.mktemp("batches")

    async def together() -> list[object]:
        async with ns.AsyncLogStore(place / "together.db", segment_rows=7, durability="normal") as logs:

            async def write(steps: list[tuple[str, int, int]]) -> object:
                async with logs.batch() as batch:
                    for step in steps:
                        add(batch, step)
                return batch.ids

            return list(await asyncio.gather(*map(write, batches), return_exceptions=True))

    def one_by_one(store: ns.LogStore, steps: list[tuple[str, int, int]]) -> object:
        try:
            with store.batch() as batch:
                for step in steps:
                    add(batch, step)
        except ns.NerveStoreError as error:
            return error
        return batch.ids

    outcomes = run(together())
    with ns.LogStore(place / "alone.db", segment_rows=7, durability="normal") as store:
        alone = [one_by_one(store, steps) for steps in batches]
        expected = everything(store)
    assert [type(outcome) for outcome in outcomes] == [type(outcome) for outcome in alone]
    assert [o for o in outcomes if isinstance(o, tuple)] == [o for o in alone if isinstance(o, tuple)]
    with ns.LogStore(place / "together.db", segment_rows=7) as store:
        found = everything(store)
        assert found[0] == expected[0]
        assert [(r.run_id, r.status) for r in sorted(found[1], key=lambda r: r.run_id)] == [
            (r.run_id, r.status) for r in sorted(expected[1], key=lambda r: r.run_id)
        ]
        assert found[2][1:] == expected[2][1:]
        assert store.verify().ok


def test_threads_that_are_refused_spare_the_others(log_store: ns.LogStore) -> None:
    """Threads share commits; some of what they write is refused."""
    log_store.create_workflow_run("ended", "w", status="completed")
    outcomes: list[int] = []

    def rows(batch: ns.WriteBatch, mark: str) -> None:
        batch.append_many([("s", "batch", mark, None, 1)] * 3)

    works: list[Callable[[str], object]] = [
        lambda _: log_store.transition("ended", "started"),
        lambda mark: log_store.append("s", "single", mark),
        lambda mark: written(log_store, lambda batch: rows(batch, mark), lambda b: b.transition("ended", "failed")),
        lambda mark: written(log_store, lambda batch: rows(batch, mark), lambda b: b.create_workflow_run(mark, "w")),
        lambda mark: log_store.set_meta(mark, mark),
    ]

    def write(thread: int) -> None:
        for number in range(30):
            try:
                works[number % 5](f"{thread}-{number}")
            except ns.IllegalTransitionError:
                outcomes.append(number % 5)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [0] * 48 + [2] * 48
    assert log_store.count(type="single") == 48
    assert log_store.count(type="batch") == 3 * 48
    assert [entry.id for entry in log_store.query()] == list(range(1, log_store.count() + 1))
    assert log_store.verify().ok


def whole_or_absent(path: Path, said: list[list[Any]]) -> None:
    with ns.LogStore(path) as store:
        rows: dict[str, list[str]] = {}
        for row in store.iter():
            rows.setdefault(row.ref_id or "", []).append(row.type)
        for mark, types in rows.items():
            assert types == ["row"] * 10 + ["queued", "keyed", "started", "completed"], mark
            assert store.get_meta(mark) == mark
            found = store.get_workflow_run(mark)
            assert found is not None
            assert found.status == "completed"
        assert len(store.get_all_workflow_runs()) == len(rows)
        assert store.sql("SELECT count(*) FROM append_keys") == [(len(rows),)]
        assert {mark for mark, _ in said} <= rows.keys()
        assert store.verify().ok


def test_batches_of_processes_that_are_killed_are_whole_or_absent(tmp_path: Path) -> None:
    dice = Random(7)
    with in_memory(tmp_path) as place:
        path = place / "logs.db"
        ns.LogStore(path).close()
        said: list[list[Any]] = []
        for number in range(6):
            command = child_command("batches", path=str(path), writer=str(number), count=10_000)
            with subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(dice.uniform(0, 0.3))
                process.kill()
                said += [json.loads(line) for line in process.stdout.read().split(b"\n")[:-1]]
        whole_or_absent(path, said)
