"""Waits of more seconds than a clock can tell: as good as for ever, and no fault."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import foreign_sql

NOW = 1_770_000_000_000
LONG = [9.2e18, sys.maxsize, 1.8e19, timedelta.max]
CALLS: dict[str, Callable[[ns.LogStore, Any], object]] = {
    "lease": lambda store, long: store.claim_workflow_run("me", lease=long),
    "wait for a claim": lambda store, long: store.claim_workflow_run("me", wait=long),
    "wait for a job": lambda store, long: store.archive_logs(now=NOW, retention=timedelta(0), wait=long),
    "retention": lambda store, long: store.archive_logs(
        now=NOW, retention=long if isinstance(long, timedelta) else timedelta.max
    ),
    "delay": lambda store, long: store.release_claim(some(store.claim_workflow_run("me")), delay=long),
    "timeout": lambda store, long: store.sql("SELECT 1", timeout=long),
}


def some(claim: ns.RunClaim | None) -> ns.RunClaim:
    assert claim is not None
    return claim


@pytest.mark.parametrize("long", LONG, ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_a_wait_may_be_as_long_as_you_please(log_store: ns.LogStore, call: str, long: Any) -> None:
    if isinstance(long, timedelta) and call in ("wait for a job", "timeout"):
        pytest.skip("takes seconds alone")
    log_store.create_workflow_run("r", "w")
    CALLS[call](log_store, long)
    assert log_store.get_workflow_run("r") is not None


@pytest.mark.parametrize("long", [9.2e18, sys.maxsize, 1.8e19], ids=str)
def test_a_store_may_wait_for_locks_as_long_as_you_please(data_dir: Path, long: float) -> None:
    with ns.Store(data_dir, busy_timeout=long) as store:
        store.logs.append("s", "t", timestamp=1)
        store.logs.archive_logs(now=NOW, vacuum=True)
        assert store.logs.count() == 0


@pytest.mark.parametrize("long", [9.2e18, sys.maxsize, 1.8e19], ids=str)
def test_a_follower_that_looks_never_blinds_no_other(log_store: ns.LogStore, long: float) -> None:
    with log_store.follow(poll_interval=long) as never, log_store.follow(poll_interval=0.05) as often:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(next(often).type))
        log_store.append("s", "first")
        assert next(never).type == "first"
        assert next(often).type == "first"
        thread.start()
        foreign_sql(log_store.path, "INSERT INTO logs (source, type, timestamp) VALUES ('s', 'second', 1)")
        thread.join(20)
        assert found == ["second"]
