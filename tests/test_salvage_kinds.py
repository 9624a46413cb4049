"""Salvaging databases of every kind: with expired days, damaged tables beside the rows, other pages and encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

import nerve_store as ns
from support import UPSTREAM_SCHEMA, as_rows, foreign_script, foreign_sql
from support.archive import NOW, append, at, day, message


@pytest.mark.parametrize("segment_rows", [4, 4096])
def test_expired_rows_are_not_missing_and_rounds_keep_their_numbers(tmp_path: Path, segment_rows: int) -> None:
    """Of their rounds the index alone knows."""
    with ns.LogStore(tmp_path / "old/logs.db", segment_rows=segment_rows) as store:
        for number in range(6):
            for offset in range(300 // segment_rows + 3):
                append(store, at(number, offset), f"run-{offset % 2}", message(number))
        store.archive_logs(now=NOW, max_days=4)
        store.expire_archive(before=day(2))
        rounds = {run: store.get_thread_rounds(run, limit=1000) for run in ("run-0", "run-1")}
        assert all(0 < len(found) < found[0].round for found in rounds.values())
    assert ns.salvage(tmp_path / "old/logs.db", tmp_path / "new/logs.db").missing == ()
    with ns.LogStore(tmp_path / "new/logs.db", archive_dir=tmp_path / "old/archive/logs") as store:
        assert {run: store.get_thread_rounds(run, limit=1000) for run in rounds} == rounds
        assert store.verify().ok


@pytest.mark.parametrize("change", ["row_count = 99", "last_id = first_id - 1", "checksum = 'x'"])
def test_a_segment_that_is_damaged_hides_no_missing_row(tmp_path: Path, change: str) -> None:
    with ns.LogStore(tmp_path / "old/logs.db", segment_rows=8) as store:
        store.append_many([("system", "tick", None, "x", NOW)] * 40)
    foreign_sql(tmp_path / "old/logs.db", "DELETE FROM logs WHERE id = 12")
    foreign_sql(tmp_path / "old/logs.db", f"UPDATE OR IGNORE log_segments SET {change} WHERE first_id = 9")
    missing = ns.salvage(tmp_path / "old/logs.db", tmp_path / "new.db").missing
    assert any(first <= 12 <= last for first, last in missing)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
@pytest.mark.parametrize("page_bytes", [512, 4096, 65_536])
def test_databases_of_another_page_size_or_encoding(tmp_path: Path, encoding: str, page_bytes: int) -> None:
    path = tmp_path / "old/logs.db"
    path.parent.mkdir()
    foreign_script(path, f"PRAGMA page_size = {page_bytes}; PRAGMA encoding = '{encoding}'; {UPSTREAM_SCHEMA}")
    texts = ["text", "f\u00fcr", "\u4e2d\u6587", "\U0001f600", "long \U0001f600 " * 500]
    with ns.LogStore(path) as store:
        for number, text in enumerate(texts * 40):
            store.append(text[:9], text[:5], text[:7], text, NOW + number)
        store.create_workflow_run(texts[3], texts[2])
        store.set_meta(texts[1], texts[2])
        rows = as_rows(store.iter())
    report = ns.salvage(path, tmp_path / "new.db")
    assert (report.row_count, report.missing) == (len(rows), ())
    with ns.LogStore(tmp_path / "new.db") as store:
        assert as_rows(store.iter()) == rows
        assert [run.run_id for run in store.get_active_workflow_runs()] == [texts[3]]
        assert store.get_meta(texts[1]) == texts[2]
