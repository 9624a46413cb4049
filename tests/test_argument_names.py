"""Each argument that is refused is named in the text of the error, in Python's words.

Every public call is tried with values that few arguments take; what it raises is a `TypeError` or a `ValueError` that
names the argument, or one of our own errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
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
