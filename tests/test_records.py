"""Log entries as values: compared, pickled, immutable, matched, parsed."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from reference import MAX_TIMESTAMP

TEXT = st.text(max_size=20)
ENTRIES = st.builds(
    ns.LogEntry,
    st.integers(1, 2**63 - 1),
    TEXT,
    TEXT,
    st.none() | TEXT,
    st.none() | TEXT,
    st.integers(0, MAX_TIMESTAMP),
)
NEW_ENTRIES = st.builds(
    ns.NewLogEntry, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | st.integers(0, MAX_TIMESTAMP)
)


@given(ENTRIES | NEW_ENTRIES)
def test_entries_pickle_compare_and_hash_by_value(entry: ns.LogEntry | ns.NewLogEntry) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(entry, protocol))
        assert type(copy) is type(entry)
        assert copy == entry
        assert hash(copy) == hash(entry)
        assert repr(copy) == repr(entry)


def test_entries_that_differ_in_one_field_are_not_equal() -> None:
    fields: tuple[Any, ...] = (1, "s", "t", "r", "p", 5)
    others: tuple[Any, ...] = (2, "S", "T", None, None, 6)
    entry = ns.LogEntry(*fields)
    for position in range(len(fields)):
        changed = [*fields]
        changed[position] = others[position]
        assert ns.LogEntry(*changed) != entry
    assert entry != fields
    assert entry != ns.NewLogEntry("s", "t", "r", "p", 5)
    assert entry == ns.LogEntry(*fields)


def test_entries_say_what_they_hold() -> None:
    entry = ns.LogEntry(7, "workflow", "started", None, '{"a":1}', 5)
    assert eval(repr(entry), {"LogEntry": ns.LogEntry}) == entry
    new = ns.NewLogEntry("workflow", "started", "run-1")
    assert eval(repr(new), {"NewLogEntry": ns.NewLogEntry}) == new
    assert (new.source, new.type, new.ref_id, new.payload, new.timestamp) == (
        "workflow",
        "started",
        "run-1",
        None,
        None,
    )


def test_entries_are_immutable() -> None:
    entry = ns.LogEntry(7, "workflow", "started", None, None, 5)
    for name in ("id", "source", "timestamp", "other"):
        with pytest.raises(AttributeError):
            setattr(entry, name, 1)


def test_entries_match_by_position() -> None:
    match ns.LogEntry(7, "workflow", "started", "run-1", None, 5):
        case ns.LogEntry(row_id, "workflow", row_type, ref_id, None, timestamp):
            assert (row_id, row_type, ref_id, timestamp) == (7, "started", "run-1", 5)
        case _:
            pytest.fail("did not match")


def test_json_parses_the_payload() -> None:
    def parsed(payload: str | None) -> Any:
        return ns.LogEntry(1, "s", "t", None, payload, 0).json()

    assert parsed(None) is None
    assert parsed('{"a":[1,2.5,null,true,"\\u00fc"]}') == {"a": [1, 2.5, None, True, "ü"]}
    assert parsed("12345678901234567890") == 12345678901234567890
    for broken in ("", "{", "undefined", "{'a':1}", "[1,]"):
        with pytest.raises(ValueError, match=r"."):
            parsed(broken)
