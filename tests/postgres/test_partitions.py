"""The partitions of the next days: made ahead, and never at the cost of an append, a read or an opening."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_rows_that_came_before_the_partition_of_their_day_move_to_it(place: Backend) -> None:
    log = place.open()
    forget(place, 0, 1, 2, 3)
    rows = [log.append("system", "tick", f"ref-{n}", "payload") for n in range(3)]
    rows.append(log.append("system", "tick", timestamp=rows[0].timestamp + 2 * MIDNIGHT_MS))
    rows.append(log.append("system", "tick", timestamp=5))
    assert where(log) == dict.fromkeys(range(1, 6), "logs_rest")
    pass_midnight(log)
    rows.append(log.append("system", "tick"))
    settled(log)
    assert partitions(log) == names(0, 1, 2, 3)
    (now,), (later,) = names(0), names(2)
    assert where(log) == {1: now, 2: now, 3: now, 4: later, 5: "logs_rest", 6: now}
    assert log.query() == rows
    assert log.query(ref_id="ref-1") == rows[1:2]


def where(log: Any) -> dict[int, str]:
    """The partition of each row."""
    return dict(log.sql("SELECT id, tableoid::regclass::text FROM logs ORDER BY id"))


def ensure(place: Backend, number: int, *more: int) -> bool | None:
    """Make the partition of the day that is so many days ahead."""
    with psycopg.connect(place.direct_url, autocommit=True) as session:
        arguments = ", ".join(["%s"] * (1 + len(more)))
        row = session.execute(
            f"SELECT {place.schema}.ensure_day({arguments})".encode(), (today() + timedelta(days=number), *more)
        ).fetchone()
    assert row is not None
    found: bool | None = row[0]
    return found


def put_rows(log: Any, number: int, count: int) -> None:
    """Rows of the day that is so many days ahead."""
    first = (today() + timedelta(days=number) - date(1970, 1, 1)).days * MIDNIGHT_MS
    log.append_many(("system", "tick", None, "x", first + n) for n in range(count))


def test_more_rows_than_are_to_be_moved_stay(place: Backend) -> None:
    log = place.open()
    put_rows(log, 9, 3)
    assert ensure(place, 9, 2) is False
    assert set(where(log).values()) == {"logs_rest"}
    assert partitions(log) == names(0, 1, 2, 3)
    assert ensure(place, 9, 3) is True
    assert set(where(log).values()) == names(9)
    assert ensure(place, 9, 0) is True


def test_rows_move_once_a_long_read_has_ended(place: Backend) -> None:
    log = place.open()
    put_rows(log, 9, 3)
    for held in (long_read, long_write, analysis):
        with held(place):
            assert ensure(place, 9) is None
            assert set(where(log).values()) == {"logs_rest"}
    assert ensure(place, 9) is True
    assert set(where(log).values()) == names(9)


def test_rows_that_moved_are_archived_and_their_partition_goes(place: Backend) -> None:
    log: Any = place.open()
    put_rows(log, -50, 3)
    assert ensure(place, -50) is True
    rows = log.query()
    assert [item.added_rows for item in log.archive_logs().days] == [3]
    assert partitions(log) == names(0, 1, 2, 3)
    assert log.query(archived=True) == rows


def counts(place: Backend, planned: str, ending: threading.Event) -> set[int]:
    """What reads find, by a plan that is made anew each time, or by one that is kept."""
    found: set[int] = set()
    statement = f"SELECT count(*) FROM {place.schema}.logs WHERE source = %s".encode()
    with psycopg.connect(place.direct_url, autocommit=True) as session:
        session.execute(f"SET plan_cache_mode = force_{planned}_plan".encode())
        while not ending.is_set():
            found |= {count for (count,) in session.execute(statement, ("system",), prepare=True)}
    return found


def test_who_reads_and_appends_while_rows_move_misses_none(place: Backend) -> None:
    log: Any = place.open()
    days = range(10, 40)
    for number in days:
        put_rows(log, number, 20)
    ending = threading.Event()

    def write() -> None:
        while not ending.is_set():
            log.append("other", "tick")

    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(counts, place, planned, ending) for planned in ("custom", "generic")]
        writing = pool.submit(write)
        try:
            for number in days:
                while ensure(place, number) is None:
                    pass
        finally:
            ending.set()
        assert [each.result() for each in found] == [{20 * len(days)}] * 2
        writing.result()
    assert partitions(log) == names(0, 1, 2, 3, *days)
    assert log.sql("SELECT count(*) FROM logs_rest") == [(0,)]


def test_first_append_after_idle_days_finds_a_partition(place: Backend) -> None:
    log: Any = place.open()
    forget(place, 0, 1, 2, 3)
    log._partitions._last_day = today() - timedelta(days=1)
    pass_midnight(log)
    log.append("system", "tick")
    assert log.sql("SELECT tableoid::regclass::text FROM logs") == [(name,) for name in names(0)]


@pytest.mark.parametrize("number", [-1, 0, 2])
def test_append_that_waits_for_the_partition_of_its_day_goes_there(place: Backend, number: int) -> None:
    """It would have gone to the default partition, which refuses it by then."""
    log = place.open()
    forget(place, 0, 2)
    with psycopg.connect(place.direct_url) as session, ThreadPoolExecutor(1) as pool:
        day = today() + timedelta(days=number)
        made = session.execute(f"SELECT {place.schema}.ensure_day(%s)".encode(), (day,)).fetchone()
        assert made == (True,)
        late = pool.submit(put_rows, log, number, 1)
        with place.open() as other:
            waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
            while other.sql(waiting, (f"%{place.schema}%write%",)) == [(False,)]:
                time.sleep(0.01)
        session.commit()
        late.result(30)
    assert set(where(log).values()) == names(number)


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


def test_function_of_an_older_schema_is_replaced(place: Backend) -> None:
    log = place.open()
    place.execute("DROP FUNCTION ensure_day")
    place.execute("CREATE FUNCTION ensure_day(day date) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
    place.execute("UPDATE state SET schema_version = 3")
    forget(place, 0)
    log.append("system", "tick")
    with place.open() as second:
        assert partitions(second) == names(0, 1, 2, 3)
        assert set(where(second).values()) == names(0)


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
