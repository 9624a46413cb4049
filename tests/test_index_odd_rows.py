"""Rows that only another program writes: whatever they hold, they are sealed, found, and in nobody's way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import INSERT_ROW_WITH_ID, foreign_many, foreign_sql

MESSAGE = "thread_workflow_message"
NEW = 100 * 86_400_000
"""A timestamp, and a time at which rows of it stay."""
ODD_ROWS: dict[str, tuple[Any, ...]] = {
    "fraction": (7, "system", "tick", "r1", None, 1.5),
    "fraction before 1970": (7, "system", "tick", "r1", None, -1.5),
    "before 1970": (7, "system", "tick", "r1", None, -5),
    "far past": (7, "system", "tick", "r1", None, -(2**63)),
    "far future": (7, "system", "tick", "r1", None, 2**63 - 1),
    "huge fraction": (7, "system", "tick", "r1", None, 1e300),
    "huge fraction in the past": (7, "system", "tick", "r1", None, -1e300),
    "text time": (7, "system", "tick", "r1", None, "soon"),
    "blob time": (7, "system", "tick", "r1", None, b"\0"),
    "blob source": (7, b"system", "tick", "r1", None, 5),
    "blob type": (7, "system", b"\xff\xfe", "r1", None, 5),
    "blob ref": (7, "system", "tick", b"r1", None, 5),
    "blob payload": (7, "workflow", MESSAGE, "r1", b'{"role":"a","content":"b"}', 5),
    "negative id": (-7, "system", "tick", "r1", None, 5),
    "zero id": (0, "system", "tick", "r1", None, 5),
    "huge id": (10**15, "system", "tick", "r1", None, 5),
    "id beyond 32 bits": (2**32 + 6, "system", "tick", "r1", None, 5),
}


READABLE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"ref_id": "r2"}, "ref_id = 'r2'"),
    ({"type": "other"}, "type = 'other'"),
    ({"since": 40, "until": 60}, "timestamp BETWEEN 40 AND 60"),
)
COUNTABLE: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "true"),
    ({"ref_id": "r1"}, "ref_id = 'r1'"),
    ({"source": "system"}, "source = 'system'"),
    ({"since": 5}, "timestamp >= 5"),
    ({"until": 5}, "timestamp <= 5"),
    ({"since": 1, "until": 2}, "timestamp BETWEEN 1 AND 2"),
    ({"since": 0, "until": 10}, "timestamp BETWEEN 0 AND 10"),
    ({"since": 6}, "timestamp >= 6"),
    ({"until": 2**63 - 1}, f"timestamp <= {2**63 - 1}"),
    (
        {"since": 5, "until": 2**63 - 1, "source": "system"},
        f"timestamp BETWEEN 5 AND {2**63 - 1} AND source = 'system'",
    ),
    ({"since": -(2**63)}, "timestamp >= -9223372036854775808"),
    ({"since": -(2**63), "until": 5}, "timestamp BETWEEN -9223372036854775808 AND 5"),
    ({"until": 4}, "timestamp <= 4"),
    ({"type": "tick", "since": 2}, "type = 'tick' AND timestamp >= 2"),
    ({"source": "system", "until": 3}, "source = 'system' AND timestamp <= 3"),
)


def plain(path: Path, where: str) -> list[int]:
    """The ids of the rows that match, told by another program."""
    return [row_id for (row_id,) in foreign_sql(path, f"SELECT id FROM logs WHERE {where} ORDER BY id")]


@pytest.mark.parametrize("odd", ODD_ROWS)
@pytest.mark.parametrize("segment_rows", [2, 3])
def test_odd_rows_of_another_program_do_not_break_sealing(data_dir: Path, odd: str, segment_rows: int) -> None:
    path = data_dir / "logs.db"
    row = ("system", "tick", "r1", None, 5)
    with ns.LogStore(path, segment_rows=segment_rows) as store:
        store.append_many([] if ODD_ROWS[odd][0] <= 0 else [row] * 5)
        foreign_sql(path, INSERT_ROW_WITH_ID, ODD_ROWS[odd])
        store.append_many([row] * 90)
        store.append("system", "other", "r2", None, 50)
    with ns.LogStore(path, segment_rows=segment_rows) as store:
        for _ in range(2):
            assert store.sql("SELECT max(last_id) FROM log_segments") >= [(plain(path, "true")[-3],)]
            for options, where in READABLE:
                assert [entry.id for entry in store.query(**options)] == plain(path, where)
            for options, where in COUNTABLE:
                assert store.count(**options) == len(plain(path, where)), options
            store.reindex()


@pytest.mark.parametrize("odd", ODD_ROWS)
def test_odd_rows_among_the_newest_are_counted(data_dir: Path, odd: str) -> None:
    path = data_dir / "logs.db"
    row = ("system", "tick", "r1", None, 5)
    with ns.LogStore(path) as store:
        store.append_many([] if ODD_ROWS[odd][0] <= 0 else [row] * 5)
        assert store.count(since=5) == len(plain(path, "timestamp >= 5"))
        foreign_sql(path, INSERT_ROW_WITH_ID, ODD_ROWS[odd])
        for _ in range(2):
            for options, where in COUNTABLE:
                assert store.count(**options) == len(plain(path, where)), options
            store.append_many([row] * 5)


@pytest.mark.parametrize("odd", ODD_ROWS)
@pytest.mark.parametrize("place", ["unsealed", "sealed", "left behind"])
def test_odd_rows_that_cannot_be_read_are_named_and_stop_no_backup(data_dir: Path, odd: str, place: str) -> None:
    """`left behind`: in a segment whose other rows are in the archive."""
    path = data_dir / "logs.db"
    with ns.LogStore(path, segment_rows=3) as store:
        store.append_many([] if ODD_ROWS[odd][0] <= 0 else [("system", "tick", "r1", None, 5)] * 5)
        foreign_sql(path, INSERT_ROW_WITH_ID, ODD_ROWS[odd])
        store.append_many([("system", "tick", "r1", None, NEW)] * 2)
        if place == "sealed":
            store.reindex()
        elif place == "left behind":
            store.append_many([("system", "tick", "r1", None, 5)] * 6)
            store.archive_logs(now=NEW)
    with ns.Store(data_dir) as store:
        problems = [(problem.first_id, problem.last_id) for problem in store.logs.verify().problems]
        try:
            list(store.logs.iter(archived=True))
        except ns.CorruptStoreError:
            assert problems == [(ODD_ROWS[odd][0], ODD_ROWS[odd][0])]
        else:
            assert problems == []
        for _ in range(2):
            assert store.backup(data_dir / "backup").ok


@pytest.mark.parametrize("segment_rows", [4096, 20])
def test_all_rows_that_cannot_be_read_are_counted(data_dir: Path, segment_rows: int) -> None:
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    odd = ("system", "tick", "r1", b"\0", 5)
    whole = ("system", "tick", "r1", "x", 5)
    foreign_many(path, INSERT_ROW_WITH_ID, [(i, *(odd if i % 2 else whole)) for i in range(1, 41)])
    with ns.LogStore(path, segment_rows=segment_rows) as store:
        store.reindex()
        problems = store.verify().problems
        expected = [(1, 39)] if segment_rows > 40 else [(1, 19), (21, 39)]
        assert [(problem.first_id, problem.last_id) for problem in problems] == expected
        more = 40 // len(problems) // 2 - 1
        assert all(f"{more} more cannot be read (ids " in problem.reason for problem in problems)
        assert "(ids 3, 5, 7, 9, 11, 13, 15, … " in problems[0].reason


def test_ids_far_apart_are_found(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    ids = sorted({sign * 10**n + k for n in range(0, 19, 3) for sign in (1, -1) for k in range(5)})
    with ns.LogStore(path, segment_rows=2):
        pass
    foreign_many(path, INSERT_ROW_WITH_ID, [(i, "workflow", MESSAGE, "r1", json.dumps({"n": i}), 5) for i in ids])
    with ns.LogStore(path, segment_rows=2) as store:
        for _ in range(2):
            assert [entry.id for entry in store.query()] == ids
            assert [entry.id for entry in store.query(ref_id="r1", descending=True)] == ids[::-1]
            assert [entry.id for entry in store.query(source="workflow", type=MESSAGE)] == ids
            assert store.get_thread_round_count("r1") == len(ids)
            assert store.append("workflow", MESSAGE, "r1", "{}", 5).id == ids[-1] + 1
            ids.append(ids[-1] + 1)
            store.reindex()


@pytest.mark.parametrize("ids", [[-1, 0, 1, 2], [1, 2, 3, 2**63 - 1]], ids=["zero", "greatest"])
def test_ids_at_the_ends_are_found_once(data_dir: Path, ids: list[int]) -> None:
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    foreign_many(path, INSERT_ROW_WITH_ID, [(i, "workflow", MESSAGE, "r1", "{}", 5) for i in ids])
    with ns.LogStore(path, segment_rows=2) as store:
        for _ in range(2):
            assert [entry.id for entry in store.query()] == ids
            assert [entry.id for entry in store.query(ref_id="r1", descending=True)] == ids[::-1]
            assert store.get_thread_round_count("r1") == len(ids)
            store.reindex()
