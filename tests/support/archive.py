"""What the tests of the archive share: days, rows on them, and what a run gained."""

from __future__ import annotations

import json
import re
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import nerve_store as ns
import reference
from reference import DAY_MS, Row
from support import as_row, database_rows, read_day_file

MANIFEST_TABLES = ("archive_days", "archive_contents", "archive_refs")

MARK = ".nerve-store"
"""The file that says whose archive a directory is."""

DAY_ONE = date(2026, 1, 1)
NOW = reference.day_start(date(2026, 4, 1)) + 12 * 3_600_000
"""Late enough that all of January and February is to be archived."""


def at(day: int, offset: int = 0) -> int:
    """A timestamp on the `day`th day (from 0)."""
    return reference.day_start(DAY_ONE) + day * DAY_MS + offset


def day(number: int) -> date:
    return DAY_ONE + timedelta(days=number)


def append(store: ns.LogStore, timestamp: int, ref_id: str | None = None, payload: str | None = "x") -> Row:
    return as_row(store.append("workflow", "thread_workflow_message", ref_id, payload, timestamp))


def fill(store: ns.LogStore, *, days: int = 10, per_day: int = 7) -> list[Row]:
    """`per_day` rows on each of `days` days, days interleaved, payloads awkward."""
    store.append_many(
        ("system", "tick", f"ref-{n % 3}", f'{n} "ü\u2028🧠\\\0\x1f"', at(n % days, n)) for n in range(days * per_day)
    )
    return database_rows(store)


def put_run(store: ns.LogStore, status: str, run_id: str = "run-1") -> Row:
    run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus(status), NOW)
    return as_row(store.upsert_workflow_run(("workflow", status, run_id, None, NOW), run, force=True))


def gained(result: ns.ArchiveResult) -> dict[date, int]:
    return {item.day: item.added_rows for item in result.days}


def archived_elsewhere(data_dir: Path, scratch: Path, **options: Any) -> Path:
    """The archive directory after a whole run on a copy of a closed store."""
    shutil.copytree(data_dir, scratch)
    with ns.LogStore(scratch / "logs.db") as store:
        store.archive_logs(now=NOW, **options)
    return scratch / "archive" / "logs"


def message(number: int) -> str:
    """The payload of a thread message."""
    return json.dumps({"role": "coder", "content": f"message {number}", "timestamp": number})


def damage_file(path: Path, damage: str) -> None:
    """Cut the end of a file off ("cut"), write another one in its place ("changed"), or remove the file ("gone")."""
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-30] + (b"x" * 30 if damage == "changed" else b""))


def content_of(directory: Path) -> dict[str, bytes]:
    """All that is in an archive directory, by name; a staged file that was left shows as one too many."""
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def file_rows(directory: Path) -> dict[int, Row]:
    """The rows in all day files, read by other code than the store's; a row in two files must be the same in both."""
    found: dict[int, Row] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        if re.fullmatch(r"\d{4}-\d\d-\d\d\.jsonl(\.zst)?", path.name):
            for row in read_day_file(path):
                assert found.setdefault(row.id, row) == row
    return found
