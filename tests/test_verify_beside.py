"""Verifying while days are merged, expired, put back and listed anew: what is whole is not called lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import nerve_store as ns
from support import foreign_sql
from support.archive import NOW, append, at, damage_file, day, message, put_run

DAYS, PER_DAY = 6, 60


def expire(store: ns.LogStore) -> None:
    store.expire_archive(before=day(3))


def expire_all(store: ns.LogStore) -> None:
    store.expire_archive(before=day(DAYS))


def merge(store: ns.LogStore) -> None:
    for number in range(DAYS):
        append(store, at(number), "run-1", message(number))
    store.archive_logs(now=NOW)


def compress(store: ns.LogStore) -> None:
    append(store, at(1), "run-1", message(1))
    store.archive_logs(now=NOW, compression="zstd")


def merge_one(store: ns.LogStore) -> None:
    append(store, at(1), "run-1", message(1))
    store.archive_logs(now=NOW)


def merge_and_expire(store: ns.LogStore) -> None:
    merge(store)
    expire(store)


def restore(store: ns.LogStore) -> None:
    store.restore_archive(day(2))


def restore_and_expire(store: ns.LogStore) -> None:
    restore(store)
    expire(store)


def reindex(store: ns.LogStore) -> None:
    store.reindex()


def reindex_and_expire(store: ns.LogStore) -> None:
    reindex(store)
    expire(store)


JOBS: dict[str, Callable[[ns.LogStore], None]] = {
    job.__name__: job
    for job in (
        expire, expire_all, merge, compress, merge_and_expire, restore, restore_and_expire, reindex, reindex_and_expire,
    )
}  # fmt: skip


def prepared(path: Path) -> None:
    with ns.LogStore(path, segment_rows=16, durability="normal") as store:
        store.append_many(
            ("workflow", "thread_workflow_message", "run-1", message(n), at(n // PER_DAY, n))
            for n in range(DAYS * PER_DAY)
        )
        put_run(store, "completed")
        store.archive_logs(now=NOW)
        append(store, NOW, "run-1", message(0))


def verified_beside(path: Path, job: Callable[[ns.LogStore], None], moment: int) -> ns.VerifyReport:
    """The report of a verification; another handle does the job when progress is told for the `moment`th time."""
    calls = 0

    def step(done: int, total: int) -> None:
        nonlocal calls
        del done, total
        if calls == moment:
            with ns.LogStore(path, segment_rows=16, durability="normal") as other:
                job(other)
        calls += 1

    with ns.LogStore(path, segment_rows=16, durability="normal") as store:
        report = store.verify(progress=step)
        assert calls > moment
        assert store.verify().ok == report.ok
    return report


@pytest.mark.parametrize("moment", [0, 1])
@pytest.mark.parametrize("job", JOBS)
def test_job_in_the_midst_of_a_verification_is_no_loss(tmp_path: Path, job: str, moment: int) -> None:
    path = tmp_path / "logs.db"
    prepared(path)
    assert verified_beside(path, JOBS[job], moment).problems == ()


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
@pytest.mark.parametrize("job", [expire, merge_one])
def test_what_is_damaged_is_told_beside_a_job(tmp_path: Path, job: Callable[[ns.LogStore], None], damage: str) -> None:
    path = tmp_path / "logs.db"
    prepared(path)
    damage_file(tmp_path / "archive" / "logs" / f"{day(4)}.jsonl", damage)
    report = verified_beside(path, job, 0)
    assert {problem.day for problem in report.problems} == {day(4)}


def test_rows_that_are_gone_are_told_beside_a_job(tmp_path: Path) -> None:
    """An expired day explains the absence of its own rows alone."""
    path = tmp_path / "logs.db"
    prepared(path)
    with ns.LogStore(path, segment_rows=16, durability="normal") as store:
        ids = store.append_many([("system", "live", None, None, NOW)] * 64)
    foreign_sql(path, f"DELETE FROM logs WHERE id = {ids[3]}")
    assert not verified_beside(path, expire, 0).ok
