"""Work that goes on until it is cut short: by a kill, by a power cut, or by the end of its time.

What a call has acknowledged goes to a file at once, one JSON record a line. A row and a blob follow from their tag (a
writer and a number) alone, so that a record names thousands of them in a few bytes. `support.ledger` reads the file,
and compares a store with it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal

import nerve_store as ns
from programs.tagged import DAY_MS, DAYS, NOW, NewRow, big_row_of, blob_of, row_of

MOST_BIG = 40
"""Of these a worker appends at the most, so that a quick machine does not fill the disk that a check archives to."""
BACKUP = "backup"
"""The directory of the backup, beside that of the store."""

Durability = Literal["full", "normal"]


def flush(path: Path) -> None:
    """A file, or the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Worker:
    """A store, a file of acknowledgements, and what a program does to the store."""

    def __init__(self, path: str, acknowledgements: str, writer: str, full: Durability = "full") -> None:
        self.path = Path(path)
        self.writer = writer
        self.full = full
        """What is passed where "full" is said: a control passes "normal"."""
        self.file = os.open(acknowledgements, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.acknowledgements = acknowledgements
        self.random = Random(writer)
        self.numbers = itertools.count()
        self.big = itertools.count()
        self.threads = itertools.count()
        self.open()

    def open(self) -> None:
        self.logs = ns.LogStore(self.path / "logs.db", durability=self.full)
        self.blobs = ns.BlobStore(self.path / "blobs", durability=self.full)

    def close(self) -> None:
        self.logs.close()
        self.blobs.close()

    def in_thread(self) -> Worker:
        """Another worker on the same objects, with tags of its own."""
        other = Worker.__new__(Worker)
        other.__dict__.update(self.__dict__)
        other.writer = f"{self.writer}+{next(self.threads)}"
        other.random = Random(other.writer)
        other.numbers = itertools.count()
        return other

    def say(self, **record: Any) -> None:
        os.write(self.file, (json.dumps({"writer": self.writer, **record}) + "\n").encode())

    # --- log ---

    def append(self, durability: Durability = "full", make: Callable[[str, int], NewRow] = row_of) -> None:
        number = next(self.numbers)
        self.say(trying="rows", number=number, count=1, durability=durability)
        actual = self.full if durability == "full" else durability
        row_id = self.logs.append(*make(self.writer, number), durability=actual).id
        self.say(done="rows", number=number, count=1, durability=durability, id=row_id)

    def append_many(self, count: int, durability: Durability = "full") -> None:
        numbers = [next(self.numbers) for _ in range(count)]
        self.say(trying="rows", number=numbers[0], count=count, durability=durability)
        actual = self.full if durability == "full" else durability
        ids = self.logs.append_many([row_of(self.writer, number) for number in numbers], durability=actual)
        self.say(done="rows", number=numbers[0], count=count, durability=durability, id=ids[0])

    def run(self) -> None:
        """A run from its beginning to its end, or some way."""
        run_id = f"run-{self.writer}.{next(self.numbers)}"
        self.say(trying="run", run=run_id, status="queued")
        run = ns.WorkflowRun(run_id, "work", ns.WorkflowRunStatus.QUEUED, 1)
        self.logs.upsert_workflow_run(("workflow", "queued", run_id, None, self.timestamp()), run)
        self.say(done="run", run=run_id, status="queued")
        for status in ("started", self.random.choice(["completed", "crashed", "failed"])):
            self.say(trying="run", run=run_id, status=status)
            self.logs.transition(run_id, ns.WorkflowRunStatus(status), timestamp=self.timestamp())
            self.say(done="run", run=run_id, status=status)
            if self.random.random() < 0.3:
                break

    def timestamp(self) -> int:
        return (1 + self.random.randrange(DAYS)) * DAY_MS

    def meta(self) -> None:
        number = next(self.numbers)
        key = f"key-{self.writer}"
        self.say(trying="meta", key=key, value=number)
        self.logs.set_meta(key, str(number))
        self.say(done="meta", key=key, value=number)

    def archive(self, **options: Any) -> None:
        self.say(trying="archive")
        with contextlib.suppress(ns.ArchiveBusyError):
            result = self.logs.archive_logs(now=NOW, **options)
            self.say(done="archive", days=len(result.days))

    # --- blobs ---

    def write_blob(self) -> None:
        number = next(self.numbers)
        content = blob_of(self.writer, number)
        self.say(trying="blobs", number=number, count=1)
        way = self.random.randrange(3)
        if way == 0:
            blob_hash = self.blobs.write(content)
        elif way == 1:
            blob_hash = self.blobs.write_file(io.BytesIO(content))
        else:
            with self.blobs.writer() as writer:
                for start in range(0, len(content), 9999):
                    writer.write(content[start : start + 9999])
            blob_hash = writer.hash
        self.say(done="blobs", number=number, count=1, hashes=[blob_hash])

    def write_blob_and_rest(self) -> None:
        """So that a power cut meets nothing else, which might flush the blob by chance."""
        self.write_blob()
        time.sleep(0.05)

    def write_blobs(self, count: int) -> None:
        numbers = [next(self.numbers) for _ in range(count)]
        self.say(trying="blobs", number=numbers[0], count=count)
        hashes = self.blobs.write_many([blob_of(self.writer, number) for number in numbers])
        self.say(done="blobs", number=numbers[0], count=count, hashes=hashes)

    def write_blob_of_file(self) -> None:
        number = next(self.numbers)
        source = Path(f"{self.acknowledgements}.{self.writer}")
        source.write_bytes(blob_of(self.writer, number))
        self.say(trying="blobs", number=number, count=1)
        blob_hash = self.blobs.write_file(source)
        self.say(done="blobs", number=number, count=1, hashes=[blob_hash])

    def collect(self) -> None:
        """Delete and collect blobs that no acknowledgement speaks of: garbage, made old."""
        garbage = [self.blobs.write(f"garbage {self.writer} {next(self.numbers)}") for _ in range(6)]
        self.blobs.delete(garbage[0])
        for blob_hash in garbage[1:]:
            with contextlib.suppress(FileNotFoundError):  # Another process collects, too.
                os.utime(self.path / "blobs" / blob_hash[:2] / blob_hash[2:], (0, 0))
        self.blobs.collect([], grace=timedelta(hours=1))
        self.blobs.verify()

    # --- backups ---

    def back_up(self) -> None:
        """Beside the directory: the first time all of it, then what is new."""
        self.say(trying="backup")
        with ns.Store(self.path, read_only=True) as store:
            report = store.backup(self.path.with_name(BACKUP))
        self.say(done="backup", last_id=report.last_id if report.ok else -1)

    def put_the_backup_back(self) -> None:
        """Beside an archive that went on, as docs/operating.md says."""
        self.append_many(self.random.choice([5, 400]))
        self.archive()
        self.close()
        database, copy = self.path / "logs.db", self.path / "copy"
        shutil.copyfile(self.path.with_name(BACKUP) / "logs.db", copy)
        flush(copy)
        for suffix in ("-wal", "-shm", "-ids"):
            database.with_name(f"logs.db{suffix}").unlink(missing_ok=True)
        copy.replace(database)
        flush(self.path)
        self.open()

    # --- kinds of work ---

    def late_rows(self, *compressions: Literal["zstd"] | None) -> None:
        """Archive again and again what comes late to the same days."""
        for _ in range(self.random.randrange(1, 4)):
            self.append_many(self.random.choice([5, 400, 2000]))
        self.run()
        self.archive(compression=self.random.choice(compressions), max_days=self.random.choice([None, None, 2]))

    def archive_and_rest(self) -> None:
        """Archive, make the deletion durable, and rest, so that a power cut meets nothing else."""
        for _ in range(5):
            self.append_many(3000)
        self.archive()
        self.append()
        time.sleep(0.5)

    def restore(self) -> None:
        self.append_many(1500)
        self.archive(compression=self.random.choice([None, "zstd"]))
        for archived in self.logs.archived_days()[:3]:
            self.logs.restore_archive(archived.day)
            self.append()

    def change_and_back_up(self) -> None:
        self.append_many(self.random.choice([1, 60, 2000]))
        self.write_blobs(3)
        if self.random.random() < 0.4:
            self.archive(compression=self.random.choice([None, "zstd"]), max_days=self.random.choice([None, 2]))
        self.back_up()

    def back_up_and_rest(self) -> None:
        """So that a power cut meets nothing else."""
        self.append_many(40)
        self.back_up()
        time.sleep(0.5)

    def back_up_and_put_back(self) -> None:
        self.append_many(self.random.choice([40, 400]))
        self.back_up()
        self.put_the_backup_back()
        self.append()

    def vacuum(self, how: bool | Literal["incremental"]) -> None:
        self.append_many(3000)
        self.archive(vacuum=how)

    def run_and_meta(self) -> None:
        self.run()
        self.meta()

    def write_and_collect(self) -> None:
        self.write_blob()
        self.collect()

    def checkpoint(self) -> None:
        for _ in range(3):
            is_big = next(self.big) < MOST_BIG
            self.append(self.random.choice(["full", "normal"]), big_row_of if is_big else row_of)
        self.append()

    def reindex(self) -> None:
        self.append_many(700)
        self.logs.reindex()
        self.run()
        if self.random.random() < 0.2:
            self.archive()

    def reopen(self) -> None:
        self.append(self.random.choice(["full", "normal"]))
        self.close()
        self.open()

    def in_threads(self) -> None:
        def often(count: int, work: Callable[[Worker], None]) -> threading.Thread:
            worker = self.in_thread()

            def repeat() -> None:
                for _ in range(count):
                    work(worker)

            return threading.Thread(target=repeat)

        threads = [
            often(30, lambda worker: worker.append(worker.random.choice(["full", "normal"]))),
            often(30, lambda worker: worker.append()),
            often(5, lambda worker: worker.append_many(100)),
            often(2, lambda worker: worker.run()),
            often(1, lambda worker: worker.archive(compression="zstd", wait=5)),
            often(5, lambda worker: worker.write_blob()),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def anything(self) -> None:
        """One step of a process among others."""
        steps: list[Callable[[], None]] = [
            self.append,
            lambda: self.append_many(self.random.choice([2, 40, 500])),
            self.run,
            self.meta,
            self.write_blob,
            lambda: self.write_blobs(5),
            self.collect,
            lambda: self.archive(compression=self.random.choice([None, "zstd"])),
        ]
        with contextlib.suppress(ns.StoreBusyError):
            self.random.choices(steps, weights=[6, 4, 4, 2, 4, 2, 1, 2])[0]()


KINDS: dict[str, Callable[[Worker], None]] = {
    "append": lambda worker: worker.append(),
    "append mixed": lambda worker: worker.append(worker.random.choice(["full", "normal", "normal"])),
    "append many": lambda worker: worker.append_many(
        worker.random.choice([1, 2, 17, 300, 5000]), worker.random.choice(["full", "full", "normal"])
    ),
    "threads": lambda worker: worker.in_threads(),
    "runs and meta": lambda worker: worker.run_and_meta(),
    "archive": lambda worker: worker.late_rows(None),
    "archive zstd": lambda worker: worker.late_rows("zstd", "zstd", None),
    "archive and rest": lambda worker: worker.archive_and_rest(),
    "restore": lambda worker: worker.restore(),
    "vacuum": lambda worker: worker.vacuum(True),
    "vacuum incremental": lambda worker: worker.vacuum("incremental"),
    "checkpoint": lambda worker: worker.checkpoint(),
    "reindex": lambda worker: worker.reindex(),
    "backup": lambda worker: worker.change_and_back_up(),
    "backup and rest": lambda worker: worker.back_up_and_rest(),
    "backup put back": lambda worker: worker.back_up_and_put_back(),
    "reopen": lambda worker: worker.reopen(),
    "migrate": lambda worker: worker.append(),  # The opening was the migration.
    "blob": lambda worker: worker.write_blob(),
    "blob and rest": lambda worker: worker.write_blob_and_rest(),
    "blobs": lambda worker: worker.write_blobs(worker.random.choice([1, 5, 60])),
    "blob of a file": lambda worker: worker.write_blob_of_file(),
    "collect": lambda worker: worker.write_and_collect(),
}


def work(
    *, path: str, acknowledgements: str, kind: str, writer: str, seconds: float, full: Durability = "full"
) -> None:
    """Do one kind of work again and again for so long."""
    file = os.open(acknowledgements, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, (json.dumps({"writer": writer, "begin": kind}) + "\n").encode())
    os.close(file)
    worker = Worker(path, acknowledgements, writer, full)
    worker.say(open=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        KINDS[kind](worker)
    worker.close()


def work_in_turn(*, path: str, acknowledgements: str, writer: str, steps: int) -> None:
    """Every kind of work, a little of each, so that a recording of it stays small."""
    worker = Worker(path, acknowledgements, writer)
    choose = worker.random.choice
    for step in range(steps):
        worker.append_many(choose([1, 30, 400]))
        worker.append_many(3, "normal")
        worker.append()
        worker.run()
        worker.meta()
        worker.write_blob()
        worker.write_blobs(5)
        worker.archive(
            compression=choose([None, "zstd"]), vacuum=choose([False, "incremental", True]), max_days=choose([None, 2])
        )
        match step % 5:
            case 1:
                worker.logs.restore_archive(worker.logs.archived_days()[0].day)
            case 2:
                worker.logs.reindex()
            case 3:
                worker.reopen()
            case 4:
                worker.collect()
            case _:
                pass
    worker.checkpoint()
    worker.close()


def work_among_others(*, path: str, acknowledgements: str, writer: str, early: bool = False) -> None:
    """Do anything, beside other processes. Early: the control, which acknowledges a row before it is there."""
    worker = Worker(path, acknowledgements, writer)
    while early:
        number = next(worker.numbers)
        worker.say(trying="rows", number=number, count=1, durability="full")
        worker.say(done="rows", number=number, count=1, durability="full", id=-1)
        worker.logs.append(*row_of(writer, number))
    while True:
        worker.anything()


def follow(*, path: str, acknowledgements: str, writer: str, after_id: int) -> None:
    """Follow the log, and say what was seen, some rows a record."""
    worker = Worker(path, acknowledgements, writer)
    seen: list[int] = []
    for entry in worker.logs.follow(after_id=after_id, poll_interval=0.01):
        seen.append(entry.id)
        if len(seen) == 50:
            worker.say(done="followed", after=after_id, ids=seen)
            after_id, seen = seen[-1], []
