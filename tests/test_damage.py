"""Damage to any file of a store: what is promised to be noticed is noticed, and nothing is ever made up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.counts import amount, note
from support.damage import FILES, KINDS, Template, make_template, tally
from support.faults import in_memory

CHECKED_BY_READS = ("plain day", "compressed day", "blob")
"""What a read compares with a checksum."""


def assert_noticed(tmp_path: Path, file: str, kind: str, count: int) -> None:
    with in_memory(tmp_path) as scratch:
        template = make_template(scratch / "data", file)
        outcomes, undetected = tally(template, scratch, kind, count)
    note(f"damage of a {file}", kind, **outcomes)
    assert outcomes.total() == count
    assert not undetected, undetected[:5]
    if file in CHECKED_BY_READS:
        assert outcomes.keys() <= {"refused with an error", "right, found by verify"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_damage_is_noticed(tmp_path: Path, file: str, kind: str) -> None:
    assert_noticed(tmp_path, file, kind, 25)


@pytest.mark.torture
@pytest.mark.parametrize(("kind", "count"), [("bit flips", 500), ("truncations", 250), ("page swaps", 250)])
@pytest.mark.parametrize("file", FILES)
def test_much_damage_is_noticed(tmp_path: Path, file: str, kind: str, count: int) -> None:
    assert_noticed(tmp_path, file, kind, amount(count))


def test_tally_catches_a_store_that_is_another(tmp_path: Path) -> None:
    """The control: a store that is whole in itself, but for a day that these reads do not need, and wrong."""
    with in_memory(tmp_path) as scratch:
        template = make_template(scratch / "data", "plain day")
        template.truth["meta"] = "another value"
        outcomes, _ = tally(template, scratch, "bit flips", 3)
    assert outcomes.keys() == {"wrong, found by verify"}


def test_write_ahead_log_that_gives_back_other_rows_is_wrong(tmp_path: Path) -> None:
    """The control of what may be missing: only whole commits, and only the newest."""
    with in_memory(tmp_path) as scratch:
        template: Template = make_template(scratch / "data", "write-ahead log")
        template.truth["rows"][3] = (0, "another", "row", None, "", 0)
        outcomes, _ = tally(template, scratch, "truncations", 3)
        shutil.rmtree(scratch / "whole")
    assert outcomes.keys() <= {"wrong, found by verify", "wrong, undetected"}
