"""A signal whose handler raises while a thread of an asynchronous store begins: the program still ends.

The pool never learns of that thread, which nothing would end.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.processes import run_child

POOLS = {
    "AsyncLogStore": ["read", "job", "close"],
    "AsyncBlobStore": ["write", "job", "close"],
    "AsyncStore": ["read", "write", "job", "close"],
}


@pytest.mark.parametrize("error", ["interrupt", "exit"])
@pytest.mark.parametrize(("kind", "pool"), [(kind, pool) for kind in POOLS for pool in POOLS[kind]])
def test_a_program_ends_whose_handler_raised_as_a_thread_began(
    tmp_path: Path, kind: str, pool: str, error: str
) -> None:
    place = str(tmp_path / ("logs.db" if kind == "AsyncLogStore" else "data"))
    done = run_child("raise_as_a_thread_begins", kind=kind, place=place, options={}, pool=pool, error=error)
    assert done.returncode == 3, done.stderr
