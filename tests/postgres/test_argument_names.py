"""Each argument that the log on PostgreSQL refuses is named in the text of the error."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from support.argument_names import GOOD, check_that_refused_arguments_are_named

CALLS = sorted(
    name
    for name in dir(ns.PostgresLogStore)
    if not name.startswith("_") and name != "close" and callable(getattr(ns.PostgresLogStore, name))
)


@pytest.mark.parametrize("name", CALLS)
def test_a_refused_argument_is_named(place: Backend, tmp_path: Path, name: str) -> None:
    log = place.open(busy_timeout=5)
    target: Any = getattr(log, name)
    good = GOOD | {"target": tmp_path / "copy", "before": date(2020, 1, 1) if name == "expire_archive" else 1}
    check_that_refused_arguments_are_named(target, good)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([("s", "t", None, 7, 1)], "entries[0]: payload"),
        ([("s", "t", None, None, 1), ("s", 7, None, None, 1)], "entries[1]: type"),
        ([("s", "t", None, "\ud800", 1)], "payload"),
        ([("s", "t")], "entries[0] "),
        ([7], "entries[0] "),
        ([("s" * 70_000, "t", None, None, 1)], "entries[0]: source"),
    ],
)
def test_a_refused_row_names_its_place_and_its_field(place: Backend, items: Any, words: str) -> None:
    log = place.open()
    with pytest.raises((TypeError, ValueError)) as refused:
        log.append_many(items)
    assert words in str(refused.value)
    batch = log.batch()
    batch.append("s", "before")
    with pytest.raises((TypeError, ValueError)) as refused:
        batch.append_many(items)
    assert words in str(refused.value)
    assert log.count() == 0
