"""A log with something of everything, and what a moved log must have in common with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.protocols import Log
from support.archive import NOW, at

LONG_KEY = "k" * 600
TEXTS = ("", "ü\u2028🧠\\\0\x1f", "\U0010ffff0", "x" * 700)


def fill(log: Log) -> None:
    """Rows of many days, runs in all states, claims, threads, keys, meta, and an archive in both forms."""
    log.append_many(("system", "tick", TEXTS[n % 4] or None, TEXTS[(n + 1) % 4], at(n % 12, n)) for n in range(700))
    for number, status in enumerate(ns.WorkflowRunStatus):
        run_id = f"run-{number}"
        run = ns.WorkflowRun(run_id, "deploy", status, at(1, number), number or None)
        log.upsert_workflow_run(("workflow", str(status), run_id, '{"triggerPayload":{"a":1}}', at(1, number)), run)
        for round_number in range(5):
            payload = f'{{"role":"user","content":"{round_number}"}}'
            log.append(
                "workflow", "thread_workflow_message", run_id, payload, at(2 + 3 * round_number % 9, round_number)
            )
    for name in ("first", "second", "later"):
        log.create_workflow_run(
            f"queued-{name}", "build", timestamp=at(3), not_before=NOW * 2 if name == "later" else None
        )
    log.create_workflow_run("held", "review", timestamp=at(2))
    log.create_workflow_run("lost", "review", timestamp=at(3))
    log.append("system", "once", "ref", "payload", at(5), key="key-1")
    log.append("system", "once", "ref", None, NOW, key="key-\0\U0010ffff")
    log.append("system", "once", None, "payload", NOW, key=LONG_KEY)
    log.set_meta("app.cursor", "17")
    log.set_meta("app.\0odd", "ü\0")
    log.archive_logs(now=at(4), retention=timedelta(0), compression="zstd")
    log.archive_logs(now=at(8), retention=timedelta(0))
    log.restore_archive(at_day(5))
    # Late rows of an archived day, and rows whose ids are greater than those of all others.
    log.append_many([("system", "late", None, "x", at(1))] * 3)


def at_day(number: int) -> Any:
    return ns.utc_day(at(number))


def claims(log: Log) -> tuple[ns.RunClaim, ns.RunClaim]:
    """A claim that holds, and one that was lost."""
    held = log.claim_workflow_run("worker", workflow="review", run_id="held", lease=1000.0)
    lost = log.claim_workflow_run("worker", workflow="review", run_id="lost", lease=1000.0)
    assert held is not None
    assert lost is not None
    log.transition("lost", "killed")
    return held, lost


def content(log: Log) -> dict[str, Any]:
    """What a reader finds."""
    runs = log.query_workflow_runs(descending=False)
    return {
        "live": log.query(),
        "all": log.query(archived=True),
        "runs": runs,
        "meta": log.list_meta(),
        "days": [(day.day, day.format, day.row_count, day.sha256, day.archived_at) for day in log.archived_days()],
        "files": {path.name: path.read_bytes() for path in Path(log.archive_dir).glob("*.jsonl*")},
        "rounds": {run.run_id: log.get_thread_rounds(run.run_id, limit=100) for run in runs},
        "messages": {run.run_id: log.get_thread_messages(run.run_id) for run in runs},
        "triggers": {run.run_id: log.get_trigger_payload(run.run_id) for run in runs},
    }


def check_that_it_works(log: Log, held: ns.RunClaim, lost: ns.RunClaim) -> None:
    """What the moved log does next is what the other would have done; changes it."""
    assert log.verify().ok, log.verify().problems
    last = log.query(archived=True)[-1].id
    assert log.append("system", "once", "ref", "payload", NOW, key="key-1").timestamp == at(5)
    assert log.append("system", "once", "ref", None, key="key-\0\U0010ffff").timestamp == NOW
    assert log.append("system", "once", None, "payload", key=LONG_KEY).timestamp == NOW
    for key in ("key-1", LONG_KEY):
        with pytest.raises(ns.IdempotencyError) as refused:
            log.append("system", "other", key=key)
        assert refused.value.key == key
    assert log.append("system", "held", "held", claim=held).id == last + 1
    with pytest.raises(ns.ClaimLostError):
        log.append("system", "lost", "lost", claim=lost)
    order = [claim.run.run_id for claim in iter(lambda: log.claim_workflow_run("other", workflow="build"), None)]
    assert order == ["queued-first", "queued-second"]
    # Its lease did not travel: who comes next takes the run over, and the old claim is lost.
    taken = log.claim_workflow_run("other", run_id="held")
    assert taken is not None
    assert taken.attempt == held.attempt + 1
    with pytest.raises(ns.ClaimLostError):
        log.append("system", "held", "held", claim=held)
    log.archive_logs(now=NOW)
    assert log.verify().ok
