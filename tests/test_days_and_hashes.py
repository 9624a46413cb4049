"""The helpers for days and hashes, which need no store."""

from __future__ import annotations

from datetime import date

import pytest

import nerve_store as ns
from reference import DAY_MS, MAX_TIMESTAMP
from support import refused


def test_time_helpers_know_their_bounds() -> None:
    assert ns.utc_day(0) == date(1970, 1, 1)
    assert ns.utc_day(DAY_MS - 1) == date(1970, 1, 1)
    assert ns.utc_day(DAY_MS) == date(1970, 1, 2)
    assert ns.utc_day(951_782_400_000) == date(2000, 2, 29)
    assert ns.utc_day(MAX_TIMESTAMP) == date.max
    assert ns.last_archivable_day(DAY_MS) == date(1970, 1, 1)
    assert ns.last_archivable_day(2 * DAY_MS - 1) == date(1970, 1, 1)
    assert ns.last_archivable_day(MAX_TIMESTAMP) == date(9999, 12, 30)
    for boundary in (0, DAY_MS - 1):
        refused(ValueError, ns.last_archivable_day, boundary)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0" * 64, "0" * 64),
        ("AB" * 32, "ab" * 32),
        ("aB" * 32, "ab" * 32),
        ("", None),
        ("0" * 63, None),
        ("0" * 65, None),
        ("g" * 64, None),
        ("../" + "0" * 61, None),
        ("0" * 63 + "\n", None),
        (" " + "0" * 63, None),
        ("\u0660" * 64, None),
        ("\ud800" * 64, None),
    ],
)
def test_blob_hash_is_64_hexadecimal_digits(text: str, expected: str | None) -> None:
    try:
        assert ns.normalize_blob_hash(text) == expected
    except ValueError:
        assert "\ud800" in text


def test_blob_hash_of_another_type_is_a_type_error() -> None:
    for value in (None, b"0" * 64, 7):
        refused(TypeError, ns.normalize_blob_hash, value)
