"""Threads of a run: every backend gives the answers of the log on one machine, and that one those of the reference."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nerve_store as ns
import reference
from contract.backends import BACKENDS, Backend, opened
from nerve_store.protocols import Log
from reference import Row
from support import as_message, as_round, as_row

RUN = "run-1"
MESSAGE, EVENT = "thread_workflow_message", "thread_command_event"
FIXTURE = Path(__file__).parents[1] / "fixtures" / "predecessor-0.5.0-payloads.json"

PAYLOADS: list[str | None] = [
    None,
    "",
    "not json",
    "{",
    "null",
    "1",
    "NaN",
    "[]",
    "{}",
    "1\0",
    "{}\0{",
    "\0{}",
    '"text"',
    '{"role":"coder"}',
    '{"role":"coder","content":"hi"}',
    '{"role":"coder","content":"hi","meta":{"a":[1,null,2.50,1e300]},"timestamp":17.9}',
    '{"role":"coder","content":"hi","timestamp":-1e19}',
    '{"role":"coder","content":"hi","timestamp":1e999}',
    '{"role":"coder","content":"hi","timestamp":9223372036854775808}',
    '{"role":"coder","content":"hi","timestamp":true}',
    '{"role":"coder","content":"hi","meta":NaN}',
    '{"role":"__start__","content":"hi"}',
    '{"role":"a","role":"__start__","content":"hi"}',
    '{"role":"__start__","role":"a","content":"hi"}',
    '{"type":"thread_start","type":"t"}',
    '{"type":"t","type":"thread_start"}',
    '{"ty\\u0070e":"thread\\u005fstart"}',
    '{"type":"thread_start"}\0',
    '{"type":"tool_call","n":[1.0,1e21,0.1,-0.0,1.5e300,-0,1e400,18446744073709551615,18446744073709551616]}',
    '{"type":"t","a":1,"b":[2],"a":{"c":3,"c":4},"b":5}',
    '{"type":"t","s":"\\ud800a\\udfff\\ud83d\\ude00\\u2028\\u0001\\/"}',
    '{"type":"t","content":"said","role":"r"}',
    '{"type":"t","content":7,"role":7}',
    '{ "type" : "t" , "x" : [ [ ] , { } , true , false , null , "" ] }',
    '[{"type":"thread_start"}]',
    '{"prompt":"go","maxRounds":3,"dryRun":true}',
    '{"triggerPayload":{"prompt":"go","maxRounds":2.5}}',
    '{"triggerPayload":{"any":["thing",1,null]}}',
    '{"triggerPayload":[1]}',
    '{"prompt":"go","maxRounds":true}',
    *(f'{{"type":"t","x":{"[" * depth}{"]" * depth}}}' for depth in (150, 199, 300)),
    *(f'{{"type":"thread_start","x":{"[" * 300}{"]" * 300}{tail}' for tail in ("}", "", "]", ",}")),
    f'{{"x":{"[" * 300}{"]" * 300},"role":"__start__"}}',
    f'{{"x":{{"role":"__start__","y":{"[" * 300}{"]" * 300}}},"type":"t"}}',
    '{"a\x01":1}',
    "\ufeff{}",
    '{"type":"t"} trailing',
]
DEEP = [f'{{"type":"t","x":{"[" * depth}{"]" * depth}}}' for depth in (998, 999, 1000, 3000)]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["thread_start", "__start__"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "role", "content", "meta", "timestamp", "x"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
TEXTS = VALUES.map(lambda value: json.dumps(value, ensure_ascii=False)) | st.text('{}[]",:\\0 trues', max_size=12)


def append_all(log: Log | ns.LogStore, payloads: Iterable[str | None]) -> list[Row]:
    rows: list[Row] = []
    for number, payload in enumerate(payloads):
        for source, kind in (("workflow", MESSAGE), ("workflow", EVENT), ("system", EVENT)):
            rows.append(Row(0, source, kind, RUN, payload, number))
    ids = log.append_many(ns.NewLogEntry(*row[1:]) for row in rows)
    return [row._replace(id=row_id) for row_id, row in zip(ids, rows, strict=True)]


def answers(log: Any, pages: Iterable[tuple[int, int]]) -> list[Any]:
    return [
        log.get_thread_events(RUN),
        log.get_thread_messages(RUN),
        log.get_thread_round_count(RUN),
        log.get_trigger_payload(RUN),
        *(log.get_thread_rounds(RUN, before=before, limit=limit) for before, limit in pages),
    ]


PAGES = [(0, 1000), (0, 7), (8, 3), (8, 100), (1, 5), (2, 5), (1000, 4), (0, 0)]


def test_answers_are_those_of_the_log_on_one_machine(backend: Backend, tmp_path: Path) -> None:
    log = backend.open()
    append_all(log, PAYLOADS)
    with ns.LogStore(tmp_path / "reference.db") as other:
        append_all(other, PAYLOADS)
        assert answers(log, PAGES) == answers(other, PAGES)


def test_rounds_of_deep_payloads_are_those_of_the_log_on_one_machine(backend: Backend, tmp_path: Path) -> None:
    def told(log: Any) -> list[Any]:
        append_all(log, DEEP)
        rounds = log.get_thread_rounds(RUN, limit=100)
        # Values that nest so deep cannot be compared without a deep stack.
        return [
            log.get_thread_round_count(RUN),
            *((r.round, r.log_id, r.message.role, r.message.content) for r in rounds),
        ]

    with ns.LogStore(tmp_path / "reference.db") as other:
        assert told(backend.open()) == told(other)


def test_answers_to_upstreams_payloads(backend: Backend, tmp_path: Path) -> None:
    payloads = [item["payload"] for item in json.loads(FIXTURE.read_text("utf-8"))]
    log = backend.open()
    append_all(log, payloads)
    with ns.LogStore(tmp_path / "reference.db") as other:
        append_all(other, payloads)
        assert answers(log, PAGES) == answers(other, PAGES)


@pytest.fixture(scope="module", params=BACKENDS[:2])
def shared_log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A log for many examples, each with a run of its own."""
    for backend in opened(request.param, tmp_path_factory.mktemp("threads")):
        yield backend.open(durability="normal")


@settings(suppress_health_check=list(HealthCheck))
@given(payloads=st.lists(TEXTS, min_size=1, max_size=12), start=TEXTS | st.none())
def test_answers_agree_with_the_reference(shared_log: Log, payloads: list[str], start: str | None) -> None:
    run_id = f"run-{shared_log.append('system', 'new').id}"
    written = [("workflow", (MESSAGE, EVENT)[n % 2], run_id, payload, n) for n, payload in enumerate(payloads)]
    ids = shared_log.append_many([("workflow", "started", run_id, start, 0), *written])
    rows = [as_row(entry) for entry in shared_log.query(ref_id=run_id)]
    assert [row.id for row in rows] == list(ids)
    assert shared_log.get_thread_events(run_id) == reference.thread_events(rows, run_id)
    assert [as_message(m) for m in shared_log.get_thread_messages(run_id)] == reference.thread_messages(rows, run_id)
    assert shared_log.get_thread_round_count(run_id) == reference.thread_round_count(rows, run_id)
    assert shared_log.get_trigger_payload(run_id) == reference.trigger_payload(rows, run_id)
    for before, limit in ((0, 100), (3, 2), (0, 1)):
        found = [as_round(item) for item in shared_log.get_thread_rounds(run_id, before=before, limit=limit)]
        assert found == reference.thread_rounds(rows, run_id, before, limit)


def test_a_row_that_cannot_be_read_is_reported_by_its_id(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "nerve_store")
    bad = log.append("workflow", MESSAGE, RUN, '{"role":', 1)
    good = log.append("workflow", MESSAGE, RUN, '{"role":"a","content":"b"}', 1)
    assert [message.content for message in log.get_thread_messages(RUN)] == ["b"]
    assert str(bad.id) in caplog.text
    assert f"row {good.id}" not in caplog.text


def test_archived_rows_of_a_run_are_read_and_numbered_as_before(log: Log) -> None:
    day = 86_400_000
    rows = [
        (
            "workflow",
            (MESSAGE, EVENT)[n % 2],
            RUN,
            json.dumps({"type": "t", "role": "r", "content": str(n)}),
            n % 5 * day,
        )
        for n in range(40)
    ]
    log.append_many([("workflow", "started", RUN, '{"prompt":"go","maxRounds":1}', 0), *rows])
    pages = [(0, 100), (0, 3), (20, 5), (38, 40), (2, 9)]
    before = answers(log, pages)
    assert before[2] == 40
    for days in (2, 3):
        assert len(log.archive_logs(max_days=days).days) == days
        assert answers(log, pages) == before
    log.append("workflow", MESSAGE, RUN, '{"role":"r","content":"late"}', 0)
    assert log.get_thread_round_count(RUN) == 41
    newest = log.get_thread_rounds(RUN, limit=1)
    assert [(item.round, item.message.content) for item in newest] == [(41, "late")]
