"""What the predecessor says of awkward data, and the same from here; `docs/predecessor.md` names what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support.foreign import foreign_script

CASES = json.loads((Path(__file__).parent / "fixtures" / "predecessor-0.5.0-payloads.json").read_text("utf-8"))
RUN = "run-1"


def python_value(value: Any) -> Any:
    """A value as the fixture writes it."""
    if isinstance(value, dict):
        if set(value) == {"$number"}:
            return float(value["$number"].replace("Infinity", "inf"))
        return {name: python_value(item) for name, item in value.items()}
    return [python_value(item) for item in value] if isinstance(value, list) else value


def whole(timestamp: Any) -> int:
    """Timestamps of messages are integers here, and 0 beyond every double."""
    number = python_value(timestamp)
    return 0 if abs(number) == float("inf") else int(number)


def message(answer: dict[str, Any]) -> ns.ThreadMessage:
    meta = python_value(answer.get("meta"))
    return ns.ThreadMessage(answer["role"], answer["content"], meta, whole(answer["timestamp"]))


def answers(store: ns.LogStore, run_id: str) -> dict[str, Any]:
    return {
        "messages": store.get_thread_messages(run_id),
        "events": store.get_thread_events(run_id),
        "count": store.get_thread_round_count(run_id),
        "rounds": [(item.round, item.timestamp, item.message) for item in store.get_thread_rounds(run_id, limit=10)],
        "trigger": store.get_trigger_payload(run_id),
    }


def expected(case: dict[str, Any]) -> dict[str, Any]:
    said = case["answers"]
    return {
        "messages": [message(item) for item in said["messages"]],
        "events": python_value(said["events"]),
        "count": said["count"],
        "rounds": [(item["round"], item["timestamp"], message(item["message"])) for item in said["rounds"]],
        "trigger": python_value(said["trigger"]),
    }


@pytest.mark.parametrize("archived", [False, True])
def test_awkward_payloads_say_what_the_package_says(log_store: ns.LogStore, archived: bool) -> None:
    rows = [("workflow", case["type"], f"run-{number}", case["payload"], 77) for number, case in enumerate(CASES)]
    log_store.append_many(rows)
    if archived:
        log_store.archive_logs()
        assert log_store.count() == 0
    for number, case in enumerate(CASES):
        assert answers(log_store, f"run-{number}") == expected(case), case["payload"]


def test_the_fixture_has_the_awkward_kinds() -> None:
    """Each was a difference once, or guards against one."""
    payloads = [case["payload"] for case in CASES]
    assert len(payloads) > 300
    for part in ('"x\x01"', "}\0garbage", '"type":"t","type":"thread_start"', "1e300", "NaN", "\\ud83e"):
        assert any(part in payload for payload in payloads), part


EARLY_SCHEMA = """
CREATE TABLE logs (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, type TEXT NOT NULL, ref_id TEXT,
  payload TEXT, timestamp INTEGER NOT NULL);
CREATE TABLE workflow_runs (run_id TEXT PRIMARY KEY, workflow TEXT NOT NULL, status TEXT NOT NULL,
  timestamp INTEGER NOT NULL);
INSERT INTO workflow_runs VALUES ('run-1', 'w', 'started', 5), ('run-2', 'w', 'completed', 6);
INSERT INTO logs VALUES (1, 'workflow', 'started', 'run-1', '{"prompt":"go","maxRounds":2}', 5);
"""


@pytest.mark.parametrize("has_meta", [True, False])
@pytest.mark.parametrize("read_only", [True, False])
def test_an_early_database_without_exit_codes_is_read(tmp_path: Path, read_only: bool, has_meta: bool) -> None:
    path = tmp_path / "logs.db"
    meta = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);" if has_meta else ""
    foreign_script(path, EARLY_SCHEMA + meta)
    before = path.read_bytes()
    with ns.LogStore(path, read_only=read_only) as store:
        first = ns.WorkflowRun("run-1", "w", ns.WorkflowRunStatus.STARTED, 5)
        assert store.get_workflow_run("run-1") == first
        assert store.get_active_workflow_runs() == [first]
        assert [run.run_id for run in store.get_all_workflow_runs()] == ["run-2", "run-1"]
        assert store.get_trigger_payload("run-1") == {"prompt": "go", "maxRounds": 2, "dryRun": False}
        assert store.get_meta("archived_up_to") is None
        assert dict(store.stats().runs) == {"started": 1, "completed": 1}
        assert store.verify().ok
        assert store.archived_days() == []
    if read_only:
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("timestamp", "exit_code", "expected"),
    [
        ("1.5", "1.5", (1, 2)),
        ("1774000000000.75", "-0.5", (1_774_000_000_000, -1)),
        ("1e300", "0.25", (2**63 - 1, 1)),
        ("-1.5", "NULL", (-1, None)),
        ("17.0", "3.0", (17, 3)),
    ],
)
def test_a_run_with_fractions_is_listed(
    tmp_path: Path, timestamp: str, exit_code: str, expected: tuple[int, int | None]
) -> None:
    """JavaScript stores them as they are; here they are integers, and no fraction of a failure becomes a success."""
    path = tmp_path / "logs.db"
    ns.LogStore(path).close()
    foreign_script(path, f"INSERT INTO workflow_runs VALUES ('run-1', 'w', 'started', {timestamp}, {exit_code})")
    with ns.LogStore(path) as store:
        run = store.get_workflow_run("run-1")
        assert run is not None
        assert (run.timestamp, run.exit_code) == expected
        assert store.get_all_workflow_runs() == store.get_active_workflow_runs() == [run]
        assert store.transition("run-1", "completed", exit_code=0).exit_code == 0


def test_a_hash_is_64_digits_and_nothing_around_them(tmp_path: Path) -> None:
    """The package trims white space; here its caller does, as `docs/predecessor.md` says."""
    blobs = ns.BlobStore(tmp_path)
    blob_hash = blobs.write("x")
    for text in (f" {blob_hash}", f"{blob_hash}\n", f"\ufeff{blob_hash}\u2029"):
        assert ns.normalize_blob_hash(text) is None
        assert ns.normalize_blob_hash(text.strip().strip("\ufeff")) == blob_hash


def test_a_day_before_1970_is_left_where_it_is(tmp_path: Path) -> None:
    """It archives rows from before 1970. `verify` names the file, which no read uses; later days are adopted."""
    archive = tmp_path / "archive" / "logs"
    archive.mkdir(parents=True)
    line = '{"id":%d,"source":"s","type":"t","refId":null,"payload":null,"timestamp":%d}\n'
    early = archive / "1969-12-31.jsonl"
    early.write_text(line % (1, -1))
    (archive / "1970-01-01.jsonl").write_text(line % (2, 5))
    foreign_script(tmp_path / "logs.db", EARLY_SCHEMA + "DELETE FROM logs; UPDATE sqlite_sequence SET seq = 2;")
    with ns.LogStore(tmp_path / "logs.db") as store:
        assert [entry.id for entry in store.query(archived=True)] == [2]
        assert store.append("s", "t", timestamp=6).id == 3
        store.archive_logs()
        assert [problem.path for problem in store.verify().problems] == [str(early)], "it is named, and nothing else"
        assert [entry.id for entry in store.query(archived=True)] == [2, 3]
    assert early.read_text() == line % (1, -1)
