"""Ids never go back, whatever is made of the rows, the sequence and the schema beside the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from postgres.faults import patiently
from postgres.restores import SKIPPED, Database, as_version_4
from support.servers import Server

pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

PATIENCE = 60.0
AHEAD = 1 << 52
"""An id that the clock has not reached."""


@pytest.fixture
def database(server: Server, tmp_path: Path) -> Iterator[Database]:
    """A database of its own on the server that all share."""
    made = Database(server, tmp_path, str(tmp_path / "days"))
    yield made
    made.remove()


Step = Callable[[], None]


def _rows_into_a_new_schema(database: Database, worker: Step) -> None:
    database.make_anew()
    database.open().close()
    worker()
    database.load("--data-only")


def _all_over_a_new_schema(database: Database, worker: Step) -> None:
    database.make_anew()
    database.open().close()
    worker()
    database.load()


def _each_while_a_worker_appends(database: Database, worker: Step) -> None:
    database.make_anew()
    database.load("--section=pre-data")
    for entry in database.entries():
        if " TABLE DATA " in entry or " SEQUENCE SET " in entry:
            database.load_entries([entry])
            worker()
    database.load("--section=post-data")


def _sequences_while_a_worker_waits(database: Database, worker: Step) -> None:
    database.make_anew()
    database.load_entries(entry for entry in database.entries() if " SEQUENCE SET " not in entry)
    worker()
    database.load_entries(entry for entry in database.entries() if " SEQUENCE SET " in entry)


def _rows_alone(database: Database, worker: Step) -> None:
    """What logical replication brings."""
    database.make_anew()
    database.open().close()
    rows = (entry for entry in database.entries() if " TABLE DATA " in entry)
    database.load_entries(entry for entry in rows if " alive " not in entry)


LOADS: dict[str, Callable[[Database, Step], None]] = {
    "rows into a new schema": _rows_into_a_new_schema,
    "all over a new schema": _all_over_a_new_schema,
    "each entry while a worker appends": _each_while_a_worker_appends,
    "the sequences while a worker waits": _sequences_while_a_worker_waits,
    "rows alone, as by replication": _rows_alone,
}
DUMPS = {"a dump": (), "a dump of a standby": ("--no-unlogged-table-data",)}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("dump", DUMPS)
def test_what_is_loaded_leaves_no_id_of_the_lost_time(database: Database, dump: str, load: str) -> None:
    living = database.open(busy_timeout=PATIENCE)
    kept = [living.append("system", "kept").id for _ in range(3)]
    living.create_workflow_run("run-1", "deploy")
    database.dump(*DUMPS[dump])
    lost = [living.append("system", "lost").id for _ in range(5)]
    zombie = living.claim_workflow_run("lost", lease=timedelta(minutes=5))
    assert zombie is not None
    given: list[int] = []

    def worker() -> None:
        with suppress(ns.NerveStoreError):
            given.append(living.append("system", "worker").id)

    LOADS[load](database, worker)
    # Of what a worker wrote to the new log before the rows were back, `verify` tells.
    given[:] = [row_id for row_id in given if row_id > SKIPPED]

    def go_on() -> Any:
        nonlocal living
        try:
            return living.append("system", "first")
        except ns.StoreMovedError:  # the schema was made anew: it is another log, and has another identity
            living.close()
            living = database.open(busy_timeout=PATIENCE)
            raise

    given.append(patiently(go_on).id)
    given += [patiently(partial(living.append, "system", "new", key=f"key-{number}")).id for number in range(3)]
    with database.open(archive=None) as other:
        given += [other.append("system", "new").id for _ in range(3)]
        assert min(given) > max(kept + lost) + SKIPPED
        assert given == sorted(set(given))
        for change in (
            lambda: living.renew_claim(zombie),
            lambda: other.append("system", "by the zombie", claim=zombie),
        ):
            with pytest.raises(ns.ClaimLostError):
                change()
        claim = other.claim_workflow_run("new", lease=timedelta(minutes=5))
        assert claim is not None
        assert claim.token > given[-1]
        with pytest.raises(ns.ClaimLostError):
            living.renew_claim(zombie)
        assert [row.id for row in other.query(type="new")] == given[-6:]
    living.close()


BY_HAND = {
    "back": "SELECT setval('nerve.log_id', 3)",
    "back to what is there": "SELECT setval('nerve.log_id', max(id)) FROM nerve.logs",
    "back by one": "SELECT setval('nerve.log_id', last_value - 1) FROM nerve.log_id",
    "back to the beginning": "SELECT setval('nerve.log_id', 1, false)",
    "restarted": "ALTER SEQUENCE nerve.log_id RESTART",
    "restarted with a number": "ALTER SEQUENCE nerve.log_id RESTART WITH 4",
    "made anew": "DROP SEQUENCE nerve.log_id; CREATE SEQUENCE nerve.log_id",
    "both made anew": "ALTER SEQUENCE nerve.log_id RESTART; ALTER SEQUENCE nerve.given_id RESTART",
    "emptied": "TRUNCATE nerve.logs, nerve.alive RESTART IDENTITY",
    "further": "SELECT nextval('nerve.log_id')",
}


@pytest.mark.parametrize("first", [0, AHEAD], ids=["from the beginning", "ahead of the clock"])
@pytest.mark.parametrize("way", BY_HAND)
def test_sequence_that_is_set_by_hand_gives_no_id_again(database: Database, way: str, first: int) -> None:
    logs = [database.open(archive=None) for _ in range(2)]
    database.execute(f"SELECT nerve.go_on_after({first})")
    given = [log.append("system", "before").id for log in logs * 3]
    # The newest rows may be gone, as those of days that were archived and expired.
    database.execute(f"DELETE FROM nerve.logs WHERE id >= {given[-2]}")
    for _ in range(2):
        database.execute(BY_HAND[way])
        # That which wrote before the last one, and may know nothing of its id.
        given += [log.append("system", "after").id for log in logs]
    assert given == sorted(set(given))
    assert given[0] == first + 1
    for log in logs:
        log.close()


@pytest.mark.parametrize("first", [0, AHEAD], ids=["from the beginning", "ahead of the clock"])
@pytest.mark.parametrize("table", ["logs", "archive_days", "writers"])
def test_greater_ids_that_another_program_brings_are_passed(database: Database, table: str, first: int) -> None:
    """As they come by logical replication, which brings no sequence; seen by each new connection."""
    with database.open() as log:
        log.append("system", "tick")
    greatest = first + 50
    database.execute(
        {
            "logs": f"INSERT INTO nerve.logs VALUES ({greatest}, 's', 't', NULL, NULL, 5, false)",
            "archive_days": "INSERT INTO nerve.archive_days (day, state, format, row_count, last_id, size, raw_size, "
            f"sha256, archived_at) VALUES ('2026-01-01', 0, 'jsonl', 1, {greatest}, 1, 1, '', 0)",
            "writers": f"INSERT INTO nerve.writers VALUES (gen_random_uuid(), 1, 1, {greatest + 1}, NULL)",
        }[table]
    )
    with database.open(archive=None) as log:
        assert log.append("system", "new").id > greatest + SKIPPED


def test_ids_have_no_gap_as_long_as_nothing_is_lost(database: Database) -> None:
    """Over new connections, calls that write no row, and versions that are brought up to date."""
    given = []
    for _ in range(3):
        with database.open() as log:
            log.set_meta("key", "value")
            given.append(log.append("system", "tick").id)
            log.delete_meta("key")
            with database.open() as other:
                given.append(other.append("system", "tick").id)
                log.archive_logs()
    assert given == list(range(1, 7))


def test_migration_leaves_the_roles_their_rights(database: Database) -> None:
    database.open().close()
    role = f"worker_of_{database.name}"
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA nerve TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA nerve TO {role}",
        f"GRANT SELECT, UPDATE ON SEQUENCE nerve.log_id TO {role}",
        "GRANT SELECT ON SEQUENCE nerve.log_id TO PUBLIC",
    ):
        database.execute(statement)
    as_version_4(database)
    database.open().close()
    try:
        with ns.PostgresLogStore(database.url.replace("tester@", f"{role}@")) as log:
            assert log.append("system", "tick").id > SKIPPED
    finally:
        database.remove()
        database.execute(f"DROP ROLE {role}", "postgres")


@pytest.mark.parametrize("step", ["migration", "rename"])
def test_what_another_role_brings_up_to_date_stays_the_owners(database: Database, step: str) -> None:
    """A superuser opens the log, or a member of the role that owns it."""
    role = f"owner_of_{database.name}"
    url = database.url.replace("tester@", f"{role}@")
    database.execute(f"CREATE ROLE {role} LOGIN")
    database.execute(f"GRANT CREATE ON DATABASE {database.name} TO {role}")
    ns.PostgresLogStore(url).close()
    if step == "migration":
        as_version_4(database)
    else:
        database.execute("ALTER SCHEMA nerve RENAME TO other")
    name = "nerve" if step == "migration" else "other"
    database.open(schema=name, archive=None).close()
    try:
        with ns.PostgresLogStore(url, schema=name) as log:
            assert log.append("system", "tick").id >= 1
        of_others = (
            "SELECT relname::text FROM pg_class "
            "WHERE relnamespace = '{0}'::regnamespace AND relowner <> '{1}'::regrole UNION ALL "
            "SELECT proname::text FROM pg_proc "
            "WHERE pronamespace = '{0}'::regnamespace AND proowner <> '{1}'::regrole"
        )
        assert database.execute(of_others.format(name, role)) == []
    finally:
        database.remove()
        database.execute(f"DROP ROLE {role}", "postgres")


@pytest.mark.parametrize("days", [3, 60])
def test_new_connection_waits_for_no_partition_that_another_session_has_locked(database: Database, days: int) -> None:
    with database.open(archive=None) as log:
        for number in range(days):
            database.execute(f"SELECT nerve.ensure_day(date '2024-01-01' + {number})")
        log.append("system", "tick")
    partitions = "SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'nerve.logs'::regclass"
    (oldest,) = database.execute(partitions)
    with psycopg.connect(database.url) as session:
        session.execute(f"LOCK TABLE ONLY {oldest[0]} IN ACCESS EXCLUSIVE MODE")
        with database.open(archive=None, busy_timeout=PATIENCE) as log:
            assert log.append("system", "tick").id == 2
