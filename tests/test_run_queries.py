"""Runs by workflow, state and time, page by page; counting and deleting them; and the indexes that serve this."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from programs.logs import delete_runs
from reference import ACTIVE, STATUSES
from support import INSERT_RUN, foreign_many, foreign_script, foreign_sql
from support.faults import KILL, Run, Scenario, sweep
from support.foreign import UPSTREAM_SCHEMA
from support.runs import put

WORKFLOWS = ("build", "deploy", "test")
RUNS = st.lists(
    st.tuples(st.sampled_from(WORKFLOWS), st.sampled_from(STATUSES), st.integers(0, 9)), min_size=0, max_size=40
)


def fill(path: Path, runs: list[tuple[str, str, int]]) -> list[ns.WorkflowRun]:
    """Put the runs there as the predecessor does."""
    rows = [(f"run-{n:02}", *run, n % 3 or None) for n, run in enumerate(runs)]
    foreign_many(path, INSERT_RUN, rows)
    return [
        ns.WorkflowRun(run_id, name, ns.WorkflowRunStatus(status), at, code) for run_id, name, status, at, code in rows
    ]


def sorted_runs(runs: list[ns.WorkflowRun], *, descending: bool = True) -> list[ns.WorkflowRun]:
    return sorted(runs, key=lambda run: (run.timestamp, run.run_id), reverse=descending)


def some(values: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Nothing, one of the values, or a collection of them."""
    several = st.lists(st.sampled_from(values), max_size=3)
    return st.one_of(st.none(), st.sampled_from(values), several, several.map(tuple), several.map(set))


def matches(wanted: Any, value: str) -> bool:
    return wanted is None or (value == wanted if isinstance(wanted, str) else value in wanted)


@given(
    runs=RUNS,
    workflow=some(WORKFLOWS),
    status=some(tuple(STATUSES)),
    since=st.none() | st.integers(0, 9),
    until=st.none() | st.integers(0, 9),
    descending=st.booleans(),
    limit=st.integers(1, 12),
)
def test_pages_put_together_are_the_runs_of_a_plain_sort(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[tuple[str, str, int]],
    workflow: Any,
    status: Any,
    since: int | None,
    until: int | None,
    descending: bool,
    limit: int,
) -> None:
    path = tmp_path_factory.mktemp("runs") / "logs.db"
    with ns.LogStore(path) as store:
        everything = fill(path, runs)
        expected = sorted_runs(
            [
                run
                for run in everything
                if matches(workflow, run.workflow)
                and matches(status, run.status)
                and (since is None or run.timestamp >= since)
                and (until is None or run.timestamp <= until)
            ],
            descending=descending,
        )
        options: dict[str, Any] = {
            "workflow": workflow,
            "status": status,
            "since": since,
            "until": until,
            "descending": descending,
        }
        assert store.query_workflow_runs(**options) == expected
        assert list(store.iter_workflow_runs(**options)) == expected
        assert list(store.iter_workflow_runs(**options, limit=limit)) == expected[:limit]
        pages: list[ns.WorkflowRun] = []
        while page := store.query_workflow_runs(**options, limit=limit, after=pages[-1] if pages else None):
            assert len(page) <= limit
            pages += page
        assert pages == expected
        counts = store.count_workflow_runs(workflow=workflow, status=status)
        found = [run.status for run in everything if matches(workflow, run.workflow) and matches(status, run.status)]
        assert {name: count for name, count in counts.items() if count} == {name: found.count(name) for name in found}
        assert {type(name) for name in counts} <= {ns.WorkflowRunStatus}
        assert all(counts[name] == found.count(name) for name in ns.WorkflowRunStatus)


@given(runs=RUNS, before=st.integers(0, 10), workflow=some(WORKFLOWS))
def test_deleting_takes_the_old_runs_that_have_ended_and_no_rows(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[str, str, int]], before: int, workflow: Any
) -> None:
    path = tmp_path_factory.mktemp("runs") / "logs.db"
    with ns.LogStore(path) as store:
        store.append("workflow", "queued", "run-00", "payload", 0)
        rows = store.query()
        everything = fill(path, runs)
        gone = [
            run
            for run in everything
            if run.status not in ACTIVE and run.timestamp < before and matches(workflow, run.workflow)
        ]
        assert store.delete_workflow_runs(before=before, workflow=workflow) == len(gone)
        assert store.get_all_workflow_runs() == sorted_runs([run for run in everything if run not in gone])
        assert store.query() == rows
        assert store.delete_workflow_runs(before=before, workflow=workflow) == 0


def test_a_run_that_is_made_again_sees_its_rows(log_store: ns.LogStore) -> None:
    put(log_store, "started", timestamp=1)
    put(log_store, "completed", timestamp=2)
    assert log_store.delete_workflow_runs(before=2) == 0
    assert log_store.delete_workflow_runs(before=3) == 1
    assert log_store.get_workflow_run("run-1") is None
    put(log_store, "queued", timestamp=4)
    assert [entry.type for entry in log_store.query(ref_id="run-1")] == ["started", "completed", "queued"]


def test_more_runs_are_deleted_than_one_transaction_takes(log_store: ns.LogStore) -> None:
    foreign_many(log_store.path, INSERT_RUN, ((f"r{n}", "deploy", "completed", n, 0) for n in range(2_500)))
    assert log_store.delete_workflow_runs(before=2_400) == 2_400
    assert log_store.count_workflow_runs() == {"completed": 100}


def test_an_iterator_goes_on_beside_changes(log_store: ns.LogStore) -> None:
    foreign_many(log_store.path, INSERT_RUN, ((f"r{n:04}", "deploy", "completed", n, 0) for n in range(1_000)))
    seen: list[str] = []
    for run in log_store.iter_workflow_runs(descending=False):
        seen.append(run.run_id)
        if len(seen) == 300:
            log_store.delete_workflow_runs(before=600)
    assert seen[:300] == [f"r{n:04}" for n in range(300)]
    assert seen[-400:] == [f"r{n:04}" for n in range(600, 1_000)]
    assert len(seen) == len(set(seen))


def test_a_page_goes_on_after_a_run_with_a_fraction_in_its_timestamp(log_store: ns.LogStore) -> None:
    foreign_many(
        log_store.path,
        INSERT_RUN,
        [("b", "w", "failed", 5.25, 1), ("a", "w", "failed", 5.75, 1), ("c", "w", "failed", 5, 1)],
    )
    for descending, expected in ((False, ["c", "b", "a"]), (True, ["a", "b", "c"])):
        found: list[ns.WorkflowRun] = []
        for _ in range(4):
            found += log_store.query_workflow_runs(limit=1, after=found[-1] if found else None, descending=descending)
        assert [run.run_id for run in found] == expected


def test_a_run_in_an_unknown_state_is_reported_and_takes_no_place(
    log_store: ns.LogStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(Path(log_store.path), [("deploy", "queued", 1), ("deploy", "failed", 3)])
    foreign_sql(log_store.path, INSERT_RUN, ("odd", "deploy", "paused", 2, None))
    for runs in (log_store.query_workflow_runs(limit=2), list(log_store.iter_workflow_runs(limit=2))):
        assert [run.status for run in runs] == ["failed", "queued"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all("paused" in record.getMessage() for record in caplog.records)
    assert log_store.count_workflow_runs() == {"queued": 1, "failed": 1}
    assert log_store.delete_workflow_runs(before=9) == 1
    assert foreign_sql(log_store.path, "SELECT run_id FROM workflow_runs ORDER BY 1") == [("odd",), ("run-00",)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"status": "paused"}, ValueError),
        ({"status": ["queued", "paused"]}, ValueError),
        ({"status": 1}, TypeError),
        ({"workflow": 1}, TypeError),
        ({"workflow": [1]}, TypeError),
        ({"since": 1.5}, TypeError),
        ({"limit": -1}, ValueError),
        ({"after": "run-1"}, TypeError),
    ],
)
def test_a_filter_that_is_none_is_refused(
    log_store: ns.LogStore, options: dict[str, Any], error: type[Exception]
) -> None:
    for call in (log_store.query_workflow_runs, log_store.iter_workflow_runs):
        with pytest.raises(error):
            call(**options)


def test_the_asynchronous_store_answers_the_same(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        fill(Path(store.path), [(*pair, n) for n, pair in enumerate(itertools.product(WORKFLOWS, STATUSES))])
        expected = store.query_workflow_runs(workflow="deploy", limit=5)
        counts = store.count_workflow_runs()

    async def ask() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db") as store:
            assert await store.query_workflow_runs(workflow="deploy", limit=5) == expected
            assert [run async for run in store.iter_workflow_runs(workflow="deploy", limit=5)] == expected
            assert await store.count_workflow_runs() == counts
            assert await store.list_meta() == {}
            assert (await store.stats(exact=True)).runs == counts
            assert await store.delete_workflow_runs(before=100) == sum(
                counts[name] for name in counts if not name.is_active
            )

    asyncio.run(ask())


# --- the table is the predecessor's -------------------------------------------------------------------------------


def run_indexes(path: Path | str) -> set[str]:
    names = foreign_sql(path, "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'workflow_runs'")
    return {name for (name,) in names} - {"sqlite_autoindex_workflow_runs_1"}


OURS = {"idx_workflow_runs_active", "idx_workflow_runs_ended"}


@pytest.fixture
def shared(data_dir: Path) -> Iterator[Path]:
    """A database of ours that the predecessor has opened, read and written since."""
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        put(store, "started", run_id="run-1", timestamp=1)
    assert run_indexes(path) == OURS
    foreign_script(path, UPSTREAM_SCHEMA)
    foreign_many(path, INSERT_RUN, [("run-1", "deploy", "completed", 2, 0), ("run-2", "deploy", "queued", 3, None)])
    assert foreign_sql(path, "SELECT run_id FROM workflow_runs WHERE status = 'queued'") == [("run-2",)]
    yield path
    assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]


def test_the_predecessor_writes_the_table_and_ours_opens_it_again(shared: Path) -> None:
    assert run_indexes(shared) > OURS
    with ns.LogStore(shared) as store:
        assert run_indexes(shared) == OURS
        assert [(run.run_id, run.status) for run in store.query_workflow_runs()] == [
            ("run-2", "queued"),
            ("run-1", "completed"),
        ]
        assert [run.run_id for run in store.get_active_workflow_runs()] == ["run-2"]
        assert store.count_workflow_runs() == {"queued": 1, "completed": 1}


@pytest.mark.parametrize("index", sorted(OURS))
def test_an_index_that_another_program_dropped_or_replaced_is_put_back(shared: Path, index: str) -> None:
    for sql in (f"DROP INDEX {index}", f"DROP INDEX {index}; CREATE INDEX {index} ON workflow_runs(exit_code)"):
        foreign_script(shared, sql)
        with ns.LogStore(shared, read_only=True) as store:
            assert [run.run_id for run in store.query_workflow_runs()] == ["run-2", "run-1"]
        with ns.LogStore(shared) as store:
            assert run_indexes(shared) == OURS
            assert "timestamp" in store.sql("SELECT sql FROM sqlite_schema WHERE name = ?", [index])[0][0]


# --- meta ---------------------------------------------------------------------------------------------------------


@given(
    keys=st.dictionaries(st.text("abä\U0010ffff%_\0", max_size=4), st.text(max_size=3), max_size=8),
    prefix=st.text("abä%_", max_size=2),
)
def test_list_meta_has_the_keys_with_the_prefix(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, str], prefix: str
) -> None:
    with ns.LogStore(tmp_path_factory.mktemp("meta") / "logs.db") as store:
        for key, value in keys.items():
            store.set_meta(key, value)
        assert store.list_meta() == keys
        assert store.list_meta(prefix) == {key: value for key, value in keys.items() if key.startswith(prefix)}


# --- cut short ----------------------------------------------------------------------------------------------------


def runs_to_delete(directory: Path) -> list[ns.WorkflowRun]:
    with ns.LogStore(directory / "logs.db") as store:
        fill(Path(store.path), [("deploy", STATUSES[n % len(STATUSES)], n) for n in range(40)])
        return store.get_all_workflow_runs()


def check_deletion(directory: Path, runs: list[ns.WorkflowRun], run: Run) -> None:
    kept = [one for one in runs if one.status in ACTIVE or one.timestamp >= 30]
    with ns.LogStore(directory / "logs.db") as store:
        left = store.get_all_workflow_runs()
        # One transaction takes all of them.
        assert left == kept or (left == runs and not run.acknowledged)
        store.delete_workflow_runs(before=30)
        assert store.get_all_workflow_runs() == kept
        assert store.verify().problems == ()


DELETION = Scenario(delete_runs, check_deletion, prepare=runs_to_delete, arguments={"before": 30})


@pytest.mark.parametrize("fault", [KILL, errno.EIO, errno.ENOSPC], ids=str)
def test_a_deletion_that_is_cut_short_took_all_runs_or_none(tmp_path: Path, fault: int) -> None:
    assert sweep(DELETION, tmp_path, fault, per_call=4)
