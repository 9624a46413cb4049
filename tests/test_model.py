"""The whole store driven at random beside a plain Python model of it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, invariant, precondition, rule

import nerve_store as ns
import reference
from reference import MAX_TIMESTAMP, STATUSES, Row, Run
from support import (
    INSERT_ROW,
    INSERT_ROW_WITH_ID,
    INSERT_RUN,
    Stop,
    StopAfter,
    as_message,
    as_round,
    as_rows,
    as_run,
    foreign_many,
    foreign_sql,
    read_union,
)
from support.counts import amount
from support.model import (
    EXIT_CODES,
    FILTERS,
    NEW_ROWS,
    NOWS,
    PAYLOADS,
    RETENTIONS,
    RUNS,
    SEGMENT_ROWS,
    TIMESTAMPS,
    WORKFLOWS,
)
from support.model_losses import StoreWithLosses


class StoreMachine(StoreWithLosses):
    """Each rule does something to the store and to the model, and compares what they say."""

    hashes: Bundle[str] = Bundle("hashes")

    # --- log ---

    @rule(row=NEW_ROWS, durability=st.sampled_from([None, "full", "normal"]))
    def append(self, row: tuple[str, str, str | None, str | None, int], durability: Any) -> None:
        entry = self.logs.append(*row, durability=durability)
        assert as_rows([entry]) == [Row(entry.id, *row)]
        self.remember(Row(entry.id, *row))

    @rule(rows=st.lists(NEW_ROWS, max_size=40))
    def append_many(self, rows: list[tuple[str, str, str | None, str | None, int]]) -> None:
        for row_id, row in zip(self.logs.append_many(rows), rows, strict=True):
            self.remember(Row(row_id, *row))

    @rule(rows=st.lists(NEW_ROWS, max_size=5), bad=st.sampled_from([-1, MAX_TIMESTAMP + 1, 1.5]), payload=PAYLOADS)
    def append_many_with_a_bad_row(self, rows: list[Any], bad: Any, payload: str | None) -> None:
        with pytest.raises((TypeError, ValueError)):
            self.logs.append_many([*rows, ("system", "bad", None, payload, bad), *rows])

    @rule(row=NEW_ROWS, timestamp=st.sampled_from([-1, MAX_TIMESTAMP + 1, 2**62]) | TIMESTAMPS)
    def another_program_appends(self, row: tuple[str, str, str | None, str | None, int], timestamp: int) -> None:
        row = (*row[:4], timestamp)
        foreign_sql(self.logs.path, INSERT_ROW, row)
        (entry,) = self.logs.query(descending=True, limit=1)
        assert as_rows([entry]) == [Row(entry.id, *row)]
        self.remember(Row(entry.id, *row))

    @precondition(lambda self: self.model.database)
    @rule(data=st.data())
    def another_program_deletes(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(sorted(self.model.database)), unique=True, max_size=10))
        foreign_many(self.logs.path, "DELETE FROM logs WHERE id = ?", [[row_id] for row_id in gone])
        archived = {row_id for rows in self.model.files.values() for row_id in rows}
        for row_id in gone:
            self.thinned.add(self.model.database.pop(row_id).ref_id)
            if row_id not in archived:
                del self.appended[row_id]

    @rule(filters=FILTERS)
    def query(self, filters: dict[str, Any]) -> None:
        expected = self.model.query(**filters)
        assert as_rows(self.logs.query(**filters)) == expected
        assert as_rows(self.logs.iter(**filters)) == expected
        assert self.logs.count(**filters) == len(expected)

    @rule(filters=FILTERS, row=NEW_ROWS, steps=st.integers(0, 5))
    def iterate_while_appending(self, filters: dict[str, Any], row: Any, steps: int) -> None:
        expected = self.model.query(**filters)
        rows = self.logs.iter(**filters)
        seen = list(itertools.islice(rows, steps))
        self.append(row, None)
        assert as_rows([*seen, *rows]) == expected

    # --- meta ---

    @rule(key=st.sampled_from(["a", "名前", "", "schema"]), value=st.text(max_size=10))
    def set_meta(self, key: str, value: str) -> None:
        self.logs.set_meta(key, value)
        self.model.meta[key] = value

    @invariant()
    def meta_is_as_it_was_set(self) -> None:
        for key in ("a", "名前", "", "schema", ns.ARCHIVED_UP_TO):
            assert self.logs.get_meta(key) == self.model.meta.get(key)

    # --- runs ---

    def expect_change(self, call: Callable[[], object], run_id: str, status: str, *, legal: bool) -> bool:
        """Do `call`; whether it changed the run, which it must do exactly when that is legal."""
        if run_id in self.model.unknown_runs and not legal:
            with pytest.raises(ns.CorruptStoreError):
                call()
            return False
        if not legal:
            with pytest.raises(ns.IllegalTransitionError) as refused:
                call()
            assert (refused.value.run_id, refused.value.to_status) == (run_id, status)
            return False
        call()
        (entry,) = self.logs.query(descending=True, limit=1)
        self.remember(as_rows([entry])[0])
        return True

    @rule(
        run_id=st.sampled_from(RUNS),
        workflow=st.sampled_from(WORKFLOWS),
        status=st.sampled_from(STATUSES),
        exit_code=EXIT_CODES,
        timestamp=TIMESTAMPS,
        payload=PAYLOADS,
        force=st.booleans(),
    )
    def upsert(
        self,
        run_id: str,
        workflow: str,
        status: str,
        exit_code: int | None,
        timestamp: int,
        payload: str | None,
        force: bool,
    ) -> None:
        current = self.model.runs.get(run_id)
        unknown = run_id in self.model.unknown_runs
        legal = force or (not unknown and reference.is_legal(current.status if current else None, status))
        run = ns.WorkflowRun(run_id, workflow, ns.WorkflowRunStatus(status), timestamp, exit_code)
        entry = ns.NewLogEntry("workflow", status, run_id, payload, timestamp)
        if current is not None and not unknown and workflow != current.workflow:
            with pytest.raises(ValueError, match="workflow"):
                self.logs.upsert_workflow_run(entry, run, force=force)
            return
        if self.expect_change(
            lambda: self.logs.upsert_workflow_run(entry, run, force=force), run_id, status, legal=legal
        ):
            code = reference.merged_exit_code(current, status, exit_code, force=force)
            self.model.runs[run_id] = Run(run_id, workflow, status, timestamp, code)
            self.model.unknown_runs.discard(run_id)

    @rule(
        run_id=st.sampled_from(RUNS),
        status=st.sampled_from(STATUSES),
        expect=st.none() | st.sets(st.sampled_from(STATUSES), min_size=1),
        exit_code=EXIT_CODES,
        timestamp=TIMESTAMPS,
    )
    def transition(
        self, run_id: str, status: str, expect: set[str] | None, exit_code: int | None, timestamp: int
    ) -> None:
        current = self.model.runs.get(run_id)
        legal = (
            current is not None
            and reference.is_legal(current.status, status)
            and (expect is None or current.status in expect)
        )

        def call() -> None:
            expected = None if expect is None else set(map(ns.WorkflowRunStatus, expect))
            to = ns.WorkflowRunStatus(status)
            run = self.logs.transition(run_id, to, expect=expected, exit_code=exit_code, timestamp=timestamp)
            assert current is not None
            code = reference.merged_exit_code(current, status, exit_code)
            assert as_run(run) == Run(run_id, current.workflow, status, timestamp, code)
            self.model.runs[run_id] = as_run(run)

        if self.expect_change(call, run_id, status, legal=legal):
            assert as_rows(self.logs.query(descending=True, limit=1))[0][1:] == (
                "workflow",
                status,
                run_id,
                None,
                timestamp,
            )

    @rule(run_id=st.sampled_from(RUNS))
    def another_program_invents_a_status(self, run_id: str) -> None:
        foreign_sql(self.logs.path, INSERT_RUN, (run_id, "deploy", "paused", 0, None))
        self.model.runs.pop(run_id, None)
        self.model.unknown_runs.add(run_id)

    @invariant()
    def runs_are_those_of_the_model(self) -> None:
        runs = self.model.runs
        for run_id in RUNS:
            if run_id in self.model.unknown_runs:
                with pytest.raises(ns.CorruptStoreError, match="paused"):
                    self.logs.get_workflow_run(run_id)
            else:
                found = self.logs.get_workflow_run(run_id)
                assert (found and as_run(found)) == runs.get(run_id)
        everything = [as_run(run) for run in self.logs.get_all_workflow_runs()]
        assert sorted(everything, key=repr) == sorted(runs.values(), key=repr)
        assert [run.timestamp for run in everything] == sorted((run.timestamp for run in everything), reverse=True)
        active = [as_run(run) for run in self.logs.get_active_workflow_runs()]
        assert {run.run_id for run in active} == {run.run_id for run in runs.values() if run.status in reference.ACTIVE}
        assert [run.timestamp for run in active] == sorted(run.timestamp for run in active)

    @rule(run_id=st.sampled_from([*RUNS, "nobody"]), before=st.integers(0, 20), limit=st.integers(0, 20))
    def read_threads(self, run_id: str, before: int, limit: int) -> None:
        rows = self.model.rows()
        if any(row.ref_id == run_id for rows_of in self.model.files.values() for row in rows_of.values()):
            return  # whether archived rows are read too is the business of test_archive
        assert self.logs.get_trigger_payload(run_id) == reference.trigger_payload(rows, run_id)
        assert self.logs.get_thread_events(run_id) == reference.thread_events(rows, run_id)
        assert [as_message(m) for m in self.logs.get_thread_messages(run_id)] == reference.thread_messages(rows, run_id)
        if run_id in self.thinned:
            return
        assert self.logs.get_thread_round_count(run_id) == reference.thread_round_count(rows, run_id)
        rounds = self.logs.get_thread_rounds(run_id, before=before, limit=limit)
        assert [as_round(item) for item in rounds] == reference.thread_rounds(rows, run_id, before, limit)

    # --- archive ---

    @rule(
        now=NOWS | st.just(MAX_TIMESTAMP),
        retention=RETENTIONS,
        max_days=st.none() | st.integers(0, 4),
        dry_run=st.booleans(),
        vacuum=st.booleans(),
    )
    def archive(self, now: int, retention: timedelta, max_days: int | None, dry_run: bool, vacuum: bool) -> None:
        plan = self.model.plan(now, retention, max_days)
        result = self.logs.archive_logs(now=now, retention=retention, max_days=max_days, dry_run=dry_run, vacuum=vacuum)
        assert {item.day: item.added_rows for item in result.days} == {
            day: len(rows) for day, rows in plan.days.items()
        }
        assert [item.row_count for item in result.days] == [
            len(self.model.files.get(day, {})) + len(rows) for day, rows in plan.days.items()
        ]
        assert result.pinned_rows == len(plan.pinned)
        assert result.unarchivable_rows == len(plan.unarchivable)
        assert (result.dry_run, result.vacuumed) == (dry_run, vacuum and not dry_run)
        if not dry_run:
            self.model.apply(plan)

    @rule(now=NOWS, steps=st.integers(0, 3))
    def archive_run_is_stopped(self, now: int, steps: int) -> None:
        """After it, rows may be in either place; the model takes over where they are."""
        with contextlib.suppress(Stop):
            self.logs.archive_logs(now=now, retention=timedelta(0), progress=StopAfter(steps))
        union = read_union(self.logs)
        assert union.repeated <= {row.id for row in self.model.database.values()}
        self.model.database = union.database
        self.model.files = {day: {row.id: row for row in rows} for day, rows in union.files.items()}
        watermark = self.logs.get_meta(ns.ARCHIVED_UP_TO)
        assert (watermark or "") >= self.model.meta.get(ns.ARCHIVED_UP_TO, "")
        if watermark is not None:
            self.model.meta[ns.ARCHIVED_UP_TO] = watermark

    @precondition(lambda self: any(self.model.files.values()))
    @rule(data=st.data())
    def deleted_rows_come_back(self, data: st.DataObject) -> None:
        """As after a kill, or a power cut, between publishing a file and deleting its rows."""
        archived = [
            row for rows in self.model.files.values() for row in rows.values() if row.id not in self.model.database
        ]
        if archived:
            back = data.draw(st.lists(st.sampled_from(archived), unique=True, max_size=10))
            foreign_many(self.logs.path, INSERT_ROW_WITH_ID, back)
            self.model.database.update({row.id: row for row in back})

    @invariant()
    def no_row_is_lost_or_doubled(self) -> None:
        union = read_union(self.logs)
        assert union.rows == self.appended
        assert union.database == self.model.database
        files = {day: [rows[row_id] for row_id in sorted(rows)] for day, rows in self.model.files.items()}
        assert union.files == files

    @rule()
    def read_the_archive(self) -> None:
        days = self.logs.archived_days()
        assert {item.day: item.row_count for item in days} == {day: len(rows) for day, rows in self.model.files.items()}
        for item in days:
            rows = as_rows(self.logs.read_archive(item.day))
            assert {row.id: row for row in rows} == self.model.files[item.day]
            assert item.sha256 == hashlib.sha256(Path(item.path).read_bytes()).hexdigest()

    # --- blobs ---

    @rule(target=hashes, data=st.binary(max_size=50) | st.text(max_size=20) | st.builds(bytes, st.integers(0, 20_000)))
    def write_blob(self, data: bytes | str) -> str:
        content = data.encode() if isinstance(data, str) else data
        digest = self.blob_store.write(data)
        assert digest == hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        self.damaged.discard(digest)
        return digest

    def blob_path(self, digest: str) -> Path:
        return Path(self.blob_store.root) / digest[:2] / digest[2:]

    @rule(digest=hashes, how=st.sampled_from(["flip", "cut", "grow", "empty"]))
    def damage_blob(self, digest: str, how: str) -> None:
        if digest not in self.blobs or digest in self.damaged:
            return
        content = self.blobs[digest]
        damaged = {
            "flip": bytes([content[0] ^ 1]) + content[1:] if content else b"x",
            "cut": content[:-1],
            "grow": content + b"\0",
            "empty": b"",
        }[how]
        path = self.blob_path(digest)
        path.chmod(0o600)
        path.write_bytes(damaged)
        if damaged != content:
            self.damaged.add(digest)

    @rule(
        digest=hashes | st.builds(lambda data: hashlib.sha256(data).hexdigest(), st.binary(max_size=2)),
        upper=st.booleans(),
    )
    def read_blob(self, digest: str, upper: bool) -> None:
        asked = digest.upper() if upper else digest
        if digest in self.damaged:
            with pytest.raises(ns.BlobCorruptError) as refused:
                self.blob_store.read(asked)
            assert refused.value.hash == digest
        else:
            assert self.blob_store.read(asked) == self.blobs.get(digest)
        assert self.blob_store.exists(asked) == (digest in self.blobs and digest not in self.damaged)
        assert self.blob_store.exists(asked, verify=False) == (asked in self.blob_store) == (digest in self.blobs)

    @rule(digest=consumes(hashes))
    def delete_blob(self, digest: str) -> None:
        assert self.blob_store.delete(digest) == (digest in self.blobs)
        self.blobs.pop(digest, None)
        self.damaged.discard(digest)
        assert not self.blob_store.delete(digest)

    @invariant()
    def blobs_are_those_of_the_model(self) -> None:
        assert list(self.blob_store) == sorted(self.blobs)

    # --- the store ---

    @rule(durability=st.sampled_from(["full", "normal"]), segment_rows=SEGMENT_ROWS)
    def close_and_reopen(self, durability: Literal["full", "normal"], segment_rows: int) -> None:
        self.logs.close()
        self.open(durability, segment_rows)

    @rule(segment_rows=SEGMENT_ROWS, row=NEW_ROWS)
    def another_store_appends(self, segment_rows: int, row: tuple[str, str, str | None, str | None, int]) -> None:
        with ns.LogStore(self.logs.path, durability="normal", segment_rows=segment_rows) as other:
            self.remember(Row(other.append(*row).id, *row))
            assert as_rows(other.query()) == self.model.rows()

    @rule()
    def figures(self) -> None:
        stats = self.logs.stats()
        rows = self.model.rows()
        assert stats.row_count == len(rows)
        assert (stats.first_id, stats.last_id) == ((rows[0].id, rows[-1].id) if rows else (None, None))
        timestamps = [row.timestamp for row in rows]
        assert (stats.first_timestamp, stats.last_timestamp) == (
            min(timestamps, default=None),
            max(timestamps, default=None),
        )
        assert sum(stats.runs.values()) == len(self.model.runs) + len(self.model.unknown_runs)


TestStore = StoreMachine.TestCase

TestStoreAtLength = pytest.mark.torture(
    type("TestStoreAtLength", (TestStore,), {"settings": settings(max_examples=amount(150), stateful_step_count=50)})
)
