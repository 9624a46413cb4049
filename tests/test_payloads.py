"""Payloads that are hard to build: each costs its own row at the most, and what is left out is reported."""

from __future__ import annotations

import io
import json
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from nerve_store.cli import main
from nerve_store.cli.json_text import json_chunks, json_text
from support import run_child

RUN = "run-1"
MESSAGE, EVENT, STARTED = "thread_workflow_message", "thread_command_event", "started"
GOOD = '{"role":"a","content":"good","type":"t"}'
TOO_LONG = "7" * 200_001


def nested(depth: int, kind: str) -> str:
    """JSON nested so deep."""
    opening, closing = {"array": ("[", "]"), "object": ('{"a":', "}"), "mixed": ('[{"a":', "}]")}[kind]
    levels = depth // 2 if kind == "mixed" else depth
    return opening * levels + "1" + closing * levels


def depth_of(value: Any) -> int:
    depth = 0
    while isinstance(value, list | dict):
        value = value[0] if isinstance(value, list) else value["a"]
        depth += 1
    assert value == 1
    return depth


@contextmanager
def any_integer_converts() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def digits(number: int) -> str:
    with any_integer_converts():
        return str(number)


def entry(payload: str | None) -> ns.LogEntry:
    return ns.LogEntry(1, "s", "t", None, payload, 0)


def append_around(store: ns.LogStore, row_type: str, payload: str, run_id: str = RUN) -> int:
    """Append the payload between two good rows of the same type; returns its id."""
    rows = [("workflow", row_type, run_id, text, 5) for text in (GOOD, payload, GOOD)]
    return store.append_many(rows)[1]


# --- integers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 18, 19, 20, 639, 640, 641, 1_281, 4_300, 4_301, 5_000, 20_001])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_of_any_length_is_exact(log_store: ns.LogStore, length: int, sign: str) -> None:
    text = sign + ("9081726354" * (length // 10 + 1))[:length]
    value = f'{{"role":"a","content":"x","type":"t","meta":{text},"timestamp":{text}}}'
    append_around(log_store, MESSAGE, value)
    append_around(log_store, EVENT, value)
    log_store.append("workflow", STARTED, RUN, f'{{"prompt":"p","maxRounds":{text}}}', 5)
    messages: list[Any] = log_store.get_thread_messages(RUN)
    assert [message.content for message in messages] == ["good", "x", "good"]
    assert (digits(messages[1].meta), digits(messages[1].timestamp)) == (text, text)
    events: list[Any] = log_store.get_thread_events(RUN)
    assert digits(events[1]["meta"]) == text
    rounds: list[Any] = log_store.get_thread_rounds(RUN, limit=10)
    assert [item.round for item in rounds] == [6, 5, 4, 3, 2, 1]
    assert digits(rounds[1].message.meta) == digits(rounds[4].message.meta) == text
    trigger: Any = log_store.get_trigger_payload(RUN)
    assert digits(trigger["maxRounds"]) == text
    assert digits(entry(text).json()) == text


def test_a_lower_limit_of_the_interpreter_changes_nothing() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        value = entry("1" * 3_000).json()
    finally:
        sys.set_int_max_str_digits(before)
    assert digits(value) == "1" * 3_000


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1e300", int(1e300)),
        ("-1.5e19", -15 * 10**18),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", 2**63),
        ("-9223372036854775809", -(2**63) - 1),
        ("9.3e18", 93 * 10**17),
        ("1e999", 0),
        ("-0.0", 0),
    ],
)
def test_a_large_timestamp_of_a_message_is_not_cut(log_store: ns.LogStore, timestamp: str, expected: int) -> None:
    append_around(log_store, MESSAGE, f'{{"role":"a","content":"x","timestamp":{timestamp}}}')
    assert log_store.get_thread_messages(RUN)[1].timestamp == expected


# --- one row costs itself ----------------------------------------------------------------------------------------

READS: dict[str, tuple[str, Callable[[ns.LogStore], list[Any]]]] = {
    "messages": (MESSAGE, lambda store: store.get_thread_messages(RUN)),
    "events": (EVENT, lambda store: store.get_thread_events(RUN)),
    "rounds": (EVENT, lambda store: store.get_thread_rounds(RUN, limit=10)),
}
UNREADABLE = {
    "NaN": '{"role":"a","content":"x","type":"t","meta":NaN}',
    "Infinity": '{"role":"a","content":"x","type":"t","meta":[-Infinity]}',
    "not JSON": '{"role":"a"',
    "control character": '{"role":"a","content":"x","type":"t","k\x01":1}',
    "text after the value": '{"role":"a","content":"x","type":"t"}\0more',
    "too many digits": f'{{"role":"a","content":"x","type":"t","meta":{TOO_LONG}}}',
    "too many digits deep down": f'{{"role":"a","content":"x","type":"t","meta":{"[" * 500}{TOO_LONG}{"]" * 500}}}',
}
"""None of them can become values, of JavaScript either, but for the last two."""


@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("what", READS)
def test_a_row_that_cannot_be_read_is_reported_and_costs_no_other(
    log_store: ns.LogStore, caplog: pytest.LogCaptureFixture, what: str, payload: str
) -> None:
    row_type, read = READS[what]
    row_id = append_around(log_store, row_type, payload)
    with caplog.at_level(logging.WARNING, logger="nerve_store"):
        found = read(log_store)
    assert len(found) == 2
    is_round = "digits" in payload or TOO_LONG in payload or "\0" in payload
    if what == "rounds":
        assert [item.round for item in found] == ([3, 1] if is_round else [2, 1])
        assert log_store.get_thread_round_count(RUN) == (3 if is_round else 2)
    if what == "rounds" and not is_round:
        assert caplog.records == [], "it is no round"
        return
    (record,) = caplog.records
    assert record.name == "nerve_store"
    assert record.__dict__["log_id"] == row_id
    for part in (str(log_store.path), f"row {row_id} ", repr(RUN), what):
        assert part in record.getMessage()
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 1_000
    assert record.levelno == (logging.ERROR if TOO_LONG in payload else logging.WARNING)


@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_trigger_that_cannot_be_read_is_reported_and_raises_nothing(
    log_store: ns.LogStore, caplog: pytest.LogCaptureFixture, payload: str
) -> None:
    text = payload.replace('"type":"t"', '"triggerPayload":{"a":1}').replace('"meta":', '"maxRounds":1,"prompt":')
    row_id = log_store.append("workflow", STARTED, RUN, text.replace('"prompt":', '"triggerPayload":'), 5).id
    with caplog.at_level(logging.WARNING, logger="nerve_store"):
        found = log_store.get_trigger_payload(RUN)
    if TOO_LONG in payload and "[" not in payload:
        assert found is None, "an integer is no object"
        assert caplog.records == []
        return
    if TOO_LONG in payload:
        return
    assert found is None
    assert [record.__dict__["log_id"] for record in caplog.records] == [row_id]


@pytest.mark.parametrize("name", ["prompt", "maxRounds"])
def test_an_unbuildable_part_of_a_trigger_is_reported(
    log_store: ns.LogStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    parts = {"prompt": '"go"', "maxRounds": "3", "more": TOO_LONG}
    log_store.append(
        "workflow", STARTED, RUN, "{" + ",".join(f'"{key}":{text}' for key, text in parts.items()) + "}", 5
    )
    assert log_store.get_trigger_payload(RUN) == {"prompt": "go", "maxRounds": 3, "dryRun": False}
    assert caplog.records == [], "what is not asked for does no harm"
    inner = f'{{"triggerPayload":{{"{name}":{TOO_LONG}}}}}'
    row_id = log_store.append("workflow", STARTED, "run-2", inner, 5).id
    assert log_store.get_trigger_payload("run-2") is None
    assert [record.__dict__["log_id"] for record in caplog.records] == [row_id]


def test_what_is_json_and_no_message_is_not_reported(log_store: ns.LogStore, caplog: pytest.LogCaptureFixture) -> None:
    for payload in ("null", "1", "[]", "{}", '{"role":1}', None):
        log_store.append("workflow", MESSAGE, RUN, payload, 5)
        log_store.append("workflow", EVENT, RUN, payload, 5)
    for _, read in READS.values():
        assert read(log_store) == []
    assert caplog.records == []


def test_reports_are_bounded(log_store: ns.LogStore, caplog: pytest.LogCaptureFixture) -> None:
    ids = log_store.append_many([("workflow", MESSAGE, RUN, "{", 5)] * 250)
    assert log_store.get_thread_messages(RUN) == []
    assert [record.__dict__.get("log_id") for record in caplog.records] == [*ids[:100], None]
    assert "150 more rows" in caplog.records[-1].getMessage()


# --- one row's JSON ----------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 3))
def test_json_is_what_the_standard_library_reads(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    read = entry(text).json()
    assert read == json.loads(text) == value
    assert repr(read) == repr(json.loads(text)), "types, signs and the order of members"


@given(text=st.text('[]{},:"\\u0d8Ee+-.19ntrfalsu \t\n\x00\x1f', max_size=14) | st.text(max_size=6))
def test_json_refuses_what_the_standard_library_refuses(text: str) -> None:
    def refuse(constant: str) -> None:
        """The standard library takes what JSON does not have."""
        raise json.JSONDecodeError(f"{constant} is not JSON", text, 0)

    try:
        expected = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError:
        with pytest.raises(json.JSONDecodeError):
            entry(text).json()
    else:
        assert entry(text).json() == expected


@pytest.mark.parametrize("text", ["NaN", "[1, NaN]", '{"a":Infinity}', "-Infinity"])
def test_json_takes_no_constants_that_json_does_not_have(text: str) -> None:
    """`json.dumps` writes them. The thread of a run leaves such a row out, so this does not take it either."""
    with pytest.raises(json.JSONDecodeError, match=r"NaN and Infinity|a number without a digit") as raised:
        entry(text).json()
    assert raised.value.doc == text
    assert raised.value.pos == text.replace("-", " ").index(text.strip('[]{}":a1, -')[0])


def test_the_position_of_an_error_is_in_characters() -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        entry('["üü🧠",x]').json()
    assert raised.value.pos == 7


def test_json_of_hard_values() -> None:
    assert entry('"\\ud83e\\udde0 \\ud83e"').json() == "🧠 \ud83e"
    assert entry('{"\\ud800":1,"a":1,"a":2}').json() == {"\ud800": 1, "a": 2}
    assert math.isinf(entry("1e400").json())
    assert math.isinf(entry("-1" + "0" * 400 + ".0").json())
    with pytest.raises(ValueError, match="200001 digits"):
        entry(TOO_LONG).json()


@pytest.mark.parametrize("kind", ["array", "object", "mixed"])
@pytest.mark.parametrize("depth", [1, 990, 1_000, 1_001, 200_000])
def test_depth_does_not_matter(log_store: ns.LogStore, depth: int, kind: str) -> None:
    """The predecessor reads any depth with `JSON.parse`; what counts as a round is SQLite's affair: 1,000 levels."""
    text = nested(depth, kind)
    depth = depth_of(entry(text).json())
    append_around(log_store, MESSAGE, f'{{"role":"a","content":"deep","meta":{text}}}')
    append_around(log_store, EVENT, f'{{"type":"deep","meta":{text}}}')
    assert depth_of(log_store.get_thread_messages(RUN)[1].meta) == depth
    assert depth_of(log_store.get_thread_events(RUN)[1]["meta"]) == depth
    is_round = depth + 1 <= 1_000
    rounds = log_store.get_thread_rounds(RUN, limit=10)
    assert len(rounds) == log_store.get_thread_round_count(RUN) == (6 if is_round else 4)
    if is_round:
        assert rounds[1].message.content == f'{{"type":"deep","meta":{text}}}'


# --- small stacks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("levels", [1, 250, 499, 980, 998, 999, 50_000])
def test_every_read_works_on_a_thread_with_a_small_stack(
    tmp_path: Path, levels: int, opening: str, closing: str
) -> None:
    """In a process of its own: an overflow is the end of it, not an exception.

    CPython 3.13 itself lets go of nested objects by thousands of calls within each other, of plain lists, too.
    """
    if sys.version_info[:2] == (3, 13):
        plain = run_child("drop_nested_lists", levels=levels, stack_kib=128)
        assert plain.returncode in {0, -signal.SIGSEGV}, plain.stderr
        if plain.returncode:
            pytest.skip("the interpreter overflows the stack when it drops plain lists of this depth")
    arguments: dict[str, Any] = {
        "path": str(tmp_path / "data"),
        "opening": opening,
        "closing": closing,
        "levels": levels,
    }
    done = run_child("read_on_a_small_stack", **arguments, stack_kib=128)
    assert done.returncode == 0, (done.returncode, done.stderr[-2_000:])
    said = json.loads(done.stdout.splitlines()[-1])
    # The trigger's object is nested one level deeper than the message.
    depth = levels * len(closing) + 1
    rounds = 2 * (depth <= 1_000) + 2 * (depth + 1 <= 1_000)
    assert said == {
        "messages": 1,
        "events": 1,
        "rounds": min(rounds, 2),
        "round_count": rounds,
        "trigger": False,
        "json": 2,
        "archived": 1,
        "archived_rounds": min(rounds, 2),
        "reindexed": rounds,
    }


# --- the command line --------------------------------------------------------------------------------------------


@given(value=VALUES, indented=st.booleans(), ascii_only=st.booleans())
def test_printed_json_is_that_of_the_standard_library(value: Any, indented: bool, ascii_only: bool) -> None:
    printed = "".join(json_chunks(value, indented=indented, ensure_ascii=ascii_only))
    assert printed == json.dumps(value, indent=2 if indented else None, ensure_ascii=ascii_only)


def test_printed_json_has_no_limits() -> None:
    with any_integer_converts():
        number = int("8" * 30_000)
    assert json_text([number, -number, math.inf]) == f"[{'8' * 30_000}, -{'8' * 30_000}, null]"
    for kind in ("array", "object", "mixed"):
        value = entry(nested(100_000, kind)).json()
        assert json_text(value) == nested(100_000, kind).replace(":", ": ")
        assert len("".join(json_chunks(value, indented=True, ensure_ascii=True))) < 1_000_000


@pytest.mark.parametrize(
    "payload",
    [
        f'{{"role":"a","content":"x","type":"t","meta":{"9" * 5_000},"timestamp":{"9" * 5_000}}}',
        f'{{"role":"a","content":"x","type":"t","meta":{nested(5_000, "mixed")}}}',
        '{"role":"a","content":"half \\ud83e","type":"t"}',
        '{"role":"a","content":"x","type":"t","meta":1e999}',
    ],
)
@pytest.mark.parametrize("command", ["messages", "rounds", "show"])
@pytest.mark.parametrize("machine", [True, False])
def test_hard_payloads_are_printed(
    tmp_path: Path, payload: str, command: str, machine: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with ns.Store(tmp_path) as store:
        trigger = payload.replace('"role"', '"triggerPayload":{"deep":1},"role"')
        run = ns.WorkflowRun(RUN, "w", ns.WorkflowRunStatus.STARTED, 1)
        store.logs.upsert_workflow_run(ns.NewLogEntry("workflow", STARTED, RUN, trigger, 1), run)
        append_around(store.logs, MESSAGE, payload)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exit_code = main(["--data", str(tmp_path), "runs", command, RUN, *(["--json"] if machine else [])])
    assert exit_code == 0, capsys.readouterr().err
    if machine:
        with any_integer_converts():
            assert entry(printed.getvalue()).json() is not None
    if "9" * 5_000 in payload and command == "messages":
        assert "9" * 5_000 in printed.getvalue()


def test_rows_that_are_left_out_are_named_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ns.Store(tmp_path) as store:
        run = ns.WorkflowRun(RUN, "w", ns.WorkflowRunStatus.STARTED, 1)
        store.logs.upsert_workflow_run(ns.NewLogEntry("workflow", STARTED, RUN, None, 1), run)
        broken = append_around(store.logs, MESSAGE, '{"role":"a","content":"x","meta":NaN}')
    assert main(["--data", str(tmp_path), "runs", "messages", RUN]) == 0
    warned = capsys.readouterr().err
    assert warned.startswith("nerve-store: warning: ")
    assert f"row {broken} " in warned
    with ns.Store(tmp_path) as store:
        unbuildable = append_around(store.logs, MESSAGE, UNREADABLE["too many digits"])
    assert main(["--data", str(tmp_path), "runs", "messages", RUN]) == 1
    told = capsys.readouterr()
    assert f"nerve-store: error: {tmp_path / 'logs.db'}: row {unbuildable} " in told.err
    assert told.out.count("good") == 4
