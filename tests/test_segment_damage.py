"""Changed rows of the database are found by the checksums of their segments."""

from __future__ import annotations

from pathlib import Path

import pytest

import nerve_store as ns
from support import (
    database_rows,
    foreign_sql,
)
from support.archive import NOW, at, fill


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE logs SET payload = payload || '.' WHERE id = 12",
        "UPDATE logs SET timestamp = timestamp + 1 WHERE id = 12",
        "UPDATE logs SET ref_id = NULL WHERE id = 12",
        "UPDATE logs SET source = 'System' WHERE id = 12",
        "DELETE FROM logs WHERE id = 12",
        "DELETE FROM logs WHERE id BETWEEN 9 AND 16",
    ],
)
@pytest.mark.parametrize("archived", [False, True], ids=["all live", "half archived"])
def test_changed_row_is_found_by_the_checksum_of_its_segment(data_dir: Path, damage: str, archived: bool) -> None:
    with ns.LogStore(data_dir / "logs.db", segment_rows=8) as store:
        rows = fill(store, days=6, per_day=7)
        if archived:
            store.archive_logs(now=NOW, max_days=3)
            assert 12 in {row.id for row in database_rows(store)}
            assert store.count() == len(rows) // 2
        assert store.verify().ok
        foreign_sql(data_dir / "logs.db", damage)
        (problem,) = store.verify().problems
        assert Path(problem.path) == data_dir / "logs.db"
        assert (problem.first_id, problem.last_id) == (9, 16)
        assert "ids 9 to 16" in problem.reason


def test_bit_flip_in_the_database_file_is_found(data_dir: Path) -> None:
    """In the text of a row, where SQLite's own check sees nothing."""
    path = data_dir / "logs.db"
    with ns.LogStore(path, segment_rows=8) as store:
        store.append_many([("system", "tick", None, f"needle-{n}-" + "x" * 50, at(n % 3)) for n in range(64)])
    # Everywhere, because pages that were split keep old copies.
    path.write_bytes(path.read_bytes().replace(b"needle-37-", b"neddle-37-"))
    with ns.LogStore(path, segment_rows=8) as store:
        assert foreign_sql(path, "PRAGMA integrity_check") == [("ok",)]
        (problem,) = store.verify().problems
        assert problem.first_id is not None
        assert problem.last_id is not None
        assert problem.first_id <= 38 <= problem.last_id
