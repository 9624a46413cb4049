"""Reads over years of days whose ids interleave open a few files at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

import nerve_store as ns
import reference
from reference import DAY_MS
from support.archive import DAY_ONE

DAYS = 1_200
ROUNDS = 3
FIRST = reference.day_start(DAY_ONE) - DAYS * DAY_MS

PROGRAM = """
import json, os, resource, sys
import nerve_store as ns
from datetime import timedelta

path, limit = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
most = 0
def descriptors():
    return len(os.listdir("/proc/self/fd"))
with ns.LogStore(path, durability="normal") as store:
    found = {}
    before = descriptors()
    found["query"] = [row.id for row in store.query(archived=True)]
    found["descending"] = [row.id for row in store.query(archived=True, descending=True)]
    found["some"] = [row.id for row in store.query(source="s", archived=True, limit=5)]
    found["iter"] = []
    for row in store.iter(archived=True):
        found["iter"].append(row.id)
        if row.id % 500 == 0:
            most = max(most, descriptors())
    found["count"] = store.count(archived=True)
    found["count of a type"] = store.count(type="thread_workflow_message", archived=True)
    follower = store.follow(after_id=0, archived=True)
    found["follow"] = [next(follower).id for _ in range(len(found["query"]))]
    found["messages"] = len(store.get_thread_messages("run"))
    found["rounds"] = store.get_thread_round_count("run")
    found["round rows"] = len(store.get_thread_rounds("run", limit=10_000))
    found["ok"] = store.verify().ok
    found["growth"] = most - before
print(json.dumps(found))
"""


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_any_number_of_days_is_read_with_few_descriptors(data_dir: Path, compression: Literal["zstd"] | None) -> None:
    path = data_dir / "logs.db"
    message = '{"role": "a", "content": "b"}'
    with ns.LogStore(path, durability="normal") as store:
        for number in range(ROUNDS):
            store.append_many(
                ("workflow" if number else "s", "thread_workflow_message", "run", message, FIRST + n * DAY_MS + number)
                for n in range(DAYS)
            )
        # The rows of each day lie in several blocks.
        store.append_many(
            ("x", "y", None, "z" * 200_000, FIRST + n * DAY_MS + 9) for n in range(0, DAYS, 40) for _ in "ab"
        )
        store.archive_logs(compression=compression)
        assert store.count() == 0
    total = ROUNDS * DAYS + 2 * len(range(0, DAYS, 40))
    for limit in (64,) if compression else (64, 1_024):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(path), str(limit)],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        found = json.loads(run.stdout)
        everything = list(range(1, total + 1))
        assert found["query"] == everything
        assert found["descending"] == everything[::-1]
        assert found["some"] == everything[:5]
        assert found["iter"] == everything
        assert found["follow"] == everything
        assert found["count"] == total
        assert found["count of a type"] == ROUNDS * DAYS
        assert found["messages"] == (ROUNDS - 1) * DAYS
        assert found["rounds"] == (ROUNDS - 1) * DAYS
        assert found["round rows"] == (ROUNDS - 1) * DAYS
        assert found["ok"]
        assert found["growth"] <= 70
