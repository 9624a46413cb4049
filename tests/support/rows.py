"""Rows as the reference writes them, and where every row is: in the database, in a file of the archive, in both."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import zstandard

import nerve_store as ns
import reference
from reference import Row


def as_row(entry: ns.LogEntry) -> Row:
    return Row(entry.id, entry.source, entry.type, entry.ref_id, entry.payload, entry.timestamp)


def as_rows(entries: Iterable[ns.LogEntry]) -> list[Row]:
    return [as_row(entry) for entry in entries]


def database_rows(store: ns.LogStore) -> list[Row]:
    return as_rows(store.iter())


@dataclass(eq=False)
class Union:
    """Where every row is: in the database, in the file of its day, or in both."""

    database: dict[int, Row]
    files: dict[date, list[Row]]

    @functools.cached_property
    def archived(self) -> dict[int, Row]:
        return {row.id: row for rows in self.files.values() for row in rows}

    @functools.cached_property
    def repeated(self) -> set[int]:
        """The ids that are in both places."""
        return self.database.keys() & self.archived.keys()

    @functools.cached_property
    def rows(self) -> dict[int, Row]:
        return {**self.database, **self.archived}


def read_day_file(path: Path) -> list[Row]:
    """The rows of a day file, read by other code than the store's; asserts that the file is as upstream writes one."""
    day = date.fromisoformat(path.name.split(".")[0])
    content = path.read_bytes()
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as stream:
            content = stream.read()
    assert content == b"" or content.endswith(b"\n"), f"{path.name}: torn last line"
    rows: list[Row] = []
    for line in content.decode("utf-8").split("\n")[:-1]:
        row = reference.parse_archive_line(line)
        assert reference.archive_line(row) == line, f"{path.name}: not as JSON.stringify writes it: {line}"
        assert reference.utc_day(row.timestamp) == day, f"{path.name}: row {row.id} belongs to another day"
        rows.append(row)
    ids = [row.id for row in rows]
    assert ids == sorted(set(ids)), f"{path.name}: ids not strictly increasing"
    return rows


def day_files(archive_dir: str | os.PathLike[str]) -> dict[date, Path]:
    """The day files of an archive directory; asserts that nothing else in it could be taken for one."""
    directory = Path(archive_dir)
    files: dict[date, Path] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        if re.fullmatch(r"\d{4}-\d\d-\d\d\.jsonl(\.zst)?", path.name):
            day = date.fromisoformat(path.name.split(".")[0])
            assert day not in files, f"{day} has two files"
            files[day] = path
        else:
            assert ".jsonl" not in path.name, f"{path.name} would be read as archive"
    return files


def read_union(store: ns.LogStore) -> Union:
    database = {row.id: row for row in database_rows(store)}
    files = {day: read_day_file(path) for day, path in day_files(store.archive_dir).items()}
    archived = Counter(row.id for rows in files.values() for row in rows)
    assert all(times == 1 for times in archived.values()), "a row is in two files"
    union = Union(database, files)
    for row_id in union.repeated:
        assert union.database[row_id] == union.archived[row_id], f"row {row_id} differs between database and archive"
    return union


def assert_union(
    store: ns.LogStore, expected: Mapping[int, Row] | Iterable[Row], *, may_repeat: Collection[int] = ()
) -> Union:
    """Every expected row is there with its content, once, and no other row; `may_repeat`: ids allowed in both."""
    rows = expected if isinstance(expected, Mapping) else {row.id: row for row in expected}
    union = read_union(store)
    lost, strange = rows.keys() - union.rows.keys(), union.rows.keys() - rows.keys()
    assert not lost, f"lost rows {sorted(lost)[:10]} ({len(lost)} of {len(rows)})"
    assert not strange, f"rows that nobody appended {sorted(strange)[:10]}"
    for row_id, row in rows.items():
        assert union.rows[row_id] == row
    assert union.repeated <= set(may_repeat), f"in both places {sorted(union.repeated - set(may_repeat))[:10]}"
    return union


def tree(directory: Path) -> dict[str, str]:
    """Relative path to sha256 of every file below `directory`, so that a test can say that nothing changed."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def without_sidecars(files: Mapping[str, str]) -> dict[str, str]:
    """`files` without SQLite's `-wal` and `-shm`, which come and go with a reader too."""
    return {name: digest for name, digest in files.items() if not name.endswith(("-wal", "-shm"))}


def as_message(message: ns.ThreadMessage) -> reference.Message:
    return reference.Message(message.role, message.content, message.meta, message.timestamp)


def as_round(item: ns.ThreadRound) -> reference.Round:
    return reference.Round(item.round, item.log_id, item.timestamp, as_message(item.message))


def as_run(run: ns.WorkflowRun) -> reference.Run:
    return reference.Run(run.run_id, run.workflow, str(run.status), run.timestamp, run.exit_code)


def as_json(record: Any) -> Any:
    """A dataclass of ours as plain JSON values, so that a child process can print it."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=str))
