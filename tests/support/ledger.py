"""What a campaign acknowledged, and whether a store still has all of it; see `programs.campaign`."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nerve_store as ns
from programs.campaign import BACKUP
from programs.tagged import NOW, big_row_of, blob_of, row_of

Tag = tuple[str, int]
STATES = ("queued", "started", "completed", "crashed", "failed")


@dataclass
class Ledger:
    """What must be there, and what may be."""

    rows: dict[int, Tag] = field(default_factory=dict)
    """By id; a control's rows have ids below 0, and are looked for by their tag."""
    early: list[Tag] = field(default_factory=list)
    tried: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """By writer: the first number and the count of what it began to append, in the order of the numbers."""
    runs: dict[str, str] = field(default_factory=dict)
    tried_runs: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    meta: dict[str, int] = field(default_factory=dict)
    tried_meta: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, Tag] = field(default_factory=dict)
    backup: int | None = None
    """The last id of the newest backup."""
    followed: list[int] = field(default_factory=list)
    late: int = 0
    """Acknowledgements that prove nothing: they were written when the power cut had begun."""

    @property
    def count(self) -> int:
        return len(self.rows) + len(self.early) + len(self.runs) + len(self.meta) + len(self.blobs)

    def has_tried(self, writer: str, number: int) -> bool:
        tried = self.tried.get(writer, [])
        at = bisect.bisect_right(tried, (number, 1 << 60)) - 1
        return at >= 0 and number < sum(tried[at])


def records_of(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The records of the file with their offsets; a line that a kill cut off says nothing."""
    records = []
    offset = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if line.endswith(b"\n") and line != b"\n":
            # A torn one, behind which another process wrote, is no record.
            with contextlib.suppress(json.JSONDecodeError):
                records.append((offset, json.loads(line)))
        offset += len(line)
    return records


def read_ledger(path: Path, *, power: bool) -> Ledger:
    """What must have survived kills or, with `power`, power cuts."""
    reader = _Reader(power=power)
    records = records_of(path)
    cuts = [(record["cut"], offset) for offset, record in records if "cut" in record]
    for offset, record in records:
        if "done" in record and any(begin <= offset < end for begin, end in cuts):
            reader.ledger.late += 1
        elif "cut" not in record:
            reader.take(record)
    return reader.ledger


class _Reader:
    """Takes the records in their order.

    A `normal` commit survives a power cut if a `full` one began after its acknowledgement and was acknowledged, too.
    """

    def __init__(self, *, power: bool) -> None:
        self.power = power
        self.ledger = Ledger()
        self.normal: list[tuple[int, int, str, int]] = []
        """Acknowledged `normal` appends: first id, count, writer, first number."""
        self.covered: dict[tuple[str, int], int] = {}
        """By a `full` append that began: how many of them it makes durable."""

    def take(self, record: dict[str, Any]) -> None:
        ledger = self.ledger
        match record:
            case {"begin": _}:
                self.normal, self.covered = [], {}
            case {"trying": "rows"} | {"done": "rows"}:
                self.take_rows(record)
            case {"trying": "run", "run": run_id, "status": status}:
                ledger.tried_runs[run_id].add(status)
            case {"done": "run", "run": run_id, "status": status}:
                ledger.runs[run_id] = status
            case {"trying": "meta", "key": key, "value": value}:
                ledger.tried_meta[key] = value
            case {"done": "meta", "key": key, "value": value}:
                ledger.meta[key] = value
            case {"done": "blobs", "writer": writer, "number": first, "hashes": hashes}:
                ledger.blobs.update((found, (writer, first + at)) for at, found in enumerate(hashes))
            case {"done": "backup", "last_id": last_id}:
                ledger.backup = last_id
            case {"done": "followed", "ids": ids}:
                ledger.followed += ids
            case _:
                pass

    def take_rows(self, record: dict[str, Any]) -> None:
        writer, first, count, durability = (record[key] for key in ("writer", "number", "count", "durability"))
        if "trying" in record:
            self.ledger.tried[writer].append((first, count))
            self.covered[writer, first] = len(self.normal)
            return
        acknowledged = (record["id"], count, writer, first)
        if self.power and durability == "normal":
            self.normal.append(acknowledged)
            return
        for each in [*self.normal[: self.covered.get((writer, first), 0)], acknowledged]:
            self.remember(*each)

    def remember(self, first_id: int, count: int, writer: str, first: int) -> None:
        if first_id < 0:
            self.ledger.early.append((writer, first))
            return
        for at in range(count):
            self.ledger.rows[first_id + at] = (writer, first + at)


def written(writer: str, number: int, payload: str | None) -> tuple[Any, ...]:
    """The row of the tag, in the form that a payload of this length says."""
    return (big_row_of if payload is not None and len(payload) > 1000 else row_of)(writer, number)


def fields(entry: ns.LogEntry) -> tuple[Any, ...]:
    return (entry.source, entry.type, entry.ref_id, entry.payload, entry.timestamp)


def complaints_about_rows(ledger: Ledger, rows: list[ns.LogEntry]) -> Iterable[str]:
    ids = [entry.id for entry in rows]
    if any(first >= second for first, second in itertools.pairwise(ids)):
        yield "ids do not ascend, or repeat"
    by_id = {entry.id: entry for entry in rows}
    for row_id, tag in ledger.rows.items():
        found = by_id.get(row_id)
        if found is None:
            yield f"lost row {row_id}, {tag}"
        elif fields(found) != written(*tag, found.payload):
            yield f"changed row {row_id}: {found!r:.200}"


def complaints_about_tags(ledger: Ledger, rows: list[ns.LogEntry]) -> Iterable[str]:
    """Of rows that are there: each must be one that a writer began to write, as it is, once."""
    tags = set()
    for entry in rows:
        if not entry.source.startswith("source-"):
            continue
        writer, _, number = (entry.payload or "").split("|")[0].rpartition(".")
        if (writer, int(number)) in tags:
            yield f"row {entry.id} is there twice, under two ids"
        tags.add((writer, int(number)))
        if not ledger.has_tried(writer, int(number)):
            yield f"row {entry.id} that no writer wrote"
        elif fields(entry) != written(writer, int(number), entry.payload):
            yield f"wrong row {entry.id}: {entry!r:.200}"
    for tag in ledger.early:
        if tag not in tags:
            yield f"lost row of tag {tag}"


def complaints_about_runs(ledger: Ledger, logs: ns.LogStore) -> Iterable[str]:
    for run_id, tried in ledger.tried_runs.items():
        run = logs.get_workflow_run(run_id)
        status = str(run.status.value) if run is not None else None
        said = [entry.type for entry in logs.query(ref_id=run_id, archived=True)]
        if status != (said[-1] if said else None):
            yield f"run {run_id} is {status}, and its rows say {said}"
        acknowledged = ledger.runs.get(run_id)
        if acknowledged is None or status == acknowledged:
            continue
        if status is None or STATES.index(status) <= STATES.index(acknowledged) or status not in tried:
            yield f"lost state {acknowledged} of run {run_id}, which is {status}"
    for key, value in ledger.meta.items():
        found = logs.get_meta(key)
        if found is None or not value <= int(found) <= ledger.tried_meta[key]:
            yield f"lost value {value} of {key}, which is {found}"


def complaints_about_blobs(ledger: Ledger, blobs: ns.BlobStore) -> Iterable[str]:
    for blob_hash, tag in ledger.blobs.items():
        try:
            found = blobs.read(blob_hash)
        except ns.BlobCorruptError as error:
            yield f"lost blob {tag}: {error}"
            continue
        if found is None:
            yield f"lost blob {tag}"
        elif found != blob_of(*tag):
            yield f"wrong blob {tag}"


def complaints_about_backup(ledger: Ledger, backup: Path) -> Iterable[str]:
    """It is the newest that was acknowledged, or the next one; or none, which says so."""
    if not (backup / "logs.db").exists():
        if ledger.backup is not None:
            yield f"lost backup of the rows up to {ledger.backup}"
        elif backup.exists() and any(backup.iterdir()):
            with contextlib.suppress(ns.StoreIOError), ns.Store(backup):
                yield "a backup that is not finished was opened"
        return
    if ledger.backup == -1:
        yield "a backup had problems"
    with ns.Store(backup, read_only=True) as store:
        rows = store.logs.query(archived=True)
        own = {row_id: tag for row_id, tag in ledger.rows.items() if row_id <= (ledger.backup or 0)}
        yield from complaints_about_rows(replace(ledger, rows=own), rows)
        yield from complaints_about_tags(replace(ledger, early=[]), rows)
        # Files may be newer than the database.
        problems = [
            problem for problem in store.logs.verify().problems if "another file of this day" not in problem.reason
        ]
        yield from (f"verify: {problem}" for problem in [*problems, *store.blobs.verify().problems])


def complaints_about_next_backup(directory: Path, backup: Path) -> Iterable[str]:
    """It is whole."""
    with ns.Store(directory, read_only=True) as store:
        report = store.backup(backup)
        with ns.Store(backup, read_only=True) as copy:
            verified = [*report.problems, *copy.logs.verify().problems, *copy.blobs.verify().problems]
            yield from (f"the next backup: {problem}" for problem in verified)
            if copy.logs.query(archived=True) != store.logs.query(archived=True):
                yield "the next backup has other rows"
            if not set(store.blobs) <= set(copy.blobs):
                yield "the next backup lacks blobs"


def complaints(directory: Path, ledger: Ledger, upstream: list[Any] | None = None) -> list[str]:
    """All that is wrong with the store after the campaign; then the store is used, and has to be right again."""
    backup = directory.with_name(BACKUP)
    found = [f"backup: {each}" for each in complaints_about_backup(ledger, backup)]
    with ns.LogStore(directory / "logs.db") as logs, ns.BlobStore(directory / "blobs") as blobs:
        rows = logs.query(archived=True)
        found += complaints_about_rows(ledger, rows)
        found += complaints_about_tags(ledger, rows)
        found += complaints_about_runs(ledger, logs)
        found += complaints_about_blobs(ledger, blobs)
        if upstream is not None and [[e.id, *fields(e)] for e in rows[: len(upstream)]] != upstream:
            found.append("lost rows of the predecessor")
        found += [f"verify: {problem}" for problem in logs.verify().problems]
        found += [f"verify of blobs: {problem}" for problem in blobs.verify().problems]
        last = max([0, *ledger.rows, *(entry.id for entry in rows)])
        if (probe := logs.append("probe", "probe", timestamp=NOW)).id <= last:
            found.append(f"id {probe.id} was given again, after {last}")
        logs.archive_logs(now=NOW)
        if [as_tuple(entry) for entry in logs.query(archived=True, before_id=probe.id)] != [*map(as_tuple, rows)]:
            found.append("an archive job changed what there is")
        found += [f"verify after an archive job: {problem}" for problem in logs.verify().problems]
        archive = Path(logs.archive_dir)
        found += [f"{path} was left" for path in archive.glob(".stage-*")]
    if backup.exists():
        found += complaints_about_next_backup(directory, backup)
    return found


def as_tuple(entry: ns.LogEntry) -> tuple[Any, ...]:
    return (entry.id, *fields(entry))


def complaints_about_follower(ledger: Ledger, rows: list[ns.LogEntry]) -> list[str]:
    """A follower that was killed and went on after what it had said has seen every row once, in order."""
    followed = ledger.followed
    expected = [entry.id for entry in rows if followed and entry.id <= followed[-1]]
    if followed == expected:
        return []
    missed, strange = sorted(set(expected) - set(followed)), sorted(set(followed) - set(expected))
    return [f"a follower missed {missed[:5]}, saw {strange[:5]} besides, {len(followed)} of {len(expected)}"]
