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


class StopAfter:
    """A progress callback that lets `steps` calls pass, and stops the work in each one after them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.calls = 0

    def __call__(self, done: int, total: int) -> None:
        self.calls += 1
        if self.calls > self.steps:
            raise Stop(f"{done} of {total}")


_ENTRY = ("system", "tick", None, None, 0)
_RUN = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 0)

LOG_STORE_WRITES: dict[str, Callable[[ns.LogStore], object]] = {
    "append": lambda store: store.append("system", "tick"),
    "append_many": lambda store: store.append_many([_ENTRY]),
    "set_meta": lambda store: store.set_meta("key", "value"),
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
LOG_STORE_CALLS = {**LOG_STORE_WRITES, **LOG_STORE_READS}


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
