"""The one lane of a log, held by a test so that jobs wait."""

from __future__ import annotations

from typing import Any

from nerve_store.postgres.jobs import Job


def hold(log: Any) -> None:
    """Let callers wait."""
    (lane,) = log._lanes._all
    assert lane.leader is None
    lane.leader = Job(is_durable=True)


def let_go(log: Any) -> None:
    """Let the next caller lead, with those that wait."""
    (lane,) = log._lanes._all
    lane.leader = None
