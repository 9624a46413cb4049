"""Values as a caller has them: datetimes, JSON, rows that unpack; and a warning about seconds."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from reference import MAX_TIMESTAMP
from support import refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12, 0, 0, 123_999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
NOON_MS = 1_772_346_600_123
NAIVE = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - that it is naive is what is tried

ZONES = st.sampled_from([ZoneInfo("Europe/Berlin"), ZoneInfo("Pacific/Apia"), UTC]) | st.builds(
    lambda seconds, microseconds: timezone(timedelta(seconds=seconds, microseconds=microseconds)),
    st.integers(-86_000, 86_000),
    st.integers(-999_999, 999_999),
)
TIMES = st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29), timezones=ZONES)  # noqa: DTZ001


# --- datetimes ---------------------------------------------------------------------------------------------------


@given(TIMES)
def test_an_aware_datetime_is_its_whole_milliseconds(time: datetime) -> None:
    expected = (time - EPOCH) // timedelta(milliseconds=1)
    entry = ns.NewLogEntry("s", "t", timestamp=time)
    assert entry.timestamp == expected
    assert entry.time is not None
    assert timedelta(0) <= time - entry.time < timedelta(milliseconds=1)
    assert ns.WorkflowRun("r", "w", "started", time).timestamp == expected
    assert ns.utc_day(time) == time.astimezone(UTC).date()


@given(st.integers(0, MAX_TIMESTAMP))
def test_the_time_of_a_record_is_its_timestamp(timestamp: int) -> None:
    records: list[Any] = [
        ns.LogEntry(1, "s", "t", None, None, timestamp),
        ns.NewLogEntry("s", "t", timestamp=timestamp),
        ns.WorkflowRun("r", "w", "started", timestamp),
        ns.ThreadMessage("user", "hi", None, timestamp),
        ns.ThreadRound(1, 1, timestamp, ns.ThreadMessage("user", "hi")),
    ]
    for record in records:
        assert record.time == EPOCH + timedelta(milliseconds=timestamp)
        assert record.time.tzinfo is UTC
        again: Any = ns.NewLogEntry("s", "t", timestamp=record.time)
        assert again.timestamp == timestamp


def test_every_place_takes_a_datetime(log_store: ns.LogStore) -> None:
    first = log_store.append("s", "t", timestamp=NOON)
    assert first.timestamp == NOON_MS
    later = NOON + timedelta(days=1)
    log_store.append_many([("s", "t", None, None, later), ns.NewLogEntry("s", "t", timestamp=later)])
    run = ns.WorkflowRun("run-1", "deploy", "queued", NOON)
    log_store.upsert_workflow_run(ns.NewLogEntry("workflow", "queued", "run-1", timestamp=NOON), run)
    assert log_store.transition("run-1", "started", timestamp=later).time == later.replace(microsecond=123_000)
    assert log_store.count(since=later) == 3
    assert [entry.id for entry in log_store.query(until=NOON)] == [1, 4]
    assert [entry.id for entry in log_store.iter(since=NOON, until=NOON)] == [1, 4]
    assert next(log_store.follow(after_id=0, since=later)).id == 2
    assert log_store.archive_logs(now=NOON, retention=timedelta(0), dry_run=True).days == ()
    assert ns.last_archivable_day(NOON) == NOON.astimezone(UTC).date() - timedelta(days=1)
    assert first._replace(timestamp=later).timestamp == NOON_MS + 86_400_000


def naive_calls(store: ns.LogStore) -> dict[str, Callable[[], object]]:
    run = ns.WorkflowRun("run-1", "deploy", "completed", 1)
    return {
        "append": lambda: store.append("s", "t", timestamp=NAIVE),
        "append_many": lambda: store.append_many([("s", "t", None, None, NAIVE)]),
        "new": lambda: ns.NewLogEntry("s", "t", timestamp=NAIVE),
        "entry": lambda: ns.LogEntry(1, "s", "t", None, None, NAIVE),
        "replace": lambda: store.query()[0]._replace(timestamp=NAIVE),
        "run": lambda: ns.WorkflowRun("r", "w", "started", NAIVE),
        "upsert": lambda: store.upsert_workflow_run(("s", "t", "run-1", None, NAIVE), run),
        "transition": lambda: store.transition("run-1", "completed", timestamp=NAIVE),
        "query": lambda: store.query(since=NAIVE),
        "iter": lambda: store.iter(until=NAIVE),
        "count": lambda: store.count(since=NAIVE),
        "follow": lambda: store.follow(until=NAIVE),
        "archive": lambda: store.archive_logs(now=NAIVE),
        "day": lambda: ns.utc_day(NAIVE),
        "last day": lambda: ns.last_archivable_day(NAIVE),
    }


@pytest.mark.parametrize("name", naive_calls(None))  # type: ignore[arg-type]
def test_a_naive_datetime_is_refused_everywhere(kept: ns.LogStore, name: str) -> None:
    error = refused(ValueError, naive_calls(kept)[name])
    assert "naive" in str(error)


def test_what_a_zone_raises_passes_through(kept: ns.LogStore) -> None:
    class Broken(tzinfo):
        def utcoffset(self, dt: datetime | None, /) -> timedelta | None:
            raise LookupError("no such zone")

        def tzname(self, dt: datetime | None, /) -> None:
            return None

        def dst(self, dt: datetime | None, /) -> None:
            return None

    with pytest.raises(LookupError, match="no such zone"):
        kept.append("s", "t", timestamp=datetime(2026, 1, 1, tzinfo=Broken()))


# --- seconds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timestamp", [10**9, 1_700_000_000, 10**11])
def test_a_timestamp_in_seconds_is_stored_and_warned_of_once_a_store(data_dir: Path, timestamp: int) -> None:
    for number in range(2):
        with ns.LogStore(data_dir / f"{number}.db") as store:
            with pytest.warns(ns.TimestampUnitWarning, match=str(timestamp)) as caught:
                assert store.append("s", "t", timestamp=timestamp).timestamp == timestamp
            assert [warning.filename for warning in caught] == [__file__]
            assert store.append("s", "t", timestamp=timestamp).timestamp == timestamp
            assert store.append_many([("s", "t", None, None, timestamp)]) == range(3, 4)


@pytest.mark.parametrize("timestamp", [0, 10**9 - 1, 10**11 + 1, 1_772_000_000_000, EPOCH + timedelta(days=30)])
def test_other_timestamps_are_not_warned_of(log_store: ns.LogStore, timestamp: int | datetime) -> None:
    log_store.append("s", "t", timestamp=timestamp)
    assert log_store.count(since=0, until=1_700_000_000_000) <= 1


def seconds_calls(store: ns.LogStore) -> dict[str, Callable[[], object]]:
    run = ns.WorkflowRun("run-1", "deploy", "completed", 10**9)
    return {
        "append": lambda: store.append("s", "t", timestamp=10**9),
        "append_many": lambda: store.append_many([("s", "t", None, None, 1), ("s", "t", None, None, 10**9)]),
        "new": lambda: store.append_many([ns.NewLogEntry("s", "t", timestamp=10**9)]),
        "run": lambda: store.upsert_workflow_run(("workflow", "completed", "run-1", None, 5), run),
        "entry": lambda: store.upsert_workflow_run(("workflow", "completed", "run-1", None, 10**9), run),
        "transition": lambda: store.transition("run-1", "completed", timestamp=10**9),
    }


@pytest.mark.parametrize("name", seconds_calls(None))  # type: ignore[arg-type]
def test_a_warning_that_is_an_error_stores_nothing(kept: ns.LogStore, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(ns.TimestampUnitWarning, seconds_calls(kept)[name])


def test_an_asynchronous_append_is_warned_of_where_it_is_awaited(data_dir: Path) -> None:
    async def main() -> None:
        async with ns.AsyncLogStore(data_dir / "logs.db") as store:
            with pytest.warns(ns.TimestampUnitWarning) as caught:
                await store.append("s", "t", timestamp=10**9)
            assert [warning.filename for warning in caught] == [__file__]
            await store.append_many([("s", "t", None, None, 10**9)])
            assert await store.count() == 2

    asyncio.run(main())


# --- JSON --------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_is_the_payload_compactly(value: Any) -> None:
    payload = ns.NewLogEntry("s", "t", json=value).payload
    assert payload is not None
    assert payload == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert ns.LogEntry(1, "s", "t", None, payload, 0).json() == value


def test_every_place_takes_json(log_store: ns.LogStore) -> None:
    value = {"prompt": "grüß dich", "maxRounds": 8, "none": None}
    text = '{"prompt":"grüß dich","maxRounds":8,"none":null}'
    assert log_store.append("s", "t", json=value).payload == text
    assert log_store.append("s", "t", json=None).payload == "null"
    run = ns.WorkflowRun("run-1", "deploy", "queued", 1)
    row = ns.NewLogEntry("workflow", "queued", "run-1", json=MappingProxyType(value), timestamp=1)
    assert log_store.upsert_workflow_run(row, run).payload == text
    log_store.transition("run-1", "started", json=value)
    assert log_store.query()[-1].payload == text
    assert log_store.get_trigger_payload("run-1") == {"prompt": "grüß dich", "maxRounds": 8, "dryRun": False}

    async def main() -> None:
        async with ns.AsyncLogStore(log_store.path) as store:
            assert (await store.append("s", "t", json=value)).payload == text
            await store.transition("run-1", "completed", json=[1])
            assert (await store.query())[-1].payload == "[1]"

    asyncio.run(main())


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (math.nan, ValueError),
        ([1, {"a": math.inf}], ValueError),
        (-math.inf, ValueError),
        ({1, 2}, TypeError),
        (b"bytes", TypeError),
        ({(1, 2): 3}, TypeError),
        (datetime.now(UTC), TypeError),
        ("\ud800", ValueError),
        (nested(100_000), ValueError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_is_refused(kept: ns.LogStore, value: Any, kind: type[Exception]) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.append("s", "t", json=value),
        lambda: ns.NewLogEntry("s", "t", json=value),
        lambda: kept.transition("run-1", "completed", json=value),
    ]
    for call in calls:
        assert "json" in str(refused(kind, call))


def test_a_circle_is_refused(kept: ns.LogStore) -> None:
    circle: list[Any] = []
    circle.append(circle)
    refused(ValueError, lambda: kept.append("s", "t", json=circle))


def test_payload_and_json_at_once_are_refused(kept: ns.LogStore) -> None:
    calls: list[Callable[[], object]] = [
        lambda: kept.append("s", "t", None, "x", json=1),
        lambda: ns.NewLogEntry("s", "t", payload="x", json=None),
        lambda: kept.transition("run-1", "completed", payload="x", json=1),
    ]
    for call in calls:
        assert "payload and json" in str(refused(TypeError, call))


# --- rows that unpack --------------------------------------------------------------------------------------------

TEXT = st.text(max_size=8)
FIELDS = st.tuples(
    st.integers(1, 2**63 - 1), TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.integers(0, MAX_TIMESTAMP)
)
NAMES = ("id", "source", "type", "ref_id", "payload", "timestamp")


@given(FIELDS)
def test_a_row_unpacks_into_its_fields(fields: tuple[int, str, str, str | None, str | None, int]) -> None:
    entry = ns.LogEntry(*fields)
    row_id, source, kind, ref_id, payload, timestamp = entry
    assert (row_id, source, kind, ref_id, payload, timestamp) == fields
    assert entry._asdict() == dict(zip(NAMES, fields, strict=True))
    assert list(entry._asdict()) == list(NAMES) == list(ns.LogEntry.__match_args__)


@given(FIELDS, FIELDS, st.sets(st.sampled_from(NAMES)))
def test_replace_changes_what_it_is_told(first: Any, second: Any, names: set[str]) -> None:
    entry = ns.LogEntry(*first)
    changes = {name: value for name, value in zip(NAMES, second, strict=True) if name in names}
    replaced = entry._replace(**changes)
    assert replaced._asdict() == entry._asdict() | changes
    assert pickle.loads(pickle.dumps(replaced)) == replaced
    assert tuple(entry) == first


def test_replace_refuses_what_is_no_field() -> None:
    entry: Any = ns.LogEntry(1, "s", "t", None, None, 0)
    for changes in ({"colour": 1}, {"source": None}, {"id": "1"}, {"timestamp": 1.5}):
        refused(TypeError, lambda changes=changes: entry._replace(**changes))
