"""Triggers of other programs on our tables: what is acknowledged is stored, under the ids that were told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import as_rows, foreign_script
from support.event_loops import run

IGNORED = {
    "logs": "BEFORE INSERT ON logs WHEN new.source = 'noise'",
    "logs, afterwards": "AFTER INSERT ON logs WHEN new.source = 'noise'",
    "meta": "BEFORE INSERT ON meta",
    "new runs": "BEFORE INSERT ON workflow_runs",
    "runs": "BEFORE UPDATE ON workflow_runs",
    "keys": "BEFORE INSERT ON append_keys",
}
"""Where a trigger passes over what is to be stored."""
NOISE = ("noise", "x", "run-2", None, 5)
OTHER = ("other", "x", None, None, 5)


def batched(store: ns.LogStore) -> None:
    with store.batch() as batch:
        batch.append(*OTHER)
        batch.append(*NOISE)


CALLS: dict[str, dict[str, Callable[[ns.LogStore], Any]]] = {
    "logs": {
        "append": lambda store: store.append(*NOISE),
        "append with a key": lambda store: store.append(*NOISE, key="key"),
        "append_many": lambda store: store.append_many([OTHER] * 20 + [NOISE] + [OTHER] * 20),
        "batch": batched,
        "upsert": lambda store: store.upsert_workflow_run(NOISE, ns.WorkflowRun("run-2", "w", "queued", 5)),
    },
    "meta": {"set_meta": lambda store: store.set_meta("key", "value")},
    "new runs": {"create_workflow_run": lambda store: store.create_workflow_run("run-2", "w")},
    "runs": {
        "transition": lambda store: store.transition("run-1", "started"),
        "claim": lambda store: store.claim_workflow_run("me"),
    },
    "keys": {"append with a key": lambda store: store.append(*OTHER, key="key")},
}


def everything(store: ns.LogStore) -> list[Any]:
    return [as_rows(store.iter()), list(store.iter_workflow_runs()), store.list_meta(), store.verify().problems]


def opened(path: Path) -> ns.LogStore:
    store = ns.LogStore(path)
    store.append(*OTHER)
    store.create_workflow_run("run-1", "w")
    return store


@pytest.mark.parametrize(("where", "call"), [(where, call) for where in CALLS for call in CALLS[where]])
def test_what_a_trigger_passes_over_is_not_acknowledged(data_dir: Path, where: str, call: str) -> None:
    path = data_dir / "logs.db"
    with opened(path) as store:
        before = everything(store)
        foreign_script(path, f"CREATE TRIGGER theirs {IGNORED[where]} BEGIN SELECT RAISE(IGNORE); END")
        for _ in range(2):
            with pytest.raises(ns.CorruptStoreError, match="a trigger of another program"):
                CALLS[where][call](store)
            assert everything(store) == before
        foreign_script(path, "DROP TRIGGER theirs")
        CALLS[where][call](store)
        assert everything(store) != before
        assert store.verify().ok


def test_calls_that_share_a_commit_with_a_refused_one_are_stored_or_refused(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with opened(path) as store:
        foreign_script(path, f"CREATE TRIGGER theirs {IGNORED['logs']} BEGIN SELECT RAISE(IGNORE); END")
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda n: appended(store, "noise" if n % 9 == 0 else "kept", n), range(300)))
        assert not any(told[::9])
        assert store.query(source="kept") == sorted(filter(None, told), key=lambda entry: entry.id)


def appended(store: ns.LogStore, source: str, number: int) -> ns.LogEntry | None:
    try:
        return store.append(source, "x", None, str(number), 5)
    except ns.CorruptStoreError:
        return None


MIRROR = """
CREATE TRIGGER theirs AFTER INSERT ON logs WHEN new.source <> 'mirror' BEGIN
  INSERT INTO logs (source, type, timestamp) VALUES ('mirror', new.type, new.timestamp);
END
"""


def test_ids_are_right_where_a_trigger_inserts_rows_as_well(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with opened(path) as store:
        foreign_script(path, MIRROR)

        def append(number: int) -> ns.LogEntry:
            return store.append("own", "x", None, str(number), 5)

        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(append, range(200)))
        before = everything(store)
        calls: list[Callable[[], Any]] = [lambda: store.append_many([OTHER] * 20), lambda: batched(store)]
        for call in calls:
            with pytest.raises(ns.CorruptStoreError, match="a trigger of another program inserts rows"):
                call()
            assert everything(store) == before
        last = store.append_many([("own", "x", None, "last", 5)])
        rows = store.query(source="own")
        assert rows[:-1] == sorted(told, key=lambda entry: entry.id)
        assert [rows[-1].id] == list(last)
        assert store.count(source="mirror") == 201

    async def main() -> None:
        """An event loop stores the rows that it has at the same time in one go."""
        async with ns.AsyncLogStore(path) as logs:
            calls = (logs.append("task", "x", None, str(number), 5) for number in range(200))
            told = await asyncio.gather(*calls, return_exceptions=True)
            told.append(await logs.append("task", "x", None, "alone", 5))
            entries = [entry for entry in told if isinstance(entry, ns.LogEntry)]
            assert all(isinstance(other, ns.LogEntry | ns.CorruptStoreError) for other in told)
            assert await logs.query(source="task") == sorted(entries, key=lambda entry: entry.id)

    run(main())
