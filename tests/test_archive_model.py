"""The archive driven at random: whatever runs, restores and losses of the manifest do, the union never changes."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import nerve_store as ns
import reference
from conftest import UPSTREAM
from reference import MAX_TIMESTAMP, Log, Row
from strategies import TYPES, query_options
from support import Stop, StopAfter, as_message, as_round, as_row, as_rows, foreign_script
from support.archive import MANIFEST_TABLES, MARK, at, file_rows

RUNS = ("run-1", "run-2", "läuft 🧠")
PAYLOADS = st.sampled_from(
    [
        None,
        "not json",
        "nul \0 and \u2028",
        '{"role":"coder","content":"hi","meta":{"a":1},"timestamp":17.5}',
        '{"role":"__start__","content":"hi"}',
        '{"type":"tool_call","n":1.5e300}',
        '{"prompt":"go","maxRounds":3,"dryRun":true}',
    ]
)
TIMESTAMPS = st.builds(at, st.integers(0, 6), st.sampled_from([0, 1, reference.DAY_MS - 1])) | st.sampled_from(
    [0, at(-300), at(3), at(3), at(40), MAX_TIMESTAMP]
)
SOURCES = st.sampled_from(["workflow", "workflow", "system"])
REFS = st.sampled_from([*RUNS, None])
NEW_ROWS = st.tuples(SOURCES, TYPES, REFS, PAYLOADS, TIMESTAMPS)
FILTERS = query_options(
    sources=SOURCES, refs=st.sampled_from([*RUNS, "nobody"]), timestamps=TIMESTAMPS, greatest_id=150, limit=40
)
COMPRESSIONS: st.SearchStrategy[Literal["zstd"] | None] = st.sampled_from([None, "zstd"])
NOWS = st.builds(at, st.integers(-1, 45))
SEGMENT_ROWS = st.sampled_from([2, 5, 16, 4096])


class ArchiveMachine(RuleBasedStateMachine):
    """`rows` is all there ever was; every read that sees the archive must say exactly that."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="nerve-store-archive-model-")) / "data"
        self.rows: dict[int, Row] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory.parent)

    def open(self, segment_rows: int) -> None:
        self.store = ns.LogStore(self.directory / "logs.db", durability="normal", segment_rows=segment_rows)

    @initialize(segment_rows=SEGMENT_ROWS, upstream=st.sampled_from([None, None, "data", "archived"]))
    def begin(self, segment_rows: int, upstream: str | None) -> None:
        """A new directory, or one that the predecessor made."""
        self.is_ours = upstream is None
        if upstream is not None:
            shutil.copytree(UPSTREAM / upstream, self.directory)
            self.rows = file_rows(self.directory / "archive" / "logs")
        self.open(segment_rows)
        self.rows.update({row.id: row for row in as_rows(self.store.iter())})

    def sorted_rows(self) -> list[Row]:
        return [self.rows[row_id] for row_id in sorted(self.rows)]

    def model(self) -> Log:
        return Log(database=self.rows)

    # --- what changes the rows ---

    @rule(rows=st.lists(NEW_ROWS, min_size=1, max_size=30))
    def append(self, rows: list[tuple[str, str, str | None, str | None, int]]) -> None:
        for row_id, row in zip(self.store.append_many(rows), rows, strict=True):
            assert row_id > max(self.rows, default=0)
            self.rows[row_id] = Row(row_id, *row)

    @rule(run_id=st.sampled_from(RUNS), status=st.sampled_from(["started", "queued", "completed", "crashed"]))
    def bring_a_run(self, run_id: str, status: str) -> None:
        run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus(status), 1)
        row = as_row(self.store.upsert_workflow_run(("workflow", status, run_id, None, at(2)), run, force=True))
        self.rows[row.id] = row

    # --- what must change nothing ---

    @rule(
        now=NOWS,
        max_days=st.none() | st.integers(0, 3),
        compression=COMPRESSIONS,
        vacuum=st.sampled_from([False, False, True, "incremental"]),
        dry_run=st.booleans(),
    )
    def archive(self, now: int, max_days: int | None, compression: Any, vacuum: Any, dry_run: bool) -> None:
        if vacuum == "incremental" and not self.is_ours:
            vacuum = False
        before = len(file_rows(self.directory / "archive" / "logs"))
        options: Any = {"max_days": max_days, "compression": compression, "vacuum": vacuum}
        told = None
        if dry_run:
            told = self.store.archive_logs(now=now, retention=timedelta(0), dry_run=True, **options)
            assert len(file_rows(self.directory / "archive" / "logs")) == before
        done = self.store.archive_logs(now=now, retention=timedelta(0), **options)
        assert told is None or told.days == done.days
        after = len(file_rows(self.directory / "archive" / "logs"))
        assert after - before == sum(item.added_rows for item in done.days)
        assert max_days is None or len(done.days) <= max_days

    @rule(now=NOWS, steps=st.integers(0, 3), compression=COMPRESSIONS)
    def archive_run_is_stopped(self, now: int, steps: int, compression: Any) -> None:
        with contextlib.suppress(Stop):
            self.store.archive_logs(now=now, retention=timedelta(0), compression=compression, progress=StopAfter(steps))
        hidden = {path.name for path in (self.directory / "archive" / "logs").glob(".*")}
        assert hidden <= {".lock", MARK}

    @precondition(lambda self: self.store.archived_days())
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.store.archived_days()))
        live = {row.id for row in as_rows(self.store.iter())}
        archived = {row.id for row in as_rows(self.store.read_archive(item.day))}
        assert self.store.restore_archive(item.day) == len(archived - live)
        assert self.store.restore_archive(item.day) == 0

    @rule()
    def reindex(self) -> None:
        self.store.reindex()

    @rule(segment_rows=SEGMENT_ROWS)
    def close_and_reopen(self, segment_rows: int) -> None:
        self.store.close()
        self.open(segment_rows)

    @rule()
    def another_program_empties_the_manifest(self) -> None:
        foreign_script(self.store.path, "".join(f"DELETE FROM {table};" for table in MANIFEST_TABLES))

    @rule(segment_rows=SEGMENT_ROWS)
    def another_program_drops_the_manifest(self, segment_rows: int) -> None:
        self.store.close()
        foreign_script(self.store.path, "".join(f"DROP TABLE {table};" for table in MANIFEST_TABLES))
        self.open(segment_rows)

    # --- the union ---

    @invariant()
    def every_row_is_there_once(self) -> None:
        rows = self.sorted_rows()
        assert as_rows(self.store.query(archived=True)) == rows
        found = file_rows(self.directory / "archive" / "logs")
        found.update({row.id: row for row in as_rows(self.store.iter())})
        assert found == self.rows

    @invariant()
    def verification_finds_nothing(self) -> None:
        report = self.store.verify()
        assert report.ok, report.problems

    @rule(filters=FILTERS)
    def query(self, filters: dict[str, Any]) -> None:
        expected = self.model().query(**filters)
        assert as_rows(self.store.query(archived=True, **filters)) == expected
        assert as_rows(self.store.iter(archived=True, **filters)) == expected
        assert self.store.count(archived=True, **filters) == len(expected)

    @rule(filters=FILTERS, size=st.integers(1, 15))
    def page(self, filters: dict[str, Any], size: int) -> None:
        filters = {**filters, "limit": None}
        expected = self.model().query(**filters)
        bound = "before_id" if filters.get("descending") else "after_id"
        found: list[Row] = []
        while page := as_rows(self.store.query(archived=True, **{**filters, "limit": size})):
            assert len(page) <= size
            found += page
            filters[bound] = page[-1].id
        assert found == expected

    @rule(after_id=st.integers(0, 150), filters=FILTERS)
    def follow(self, after_id: int, filters: dict[str, Any]) -> None:
        wanted: dict[str, Any] = {
            name: value for name, value in filters.items() if name in {"source", "type", "ref_id", "since", "until"}
        }
        expected = self.model().query(after_id=after_id, **wanted)
        follower = self.store.follow(after_id=after_id, **wanted)
        assert as_rows(itertools.islice(follower, len(expected))) == expected
        assert follower._poll() == []

    @rule(run_id=st.sampled_from([*RUNS, "nobody"]), before=st.integers(0, 30), limit=st.integers(0, 30))
    def read_threads(self, run_id: str, before: int, limit: int) -> None:
        rows = self.sorted_rows()
        assert self.store.get_trigger_payload(run_id) == reference.trigger_payload(rows, run_id)
        assert self.store.get_thread_events(run_id) == reference.thread_events(rows, run_id)
        messages = [as_message(item) for item in self.store.get_thread_messages(run_id)]
        assert messages == reference.thread_messages(rows, run_id)
        if (numbered := self.numbered_rows(run_id)) is None:
            return
        assert self.store.get_thread_round_count(run_id) == reference.thread_round_count(numbered, run_id)
        rounds = self.store.get_thread_rounds(run_id, before=before, limit=limit)
        expected = reference.thread_rounds(numbered, run_id, before, limit)
        assert [as_round(item) for item in rounds] == [item for item in expected if item.log_id in self.rows]

    def numbered_rows(self, _run_id: str) -> list[Row] | None:
        """The rows whose rounds have numbers, also those that are gone; None if it is not known which."""
        return self.sorted_rows()

    @rule()
    def list_the_days(self) -> None:
        files = file_rows(self.directory / "archive" / "logs")
        days: dict[date, list[int]] = {}
        for row in files.values():
            days.setdefault(reference.utc_day(row.timestamp), []).append(row.id)
        listed = {item.day: item for item in self.store.archived_days() if item.row_count}
        assert {day: item.row_count for day, item in listed.items()} == {day: len(ids) for day, ids in days.items()}
        for day, ids in days.items():
            assert (listed[day].first_id, listed[day].last_id) == (min(ids), max(ids))


TestArchive = ArchiveMachine.TestCase
