"""How the predecessor archives: whole days in place, by time, whatever is there already."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import reference
from reference import DAY_MS, Row
from support.foreign import foreign_script, foreign_sql


def archive(database: Path, *, last_day: date, max_days: int | None = None, delete: bool = True) -> list[Path]:
    """Its `archiveLogs`: the file of each day from the first one on is overwritten with the day's rows in the database,
    which are deleted; days without rows get an empty file. `delete=False`: it is killed before it deletes.
    """
    directory = database.parent / "archive" / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    ((first,),) = foreign_sql(database, "SELECT min(timestamp) FROM logs")
    if first is None:
        return []
    watermark = foreign_sql(database, "SELECT value FROM meta WHERE key = 'archived_up_to'")
    day = reference.utc_day(first)
    if watermark:
        day = min(day, date.fromisoformat(watermark[0][0]) + timedelta(days=1))
    written: list[Path] = []
    while day <= last_day and (max_days is None or len(written) < max_days):
        start = reference.day_start(day)
        columns = "id, source, type, ref_id, payload, timestamp"
        rows = foreign_sql(
            database,
            f"SELECT {columns} FROM logs WHERE timestamp >= ? AND timestamp < ? ORDER BY id ASC",
            (start, start + DAY_MS),
        )
        path = directory / f"{day}.jsonl"
        path.write_text("".join(f"{reference.archive_line(Row(*row))}\n" for row in rows), encoding="utf-8")
        written.append(path)
        if delete:
            foreign_script(
                database,
                f"BEGIN IMMEDIATE; DELETE FROM logs WHERE timestamp >= {start} AND timestamp < {start + DAY_MS};"
                f"INSERT OR REPLACE INTO meta VALUES ('archived_up_to', '{day}'); COMMIT;",
            )
        day += timedelta(days=1)
    return written
