"""What `--json` prints is what docs/command-line.md says, of every command."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.cli.parser import whole_parser
from support import TESTS
from support.cli import DAY, T0, Cli

PAGE = (TESTS.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
TABLE = {
    command: (shape, keys)
    for command, shape, keys in re.findall(
        r"^\| `([a-z -]+)` \| (object|list|lines|value) \| (.*)\|$", PAGE, re.MULTILINE
    )
}
NESTED = re.compile(r"`(?P<keys>[^`]+)`(?: \(`(?P<inner>[^`]+)`\))?")
FREE = {"meta ls", "meta get", "meta set"}
"""Of which the docs name no keys."""
ARGUMENTS = {
    "logs": ["-n", "3"],
    "runs show": ["run-00"],
    "runs rounds": ["run-01"],
    "runs messages": ["run-01"],
    "runs kill": ["run-01"],
    "archive": ["--dry-run"],
    "archive cat": ["2024-03-11"],
    "archive restore": ["2024-03-11"],
    "archive expire": ["--before", "2025-01-01"],
    "blob put": ["{beside}/content"],
    "blob get": ["{hash}", "--output", "{beside}/got"],
    "blob rm": ["{hash}"],
    "blob collect": ["--keep", "{beside}/content"],
    "meta get": ["key"],
    "meta set": ["key", "value"],
    "meta rm": ["key"],
    "sql": ["SELECT 1 AS a, x'00' AS a"],
    "export": ["{beside}/rows.jsonl"],
    "backup": ["{beside}/backup"],
    "salvage": ["{data}", "{beside}/saved.db"],
    "completion": ["bash"],
    "demo": ["--data", "{beside}/day", "--rows", "1000"],
}


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """All that can be run, without the name of the program."""
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if parser.get_default("run") is not None:
        yield parser.prog.removeprefix("nerve-store ")
    for action in subparsers:
        for command in action.choices.values():
            yield from commands(command)


def fields_of(keys: str) -> set[str]:
    """Of names, and of records that are named."""
    found = set()
    for name in keys.split():
        record = getattr(ns, name, None) if name[0].isupper() else None
        if record is None:
            found.add(name)
        elif record is ns.LogEntry:
            found.update(record.__match_args__)
        else:
            found.update(field.name for field in dataclasses.fields(record))
    return found


def items(shape: str, printed: str) -> list[Any]:
    if shape == "lines":
        return [json.loads(line) for line in printed.splitlines()]
    value = json.loads(printed)
    if shape == "list":
        assert isinstance(value, list)
        return value
    assert isinstance(value, dict) == (shape == "object")
    return [value]


def first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def test_every_command_is_listed() -> None:
    assert {*commands(whole_parser()), "blob ls --long"} == TABLE.keys()
    assert ARGUMENTS.keys() <= TABLE.keys()


def test_what_is_said_of_a_copy() -> None:
    """It needs a server, where tests/postgres run it."""
    moving = pytest.importorskip("nerve_store.moving", exc_type=ImportError)
    ((match,),) = [[*NESTED.finditer(TABLE["copy"][1])]]
    assert fields_of(match["keys"]) == {field.name for field in dataclasses.fields(moving.CopyReport)}


@pytest.mark.parametrize("command", [command for command in TABLE if command != "copy"])
def test_what_is_printed_is_what_is_said(wide: Cli, tmp_path: Path, command: str) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "content").write_text("")
    with ns.Store(wide.data) as store:
        store.logs.set_meta("key", "value")
        digest = store.blobs.write("more content")
        assert store.logs.claim_workflow_run("worker", run_id="run-00") is not None
        assert store.logs.archived_days()[0].day == ns.utc_day(T0)
        store.logs.append("system", "tick", None, None, T0 + DAY)
    known = {"beside": beside, "hash": digest, "data": wide.data}
    shape, keys = TABLE[command]
    outcome = wide(*command.split(), *(word.format(**known) for word in ARGUMENTS.get(command, [])), "--json")
    assert outcome.exit_code == 0, outcome
    found = items(shape, outcome.out)
    assert found
    if command in FREE:
        return
    named = [(match["keys"], match["inner"]) for match in NESTED.finditer(keys)]
    for item in found:
        assert set(item) == set[str]().union(*(fields_of(names) for names, _ in named))
    for name, inner in named:
        if inner is not None:
            assert set(first(found[0][name])) == fields_of(inner), name
