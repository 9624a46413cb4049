"""Another program changes SQLite's table of sequences: no id that was sealed or archived is given out again, and every
row is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import nerve_store as ns
from support import INSERT_ROW, foreign_many, foreign_script, foreign_sql
from support.archive import NOW, at

SEGMENT_ROWS = 8
ROWS = 5 * SEGMENT_ROWS
TWO_TO_THE_40 = 1 << 40

RESETS = {
    "emptied": "DELETE FROM sqlite_sequence",
    "zero": "UPDATE sqlite_sequence SET seq = 0",
    "one less": "UPDATE sqlite_sequence SET seq = seq - 1",
    "half": "UPDATE sqlite_sequence SET seq = seq / 2",
    "negative": "UPDATE sqlite_sequence SET seq = -5",
    "a fraction": "UPDATE sqlite_sequence SET seq = 10.5",
    "no value": "UPDATE sqlite_sequence SET seq = NULL",
    "a text": "UPDATE sqlite_sequence SET seq = 'none'",
    "a number as a text": "UPDATE sqlite_sequence SET seq = '10'",
    "bytes": "UPDATE sqlite_sequence SET seq = x'00'",
    "twice": "UPDATE sqlite_sequence SET seq = 3; INSERT INTO sqlite_sequence VALUES ('logs', 1000)",
    "another table's": "UPDATE sqlite_sequence SET name = 'meta'",
    "the end of the ids": "UPDATE sqlite_sequence SET seq = 9223372036854775807",
    "beyond the end": "UPDATE sqlite_sequence SET seq = 1e300",
}


def keep(_store: ns.LogStore) -> None:
    """All rows stay in the database."""


def archive(store: ns.LogStore) -> None:
    store.archive_logs(now=NOW, retention=timedelta(0))


def archive_half(store: ns.LogStore) -> None:
    store.archive_logs(now=at(3), retention=timedelta(0))


def archive_and_reindex(store: ns.LogStore) -> None:
    """The index is made anew from no row."""
    archive(store)
    store.reindex()


def expire(store: ns.LogStore) -> None:
    archive(store)
    store.expire_archive(before=store.archived_days()[-1].day)


def delete(store: ns.LogStore) -> None:
    """Another program empties the log."""
    foreign_sql(store.path, "DELETE FROM logs")


PLACES: list[Callable[[ns.LogStore], None]] = [keep, archive, archive_half, archive_and_reindex, expire, delete]


def append(store: ns.LogStore) -> int:
    store.append("new", "row", "ref-new", "x", NOW)
    return 1


def append_many(store: ns.LogStore) -> int:
    return len(store.append_many([("new", "row", f"ref-{n}", "x", NOW) for n in range(3 * SEGMENT_ROWS)]))


def append_with_a_key(store: ns.LogStore) -> int:
    ids = {store.append("new", "row", "ref-new", "x", NOW, key="key").id for _ in range(2)}
    assert len(ids) == 1
    return 1


def append_in_a_batch(store: ns.LogStore) -> int:
    with store.batch() as batch:
        batch.append("new", "row", "ref-new", "x", NOW)
        batch.append_many([("new", "row", f"ref-{n}", "x", NOW) for n in range(3)])
        batch.create_workflow_run("run", "work", timestamp=NOW)
    return 5


def run(store: ns.LogStore) -> int:
    store.create_workflow_run("run", "work", timestamp=NOW)
    store.transition("run", "started", timestamp=NOW)
    store.upsert_workflow_run(
        ("workflow", "queued", "other", None, NOW), ns.WorkflowRun("other", "work", ns.WorkflowRunStatus("queued"), NOW)
    )
    return 3


def claim(store: ns.LogStore) -> int:
    store.create_workflow_run("run", "work", timestamp=NOW)
    claimed = store.claim_workflow_run("worker", workflow="work")
    assert claimed is not None
    store.append("new", "row", "run", None, NOW, claim=claimed)
    store.transition("run", "completed", timestamp=NOW, claim=claimed)
    return 4


def append_asynchronously(store: ns.LogStore) -> int:
    async def work() -> None:
        async with ns.AsyncLogStore(store.path) as logs:
            await asyncio.gather(*(logs.append("new", "row", f"ref-{n}", "x", NOW) for n in range(10)))
            await logs.append_many([("new", "row", "ref-new", "x", NOW)] * 2)
            await logs.create_workflow_run("run", "work", timestamp=NOW)

    asyncio.run(work())
    return 13


WAYS: list[Callable[[ns.LogStore], int]] = [
    *(append, append_many, append_with_a_key, append_in_a_batch, run, claim, append_asynchronously),
]


def opened(data_dir: Path) -> ns.LogStore:
    return ns.LogStore(data_dir / "logs.db", segment_rows=SEGMENT_ROWS)


def fill(store: ns.LogStore) -> int:
    """Rows of five days, all of them sealed; returns the last id."""
    ids = store.append_many([("old", "row", f"ref-{n % 3}", "x", at(n // SEGMENT_ROWS)) for n in range(ROWS)])
    return ids[-1]


def check_rows(store: ns.LogStore, last: int, count: int) -> None:
    """So many rows have been added right above the last id, and each read finds them."""
    rows = store.query(archived=True)
    new = [row for row in rows if row.source != "old"]
    assert [row.id for row in new] == list(range(last + 1, last + 1 + count))
    assert [row for row in store.iter(archived=True) if row.source != "old"] == new
    assert store.count(archived=True) == len(rows)
    for row in new:
        assert row in store.query(source=row.source)
        assert row in store.query(type=row.type, archived=True)
        assert row in store.query(ref_id=row.ref_id)
        assert row in store.query(source=row.source, ref_id=row.ref_id, since=row.timestamp, descending=True)
    follower = store.follow(after_id=last)
    assert [next(follower) for _ in new] == new


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reset", RESETS)
def test_ids_go_on_whatever_the_sequence_says(
    data_dir: Path, reset: str, place: Callable[[ns.LogStore], None], reopened: bool
) -> None:
    with opened(data_dir) as store:
        last = fill(store)
        place(store)
        if not reopened:
            foreign_script(store.path, RESETS[reset])
            check_rows(store, last, append_many(store))
            return
    foreign_script(data_dir / "logs.db", RESETS[reset])
    with opened(data_dir) as store:
        check_rows(store, last, append_many(store))
        # That rows were deleted is a finding.
        assert store.verify().ok == (place is not delete)


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("place", [archive, delete])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_appends_goes_on_above_what_was_sealed(
    data_dir: Path, way: Callable[[ns.LogStore], int], place: Callable[[ns.LogStore], None], reopened: bool
) -> None:
    with opened(data_dir) as store:
        last = fill(store)
        place(store)
        if not reopened:
            foreign_script(store.path, RESETS["emptied"])
            check_rows(store, last, way(store))
    if reopened:
        foreign_script(data_dir / "logs.db", RESETS["emptied"])
        with opened(data_dir) as store:
            check_rows(store, last, way(store))


def test_a_reset_before_each_append_gives_no_id_twice(data_dir: Path) -> None:
    with opened(data_dir) as store, opened(data_dir) as other:
        last = fill(store)
        archive(store)
        for number, handle in enumerate([store, other, other, store]):
            foreign_script(store.path, RESETS["half"])
            assert append(handle) == 1
            check_rows(handle, last, number + 1)


def test_an_open_store_gives_out_no_id_again_that_was_not_sealed(log_store: ns.LogStore) -> None:
    """What it has committed itself it knows without the mark."""
    ids = log_store.append_many([("old", "row", None, None, NOW)] * 5)
    foreign_script(log_store.path, "DELETE FROM logs; DELETE FROM sqlite_sequence")
    check_rows(log_store, ids[-1], append(log_store))


@pytest.mark.parametrize("is_open", [True, False])
def test_a_sequence_that_is_ahead_is_taken_as_it_is(data_dir: Path, is_open: bool) -> None:
    """The predecessor may have given out these ids."""
    with opened(data_dir) as store:
        fill(store)
        archive(store)
        if is_open:
            foreign_sql(store.path, f"UPDATE sqlite_sequence SET seq = {TWO_TO_THE_40}")
            check_rows(store, TWO_TO_THE_40, append_many(store))
    if not is_open:
        foreign_sql(data_dir / "logs.db", f"UPDATE sqlite_sequence SET seq = {TWO_TO_THE_40}")
        with opened(data_dir) as store:
            check_rows(store, TWO_TO_THE_40, append_many(store))


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("place", [keep, archive_half, delete, expire])
def test_rows_of_other_programs_below_the_mark_are_found(
    data_dir: Path, place: Callable[[ns.LogStore], None], read_only: bool
) -> None:
    with opened(data_dir) as store:
        last = fill(store)
        place(store)
    path = data_dir / "logs.db"
    foreign_script(path, RESETS["emptied"])
    foreign_many(path, INSERT_ROW, [("foreign", "row", f"ref-{n}", "x", NOW + n) for n in range(5)])
    with ns.LogStore(path, read_only=read_only) as store:
        rows = store.query(source="foreign")
        assert len(rows) == store.count(source="foreign") == 5
        assert all(store.query(ref_id=f"ref-{n}", since=NOW) == [rows[n]] for n in range(5))
        if not read_only:
            first = rows[0].id
            append(store)
            (new,) = store.query(source="new")
            assert new.id > max(last, first + 4)


def damage_the_mark(path: Path) -> None:
    foreign_sql(path, f"UPDATE log_ids SET greatest = greatest + {TWO_TO_THE_40}")


def damage_the_check(path: Path) -> None:
    foreign_sql(path, "UPDATE log_ids SET complement = complement - 4096")


def damage_the_slot(path: Path) -> None:
    foreign_sql(path, "UPDATE log_ids SET slot = slot + 8, complement = 7")


@pytest.mark.parametrize("damage", [damage_the_mark, damage_the_check, damage_the_slot])
@pytest.mark.parametrize("place", [keep, archive, archive_and_reindex])
def test_a_damaged_mark_leads_to_no_wild_ids_and_is_found(
    data_dir: Path, damage: Callable[[Path], None], place: Callable[[ns.LogStore], None]
) -> None:
    with opened(data_dir) as store:
        last = fill(store)
        place(store)
    damage(data_dir / "logs.db")
    with opened(data_dir) as store:
        count = append(store)
        check_rows(store, last, count)
        assert any("log_ids" in problem.reason and "reindex()" in problem.reason for problem in store.verify().problems)
        store.reindex()
        assert store.verify().ok
        place(store)
        foreign_script(store.path, RESETS["emptied"])
        check_rows(store, last, count + append_many(store))


@pytest.mark.parametrize("column", ["first_id", "last_id"])
def test_a_damaged_segment_leads_to_no_wild_ids(data_dir: Path, column: str) -> None:
    with opened(data_dir) as store:
        last = fill(store)
    path = data_dir / "logs.db"
    newest = "(SELECT max(first_id) FROM log_segments)"
    foreign_sql(path, f"UPDATE log_segments SET {column} = {column} + {TWO_TO_THE_40} WHERE first_id = {newest}")
    foreign_script(path, RESETS["emptied"])
    with opened(data_dir) as store:
        assert store.append("new", "row").id == last + 1


@pytest.mark.parametrize("place", [keep, archive, archive_and_reindex])
def test_a_database_of_version_0_2_0_gets_a_mark_and_no_doubt(
    data_dir: Path, place: Callable[[ns.LogStore], None]
) -> None:
    with opened(data_dir) as store:
        last = fill(store)
        place(store)
        doubts = store.sql("SELECT * FROM log_deleted")
        ((trigger,),) = store.sql("SELECT sql FROM sqlite_schema WHERE name = 'log_row_inserted'")
        before, _, rest = trigger.partition("\n  OR NEW.id <= (SELECT max(greatest)")
        former = before + rest[rest.index(")\n") :]
        ((deleting,),) = store.sql("SELECT sql FROM sqlite_schema WHERE name = 'log_row_deleted'")
        former_deleting = (
            deleting[: deleting.index("\n  OR NOT EXISTS")]
            + "\nBEGIN\n  INSERT OR REPLACE INTO log_deleted VALUES (OLD.id & -4096, OLD.id | 4095);\nEND"
        )
    path = data_dir / "logs.db"
    foreign_script(
        path,
        f"DROP TRIGGER log_row_inserted; DROP TRIGGER log_row_deleted; DROP TABLE log_ids; {former_deleting}; {former}",
    )
    with opened(data_dir) as store:
        assert store.sql("SELECT * FROM log_deleted") == doubts
        assert store.sql("SELECT sql FROM sqlite_schema WHERE name = 'log_row_inserted'") == [(trigger,)]
        assert store.sql("SELECT sql FROM sqlite_schema WHERE name = 'log_row_deleted'") == [(deleting,)]
    foreign_script(path, RESETS["emptied"])
    with opened(data_dir) as store:
        check_rows(store, last, append_many(store))
