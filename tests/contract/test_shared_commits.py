"""Calls that share a commit: each returns what is its own, whatever the others wrote."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store.protocols import Log

QUEUED = ns.WorkflowRunStatus.QUEUED


def append(log: Log, name: str) -> dict[int, str]:
    entry = log.append("system", "tick", name)
    assert entry.ref_id == name
    return {entry.id: name}


def append_many(log: Log, name: str) -> dict[int, str]:
    names = [f"{name}.{number}" for number in range(3)]
    return dict(zip(log.append_many([("system", "tick", one, None, 1) for one in names]), names, strict=True))


def batch_of_rows(log: Log, name: str) -> dict[int, str]:
    names = [f"{name}.{number}" for number in range(4)]
    with log.batch() as batch:
        batch.append("system", "tick", names[0])
        batch.append_many([("system", "tick", one, None, 1) for one in names[1:3]])
        batch.append("system", "tick", names[3])
    assert batch.ids is not None
    return dict(zip(batch.ids, names, strict=True))


def append_with_a_key(log: Log, name: str) -> dict[int, str]:
    entry = log.append("system", "tick", name, key=name)
    assert log.append("system", "tick", name, key=name) == entry
    return {entry.id: name}


def batch_of_all_kinds(log: Log, name: str) -> dict[int, str]:
    with log.batch() as batch:
        batch.set_meta(name, name)
        batch.append("system", "tick", name)
        batch.append("system", "tick", f"{name}.key", key=name)
        batch.create_workflow_run(f"{name}.run", "work")
    assert batch.ids is not None
    return dict(zip(batch.ids, (name, f"{name}.key", f"{name}.run"), strict=True))


def upsert(log: Log, name: str) -> dict[int, str]:
    run = ns.WorkflowRun(name, "work", QUEUED, 1)
    return {log.upsert_workflow_run(("workflow", "queued", name, None, 1), run).id: name}


def run_that_is_claimed(log: Log, name: str) -> dict[int, str]:
    assert log.create_workflow_run(name, name).run_id == name
    claim = log.claim_workflow_run("me", workflow=name)
    assert claim is not None
    assert claim.run.run_id == name
    entry = log.append("system", "tick", name, claim=claim)
    assert log.transition(name, "completed", claim=claim).run_id == name
    return {entry.id: name, claim.token: name}


def meta(log: Log, name: str) -> dict[int, str]:
    log.set_meta(name, name)
    assert log.get_meta(name) == name
    assert log.delete_meta(name)
    return {}


def refused(log: Log, name: str) -> dict[int, str]:
    with pytest.raises(ns.IllegalTransitionError):
        log.transition(name, "completed")
    return {}


KINDS: list[Callable[[Log, str], dict[int, str]]] = [
    append, append_many, batch_of_rows, append_with_a_key, batch_of_all_kinds, upsert, run_that_is_claimed, meta,
    refused,
]  # fmt: skip


@pytest.mark.parametrize("kinds", [KINDS, [append, meta], [append_many, upsert], [batch_of_rows, refused]])
def test_every_call_returns_its_own(backend: Backend, kinds: list[Callable[[Log, str], dict[int, str]]]) -> None:
    log = backend.open()
    start = threading.Barrier(8)

    def work(number: int) -> dict[int, str]:
        kind_of = random.Random(number)
        found: dict[int, str] = {}
        start.wait(30)
        for count in range(24):
            found |= kind_of.choice(kinds)(log, f"{number}-{count}")
        return found

    returned: dict[int, str] = {}
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            assert not returned.keys() & found.keys()
            returned |= found
    stored: dict[int, Any] = {entry.id: entry.ref_id for entry in log.iter()}
    assert {row_id: stored.get(row_id) for row_id in returned} == returned
