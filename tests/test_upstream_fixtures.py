"""The predecessor's data directory, written by it for real, answered as it answered itself."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
import reference
from reference import Row
from support import (
    INSERT_ROW,
    INSERT_RUN,
    UPSTREAM,
    UPSTREAM_SCHEMA,
    as_rows,
    assert_union,
    day_files,
    foreign_script,
    foreign_sql,
    read_day_file,
    read_union,
    tree,
)

EXPECTED: dict[str, Any] = json.loads((UPSTREAM / "expected.json").read_text("utf-8"))
CALLS: list[dict[str, Any]] = EXPECTED["calls"]
NOW: int = EXPECTED["now"]
RUN_LISTS = {"getActiveWorkflowRuns", "getAllWorkflowRuns"}


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def entry_json(entry: ns.LogEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "source": entry.source,
        "type": entry.type,
        "refId": entry.ref_id,
        "payload": entry.payload,
        "timestamp": entry.timestamp,
    }


def run_json(run: ns.WorkflowRun) -> dict[str, Any]:
    return {
        "runId": run.run_id,
        "workflow": run.workflow,
        "status": run.status.value,
        "timestamp": run.timestamp,
        "exitCode": run.exit_code,
    }


def message_json(message: ns.ThreadMessage) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, "meta": message.meta, "timestamp": message.timestamp}


def round_json(item: ns.ThreadRound) -> dict[str, Any]:
    message = message_json(item.message)
    return {"round": item.round, "logId": item.log_id, "timestamp": item.timestamp, "message": message}


def with_meta(message: dict[str, Any]) -> dict[str, Any]:
    """An expected message with the `meta` that JavaScript left undefined as None."""
    return {"meta": None, **message}


ANSWERS: dict[str, Callable[[Any], Any]] = {
    "query": lambda entries: [entry_json(entry) for entry in entries],
    "getMeta": lambda value: value,
    "getWorkflowRun": lambda run: None if run is None else run_json(run),
    "getActiveWorkflowRuns": lambda runs: [run_json(run) for run in runs],
    "getAllWorkflowRuns": lambda runs: [run_json(run) for run in runs],
    "getTriggerPayload": lambda value: value,
    "getThreadEvents": lambda events: events,
    "getThreadMessages": lambda messages: [message_json(message) for message in messages],
    "getThreadRoundCount": lambda count: count,
    "getThreadRounds": lambda rounds: [round_json(item) for item in rounds],
}
WISHES: dict[str, Callable[[Any], Any]] = {
    "getThreadMessages": lambda messages: [with_meta(message) for message in messages],
    "getThreadRounds": lambda rounds: [{**item, "message": with_meta(item["message"])} for item in rounds],
}


def ask(logs: ns.LogStore, call: str, arguments: list[Any]) -> Any:
    """Upstream's call through our API, its answer in upstream's names."""
    positional = [argument for argument in arguments if not isinstance(argument, dict)]
    named = {snake(k): v for argument in arguments if isinstance(argument, dict) for k, v in argument.items()}
    return ANSWERS[call](getattr(logs, snake(call))(*positional, **named))


def by_timestamp(runs: list[dict[str, Any]]) -> list[tuple[int, set[str]]]:
    """Runs in their order, those of one timestamp as a set: their order is not defined upstream."""
    return [
        (timestamp, {json.dumps(run, sort_keys=True) for run in group})
        for timestamp, group in groupby(runs, lambda run: run["timestamp"])
    ]


@pytest.fixture(scope="module")
def upstream_logs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    data = shutil.copytree(UPSTREAM / "data", tmp_path_factory.mktemp("upstream") / "data")
    with ns.Store(data) as store:
        yield store.logs


def test_fixture_has_the_calls_that_this_file_answers() -> None:
    assert len(CALLS) == 289
    assert {item["call"] for item in CALLS} == ANSWERS.keys()


@pytest.mark.parametrize("item", CALLS, ids=[f"{n}-{item['call']}" for n, item in enumerate(CALLS)])
def test_call_is_answered_as_upstream_did(upstream_logs: ns.LogStore, item: dict[str, Any]) -> None:
    answer = ask(upstream_logs, item["call"], item["args"])
    wish = WISHES.get(item["call"], lambda result: result)(item["result"])
    if item["call"] in RUN_LISTS:
        assert by_timestamp(answer) == by_timestamp(wish)
    else:
        assert answer == wish


def test_iter_and_count_agree_with_upstreams_queries(upstream_logs: ns.LogStore) -> None:
    for item in CALLS:
        if item["call"] == "query":
            filters = {snake(k): v for k, v in item["args"][0].items()}
            assert [entry_json(entry) for entry in upstream_logs.iter(**filters)] == item["result"]
            assert upstream_logs.count(**filters) == len(item["result"])


def all_rows() -> list[Row]:
    rows = next(item["result"] for item in CALLS if item["call"] == "query" and item["args"] == [{}])
    return [Row(r["id"], r["source"], r["type"], r["refId"], r["payload"], r["timestamp"]) for r in rows]


def test_reference_gives_upstreams_answers_too() -> None:
    """The plain Python rules that the other tests compare with are upstream's rules."""
    rows = all_rows()
    answers: dict[str, Callable[..., Any]] = {
        "getTriggerPayload": reference.trigger_payload,
        "getThreadEvents": reference.thread_events,
        "getThreadMessages": lambda rows, run: [vars(message) for message in reference.thread_messages(rows, run)],
        "getThreadRoundCount": reference.thread_round_count,
        "getThreadRounds": lambda rows, run, page: [
            {
                "round": item.round,
                "logId": item.log_id,
                "timestamp": item.timestamp,
                "message": vars(item.message),
            }
            for item in reference.thread_rounds(rows, run, **page)
        ],
    }
    compared = Counter(item["call"] for item in CALLS if item["call"] in answers)
    assert compared.total() == 225
    for item in CALLS:
        if item["call"] in answers:
            wish = WISHES.get(item["call"], lambda result: result)(item["result"])
            assert answers[item["call"]](rows, *item["args"]) == wish, item["args"]


def test_reopened_directory_still_gives_the_same_answers(upstream_data: Path) -> None:
    for _ in range(3):
        with ns.Store(upstream_data) as store:
            assert [entry_json(entry) for entry in store.logs.query()] == CALLS[0]["result"]
            assert store.logs.get_meta("schema") == "2"


def test_read_only_store_answers_from_the_unmigrated_database(upstream_data: Path) -> None:
    with ns.LogStore(upstream_data / "logs.db", read_only=True) as logs:
        assert [entry_json(entry) for entry in logs.query()] == CALLS[0]["result"]
    assert foreign_sql(upstream_data / "logs.db", "PRAGMA user_version") == [(0,)]


# --- blobs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blob", EXPECTED["blobs"], ids=[blob["hash"][:8] for blob in EXPECTED["blobs"]])
def test_blob_is_there_under_upstreams_hash(upstream_data: Path, blob: dict[str, Any]) -> None:
    blobs = ns.BlobStore(upstream_data / "blobs")
    content = blobs.read(blob["hash"])
    assert content is not None
    # The fixture quotes no more than the beginning of a large blob.
    assert content.startswith(bytes.fromhex(blob["hex"]))
    assert len(content) == blob["bytes"]
    assert hashlib.sha256(content).hexdigest() == blob["hash"]
    assert blobs.exists(blob["hash"])
    assert blobs.size(blob["hash"]) == blob["bytes"]
    before = tree(upstream_data)
    assert blobs.write(content) == blob["hash"]
    assert tree(upstream_data) == before


def test_all_blobs_are_listed(upstream_data: Path) -> None:
    with ns.Store(upstream_data) as store:
        assert list(store.blobs) == sorted(blob["hash"] for blob in EXPECTED["blobs"])
        assert store.blobs.stats().size == sum(blob["bytes"] for blob in EXPECTED["blobs"])


# --- archive -----------------------------------------------------------------------------------------------------


def active_runs() -> set[str]:
    runs = next(item["result"] for item in CALLS if item["call"] == "getActiveWorkflowRuns" and item["args"] == [])
    return {run["runId"] for run in runs}


def upstream_files() -> dict[date, list[str]]:
    """The lines of upstream's own archive files."""
    return {
        day: path.read_bytes().decode("utf-8").split("\n")[:-1]
        for day, path in day_files(UPSTREAM / "archived" / "archive" / "logs").items()
    }


def test_archive_holds_upstreams_lines_except_those_of_active_runs(upstream_data: Path) -> None:
    active = active_runs()
    upstream = {
        day: {reference.parse_archive_line(line).id: line for line in lines} for day, lines in upstream_files().items()
    }
    last_day = date.fromisoformat(EXPECTED["archive"]["archivedUpTo"])
    assert reference.last_archivable_day(NOW - 30 * reference.DAY_MS) == last_day == max(upstream)
    ripe = [row for row in all_rows() if reference.utc_day(row.timestamp) <= last_day]
    assert {row.id for row in ripe} == {row_id for lines in upstream.values() for row_id in lines}
    pinned = {row.id for row in ripe if row.ref_id in active}
    assert 0 < len(pinned) < len(ripe)
    free = {
        day: {row_id: line for row_id, line in lines.items() if row_id not in pinned} for day, lines in upstream.items()
    }
    gaining = [day for day in sorted(free) if free[day]]

    with ns.LogStore(upstream_data / "logs.db") as logs:
        first = logs.archive_logs(now=NOW, max_days=3)
        assert [(day.day, day.row_count, day.added_rows) for day in first.days] == [
            (day, len(free[day]), len(free[day])) for day in gaining[:3]
        ]
        assert not first.vacuumed
        assert logs.get_meta(ns.ARCHIVED_UP_TO) == gaining[2].isoformat()
        assert_union(logs, all_rows())

        rest = logs.archive_logs(now=NOW, vacuum=True)
        assert [(day.day, day.row_count) for day in rest.days] == [(day, len(free[day])) for day in gaining[3:]]
        assert rest.vacuumed
        assert rest.pinned_rows == len(pinned)
        assert logs.get_meta(ns.ARCHIVED_UP_TO) == EXPECTED["archive"]["archivedUpTo"]

        union = assert_union(logs, all_rows())
        assert sorted(union.database) == sorted({*EXPECTED["archive"]["remainingIds"], *pinned})
        ours = day_files(logs.archive_dir)
        assert list(ours) == gaining
        for day, path in ours.items():
            wanted = "".join(f"{free[day][row_id]}\n" for row_id in sorted(free[day]))
            assert path.read_bytes() == wanted.encode("utf-8"), day


def test_archive_has_every_upstream_line_once_the_runs_are_over(upstream_data: Path) -> None:
    with ns.LogStore(upstream_data / "logs.db") as logs:
        logs.archive_logs(now=NOW)
        for run_id in active_runs():
            logs.transition(run_id, "killed", exit_code=ns.ExitCode.KILLED, timestamp=NOW)
        result = logs.archive_logs(now=NOW)
        assert result.pinned_rows == 0
        ours = {day: path.read_bytes() for day, path in day_files(logs.archive_dir).items()}
        theirs = day_files(UPSTREAM / "archived" / "archive" / "logs")
        assert ours == {day: path.read_bytes() for day, path in theirs.items()}


def test_upstreams_archive_is_read(upstream_archived: Path) -> None:
    counts = {
        date.fromisoformat(day["day"]): day["rowCount"]
        for run in ("first", "rest")
        for day in EXPECTED["archive"][run]["days"]
    }
    with ns.LogStore(upstream_archived / "logs.db") as logs:
        assert {day.day: day.row_count for day in logs.archived_days()} == counts
        for day, lines in upstream_files().items():
            assert as_rows(logs.read_archive(day)) == [reference.parse_archive_line(line) for line in lines]
        assert [entry.id for entry in logs.query()] == EXPECTED["archive"]["remainingIds"]
        assert logs.get_meta(ns.ARCHIVED_UP_TO) == EXPECTED["archive"]["archivedUpTo"]
        assert_union(logs, all_rows())


def test_archiving_over_upstreams_archive_changes_nothing(upstream_archived: Path) -> None:
    before = {day: path.read_bytes() for day, path in day_files(upstream_archived / "archive" / "logs").items()}
    with ns.LogStore(upstream_archived / "logs.db") as logs:
        assert logs.archive_logs(now=NOW).days == ()
        assert logs.get_meta(ns.ARCHIVED_UP_TO) == EXPECTED["archive"]["archivedUpTo"]
        assert_union(logs, all_rows())
        assert {day: path.read_bytes() for day, path in day_files(logs.archive_dir).items()} == before


def test_archiving_on_after_upstream_loses_nothing(upstream_archived: Path) -> None:
    """Later days leave the database, and a late row joins a file that upstream wrote."""
    upstream = upstream_files()
    with ns.LogStore(upstream_archived / "logs.db") as logs:
        day = min(upstream)
        late = logs.append("system", "late", None, "ünï\u2028", reference.day_start(day) + 1)
        later = NOW + timedelta(days=8) // timedelta(milliseconds=1)
        result = logs.archive_logs(now=later)
        assert {day.day for day in result.days} >= {day}
        assert max(day.day for day in result.days) > max(upstream)
        union = assert_union(logs, [*all_rows(), Row(late.id, "system", "late", None, "ünï\u2028", late.timestamp)])
        assert late.id in {row.id for row in union.files[day]}
        for day, lines in upstream.items():
            assert set(lines) <= {
                reference.archive_line(row) for row in read_day_file(day_files(logs.archive_dir)[day])
            }


# --- living together ---------------------------------------------------------------------------------------------


def test_upstream_appends_to_the_database_after_we_opened_it(upstream_data: Path) -> None:
    path = upstream_data / "logs.db"
    with ns.LogStore(path) as logs:
        ours = logs.append("system", "ours", None, None, NOW)
        foreign_script(path, UPSTREAM_SCHEMA)
        foreign_sql(path, INSERT_ROW, ("workflow", "started", "run-new", '{"prompt":"go","maxRounds":2}', NOW + 1))
        foreign_sql(path, INSERT_RUN, ("run-new", "deploy", "started", NOW + 1, None))
        theirs = logs.query(after_id=ours.id)
        assert as_rows(theirs) == [
            Row(ours.id + 1, "workflow", "started", "run-new", '{"prompt":"go","maxRounds":2}', NOW + 1)
        ]
        assert logs.get_trigger_payload("run-new") == {"prompt": "go", "maxRounds": 2, "dryRun": False}
        assert logs.get_workflow_run("run-new") == ns.WorkflowRun(
            "run-new", "deploy", ns.WorkflowRunStatus.STARTED, NOW + 1
        )
        assert logs.append("system", "ours again", None, None, NOW).id == ours.id + 2
    assert foreign_sql(path, "SELECT count(*), max(id) FROM logs") == [(1203, 1203)]


def test_upstream_reads_and_writes_what_we_leave_behind(upstream_data: Path) -> None:
    """After an archive job of ours and a close, upstream's statements work and see the same rows."""
    path = upstream_data / "logs.db"
    with ns.LogStore(path) as logs:
        logs.archive_logs(now=NOW)
        rows = read_union(logs).database
    foreign_script(path, UPSTREAM_SCHEMA)
    found = foreign_sql(path, "SELECT id, source, type, ref_id, payload, timestamp FROM logs ORDER BY id")
    assert [Row(*row) for row in found] == [rows[row_id] for row_id in sorted(rows)]
    foreign_sql(path, INSERT_ROW, ("system", "tick", None, None, NOW))
    assert foreign_sql(path, "SELECT max(id) FROM logs") == [(1201,)]
    assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]
    with ns.LogStore(path) as logs:
        assert logs.query(after_id=1200)[0].type == "tick"
