"""The partitions of the next days: made ahead, and never at the cost of an append, a read or an opening."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from contract.backends import Backend

MIDNIGHT_MS = 86_400_000


def today() -> date:
    return datetime.now(UTC).date()


def partitions(log: Any) -> set[str]:
    found = log.sql(
        "SELECT c.relname FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = 'logs'::regclass"
    )
    return {name for (name,) in found} - {"logs_rest"}


def names(*numbers: int) -> set[str]:
    return {f"logs_{today() + timedelta(days=number):%Y%m%d}" for number in numbers}


def forget(place: Backend, *numbers: int) -> None:
    """As if the log had last been written to so many days ago."""
    for name in sorted(names(*numbers)):
        place.execute(f"DROP TABLE {name}")


def pass_midnight(log: Any) -> None:
    """As if a day had begun since the store last made partitions."""
    log._partitions._due = 0.0


def settled(log: Any) -> None:
    log._partitions._thread.join(20)
    assert not log._partitions._thread.is_alive()


@contextmanager
def long_read(place: Backend) -> Iterator[None]:
    """What pg_dump holds: a snapshot, and a lock of every table."""
    with psycopg.connect(place.direct_url) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute(f"SELECT count(*) FROM {place.schema}.logs".encode())
        yield


@contextmanager
def long_write(place: Backend) -> Iterator[None]:
    """Another program's transaction that has changed rows of the default partition."""
    with psycopg.connect(place.direct_url) as session:
        session.execute(f"DELETE FROM {place.schema}.logs WHERE timestamp = 5".encode())
        yield


@contextmanager
def analysis(place: Backend) -> Iterator[None]:
    """What VACUUM and ANALYZE of the whole table hold."""
    with psycopg.connect(place.direct_url) as session:
        session.execute(f"LOCK TABLE ONLY {place.schema}.logs IN SHARE UPDATE EXCLUSIVE MODE".encode())
        yield


def test_partitions_of_the_next_days_are_there_at_once(place: Backend) -> None:
    log = place.open()
    assert partitions(log) == names(0, 1, 2, 3)
    entry = log.append("system", "tick")
    later = log.append("system", "tick", timestamp=entry.timestamp + 3 * MIDNIGHT_MS)
    rows = log.sql("SELECT tableoid::regclass::text FROM logs ORDER BY id")
    assert [name for (name,) in rows] == sorted(names(0, 3)), (entry, later)


def test_partition_has_the_indexes_and_the_columns_of_the_log(place: Backend) -> None:
    """It is made beside the log and then attached: nothing may be missing in it."""
    log = place.open()
    (name,) = names(0)
    columns = "SELECT attname, atttypid, attnotnull, attcollation FROM pg_attribute WHERE attrelid = %s::regclass"
    assert log.sql(f"{columns} AND attnum > 0 ORDER BY attnum", (name,)) == log.sql(
        f"{columns} AND attnum > 0 ORDER BY attnum", ("logs",)
    )
    attached = log.sql(
        "SELECT parent.relname, count(*) FROM pg_index own JOIN pg_inherits i ON i.inhrelid = own.indexrelid "
        "JOIN pg_class parent ON parent.oid = i.inhparent WHERE own.indrelid = %s::regclass GROUP BY 1 ORDER BY 1",
        (name,),
    )
    assert attached == [(index, 1) for index in ("logs_id", "logs_ref", "logs_round", "logs_time")]
    assert log.sql("SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", (name,)) == [(4,)]


@pytest.mark.parametrize("held", [long_read, long_write, analysis])
def test_long_transaction_at_midnight_stops_no_one(place: Backend, held: Any) -> None:
    log = place.open(busy_timeout=3)
    log.append("system", "tick")
    forget(place, 1, 2, 3)
    with held(place):
        begun = time.monotonic()
        with place.open(busy_timeout=3) as second:
            second.append("system", "tick")
            pass_midnight(log)
            log.append("system", "tick")
            assert second.count() == log.count() == 3
            settled(log)
        assert time.monotonic() - begun < 2
        assert partitions(log) == names(0)
    pass_midnight(log)
    log.append("system", "tick")
    settled(log)
    assert partitions(log) == names(0, 1, 2, 3)


def test_appends_while_a_partition_waits_for_a_reader_do_not(place: Backend) -> None:
    log = place.open(busy_timeout=0.5)
    forget(place, 3)
    with long_read(place), psycopg.connect(place.direct_url, autocommit=True) as session:
        ending = threading.Event()
        refused: list[Any] = []

        def make() -> None:
            while not ending.is_set():
                day = today() + timedelta(days=3)
                refused.append(session.execute(f"SELECT {place.schema}.ensure_day(%s)".encode(), (day,)).fetchone())

        thread = threading.Thread(target=make)
        thread.start()
        waits: list[float] = []
        for _ in range(40):
            begun = time.monotonic()
            log.append("system", "tick")
            waits.append(time.monotonic() - begun)
            time.sleep(0.01)
        ending.set()
        thread.join()
    assert set(refused) == {(None,)}
    # A wait for the lock would last up to a tenth of a second.
    assert statistics.median(waits) < 0.03


def test_rows_of_a_day_without_a_partition_are_kept_and_found(place: Backend) -> None:
    log = place.open()
    forget(place, 0, 1, 2, 3)
    first = log.append("system", "tick")
    pass_midnight(log)
    second = log.append("system", "tick")
    settled(log)
    # The day has rows elsewhere; the next ones have none.
    assert partitions(log) == names(1, 2, 3)
    assert log.query() == [first, second]


def test_first_append_after_idle_days_finds_a_partition(place: Backend) -> None:
    log: Any = place.open()
    forget(place, 0, 1, 2, 3)
    log._partitions._last_day = today() - timedelta(days=1)
    pass_midnight(log)
    log.append("system", "tick")
    assert log.sql("SELECT tableoid::regclass::text FROM logs") == [(name,) for name in names(0)]


def test_lost_connections_at_midnight_fail_no_append(place: Backend) -> None:
    log = place.open()
    log.append("system", "tick")
    log.query()
    forget(place, 1, 2, 3)
    place.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND backend_type = 'client backend' AND usename = current_user"
    )
    pass_midnight(log)
    assert log.append("system", "tick").id == 2
    settled(log)
    assert partitions(log) == names(0, 1, 2, 3)


@pytest.mark.parametrize(
    "fault",
    [
        "ALTER FUNCTION ensure_day RENAME TO ensure_no_day",
        "CREATE OR REPLACE FUNCTION ensure_day(day date) RETURNS boolean LANGUAGE sql AS 'SELECT 1 / 0 = 1'",
        "CREATE TABLE {name} (other text)",
    ],
)
def test_partition_that_cannot_be_made_fails_no_append_and_no_opening(place: Backend, fault: str) -> None:
    log = place.open()
    forget(place, 0)
    place.execute(fault.format(name=next(iter(names(0)))))
    with place.open() as second:
        pass_midnight(log)
        assert [each.append("system", "tick").id for each in (log, second)] == [1, 2]
        settled(log)


def test_many_openings_at_once_make_each_partition_once(place: Backend) -> None:
    log = place.open()
    forget(place, 0, 1, 2, 3)
    stores: list[Any] = []
    threads = [threading.Thread(target=lambda: stores.append(place.open())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 8
    assert partitions(log) == names(0, 1, 2, 3)
