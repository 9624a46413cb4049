"""The archive driven at random beside others: a second handle, programs that know nothing of it, days that expire."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

import nerve_store as ns
import reference
from reference import MAX_TIMESTAMP, Row
from support import INSERT_ROW, INSERT_ROW_WITH_ID, as_rows, foreign_many, foreign_sql
from support.archive import at, day, file_rows
from test_archive_model import FILTERS, NEW_ROWS, RUNS, SEGMENT_ROWS, TIMESTAMPS, ArchiveMachine

ANY_TIME = TIMESTAMPS | st.sampled_from([-1, -(2**63), MAX_TIMESTAMP + 1, 2**63 - 1])
TICKS = st.tuples(st.just("system"), st.just("tick"), st.sampled_from([*RUNS, None]), st.just("x"), ANY_TIME)
"""Rows that are no rounds: those that come among sealed ones get no number until `reindex`."""


class CompanyMachine(ArchiveMachine):
    """`ArchiveMachine` with rows that come and go by other hands."""

    def __init__(self) -> None:
        super().__init__()
        self.expired: dict[int, Row] = {}
        """Rows that went with their days: rounds among them keep their numbers."""
        self.thinned: set[str | None] = set()
        """Runs of which another program deleted rows."""
        self.is_tidy = True
        """Whether the index has seen every row where it is."""
        self.other: ns.LogStore | None = None
        self.saved: tuple[bytes, dict[int, Row]] | None = None
        """The database of an earlier moment, and the rows that were in it."""

    def teardown(self) -> None:
        if self.other is not None:
            self.other.close()
        super().teardown()

    @rule()
    def the_other_handle_works(self) -> None:
        """It has seen the log as it was."""
        if self.other is None:
            self.other = ns.LogStore(self.store.path, durability="normal", segment_rows=5)
        self.store, self.other = self.other, self.store

    @rule(row=NEW_ROWS, timestamp=ANY_TIME)
    def another_program_appends(self, row: tuple[str, str, str | None, str | None, int], timestamp: int) -> None:
        row = (*row[:4], timestamp)
        foreign_sql(self.store.path, INSERT_ROW, row)
        (entry,) = self.store.query(descending=True, limit=1)
        assert as_rows([entry]) == [Row(entry.id, *row)]
        assert entry.id > max([0, *self.rows, *self.expired])
        self.rows[entry.id] = Row(entry.id, *row)

    @rule(row=TICKS, ids=st.lists(st.integers(1, 60), min_size=1, max_size=5))
    def another_program_inserts(self, row: tuple[str, str, str | None, str | None, int], ids: list[int]) -> None:
        """Where there is room, among others or after them."""
        self.saved = None
        known = self.rows.keys() | self.expired.keys()
        rows = [Row(row_id, *row) for row_id in set(ids) - known]
        foreign_many(self.store.path, INSERT_ROW_WITH_ID, rows)
        self.rows.update({row.id: row for row in rows})
        self.is_tidy = False

    @rule(row=TICKS, distance=st.sampled_from([3, 300, 5000]))
    def another_program_leaves_a_gap(self, row: Any, distance: int) -> None:
        row_id = max([0, *self.rows, *self.expired]) + distance
        foreign_many(self.store.path, INSERT_ROW_WITH_ID, [Row(row_id, *row)])
        self.rows[row_id] = Row(row_id, *row)

    @rule(data=st.data(), reindex=st.booleans())
    def another_program_deletes(self, data: st.DataObject, reindex: bool) -> None:
        self.saved = None
        archived = file_rows(self.directory / "archive" / "logs").keys()
        live = [row.id for row in as_rows(self.store.iter())]
        if not live:
            return
        gone = data.draw(st.lists(st.sampled_from(live), unique=True, max_size=10))
        foreign_many(self.store.path, "DELETE FROM logs WHERE id = ?", [[row_id] for row_id in gone])
        for row_id in gone:
            if row_id not in archived:
                self.thinned.add(self.rows.pop(row_id).ref_id)
                self.is_tidy = False
        if reindex:
            self.reindex()

    @rule(data=st.data(), timestamp=ANY_TIME)
    def another_program_moves_a_row_in_time(self, data: st.DataObject, timestamp: int) -> None:
        self.saved = None
        archived = file_rows(self.directory / "archive" / "logs").keys()
        live = [row.id for row in as_rows(self.store.iter()) if row.id not in archived]
        if live:
            row_id = data.draw(st.sampled_from(live))
            foreign_sql(self.store.path, "UPDATE logs SET timestamp = ? WHERE id = ?", (timestamp, row_id))
            self.rows[row_id] = self.rows[row_id]._replace(timestamp=timestamp)
            self.is_tidy = False

    @rule(segment_rows=SEGMENT_ROWS)
    def another_program_drops_the_manifest(self, segment_rows: int) -> None:
        self.close_both()
        super().another_program_drops_the_manifest(segment_rows)

    @rule(before=st.integers(-301, 42), dry_run=st.booleans())
    def expire(self, before: int, dry_run: bool) -> None:
        files = file_rows(self.directory / "archive" / "logs")
        live = {row.id for row in as_rows(self.store.iter())}
        told = self.store.expire_archive(before=day(before), dry_run=True) if dry_run else None
        done = {item.day for item in self.store.expire_archive(before=day(before))}
        self.saved = None
        assert told is None or done == {item.day for item in told}
        active = {run.run_id for run in self.store.get_active_workflow_runs()}
        for row in files.values():
            its_day = reference.utc_day(row.timestamp)
            if its_day not in done:
                continue
            assert its_day < day(before)
            assert row.ref_id not in active
            if row.id not in live:
                self.expired[row.id] = self.rows.pop(row.id)

    def reindex(self) -> None:
        self.store.reindex()
        self.is_tidy = True

    @rule()
    def the_index_is_built_anew(self) -> None:
        self.reindex()

    def close_both(self) -> None:
        for store in filter(None, (self.store, self.other)):
            store.close()
        self.other = None

    @rule(segment_rows=SEGMENT_ROWS)
    def database_is_saved(self, segment_rows: int) -> None:
        self.close_both()
        content = (self.directory / "logs.db").read_bytes()
        self.open(segment_rows)
        self.saved = (content, {row.id: row for row in as_rows(self.store.iter())})

    @precondition(lambda self: self.saved is not None)
    @rule(segment_rows=SEGMENT_ROWS, reindex=st.booleans())
    def older_database_is_put_back(self, segment_rows: int, reindex: bool) -> None:
        """Beside the archive as it is now: what was not archived since is lost."""
        assert self.saved is not None
        (content, live), self.saved = self.saved, None
        self.close_both()
        for path in self.directory.glob("logs.db*"):
            path.unlink()
        (self.directory / "logs.db").write_bytes(content)
        self.rows = {**file_rows(self.directory / "archive" / "logs"), **live}
        self.expired = {}
        # The numbers of the rounds that are lost are given out again.
        self.thinned.update(RUNS)
        self.is_tidy = False
        self.open(segment_rows)
        if reindex:
            self.reindex()

    @rule(now=st.builds(at, st.integers(-1, 45)))
    def everything_old_is_archived(self, now: int) -> None:
        """No row that may go stays."""
        result = self.store.archive_logs(now=now, retention=timedelta(0))
        last = reference.last_archivable_day(now)
        active = {run.run_id for run in self.store.get_active_workflow_runs()}
        pinned = unarchivable = 0
        for row in as_rows(self.store.iter()):
            if not 0 <= row.timestamp <= MAX_TIMESTAMP:
                unarchivable += 1
            elif reference.utc_day(row.timestamp) <= last:
                assert row.ref_id in active
                pinned += 1
        assert (result.pinned_rows, result.unarchivable_rows) == (pinned, unarchivable)

    @invariant()
    def every_row_is_there_once(self) -> None:
        rows = self.sorted_rows()
        for store in filter(None, (self.store, self.other)):
            assert as_rows(store.query(archived=True)) == rows
            assert store.count(archived=True) == len(rows)
        found = file_rows(self.directory / "archive" / "logs")
        found.update({row.id: row for row in as_rows(self.store.iter())})
        assert found == self.rows

    @invariant()
    def verification_finds_nothing(self) -> None:
        if self.is_tidy:
            super().verification_finds_nothing()

    def numbered_rows(self, run_id: str) -> list[Row] | None:
        everything = {**self.rows, **self.expired}
        return None if run_id in self.thinned else [everything[row_id] for row_id in sorted(everything)]

    @rule(filters=FILTERS)
    def query_the_log_alone(self, filters: dict[str, Any]) -> None:
        live = {row.id: row for row in as_rows(self.store.iter())}
        expected = reference.Log(database=live).query(**filters)
        for store in filter(None, (self.store, self.other)):
            assert as_rows(store.query(**filters)) == expected
            assert store.count(**filters) == len(expected)


TestCompany = CompanyMachine.TestCase
