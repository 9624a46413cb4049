"""Every backend driven at random beside a plain model of it: rows, runs, meta, threads, the archive, reopening."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import nerve_store as ns
import reference
from contract.backends import BACKENDS, Backend, available, opened
from nerve_store.protocols import Log
from reference import STATUSES, Row, Run, is_legal, merged_exit_code
from strategies import query_options
from support import as_message, as_round, as_row, as_rows, as_run
from support.model import EXIT_CODES, NEW_ROWS, NOWS, REFS, RETENTIONS, RUNS, TIMESTAMPS

FILTERS = query_options(refs=REFS, timestamps=TIMESTAMPS, greatest_id=150, limit=20)
STATES = st.sampled_from(STATUSES).map(ns.WorkflowRunStatus)


class Machine(RuleBasedStateMachine):
    """`model` is what the log must say."""

    backend_name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="nerve-store-contract-"))
        self.model = reference.Log()
        self.last_id = 0

    @initialize()
    def open(self) -> None:
        self.place: Generator[Backend] = opened(self.backend_name, self.directory)  # type: ignore[assignment]
        self.backend = next(self.place)
        self.log: Log = self.backend.open(durability="normal")

    def teardown(self) -> None:
        with contextlib.suppress(StopIteration):
            next(self.place)
        shutil.rmtree(self.directory)

    def remember(self, row: Row) -> None:
        assert row.id == self.last_id + 1
        self.last_id = row.id
        self.model.append(row)

    @rule(row=NEW_ROWS)
    def append(self, row: tuple[Any, ...]) -> None:
        entry = self.log.append(*row)
        assert as_row(entry)[1:] == row
        self.remember(as_row(entry))

    @rule(rows=st.lists(NEW_ROWS, max_size=6))
    def append_many(self, rows: list[Any]) -> None:
        for row_id, row in zip(self.log.append_many(rows), rows, strict=True):
            self.remember(Row(row_id, *row))

    @rule(rows=st.lists(NEW_ROWS, min_size=1, max_size=3), key=st.sampled_from(["a", "b\0"]), value=st.text(max_size=5))
    def batch(self, rows: list[Any], key: str, value: str) -> None:
        with self.log.batch() as batch:
            for row in rows:
                batch.append(*row)
            batch.set_meta(key, value)
        assert batch.ids is not None
        for row_id, row in zip(batch.ids, rows, strict=True):
            self.remember(Row(row_id, *row))
        self.model.meta[key] = value

    @rule(key=st.sampled_from(["a", "b\0", ""]), value=st.text(max_size=5))
    def set_meta(self, key: str, value: str) -> None:
        self.log.set_meta(key, value)
        self.model.meta[key] = value

    @rule(run_id=st.sampled_from(RUNS), status=STATES, timestamp=TIMESTAMPS, code=EXIT_CODES, force=st.booleans())
    def upsert(self, run_id: str, status: ns.WorkflowRunStatus, timestamp: int, code: int | None, force: bool) -> None:
        current = self.model.runs.get(run_id)
        run = ns.WorkflowRun(run_id, "deploy", status, timestamp, code)
        entry = ("workflow", str(status), run_id, None, timestamp)
        if force or is_legal(current.status if current else None, status):
            self.remember(as_row(self.log.upsert_workflow_run(entry, run, force=force)))
            code = merged_exit_code(current, status, code, force=force)
            self.model.runs[run_id] = Run(run_id, "deploy", str(status), timestamp, code)
        else:
            with pytest.raises(ns.IllegalTransitionError):
                self.log.upsert_workflow_run(entry, run)

    @rule(run_id=st.sampled_from(RUNS), status=STATES, timestamp=TIMESTAMPS, code=EXIT_CODES)
    def transition(self, run_id: str, status: ns.WorkflowRunStatus, timestamp: int, code: int | None) -> None:
        current = self.model.runs.get(run_id)
        if current is None or not is_legal(current.status, status):
            with pytest.raises(ns.IllegalTransitionError):
                self.log.transition(run_id, status)
            return
        run = self.log.transition(run_id, status, timestamp=timestamp, exit_code=code)
        code = merged_exit_code(current, status, code)
        self.model.runs[run_id] = Run(run_id, "deploy", str(status), timestamp, code)
        assert as_run(run) == self.model.runs[run_id]
        self.remember(Row(self.last_id + 1, "workflow", str(status), run_id, None, timestamp))

    @rule(now=NOWS, retention=RETENTIONS, days=st.none() | st.integers(0, 3), zstd=st.booleans())
    def archive(self, now: int, retention: Any, days: int | None, zstd: bool) -> None:
        plan = self.model.plan(now, retention, days)
        result = self.log.archive_logs(
            now=now, retention=retention, max_days=days, compression="zstd" if zstd else None
        )
        assert {item.day: item.added_rows for item in result.days} == {
            day: len(rows) for day, rows in plan.days.items()
        }
        self.model.apply(plan)

    @rule(index=st.integers(0, 5))
    def restore(self, index: int) -> None:
        days = sorted(self.model.files)
        if not days:
            return
        rows = self.model.files[days[index % len(days)]]
        missing = [row for row in rows.values() if row.id not in self.model.database]
        assert self.log.restore_archive(days[index % len(days)]) == len(missing)
        self.model.database.update({row.id: row for row in missing})

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.log = self.backend.open(durability="normal")

    @rule(filters=FILTERS)
    def query(self, filters: dict[str, Any]) -> None:
        expected = self.model.query(**filters)
        assert as_rows(self.log.query(**filters)) == expected
        assert as_rows(self.log.iter(**filters)) == expected
        assert self.log.count(**filters) == len(expected)
        everything = reference.Log(database=self.model.everything())
        assert as_rows(self.log.query(**filters, archived=True)) == everything.query(**filters)

    @rule(run_id=st.sampled_from(RUNS), before=st.integers(0, 6), limit=st.integers(0, 6))
    def threads(self, run_id: str, before: int, limit: int) -> None:
        everything = self.model.everything()
        rows = [everything[row_id] for row_id in sorted(everything)]
        assert [as_message(item) for item in self.log.get_thread_messages(run_id)] == reference.thread_messages(
            rows, run_id
        )
        assert self.log.get_thread_events(run_id) == reference.thread_events(rows, run_id)
        assert self.log.get_thread_round_count(run_id) == reference.thread_round_count(rows, run_id)
        found = self.log.get_thread_rounds(run_id, before=before, limit=limit)
        assert [as_round(item) for item in found] == reference.thread_rounds(rows, run_id, before, limit)

    @invariant()
    def runs_and_meta_are_those_of_the_model(self) -> None:
        if not hasattr(self, "log"):
            return
        runs = {run.run_id: as_run(run) for run in self.log.get_all_workflow_runs()}
        assert runs == self.model.runs
        assert {key: self.log.get_meta(key) for key in self.model.meta} == self.model.meta


@pytest.mark.parametrize("name", [*BACKENDS[:3], "postgresql-15-memory", "postgresql-18-memory"])
def test_model(name: str) -> None:
    reason = available(name)
    if reason is not None:
        pytest.skip(reason)
    run_state_machine_as_test(type("Machine", (Machine,), {"backend_name": name}))
