"""The log on PostgreSQL: opening, versions, schemas, partitions, forks and interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store._places import without_password
from nerve_store.postgres import PostgresLogStore, connections, schema
from support import child_environment


def test_schemas_of_one_database_are_logs_of_their_own(place: Backend) -> None:
    other_schema = f"{place.schema}_other"
    with place.open() as log, PostgresLogStore(place.url, schema=other_schema) as other:
        assert log.append("system", "here").id == other.append("system", "there").id == 1
        assert [entry.type for entry in log.query()] == ["here"]
        assert [entry.type for entry in other.query()] == ["there"]
        # A lock of one keeps nobody from writing to the other.
        with psycopg.connect(place.direct_url) as session:
            session.execute("SELECT pg_advisory_xact_lock(%s)", (schema.lock_key(place.schema),))
            assert other.append("system", "there").id == 2
    place.execute(f"DROP SCHEMA {other_schema} CASCADE")


@pytest.mark.parametrize("name", ["", "a b", 'x"; DROP TABLE logs; --', "1a", "ä", "x" * 41])
def test_name_that_is_no_schema_is_refused(place: Backend, name: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        PostgresLogStore(place.url, schema=name)


def test_many_open_a_new_schema_at_the_same_time(place: Backend) -> None:
    with ThreadPoolExecutor(6) as pool:
        logs = list(pool.map(lambda _: place.open(), range(6)))
    assert [log.append("system", "tick").id for log in logs] == list(range(1, 7))


def test_newer_schema_is_refused_and_left_alone(place: Backend) -> None:
    place.open().append("system", "tick")
    place.execute("UPDATE state SET schema_version = 99")
    with pytest.raises(ns.SchemaVersionError) as refused:
        place.open()
    assert (refused.value.found, refused.value.supported) == (99, schema.VERSION)


def test_older_schema_is_brought_up_to_date_once(place: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    old = place.open()
    old.append("system", "tick")
    newer = schema.VERSION + 1
    monkeypatch.setattr(schema, "VERSION", newer)
    monkeypatch.setattr(schema, "MIGRATIONS", {newer: "CREATE TABLE @S@.added (x int)"})
    with ThreadPoolExecutor(4) as pool:
        logs = list(pool.map(lambda _: place.open(), range(4)))
    assert logs[0].sql("SELECT schema_version FROM state") == [(newer,)]
    assert logs[0].sql("SELECT count(*) FROM added") == [(0,)]
    assert logs[0].append("system", "tick").id == 2
    assert old.append("system", "tick").id == 3, "the older program writes on"


def test_failed_migration_leaves_the_schema_as_it_was(place: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    place.open().append("system", "tick")
    version = schema.VERSION
    monkeypatch.setattr(schema, "VERSION", version + 2)
    broken = {version + 1: "CREATE TABLE @S@.added (x int)", version + 2: "SELECT 1 / 0"}
    monkeypatch.setattr(schema, "MIGRATIONS", broken)
    with pytest.raises(ns.NerveStoreError):
        place.open()
    monkeypatch.undo()
    log = place.open()
    assert log.sql("SELECT schema_version FROM state") == [(version,)]
    assert log.append("system", "tick").id == 2


def test_rows_of_today_lie_in_a_partition_that_archiving_drops(place: Backend) -> None:
    log = place.open()
    entry = log.append("system", "tick")
    day = datetime.now(UTC).date()
    partition = f"logs_{day:%Y%m%d}"
    assert log.sql("SELECT tableoid::regclass::text FROM logs") == [(partition,)]
    later = int((datetime.now(UTC) + timedelta(days=40)).timestamp() * 1000)
    assert [item.added_rows for item in log.archive_logs(now=later).days] == [1]
    assert log.sql("SELECT to_regclass(%s)::text", (f"{place.schema}.{partition}",)) == [(None,)]
    assert log.query(archived=True) == [entry]
    # A late row of that day lies in the default partition.
    late = log.append("system", "late", timestamp=entry.timestamp)
    assert [item.added_rows for item in log.archive_logs(now=later).days] == [1]
    assert log.query(archived=True) == [entry, late]


def test_a_job_leaves_the_lock_to_the_next_before_the_server_sees_its_session_end(
    place: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = place.open()
    log.append("system", "tick", timestamp=1)
    unseen: list[Any] = []

    def close(session: Any) -> None:
        unseen.append(session)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "close", close)
        assert [item.added_rows for item in log.archive_logs().days] == [1]
        (archived,) = log.archived_days()
        assert log.restore_archive(archived.day) == 1
        with pytest.raises(ns.ArchiveError):
            log.restore_archive(archived.day + timedelta(days=1))
        log.archive_logs()
        assert log.count() == 0
        assert [item.day for item in log.expire_archive(before=archived.day + timedelta(days=1))] == [archived.day]
    assert len(unseen) >= 5
    for session in unseen:
        session.close()


def test_archive_job_has_the_planner_know_what_it_reads_page_by_page(place: Backend) -> None:
    log = place.open()
    log.append_many([("system", "tick", None, None, n) for n in range(5_000)])
    known = "SELECT reltuples >= 4000 FROM pg_class WHERE oid = 'logs_rest'::regclass"
    assert log.sql(known) == [(False,)]
    log.archive_logs()
    assert log.sql(known) == [(True,)]


@pytest.mark.parametrize("has_file", [False, True])
def test_two_rows_of_one_id_are_not_archived_as_one(place: Backend, has_file: bool) -> None:
    log = place.open()
    if has_file:
        log.append("system", "tick", timestamp=1)
        log.archive_logs()
    log.append("system", "tick", timestamp=2)
    place.execute("INSERT INTO logs SELECT * FROM logs")
    with pytest.raises(ns.ArchiveError, match="of two rows"):
        log.archive_logs()
    assert log.count() == 2
    assert [item.row_count for item in log.archived_days()] == [1] * has_file
    place.execute("DELETE FROM logs WHERE ctid = (SELECT min(ctid) FROM logs)")
    assert [item.added_rows for item in log.archive_logs().days] == [1]
    assert log.verify().ok


def test_encoding_of_the_environment_changes_no_text(place: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    texts = ["é", "日本\0", "\U0010ffff"]
    log = place.open()
    log.append_many([("system", text, text, text, 1) for text in texts])
    monkeypatch.delenv("PGCLIENTENCODING")
    for each in (log, place.open()):
        assert [(entry.type, entry.ref_id, entry.payload) for entry in each.query()] == [(text,) * 3 for text in texts]
    log.archive_logs()
    assert [entry.payload for entry in log.query(archived=True)] == texts


def test_partition_with_rows_of_an_active_run_is_not_dropped(place: Backend) -> None:
    log = place.open()
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
    started = log.upsert_workflow_run(("workflow", "started", "run-1", None, None), run)
    free = log.append("system", "tick")
    later = int((datetime.now(UTC) + timedelta(days=40)).timestamp() * 1000)
    result = log.archive_logs(now=later)
    assert (result.pinned_rows, sum(item.added_rows for item in result.days)) == (1, 1)
    assert log.query() == [started]
    assert log.query(archived=True) == [started, free]


def test_readers_miss_no_row_while_days_are_archived_and_restored(place: Backend) -> None:
    log, reader = place.open(), place.open()
    start = 1_767_225_600_000
    log.append_many([("system", "tick", f"r{n % 3}", None, start + n % 6 * 86_400_000) for n in range(600)])
    rows = log.query()
    ending = threading.Event()
    errors: list[Any] = []

    def look() -> None:
        while not ending.is_set():
            if reader.query(archived=True) != rows or list(reader.iter(archived=True, descending=True)) != rows[::-1]:
                errors.append("a row is missing or doubled")
                return

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for compression in (None, "zstd"):
        for _ in range(6):
            log.archive_logs(max_days=1, compression=compression)
        for day in log.archived_days():
            log.restore_archive(day.day)
    log.archive_logs()
    ending.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert log.count() == 0


def test_least_privileges_suffice_to_append_and_read(place: Backend) -> None:
    place.open().append("system", "first")
    role = f"r_{place.schema}"
    s = place.schema
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA {s} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {s}.logs, {s}.meta, {s}.workflow_runs, {s}.writers TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {s}.keys, {s}.alive TO {role}",
        f"GRANT SELECT ON {s}.state, {s}.archive_days, {s}.archive_refs TO {role}",
        f"GRANT SELECT, UPDATE ON SEQUENCE {s}.log_id, {s}.given_id TO {role}",
    ):
        place.execute(statement)
    try:
        url = place.direct_url.replace("tester@", f"{role}@")
        with PostgresLogStore(url, schema=s) as log:
            assert log.append("system", "second").id == 2
            log.create_workflow_run("run-1", "deploy")
            assert log.claim_workflow_run("worker") is not None
            with pytest.raises(ns.StoreIOError, match="permission"):
                log.sql("SELECT * FROM pg_authid")
    finally:
        place.execute(f"DROP OWNED BY {role}")
        place.execute(f"DROP ROLE {role}")


def test_password_is_never_shown(place: Backend) -> None:
    url = place.url.replace("tester@", "tester:secret@")
    with PostgresLogStore(url, schema=place.schema) as log:
        assert "secret" not in log.path + repr(log)
    dead = url.replace(url.rsplit(":", 1)[1].split("/")[0], "1")
    with pytest.raises(ns.StoreUnavailableError) as refused:
        PostgresLogStore(dead, busy_timeout=0.1)
    assert "secret" not in str(refused.value)


SECRET_URLS = {
    "postgresql://u:{}@h/d": "postgresql://u@h/d",
    "postgres://u:{}@h": "postgres://u@h",
    "postgresql://u:{}?{}@h/d": "postgresql://u@h/d",
    "postgresql://u:{}@{}@h1,h2:5/d?a=b": "postgresql://u@h1,h2:5/d?a=b",
    "postgresql://:{}@h/d": "postgresql://@h/d",
    "postgresql://h/d?password={}": "postgresql://h/d",
    "postgresql://h/d?a=b&pass%77ord={}&c=d": "postgresql://h/d?a=b&c=d",
    "postgresql://u@h/d?sslpassword={}&sslmode=prefer": "postgresql://u@h/d?sslmode=prefer",
    "postgresql://h/d?listen_url=postgresql%3A%2F%2Fu%3A{}%40k%2Fd": (
        "postgresql://h/d?listen_url=postgresql%3A%2F%2Fu%40k%2Fd"
    ),
    "host=h password={} dbname=d": "host=h dbname=d",
    "host=h sslpassword = '{} \\'{}' passfile=/p password='{}": "host=h passfile=/p",
    "password={}\\ {} host=h": "host=h",
    "postgresql://u@h/d?passfile=/p": "postgresql://u@h/d?passfile=/p",
}


@pytest.mark.parametrize("url", SECRET_URLS)
def test_url_is_shown_without_its_secrets(url: str) -> None:
    assert without_password(url.replace("{}", "hunter2")) == SECRET_URLS[url]


@pytest.mark.parametrize(
    ("message", "may_pass"),
    [
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ("FATAL:  remaining connection slots are reserved for non-replication superuser connections", True),
        ("FATAL:  sorry, too many clients already", True),
        ('FATAL:  too many connections for role "worker"', True),
        ("FATAL:  no more connections allowed (max_client_conn)", True),
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  query_wait_timeout", True),
        ("FATAL:  server login has been failing, try again later", True),
        ("Connection refused", True),
        ('FATAL:  password authentication failed for user "worker"', False),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "worker", database "d", no encryption', False),
        ('FATAL:  database "d" does not exist', False),
        ('FATAL:  role "worker" does not exist', False),
        ('FATAL:  role "worker" is not permitted to log in', False),
        ("FATAL:  no such user: worker", False),
        ('FATAL:  permission denied for database "d"', False),
        ("fe_sendauth: no password supplied", False),
    ],
)
def test_refused_login_is_tried_again_if_waiting_may_help(message: str, may_pass: bool) -> None:
    assert connections._may_pass(psycopg.OperationalError(f"connection failed: {message}")) is may_pass


def fill_slots(url: str, held: list[psycopg.Connection[Any]]) -> str:
    """Take all connections that the role may have; returns how the next one is refused."""
    while True:
        try:
            held.append(psycopg.connect(url))
        except psycopg.OperationalError as error:
            return str(error)


def close_all(sessions: list[psycopg.Connection[Any]]) -> None:
    for session in sessions:
        session.close()


def test_role_without_a_slot_waits_for_one(place: Backend) -> None:
    """The last slots are a superuser's: another role is refused in other words."""
    role = f"r_{place.schema}"
    place.execute(f"CREATE ROLE {role} LOGIN")
    place.execute(f"GRANT CREATE ON DATABASE postgres TO {role}")
    url = place.direct_url.replace("tester@", f"{role}@")
    held: list[psycopg.Connection[Any]] = []
    try:
        with PostgresLogStore(url, schema=place.schema, busy_timeout=20) as log:
            log.append("system", "tick")
            assert "reserved" in fill_slots(url, held)
            place.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}' AND query <> ''"
            )
            fill_slots(url, held)
            freeing = threading.Timer(1, close_all, (held,))
            freeing.start()
            assert log.append("system", "tick").id == 2
            PostgresLogStore(url, schema=place.schema).close()
            freeing.join()
    finally:
        close_all(held)
        place.execute(f"DROP OWNED BY {role}")
        place.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "postgresql://host:port:/x"])
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises((ValueError, ns.StoreUnavailableError)):
        PostgresLogStore(url, busy_timeout=0.1)


def test_writer_that_waits_too_long_for_the_lock_is_busy(place: Backend) -> None:
    log = place.open(busy_timeout=0.3)
    log.append("system", "tick")
    with psycopg.connect(place.direct_url) as session:
        session.execute("SELECT pg_advisory_xact_lock(%s)", (schema.lock_key(place.schema),))
        with pytest.raises(ns.StoreBusyError):
            log.append("system", "tick")
    assert log.append("system", "tick").id == 2


def test_forked_child_is_refused_and_harms_nothing(place: Backend) -> None:
    log = place.open()
    log.append("system", "tick")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for call in (lambda: log.append("s", "t"), log.query, log.close, lambda: log.batch().__enter__()):
                try:
                    call()
                except ns.ForkedStoreError:
                    continue
                os._exit(2)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert log.append("system", "tick").id == 2
    assert log.count() == 2


INTERRUPTED = """
import sys, threading, time
import nerve_store as ns
from nerve_store.postgres import PostgresLogStore
log = PostgresLogStore(sys.argv[1], schema=sys.argv[2])
results = []
def work(number):
    for position in range(200):
        results.append(log.append("system", "tick", None, f"{number}-{position}").id)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
print("ready", flush=True)
try:
    while True:
        log.append("system", "main")
except KeyboardInterrupt:
    pass
for thread in threads: thread.join()
assert len(results) == 800, len(results)
rows = [entry.id for entry in log.query(type="tick")]
assert sorted(results) == rows and len(set(rows)) == 800
log.close()
print("done", flush=True)
"""


def test_interrupt_of_one_caller_harms_no_other(place: Backend) -> None:
    place.open()
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, place.url, place.schema],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment(),
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        out, error = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "done\n"), error


def test_closing_forgets_its_writers_and_connections(place: Backend) -> None:
    with place.open() as log:
        log.append("system", "tick")
        assert log.sql("SELECT count(*) FROM writers") == [(1,)]
    other = place.open()
    assert other.sql("SELECT count(*) FROM writers") == [(0,)]


@pytest.mark.parametrize("descending", [False, True])
def test_read_of_many_days_opens_few_files(place: Backend, descending: bool) -> None:
    log = place.open()
    log.append_many([("system", "tick", None, None, n // 2 * 86_400_000) for n in range(120)])
    rows = log.query(descending=descending)
    log.archive_logs()
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    seen: list[ns.LogEntry] = []
    for entry in log.iter(archived=True, descending=descending):
        seen.append(entry)
        most = max(most, len(os.listdir("/proc/self/fd")))
    assert seen == rows
    assert most - before < 10
