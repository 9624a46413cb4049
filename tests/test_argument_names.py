"""Each argument that is refused is named in the text of the error, in Python's words.

Every public call is tried with values that few arguments take; what it raises is a `TypeError` or a `ValueError` that
names the argument, or one of our own errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.logging import StoreHandler
from support.argument_names import GOOD, check_that_refused_arguments_are_named


def calls() -> Iterator[tuple[str, str]]:
    for owner in ("LogStore", "BlobStore", "Store"):
        for name in ["", *vars(getattr(ns, owner))]:
            if not name.startswith("_") and name != "close" and callable(getattr(getattr(ns, owner), name or "close")):
                yield owner, name
    for name in ("LogEntry", "NewLogEntry", "WorkflowRun", "utc_day", "last_archivable_day", "normalize_blob_hash"):
        yield name, ""
    yield "blob_hash", ""


@pytest.mark.parametrize(("owner", "name"), list(calls()), ids=lambda part: part or "new")
def test_a_refused_argument_is_named(owner: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where a path that is none may be made
    opened: Any = None
    target = getattr(ns, owner)
    if name:
        opened = target(tmp_path / ("logs.db" if owner == "LogStore" else "blobs"))
        target = getattr(opened, name)
    good = GOOD | {
        "path": tmp_path / "other",
        "root": tmp_path / "other",
        "file": __file__,
        "target": tmp_path / "copy",
    }
    good["before"] = date(2020, 1, 1) if name == "expire_archive" else 1
    check_that_refused_arguments_are_named(target, good)
    if opened is not None:
        opened.close()


def test_a_refused_argument_of_a_handler_is_named(kept: ns.LogStore) -> None:
    check_that_refused_arguments_are_named(StoreHandler, {"store": kept})
    handler = StoreHandler(kept)
    check_that_refused_arguments_are_named(handler.flush, {})
    handler.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"capacity": "x"}, "capacity must be int, not str"),
        ({"capacity": 1.5}, "capacity must be int, not float"),
        ({"capacity": True}, "capacity must be int, not bool"),
        ({"capacity": 0}, "capacity is at least 1, not 0"),
        ({"source": 5}, "source must be str, not int"),
        ({"source": "x" * 70_000}, "source has 70000 bytes"),
        ({"level": None}, "level must be int or str, not NoneType"),
    ],
)
def test_an_argument_that_a_handler_refuses(kept: ns.LogStore, arguments: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        StoreHandler(kept, **arguments)
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize(
    ("items", "place"),
    [
        ([("s", "t", None, 7, 1)], "entries[0]: payload"),
        ([("s", "t", None, None, 1), ("s", 7, None, None, 1)], "entries[1]: type"),
        ([("s", "t", None, None, 1.5)], "entries[0]: timestamp"),
        ([("s", "t", None, "\ud800", 1)], "payload"),
        ([("s", "t")], "entries[0] "),
        ([7], "entries[0] "),
        ([("s" * 70_000, "t", None, None, 1)], "entries[0]: source"),
    ],
)
def test_a_refused_row_names_its_place_and_its_field(kept: ns.LogStore, items: Any, place: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        kept.append_many(items)
    assert place in str(refused.value)


@pytest.mark.parametrize(
    ("params", "place"), [([1, object()], "params[1]"), ({"a": 2**70}, "params[a]"), ({7: 1}, "params"), (7, "params")]
)
def test_a_refused_parameter_of_a_statement_is_named(kept: ns.LogStore, params: Any, place: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        kept.sql("SELECT :a, :b", params)
    assert place in str(refused.value)


class Timeless(datetime):
    """As `pandas.NaT` is."""

    def utcoffset(self) -> timedelta:
        raise ValueError("it has no offset")


class NoZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> Any:
        return 5

    def dst(self, _: datetime | None) -> None: ...

    def tzname(self, _: datetime | None) -> None: ...


TIMES = {"of no time": Timeless(2020, 1, 1), "of no zone": datetime(2020, 1, 1, tzinfo=NoZone())}


@pytest.mark.parametrize("time", TIMES)
def test_a_datetime_that_tells_no_offset_is_refused_by_name(log_store: ns.LogStore, time: str) -> None:
    odd = TIMES[time]
    calls: dict[str, Callable[[], object]] = {
        "timestamp": lambda: log_store.append("s", "t", timestamp=odd),
        r"entries\[1\]: timestamp": lambda: log_store.append_many(
            [("s", "t", None, None, 1), ("s", "t", None, None, odd)]
        ),
        "since": lambda: log_store.query(since=odd),
        "until": lambda: log_store.count(until=odd),
        "now": lambda: log_store.archive_logs(now=odd),
        "not_before": lambda: log_store.create_workflow_run("r", "w", not_before=odd),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name} is a datetime whose zone does not tell its offset"):
            call()
    assert log_store.count() == 0


class NotIterable:
    __iter__ = None


class Failing:
    def __iter__(self) -> Iterator[Any]:
        raise TypeError("of its own")


def test_what_has_no_items_is_refused_by_name(tmp_path: Path) -> None:
    with ns.Store(tmp_path) as store:
        calls: dict[str, Callable[[Any], object]] = {
            "entries": store.logs.append_many,
            "items": store.blobs.write_many,
            "keep": lambda odd: store.blobs.collect(odd, grace=timedelta(0)),
            "params": lambda odd: store.logs.sql("SELECT ?", odd),
            "workflow": lambda odd: store.logs.claim_workflow_run("me", workflow=odd),
        }
        for name, call in calls.items():
            for odd in (5, NotIterable(), object()):
                with pytest.raises(TypeError, match=f"^{name} must be"):
                    call(odd)
            with pytest.raises(TypeError, match=r"^of its own$"):
                call(Failing())


@pytest.mark.parametrize("data", [memoryview(b"abcdef")[::2], memoryview(b"released")], ids=["in steps", "released"])
def test_memory_that_is_not_at_hand_is_refused_by_name(tmp_path: Path, data: memoryview) -> None:
    if data.contiguous:
        data.release()
    with pytest.raises(ValueError, match=r"^data is not at hand"):
        ns.BlobStore(tmp_path).write(data)
