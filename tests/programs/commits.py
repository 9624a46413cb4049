"""Commits that a write-ahead log is left with."""

from __future__ import annotations

import os

import nerve_store as ns
from programs.tagged import row_of

COMMITS = 30
ROWS_A_COMMIT = 20


def leave_commits_in_the_log(*, path: str, segment_rows: int) -> None:
    """End, without closing the store, with the newest commits in the write-ahead log."""
    logs = ns.LogStore(path, segment_rows=segment_rows)
    for first in range(0, COMMITS * ROWS_A_COMMIT, ROWS_A_COMMIT):
        logs.append_many([row_of("late", number) for number in range(first, first + ROWS_A_COMMIT)])
    os._exit(0)
