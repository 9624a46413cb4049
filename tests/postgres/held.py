"""Lanes that a test holds so that jobs wait, or that reach no server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nerve_store.postgres.jobs import Job

LONG = 30.0
"""Seconds that a test waits for what is to come soon."""


class Nowhere:
    """What lanes ask of connections as long as nothing fails."""

    place = "nowhere"

    def check(self) -> None:
        """It is open."""


def until(condition: Callable[[], object]) -> None:
    """Wait for the condition."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


def hold(log: Any) -> None:
    """Let callers wait."""
    (lane,) = log._lanes._all
    assert lane.leader is None
    lane.leader = Job(is_durable=True)


def let_go(log: Any) -> None:
    """Let the next caller lead, with those that wait."""
    (lane,) = log._lanes._all
    lane.leader = None
