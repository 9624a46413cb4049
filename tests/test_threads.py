"""Threads of a run: trigger, events, messages and rounds, told from payloads as the predecessor tells them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nerve_store as ns
import reference
from reference import Row
from support import as_message, as_round, as_row, run_child

RUN = "run-1"
MESSAGE, EVENT, STARTED = "thread_workflow_message", "thread_command_event", "started"


def append(store: ns.LogStore, row_type: str, payload: Any, *, run_id: str = RUN, timestamp: int = 5) -> ns.LogEntry:
    text = payload if payload is None or isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    return store.append("workflow", row_type, run_id, text, timestamp)


def numbers(rounds: list[ns.ThreadRound]) -> list[int]:
    return [item.round for item in rounds]


# --- messages ----------------------------------------------------------------------------------------------------


def test_message_is_read_with_its_fields(log_store: ns.LogStore) -> None:
    append(log_store, MESSAGE, {"role": "coder", "content": "hi", "meta": {"a": [1, None]}, "timestamp": 17})
    assert log_store.get_thread_messages(RUN) == [ns.ThreadMessage("coder", "hi", {"a": [1, None]}, 17)]


def test_message_may_lack_meta_and_timestamp(log_store: ns.LogStore) -> None:
    append(log_store, MESSAGE, {"role": "coder", "content": "hi"})
    append(log_store, MESSAGE, {"role": "coder", "content": "hi", "meta": None})
    assert log_store.get_thread_messages(RUN) == [ns.ThreadMessage("coder", "hi", None, 0)] * 2


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "",
        "not json",
        "{",
        '{"role":"coder"',
        "null",
        "1",
        '"text"',
        "[]",
        "{}",
        '{"role":"coder"}',
        '{"content":"hi"}',
        '{"role":null,"content":"hi"}',
        '{"role":1,"content":"hi"}',
        '{"role":"coder","content":["hi"]}',
        '{"role":"coder","content":null}',
        '[{"role":"coder","content":"hi"}]',
        '{"role":"coder","content":"hi"} trailing',
        "{'role':'coder','content':'hi'}",
        '{"role":"coder","content":"hi","meta":NaN}',
        '\ufeff{"role":"coder","content":"hi"}',
    ],
)
def test_payload_that_is_no_message_is_left_out(log_store: ns.LogStore, payload: str | None) -> None:
    append(log_store, MESSAGE, {"role": "a", "content": "before"})
    append(log_store, MESSAGE, payload)
    append(log_store, MESSAGE, {"role": "a", "content": "after"})
    assert [message.content for message in log_store.get_thread_messages(RUN)] == ["before", "after"]


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [("17", 17), ("17.9", 17), ("-17.9", -17), ("1.774e12", 1_774_000_000_000), ("0", 0), ("-5", -5)]
    + [(text, 0) for text in ('"17"', "null", "true", "[]", "{}")],
)
def test_message_timestamp_is_a_whole_number(log_store: ns.LogStore, timestamp: str, expected: int) -> None:
    append(log_store, MESSAGE, f'{{"role":"a","content":"b","timestamp":{timestamp}}}')
    (message,) = log_store.get_thread_messages(RUN)
    assert message.timestamp == expected
    assert type(message.timestamp) is int


@pytest.mark.parametrize("text", ["", "\0", "\u2028\u2029", "🧠", '"\\', "\x01\x1f\x7f", "ü" * 1000])
def test_awkward_text_of_a_message_is_kept(log_store: ns.LogStore, text: str) -> None:
    for ensure_ascii in (True, False):
        payload = json.dumps({"role": text, "content": text, "meta": {text: text}}, ensure_ascii=ensure_ascii)
        append(log_store, MESSAGE, payload)
    assert log_store.get_thread_messages(RUN) == [ns.ThreadMessage(text, text, {text: text}, 0)] * 2


def test_meta_keeps_what_json_can_say(log_store: ns.LogStore) -> None:
    meta: list[Any] = [0, -1, 2**53 + 1, 2**64, 0.1, 1.5e300, True, False, None, "", {}, [], {"b": 1, "a": 2}]
    append(log_store, MESSAGE, {"role": "a", "content": "b", "meta": meta})
    (message,) = log_store.get_thread_messages(RUN)
    assert message.meta == meta
    assert [type(item) for item in message.meta] == [type(item) for item in meta]
    assert list(message.meta[-1]) == ["b", "a"]


# --- events ------------------------------------------------------------------------------------------------------


def test_event_is_any_object_with_a_type(log_store: ns.LogStore) -> None:
    events = [{"type": "tool_call", "n": 1.5}, {"type": ""}, {"type": "thread_start", "prompt": "go"}]
    for payload in (*events, {"type": 1}, {"type": None}, {"role": "a", "content": "b"}, [], "x", None, '{"type":"a"'):
        append(log_store, EVENT, payload)
    assert log_store.get_thread_events(RUN) == events


def test_messages_and_events_do_not_mix(log_store: ns.LogStore) -> None:
    both = {"type": "t", "role": "a", "content": "b"}
    append(log_store, MESSAGE, both)
    assert log_store.get_thread_events(RUN) == []
    assert len(log_store.get_thread_messages(RUN)) == 1
    append(log_store, EVENT, both)
    assert log_store.get_thread_events(RUN) == [both]
    assert len(log_store.get_thread_messages(RUN)) == 1


@pytest.mark.parametrize(
    ("source", "row_type", "ref_id"),
    [("system", MESSAGE, RUN), ("workflow", "other", RUN), ("workflow", MESSAGE, "run-2"), ("workflow", MESSAGE, None)],
)
def test_rows_of_others_do_not_belong_to_the_thread(
    log_store: ns.LogStore, source: str, row_type: str, ref_id: str | None
) -> None:
    log_store.append(source, row_type, ref_id, '{"role":"a","content":"b","type":"t"}', 0)
    assert log_store.get_thread_messages(RUN) == []
    assert log_store.get_thread_events(RUN) == []
    assert log_store.get_thread_round_count(RUN) == 0
    assert log_store.get_thread_rounds(RUN, limit=10) == []


def test_run_without_rows_has_an_empty_thread(log_store: ns.LogStore) -> None:
    assert log_store.get_trigger_payload("nobody") is None
    assert log_store.get_thread_events("nobody") == []
    assert log_store.get_thread_messages("nobody") == []
    assert log_store.get_thread_round_count("nobody") == 0
    assert log_store.get_thread_rounds("nobody", limit=10) == []


# --- rounds ------------------------------------------------------------------------------------------------------


def test_rounds_are_numbered_from_one_and_returned_newest_first(log_store: ns.LogStore) -> None:
    entries = [append(log_store, MESSAGE, {"role": "a", "content": str(n)}, timestamp=n) for n in range(5)]
    assert log_store.get_thread_round_count(RUN) == 5
    assert [as_round(item) for item in log_store.get_thread_rounds(RUN, limit=100)] == [
        reference.Round(n + 1, entries[n].id, n, reference.Message("a", str(n), None, 0)) for n in reversed(range(5))
    ]


def test_rounds_come_in_pages(log_store: ns.LogStore) -> None:
    for number in range(10):
        append(log_store, MESSAGE, {"role": "a", "content": str(number)})
    pages, before = [], 0
    while page := log_store.get_thread_rounds(RUN, before=before, limit=3):
        pages.append(numbers(page))
        before = page[-1].round
    assert pages == [[10, 9, 8], [7, 6, 5], [4, 3, 2], [1]]


@pytest.mark.parametrize(
    ("before", "limit", "expected"),
    [
        (0, 0, []),
        (0, 2, [5, 4]),
        (1, 10, []),
        (2, 10, [1]),
        (3, 1, [2]),
        (6, 2, [5, 4]),
        (1000, 2, [5, 4]),
        (0, 2**62, [5, 4, 3, 2, 1]),
        (2**62, 2**62, [5, 4, 3, 2, 1]),
    ],
)
def test_page_of_rounds_is_bounded(log_store: ns.LogStore, before: int, limit: int, expected: list[int]) -> None:
    for number in range(5):
        append(log_store, EVENT, {"type": "t", "n": number})
    assert numbers(log_store.get_thread_rounds(RUN, before=before, limit=limit)) == expected


def test_start_of_a_thread_is_no_round(log_store: ns.LogStore) -> None:
    append(log_store, EVENT, {"type": "thread_start", "role": "a", "content": "b"})
    append(log_store, MESSAGE, {"role": "__start__", "content": "b"})
    append(log_store, EVENT, {"type": "x", "role": "__start__"})
    append(log_store, MESSAGE, {"role": "a", "content": "b"})
    assert log_store.get_thread_round_count(RUN) == 1
    assert numbers(log_store.get_thread_rounds(RUN, limit=10)) == [1]


@pytest.mark.parametrize("payload", [None, "", "not json", "{", "NaN", "[1,]"])
def test_payload_that_is_not_json_takes_no_number(log_store: ns.LogStore, payload: str | None) -> None:
    append(log_store, MESSAGE, payload)
    append(log_store, MESSAGE, {"role": "a", "content": "b"})
    assert log_store.get_thread_round_count(RUN) == 1
    assert numbers(log_store.get_thread_rounds(RUN, limit=10)) == [1]


@pytest.mark.parametrize("payload", ["null", "1", '"x"', "[]", "true", "{}", '{"role":"a"}', '{"type":1}'])
def test_json_that_is_no_message_takes_a_number_and_is_left_out(log_store: ns.LogStore, payload: str) -> None:
    append(log_store, MESSAGE, {"role": "a", "content": "1"})
    append(log_store, EVENT, payload)
    append(log_store, MESSAGE, {"role": "a", "content": "3"})
    assert log_store.get_thread_round_count(RUN) == 3
    assert numbers(log_store.get_thread_rounds(RUN, limit=10)) == [3, 1]
    assert numbers(log_store.get_thread_rounds(RUN, limit=2)) == [3], "the limit counts numbers"
    assert numbers(log_store.get_thread_rounds(RUN, before=3, limit=1)) == []


@pytest.mark.parametrize(
    ("payload", "role", "content"),
    [
        ('{"type":"tool_call","n":1}', "tool_call", '{"type":"tool_call","n":1}'),
        ('{"type":"tool_call","role":"coder","n":1}', "coder", '{"type":"tool_call","role":"coder","n":1}'),
        ('{"type":"tool_call","content":"text"}', "tool_call", "text"),
        ('{"type":"tool_call","role":1,"content":2}', "tool_call", '{"type":"tool_call","role":1,"content":2}'),
        (' { "type" : "t" , "a" : [ 1 , 2 ] } ', "t", '{"type":"t","a":[1,2]}'),
        (
            '{"type":"t","n":1.50,"e":1E2,"z":-0,"h":1e21,"s":1e-7}',
            "t",
            '{"type":"t","n":1.5,"e":100,"z":0,"h":1e+21,"s":1e-7}',
        ),
        # Each of these doubles comes out as the next one if the parser rounds carelessly.
        ('{"type":"t","n":2.0015891434697786e+32}', "t", '{"type":"t","n":2.0015891434697786e+32}'),
        ('{"type":"t","n":[1e23,9.5e-8,5e-324]}', "t", '{"type":"t","n":[1e+23,9.5e-8,5e-324]}'),
        ('{"type":"t","s":"\\u00fc\\/\\u0001\\u2028"}', "t", '{"type":"t","s":"ü/\\u0001\u2028"}'),
        ('{"type":"t","type":"u"}', "u", '{"type":"u"}'),
    ],
)
def test_typed_event_becomes_a_message(log_store: ns.LogStore, payload: str, role: str, content: str) -> None:
    append(log_store, EVENT, payload, timestamp=77)
    (item,) = log_store.get_thread_rounds(RUN, limit=1)
    assert item.message == ns.ThreadMessage(role, content, json.loads(payload), 77)


def test_message_of_a_round_keeps_its_own_timestamp(log_store: ns.LogStore) -> None:
    append(log_store, MESSAGE, {"role": "a", "content": "b", "timestamp": 3}, timestamp=77)
    append(log_store, EVENT, {"role": "a", "content": "b", "type": "t"}, timestamp=78)
    newest, oldest = log_store.get_thread_rounds(RUN, limit=2)
    assert (oldest.timestamp, oldest.message.timestamp) == (77, 3)
    assert (newest.timestamp, newest.message.timestamp) == (78, 0)


# --- the trigger -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"prompt": "go", "maxRounds": 3}, {"prompt": "go", "maxRounds": 3, "dryRun": False}),
        ({"prompt": "", "maxRounds": 2.5, "dryRun": True}, {"prompt": "", "maxRounds": 2.5, "dryRun": True}),
        ({"prompt": "go", "maxRounds": 3, "dryRun": 1}, {"prompt": "go", "maxRounds": 3, "dryRun": False}),
        ({"prompt": "go", "maxRounds": 3, "more": 1}, {"prompt": "go", "maxRounds": 3, "dryRun": False}),
        ({"prompt": "go", "maxRounds": "3"}, None),
        ({"prompt": "go", "maxRounds": True}, None),
        ({"prompt": 1, "maxRounds": 3}, None),
        (
            {"triggerPayload": {"prompt": "in", "maxRounds": 1, "dryRun": True, "x": 1}},
            {"prompt": "in", "maxRounds": 1, "dryRun": True},
        ),
        (
            {"prompt": "out", "maxRounds": 1, "triggerPayload": {"prompt": "in", "maxRounds": 2}},
            {"prompt": "out", "maxRounds": 1, "dryRun": False},
        ),
        ({"triggerPayload": {"any": ["thing", 1, None]}}, {"any": ["thing", 1, None]}),
        ({"triggerPayload": {}}, {}),
        ({"triggerPayload": []}, None),
        ({"triggerPayload": "x"}, None),
        ({"triggerPayload": None}, None),
        ({}, None),
        ([], None),
        ("null", None),
        ("not json", None),
        (None, None),
    ],
)
def test_trigger_is_what_the_started_row_says(log_store: ns.LogStore, payload: Any, expected: Any) -> None:
    append(log_store, STARTED, payload)
    assert log_store.get_trigger_payload(RUN) == expected


def test_trigger_is_that_of_the_first_start(log_store: ns.LogStore) -> None:
    append(log_store, "queued", {"prompt": "no", "maxRounds": 1})
    append(log_store, STARTED, {"prompt": "other run", "maxRounds": 1}, run_id="run-2")
    append(log_store, STARTED, {"prompt": "first", "maxRounds": 1}, timestamp=9)
    append(log_store, STARTED, {"prompt": "resumed", "maxRounds": 1}, timestamp=1)
    assert log_store.get_trigger_payload(RUN) == {"prompt": "first", "maxRounds": 1, "dryRun": False}


def test_first_start_that_says_nothing_is_not_passed_over(log_store: ns.LogStore) -> None:
    append(log_store, STARTED, None)
    append(log_store, STARTED, {"prompt": "second", "maxRounds": 1})
    assert log_store.get_trigger_payload(RUN) is None


# --- anything ----------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(["coder", "", "__start__", "thread_start", "tool_call"])
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "role": WORDS | VALUES,
        "content": st.text(max_size=8) | VALUES,
        "type": WORDS | VALUES,
        "meta": VALUES,
        "timestamp": st.integers(-(2**53), 2**53)
        | st.floats(-1e12, 1e12)
        | VALUES.filter(lambda v: not reference.is_number(v)),
        "prompt": st.text(max_size=4) | VALUES,
        "maxRounds": st.integers(0, 9) | VALUES,
        "dryRun": st.booleans() | VALUES,
        "triggerPayload": st.fixed_dictionaries({}, optional={"prompt": st.text(max_size=4), "maxRounds": VALUES}),
    },
)


def dumped(value: Any, *, ascii_only: bool, spaced: bool) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(" , ", " : ") if spaced else (",", ":"))


PAYLOADS = (
    st.builds(dumped, OBJECTS | OBJECTS | VALUES, ascii_only=st.booleans(), spaced=st.booleans())
    | st.text(max_size=12)
    | st.none()
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["workflow", "workflow", "workflow", "system"]),
        st.sampled_from([MESSAGE, EVENT, STARTED]),
        st.sampled_from([RUN, RUN, "run-2", None]),
        PAYLOADS,
        st.integers(0, 10**13),
    ),
    max_size=25,
)
PAGES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=4)


@given(rows=ROWS, pages=PAGES)
@example(rows=[("workflow", EVENT, RUN, '{"type":"t","a":{"10":1,"b":2,"1":3}}', 0)], pages=[(0, 1)])
@example(rows=[("workflow", EVENT, RUN, '{"type":"t","big":12345678901234567890123}', 0)], pages=[(0, 1)])
def test_any_thread_reads_as_the_plain_rules_say(
    rows: list[tuple[str, str, str | None, str | None, int]],
    pages: list[tuple[int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with ns.LogStore(tmp_path_factory.mktemp("threads") / "logs.db", durability="normal") as store:
        model = [Row(row_id, *row) for row_id, row in zip(store.append_many(rows), rows, strict=True)]
        assert [as_row(entry) for entry in store.query()] == model
        for run_id in (RUN, "run-2"):
            assert store.get_trigger_payload(run_id) == reference.trigger_payload(model, run_id)
            assert store.get_thread_events(run_id) == reference.thread_events(model, run_id)
            messages = store.get_thread_messages(run_id)
            assert [as_message(item) for item in messages] == reference.thread_messages(model, run_id)
            assert store.get_thread_round_count(run_id) == reference.thread_round_count(model, run_id)
            for before, limit in pages:
                rounds = store.get_thread_rounds(run_id, before=before, limit=limit)
                expected = reference.thread_rounds(model, run_id, before, limit)
                assert [as_round(item) for item in rounds] == expected


def test_escaped_lone_surrogate_does_not_spoil_the_thread(log_store: ns.LogStore) -> None:
    """JavaScript writes half a character as an escape; such a payload is text without a surrogate, and JSON."""
    append(log_store, MESSAGE, {"role": "a", "content": "before"})
    append(log_store, MESSAGE, '{"role":"a","content":"half \\ud83e"}')
    append(log_store, EVENT, '{"type":"t","half":"\\ud83e"}')
    append(log_store, MESSAGE, {"role": "a", "content": "after"})
    assert [message.content for message in log_store.get_thread_messages(RUN)] == ["before", "half \ud83e", "after"]
    assert log_store.get_thread_events(RUN) == [{"type": "t", "half": "\ud83e"}]
    assert log_store.get_thread_round_count(RUN) == 4
    assert numbers(log_store.get_thread_rounds(RUN, limit=10)) == [4, 3, 2, 1]


@pytest.mark.parametrize("depth", [900, 100_000])
def test_deeply_nested_payload_does_not_crash_the_process(tmp_path: Any, depth: int) -> None:
    """In a process of its own, so that an overflowing stack fails this test and not the whole run."""
    done = run_child("deep_payload", path=str(tmp_path / "logs.db"), depth=depth)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said[0] == said[-1] == {"rows": 12}
