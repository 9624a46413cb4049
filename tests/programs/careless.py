"""The controls of the fault sweeps: programs that take their steps in the wrong order. A sweep must catch them."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import UTC, date, datetime, timedelta

from programs import say


def archive_badly(*, path: str, now: int) -> None:
    """An archiver that deletes first and writes afterwards."""
    connection = sqlite3.connect(path, isolation_level=None)
    boundary = now - timedelta(days=30) // timedelta(milliseconds=1)
    boundary -= boundary % 86_400_000
    rows = connection.execute("SELECT * FROM logs WHERE timestamp < ? ORDER BY id", (boundary,)).fetchall()
    connection.execute("DELETE FROM logs WHERE timestamp < ?", (boundary,))
    connection.close()
    directory = os.path.join(os.path.dirname(path), "archive", "logs")
    os.makedirs(directory, exist_ok=True)
    days: dict[date, list[str]] = {}
    for row in rows:
        record = dict(zip(("id", "source", "type", "refId", "payload", "timestamp"), row, strict=True))
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        days.setdefault(datetime.fromtimestamp(row[5] // 1000, UTC).date(), []).append(line + "\n")
    for day, lines in days.items():
        with open(os.path.join(directory, f"{day}.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(lines)
    say({"days": len(days)})
