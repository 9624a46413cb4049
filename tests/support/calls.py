"""Every public call of a LogStore, what refuses one, and what stops one on its way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns


class Stop(Exception):  # noqa: N818
    """What a progress callback raises."""


def followed_by(call: Callable[..., Any], event: Callable[[], object]) -> Callable[..., Any]:
    """`call`, after each of which something else happens."""

    def followed(*arguments: Any) -> Any:
        result = call(*arguments)
        event()
        return result

    return followed


class StopAfter:
    """A progress callback that lets `steps` calls pass, and stops the work in each one after them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.calls = 0

    def __call__(self, done: int, total: int) -> None:
        self.calls += 1
        if self.calls > self.steps:
            raise Stop(f"{done} of {total}")


_ENTRY = ("system", "tick", "run-1", None, 0)
_RUN = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 0)


def claim_of(store: ns.LogStore, run_id: str = "claimed") -> ns.RunClaim:
    """The newest claim of a run, as another process finds it; one that never was, if there is none."""
    run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus.STARTED, 0)
    query = "SELECT owner, attempt, token, expires_at FROM run_claims WHERE run_id = ? AND token IS NOT NULL"
    rows: list[Any] = store.sql(query, (run_id,))
    return ns.RunClaim(run, *(rows[0] if rows else ("another", 1, 1, 0)))


def _write_batch(store: ns.LogStore) -> None:
    with store.batch() as batch:
        fill_batch(batch)


def fill_batch(batch: ns.WriteBatch) -> None:
    """One of each change that a batch takes."""
    batch.append("system", "tick")
    batch.append_many([_ENTRY] * 20)
    batch.append("system", "keyed", key="batch")
    batch.create_workflow_run("new", "deploy")
    batch.transition("new", "started")
    batch.upsert_workflow_run(
        ("workflow", "failed", "new", None, 0), ns.WorkflowRun("new", "deploy", ns.WorkflowRunStatus.FAILED, 0, 1)
    )
    batch.set_meta("key", "value")
    batch.delete_meta("other")


LOG_STORE_WRITES: dict[str, Callable[[ns.LogStore], object]] = {
    "append": lambda store: store.append("system", "tick"),
    "append_many": lambda store: store.append_many([_ENTRY]),
    "set_meta": lambda store: store.set_meta("key", "value"),
    "delete_meta": lambda store: store.delete_meta("other"),
    "batch": _write_batch,
    "create_workflow_run": lambda store: store.create_workflow_run("new", "deploy", not_before=5),
    "claim_workflow_run": lambda store: store.claim_workflow_run("worker"),
    "renew_claim": lambda store: store.renew_claim(claim_of(store), lease=100),
    "release_claim": lambda store: store.release_claim(claim_of(store), delay=5),
    "upsert_workflow_run": lambda store: store.upsert_workflow_run(_ENTRY, _RUN),
    "append_with_workflow_update": lambda store: store.append_with_workflow_update(_ENTRY, _RUN),
    "transition": lambda store: store.transition("run-1", "completed"),
    "delete_workflow_runs": lambda store: store.delete_workflow_runs(before=1),
    "archive_logs": lambda store: store.archive_logs(),
    "expire_archive": lambda store: store.expire_archive(before=date(2026, 1, 1)),
    "restore_archive": lambda store: store.restore_archive(date(2026, 1, 1)),
    "reindex": lambda store: store.reindex(),
}
LOG_STORE_READS: dict[str, Callable[[ns.LogStore], object]] = {
    "query": lambda store: store.query(),
    "iter": lambda store: list(store.iter()),
    "count": lambda store: store.count(),
    "follow": lambda store: next(store.follow(after_id=0)),
    "sql": lambda store: store.sql("SELECT 1"),
    "get_meta": lambda store: store.get_meta("key"),
    "list_meta": lambda store: store.list_meta(),
    "get_workflow_run": lambda store: store.get_workflow_run("run-1"),
    "get_active_workflow_runs": lambda store: store.get_active_workflow_runs(),
    "get_all_workflow_runs": lambda store: store.get_all_workflow_runs(),
    "query_workflow_runs": lambda store: store.query_workflow_runs(),
    "iter_workflow_runs": lambda store: list(store.iter_workflow_runs()),
    "count_workflow_runs": lambda store: store.count_workflow_runs(),
    "get_trigger_payload": lambda store: store.get_trigger_payload("run-1"),
    "get_thread_events": lambda store: store.get_thread_events("run-1"),
    "get_thread_messages": lambda store: store.get_thread_messages("run-1"),
    "get_thread_round_count": lambda store: store.get_thread_round_count("run-1"),
    "get_thread_rounds": lambda store: store.get_thread_rounds("run-1", limit=1),
    "archived_days": lambda store: store.archived_days(),
    "read_archive": lambda store: list(store.read_archive(date(2026, 1, 1))),
    "verify": lambda store: store.verify(),
    "stats": lambda store: store.stats(),
}
LOG_STORE_COPIES: dict[str, Callable[[ns.LogStore], object]] = {
    "arrow": lambda store: store.arrow().__arrow_c_stream__(),
    "backup": lambda store: store.backup(f"{store.path}.copy"),
}
"""What hands the rows on as a whole, which a log in a database server does in other ways."""
LOG_STORE_CALLS = {**LOG_STORE_WRITES, **LOG_STORE_READS, **LOG_STORE_COPIES}


def public_methods(cls: type) -> set[str]:
    """The names of the public methods of `cls`."""
    return {name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))}


def is_one_line(error: BaseException) -> bool:
    """Whether the message of `error` is one line that says something."""
    return bool(str(error).strip()) and "\n" not in str(error)


def refused(
    expected: type[Exception] | tuple[type[Exception], ...], call: Callable[..., object], *arguments: Any, **named: Any
) -> Exception:
    """The error that `call` raises, which must be one of `expected` and print on one line."""
    with pytest.raises(expected) as raised:
        call(*arguments, **named)
    assert is_one_line(raised.value)
    return raised.value


def closed_store(path: Path) -> None:
    """Leaves a database with a row at `path`."""
    with ns.LogStore(path) as store:
        store.append("system", "tick", timestamp=0)
