"""Damage to one file of a store, and what the store then says: a right answer, an error of ours, or something wrong."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import nerve_store as ns
from programs.commits import COMMITS, ROWS_A_COMMIT
from support.archive import NOW, at, message
from support.processes import child_command, run_command

PAGE = 4096
SEGMENT_ROWS = 64
ROWS = 1500
TAIL = 9
"""Rows that are in no segment."""
BLOBS = [b"blob %d " % number + b"." * (number * 7001) for number in range(4)]


# --- what is damaged ---------------------------------------------------------------------------------------------


def flip_bits(content: bytes, random: Random) -> bytes:
    """One bit, or a few."""
    damaged = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 8])):
        damaged[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def cut_off(content: bytes, random: Random) -> bytes:
    """Anywhere, or at the end of a page; but not to nothing: a database without a byte is a new one."""
    length = random.randrange(1, len(content))
    return content[: length - length % random.choice([1, 512, PAGE]) or 1]


def swap_pages(content: bytes, random: Random) -> bytes:
    """Two pages, or two sectors where there are no two pages."""
    size = next(size for size in (PAGE, 512, 16, 1) if len(content) >= 2 * size)
    first, second = sorted(random.sample(range(len(content) // size), 2))
    pages = [content[start : start + size] for start in range(0, len(content), size)]
    pages[first], pages[second] = pages[second], pages[first]
    return b"".join(pages)


KINDS: dict[str, Callable[[bytes, Random], bytes]] = {
    "bit flips": flip_bits,
    "truncations": cut_off,
    "page swaps": swap_pages,
}
FILES: dict[str, str] = {
    "database": "logs.db",
    "write-ahead log": "logs.db-wal",
    "plain day": "archive/logs/*.jsonl",
    "compressed day": "archive/logs/*.zst",
    "blob": "blobs/[0-9a-f][0-9a-f]/*",
}


def new_rows(count: int, start: int = 0) -> Iterator[tuple[str, str, str | None, str, int]]:
    for n in range(start, start + count):
        ref_id = (None, f"ref-{n % 7}", f"run-{n % 5}")[n % 3]
        yield (f"source-{n % 3}", f"type-{n % 4}", ref_id, f"{n} " + "x" * (n % 90), at(n % 8, n))


def fill(path: str) -> None:
    """Days in both formats, days in the database, sealed segments, runs with rounds, a tail, and meta values."""
    with ns.Store(path) as store:
        blobs = store.blobs
        blobs.write_many(BLOBS)
    with ns.LogStore(Path(path, "logs.db"), segment_rows=SEGMENT_ROWS) as logs:
        for start in range(0, ROWS, 100):
            logs.append_many(new_rows(100, start))
        for number in range(4):
            run_id = f"done-{number}"
            run = ns.WorkflowRun(run_id, "deploy", ns.WorkflowRunStatus.QUEUED, at(6))
            logs.upsert_workflow_run(("workflow", "queued", run_id, '{"prompt":"go"}', at(6)), run)
            logs.transition(run_id, "started", timestamp=at(6, 1))
            rounds = [("workflow", "thread_workflow_message", run_id, message(n), at(6, n)) for n in range(20)]
            logs.append_many(rounds)
            logs.transition(run_id, "completed", exit_code=number, timestamp=at(6, 2))
        logs.set_meta("key", "value of the key")
        logs.archive_logs(now=NOW, max_days=2)
        logs.archive_logs(now=NOW, max_days=2, compression="zstd")
        missing = -logs.stats().row_count % SEGMENT_ROWS
        logs.append_many(new_rows(missing + TAIL, ROWS))


@dataclass
class Template:
    """A whole store, and what it says."""

    directory: Path
    file: str
    truth: dict[str, Any] = field(default_factory=dict)
    checkpointed: int = 0
    """Rows that do not depend on the write-ahead log."""


def make_template(directory: Path, file: str) -> Template:
    fill(str(directory))
    with ns.LogStore(directory / "logs.db") as logs:
        checkpointed = logs.count(archived=True)
    if file == "write-ahead log":
        done = run_command(
            child_command("leave_commits_in_the_log", path=str(directory / "logs.db"), segment_rows=SEGMENT_ROWS)
        )
        assert done.returncode == 0, done.stderr
        (directory / "logs.db-shm").unlink()
    template = Template(directory, file, checkpointed=checkpointed)
    whole = Path(shutil.copytree(directory, directory.with_name("whole")))
    with ns.LogStore(whole / "logs.db") as logs:
        template.truth = {name: read(logs) for name, read in reads().items()}
        assert logs.verify().ok
    assert blob_contents(whole) == {hashlib.sha256(content).hexdigest(): content for content in BLOBS}
    return template


# --- what is read ------------------------------------------------------------------------------------------------


def plain(entries: Any) -> list[tuple[Any, ...]]:
    return [(e.id, e.source, e.type, e.ref_id, e.payload, e.timestamp) for e in entries]


def reads() -> dict[str, Callable[[ns.LogStore], Any]]:
    return {
        "rows": lambda logs: plain(logs.query(archived=True)),
        "rows of a reference": lambda logs: plain(logs.query(ref_id="ref-3", archived=True)),
        "rows of a run": lambda logs: plain(logs.query(ref_id="done-2", archived=True)),
        "rows of a source and type": lambda logs: plain(logs.query(source="source-1", type="type-2", archived=True)),
        "rows of a time": lambda logs: plain(logs.query(since=at(3), until=at(5), archived=True)),
        "newest rows": lambda logs: plain(logs.query(descending=True, limit=70, archived=True)),
        "count": lambda logs: logs.count(archived=True, type="type-1"),
        "runs": lambda logs: [as_record(run) for run in logs.get_all_workflow_runs()],
        "a run": lambda logs: as_record(logs.get_workflow_run("done-1")),
        "rounds": lambda logs: [(r.round, r.log_id, r.message) for r in logs.get_thread_rounds("done-2", limit=9)],
        "trigger": lambda logs: logs.get_trigger_payload("done-3"),
        "meta": lambda logs: logs.get_meta("key"),
        "a plain day": lambda logs: plain(logs.read_archive(logs.archived_days()[0].day)),
        "a compressed day": lambda logs: plain(logs.read_archive(logs.archived_days()[-1].day)),
    }


def as_record(run: ns.WorkflowRun | None) -> Any:
    return run and (run.run_id, run.workflow, str(run.status.value), run.timestamp, run.exit_code)


def blob_contents(directory: Path) -> dict[str, bytes | None]:
    blobs = ns.BlobStore(directory / "blobs")
    return {blob_hash: blobs.read(blob_hash) for blob_hash in blobs}


@dataclass
class Outcome:
    """What the reads and the verification of one damaged store said."""

    wrong: list[str] = field(default_factory=list)
    dropped: bool = False
    """The newest commits are missing, as a write-ahead log that is damaged may have it."""
    refused: list[str] = field(default_factory=list)
    found: bool = False
    error: str = ""

    @property
    def name(self) -> str:
        if self.wrong:
            return "wrong, found by verify" if self.found else "wrong, undetected"
        if self.refused:
            return "refused with an error"
        if self.dropped:
            return "the newest commits are missing"
        return "right, found by verify" if self.found else "right"


def observe_logs(template: Template, directory: Path) -> Outcome:
    outcome = Outcome()
    try:
        logs = ns.LogStore(directory / "logs.db", busy_timeout=1)
    except (ns.NerveStoreError, ValueError) as error:
        outcome.refused.append("open")
        outcome.error = repr(error)
        outcome.found = True
        return outcome
    with logs:
        for name, read in reads().items():
            try:
                result = read(logs)
            except (ns.NerveStoreError, KeyError, IndexError) as error:
                outcome.refused.append(name)
                outcome.error = repr(error)
                continue
            if result == template.truth[name]:
                continue
            if template.file == "write-ahead log" and is_dropped(template, name, result):
                outcome.dropped = True
            else:
                outcome.wrong.append(name)
        try:
            outcome.found = not logs.verify().ok
        except ns.NerveStoreError as error:
            outcome.found = True
            outcome.error = repr(error)
    return outcome


def is_dropped(template: Template, name: str, result: Any) -> bool:
    """Whether a result is what was right before the newest commits."""
    rows = template.truth["rows"]
    cut = [rows[: template.checkpointed + commits * ROWS_A_COMMIT] for commits in range(COMMITS + 1)]
    match name:
        case "rows":
            return result in cut
        case "count":
            return result in [sum(row[2] == "type-1" for row in some) for some in cut]
        case "newest rows":
            return result in [some[:-71:-1] for some in cut]
        case _:
            return isinstance(result, list) and all(row in template.truth[name] for row in result)


def observe_blobs(directory: Path) -> Outcome:
    outcome = Outcome()
    blobs = ns.BlobStore(directory / "blobs")
    contents = {hashlib.sha256(content).hexdigest(): content for content in BLOBS}
    for blob_hash, content in contents.items():
        try:
            if blobs.read(blob_hash) != content:
                outcome.wrong.append(blob_hash)
        except ns.BlobCorruptError:
            outcome.refused.append(blob_hash)
    outcome.found = not blobs.verify().ok
    return outcome


def damaged(template: Template, scratch: Path, kind: str, seed: int) -> Outcome:
    """The outcome of one damage."""
    random = Random(f"{template.file} {kind} {seed}")
    directory = Path(shutil.copytree(template.directory, scratch / "damaged"))
    file = random.choice(sorted(directory.glob(FILES[template.file])))
    content = file.read_bytes()
    file.chmod(0o600)
    changed = next(new for new in (KINDS[kind](content, random) for _ in itertools.count()) if new != content)
    file.write_bytes(changed)
    outcome = observe_blobs(directory) if template.file == "blob" else observe_logs(template, directory)
    shutil.rmtree(directory)
    return outcome


def tally(template: Template, scratch: Path, kind: str, count: int) -> tuple[Counter[str], list[tuple[int, Outcome]]]:
    """How often each outcome came, and the undetected ones with their seeds."""
    outcomes: Counter[str] = Counter()
    undetected = []
    for seed in range(count):
        outcome = damaged(template, scratch, kind, seed)
        outcomes[outcome.name] += 1
        if outcome.name == "wrong, undetected":
            undetected.append((seed, outcome))
    return outcomes, undetected
