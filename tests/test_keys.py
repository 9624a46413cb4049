"""Appends with a key: the row is appended once, and the key is remembered for as long as it is needed."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerve_store as ns
from reference import DAY_MS
from support import as_row, foreign_sql, refused
from support.archive import NOW
from support.event_loops import run
from support.processes import child_command, child_environment

WEEK = 7 * DAY_MS


def test_the_same_append_with_the_same_key_returns_the_first_row(log_store: ns.LogStore) -> None:
    first = log_store.append("s", "t", "r", "p", 5, key="k")
    for timestamp in (5, 6, None):
        assert log_store.append("s", "t", "r", "p", timestamp, key="k") == first
    assert log_store.append("s", "t", "r", "p", 5, key="other").id == first.id + 1
    assert log_store.append("s", "t", "r", "p", 5).id == first.id + 2
    assert log_store.count() == 3


@pytest.mark.parametrize(
    "other",
    [("x", "t", "r", "p"), ("s", "x", "r", "p"), ("s", "t", "x", "p"), ("s", "t", None, "p"), ("s", "t", "r", "x"),
     ("s", "t", "r", None), ("s", "t", "", "rp"), ("st", "", "r", "p")],
)  # fmt: skip
def test_the_same_key_with_another_row_is_an_error(
    log_store: ns.LogStore, other: tuple[str, str, str | None, str | None]
) -> None:
    first = log_store.append("s", "t", "r", "p", 5, key="k")
    error = refused(ns.IdempotencyError, lambda: log_store.append(*other, key="k"))
    assert isinstance(error, ValueError)
    assert isinstance(error, ns.IdempotencyError)
    assert (error.key, error.first_id) == ("k", first.id)
    assert pickle.loads(pickle.dumps(error)).first_id == first.id
    assert "'k'" in str(error).replace('"', "'")
    assert str(first.id) in str(error)
    assert [as_row(row) for row in log_store.query()] == [as_row(first)]


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3) | st.none()), max_size=12))
def test_rows_are_told_apart_whatever_their_texts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str | None]]
) -> None:
    with ns.LogStore(tmp_path_factory.mktemp("keys") / "logs.db", durability="normal") as store:
        store.append("", "", None, None, 0, key="k")
        for source, kind, payload in rows:
            if (source, kind, payload) == ("", "", None):
                store.append(source, kind, None, payload, key="k")
            else:
                refused(ns.IdempotencyError, lambda: store.append(source, kind, None, payload, key="k"))  # noqa: B023
        assert store.count() == 1


@pytest.mark.parametrize(
    "key", ["x", "é" * 300, "k" * 512, "k" * 513, "k" * 65_536, "\U0010ffffsha256:" + "0" * 64, "a\0b"]
)
def test_keys_of_any_text_are_told_apart(log_store: ns.LogStore, key: str) -> None:
    first = log_store.append("s", "t", key=key)
    assert log_store.append("s", "t", key=key) == first
    assert log_store.append("s", "t", key=key[:-1] + "y").id != first.id


def test_keys_that_cannot_be_are_refused(log_store: ns.LogStore) -> None:
    for key in ("", "k" * 65_537, "\ud800"):
        refused(ValueError, lambda: log_store.append("s", "t", key=key))  # noqa: B023
    wrong: list[Any] = [1, b"k", ["k"]]
    for value in wrong:
        refused(TypeError, lambda: log_store.append("s", "t", key=value))  # noqa: B023
    assert log_store.count() == 0


def test_a_refused_append_keeps_no_key(log_store: ns.LogStore) -> None:
    refused(ValueError, lambda: log_store.append("s", "t", timestamp=-1, key="k"))
    assert log_store.append("s", "other", key="k").id == 1


def test_keys_survive_reopening(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        first = store.append("s", "t", key="k")
        store.reindex()
    with ns.LogStore(path) as store:
        assert store.append("s", "t", key="k") == first


def age(path: Path, milliseconds: int) -> None:
    """Let the keys be older."""
    foreign_sql(path, f"UPDATE append_keys SET appended_at = appended_at - {milliseconds}")


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_key_is_forgotten_once_it_is_a_week_old_and_its_row_archived(
    data_dir: Path, is_archived: bool, is_old: bool
) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        first = store.append("s", "t", timestamp=NOW - 90 * DAY_MS if is_archived else NOW, key="k")
    if is_old:
        age(path, WEEK)
    with ns.LogStore(path) as store:
        store.archive_logs(now=NOW)
        assert store.count() == (0 if is_archived else 1)
        again = store.append("s", "t", key="k")
        assert (again == first) == (not (is_archived and is_old))


def test_a_restore_revives_no_key_and_spoils_none(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        first = store.append("s", "t", timestamp=NOW - 90 * DAY_MS, key="k")
        kept = store.append("s", "t", timestamp=NOW - 90 * DAY_MS, key="young")
    foreign_sql(path, f"UPDATE append_keys SET appended_at = appended_at - {WEEK} WHERE key = 'k'")
    with ns.LogStore(path) as store:
        day = store.archive_logs(now=NOW).days[0].day
        store.restore_archive(day)
        assert store.append("s", "t", key="young") == kept
        assert store.append("s", "t", key="k").id > first.id


def test_threads_and_event_loops_append_once(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    found: list[dict[str, int]] = []

    def append_all(store: ns.LogStore) -> None:
        found.append({key: store.append("s", "t", None, key, key=key).id for key in map(str, range(40))})

    with ns.LogStore(path) as store:
        threads = [threading.Thread(target=append_all, args=(store,)) for _ in range(6)]
        for thread in threads:
            thread.start()

        async def main() -> None:
            async with ns.AsyncLogStore(path) as logs:
                keys = [str(number) for number in range(40)] * 3
                rows = await asyncio.gather(*(logs.append("s", "t", None, key, key=key) for key in keys))
                found.append({key: row.id for key, row in zip(keys, rows, strict=True)})
                assert len({row.id for row in rows}) == 40

        run(main())
        for thread in threads:
            thread.join()
        assert all(ids == found[0] for ids in found)
        assert Counter(row.payload for row in store.query()) == {str(number): 1 for number in range(40)}


def test_processes_append_once(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    command = child_command("append_keyed", path=str(path), count=60)
    children = [subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    assert all(ids == told[0] for ids in told)
    with ns.LogStore(path) as store:
        assert store.count() == 60


@pytest.mark.parametrize("when", ["thread", "loop"])
def test_an_error_of_one_key_spares_those_that_share_the_commit(data_dir: Path, when: str) -> None:
    path = data_dir / "logs.db"

    async def main() -> list[Any]:
        async with ns.AsyncLogStore(path) as logs:
            await logs.append("s", "t", key="k")
            calls = [
                logs.append("s", "plain", timestamp=1),
                logs.append("s", "other", key="k"),
                logs.append("s", "t", key="k"),
                logs.append("s", "plain", timestamp=2),
            ]
            return await asyncio.gather(*calls, return_exceptions=True)

    first, error, again, last = run(main())
    assert isinstance(error, ns.IdempotencyError)
    assert (first.id, again.id, last.id) == (2, 1, 3), when


def test_an_overwritten_digest_is_not_the_row(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        store.append("s", "t", key="k")
    foreign_sql(path, "UPDATE append_keys SET digest = 'text'")
    with ns.LogStore(path) as store:
        refused(ns.IdempotencyError, lambda: store.append("s", "t", key="k"))


@pytest.mark.parametrize("sql", ["DROP TABLE append_keys", "DROP TABLE run_claims"])
def test_dropped_tables_come_back(data_dir: Path, sql: str) -> None:
    path = data_dir / "logs.db"
    ns.LogStore(path).close()
    foreign_sql(path, sql)
    with ns.LogStore(path) as store:
        assert store.append("s", "t", key="k").id == 1
        store.create_workflow_run("r", "w")
        assert store.claim_workflow_run("me") is not None
