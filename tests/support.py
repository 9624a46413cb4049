"""What several test files share: another program's SQLite, the union of database and archive, mounts, kills."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import zstandard

import nerve_store as ns
import reference
from reference import Row

TESTS = Path(__file__).parent
UPSTREAM = TESTS / "fixtures" / "upstream-0.5.0"
UPSTREAM_SCHEMA = """
CREATE TABLE IF NOT EXISTS logs (
  id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, type TEXT NOT NULL, ref_id TEXT, payload TEXT,
  timestamp INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_logs_source_type ON logs(source, type);
CREATE INDEX IF NOT EXISTS idx_logs_timestamp ON logs(timestamp);
CREATE INDEX IF NOT EXISTS idx_logs_ref_id ON logs(ref_id);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS workflow_runs (
  run_id TEXT PRIMARY KEY, workflow TEXT NOT NULL, status TEXT NOT NULL, timestamp INTEGER NOT NULL, exit_code INTEGER
);
CREATE INDEX IF NOT EXISTS idx_workflow_runs_status ON workflow_runs(status);
CREATE INDEX IF NOT EXISTS idx_workflow_runs_workflow ON workflow_runs(workflow);
"""
"""What upstream runs when it opens a database."""
INSERT_ROW = "INSERT INTO logs (source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?)"
INSERT_ROW_WITH_ID = "INSERT INTO logs (id, source, type, ref_id, payload, timestamp) VALUES (?, ?, ?, ?, ?, ?)"
INSERT_RUN = (
    "INSERT OR REPLACE INTO workflow_runs (run_id, workflow, status, timestamp, exit_code) VALUES (?, ?, ?, ?, ?)"
)
KILLED = (-9, 137)

# --- another program's SQLite ------------------------------------------------------------------------------------


@functools.cache
def _foreign() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-I", str(TESTS / "foreign_sqlite.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )

    def stop() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()

    atexit.register(stop)
    return process


def _encode(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


_ASKING = threading.Lock()
"""One question and its answer at a time: tests may run in several threads."""


def _ask(path: str | os.PathLike[str], sql: str, params: Any, *, many: bool = False, script: bool = False) -> list[Any]:
    process = _foreign()
    assert process.stdin is not None
    assert process.stdout is not None
    request = {"path": os.fspath(path), "sql": sql, "params": params, "many": many, "script": script}
    with _ASKING:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        reply = json.loads(process.stdout.readline())
    if "error" in reply:
        raise RuntimeError(f"{reply['error']}: {sql}")
    return [tuple(_decode(value) for value in row) for row in reply["rows"]]


def foreign_sql(path: str | os.PathLike[str], sql: str, params: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement as another program would, in a process of its own; returns the rows."""
    return _ask(path, sql, [_encode(value) for value in params])


def foreign_many(path: str | os.PathLike[str], sql: str, rows: Iterable[Iterable[Any]]) -> None:
    """Run one statement for each of `rows`, in one transaction of another process."""
    _ask(path, sql, [[_encode(value) for value in row] for row in rows], many=True)


def foreign_script(path: str | os.PathLike[str], sql: str) -> None:
    """Run several statements in another process."""
    _ask(path, sql, [], script=True)


# --- rows, and the union of database and archive -----------------------------------------------------------------


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


# --- threads, in the words of the reference ----------------------------------------------------------------------


def as_message(message: ns.ThreadMessage) -> reference.Message:
    return reference.Message(message.role, message.content, message.meta, message.timestamp)


def as_round(item: ns.ThreadRound) -> reference.Round:
    return reference.Round(item.round, item.log_id, item.timestamp, as_message(item.message))


def as_run(run: ns.WorkflowRun) -> reference.Run:
    return reference.Run(run.run_id, run.workflow, str(run.status), run.timestamp, run.exit_code)


# --- other processes ---------------------------------------------------------------------------------------------


def child_command(program: str, **arguments: Any) -> list[str]:
    """The command line of one of the programs in `child.py`."""
    return [sys.executable, str(TESTS / "child.py"), program, json.dumps(arguments)]


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONFAULTHANDLER": ""}


def run_child(program: str, *, prefix: Sequence[str] = (), **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of `child.py` to its end; `prefix` is put before it on the command line."""
    return subprocess.run(
        [*prefix, *child_command(program, **arguments)],
        env=child_environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def start_child(program: str, **arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        child_command(program, **arguments),
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def acknowledged_ids(output: str) -> list[int]:
    """The ids that a child said; a line that a kill cut off was not said."""
    return [row_id for line in output.split("\n")[:-1] for row_id in json.loads(line)]


# --- strace: killed, or failed, at the Nth system call -----------------------------------------------------------

FAULT_CALLS = (
    "pwrite64",
    "write",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "ftruncate",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
)


@functools.cache
def _strace_refusal() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=getpid", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "strace may not trace here"
    return None


def require_strace() -> None:
    if (reason := _strace_refusal()) is not None:
        pytest.skip(reason)


def _strace(call: str, action: str, when: int | str) -> list[str]:
    # No --seccomp-bpf: with it the signal is silently dropped.
    inject = f"inject={call}:{action}:when={when}"
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]


def run_killed(call: str, when: int, program: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of `child.py` and kill it as it enters `call` for the `when`th time."""
    return run_child(program, prefix=_strace(call, "signal=SIGKILL", when), **arguments)


def run_failing(
    call: str, error: str, when: int | str, program: str, **arguments: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program of `child.py` whose `when`th `call` fails with `error`; "3+": every one from the third."""
    return run_child(program, prefix=_strace(call, f"error={error}", when), **arguments)


def run_failing_on(
    file: Path, log: Path, program: str, **arguments: Any
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a program of `child.py` whose first flush of `file` fails; also what it wrote to the file, and flushed."""
    require_strace()
    inject = "inject=fsync,fdatasync:error=EIO:when=1"
    prefix = [
        "strace",
        "-f",
        "-qq",
        "-o",
        str(log),
        "-P",
        str(file),
        "-e",
        "trace=pwrite64,fsync,fdatasync",
        "-e",
        inject,
    ]
    done = run_child(program, prefix=prefix, **arguments)
    return done, log.read_text("utf-8", "replace").splitlines()


def count_calls(log: Path, program: str, **arguments: Any) -> dict[str, int]:
    """How often the busiest thread of a run of the program makes each of `FAULT_CALLS` (strace counts by thread)."""
    prefix = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(FAULT_CALLS)}"]
    done = run_child(program, prefix=prefix, **arguments)
    assert done.returncode == 0, done.stderr
    counts = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text("utf-8", "replace"), re.MULTILINE))
    return {
        call: max(times for (_, name), times in counts.items() if name == call)
        for call in FAULT_CALLS
        if any(name == call for _, name in counts)
    }


def trace_calls(log: Path, program: str, **arguments: Any) -> str:
    """What strace says about the `FAULT_CALLS` of a whole run of the program, with the paths behind descriptors."""
    require_strace()
    prefix = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={','.join(FAULT_CALLS)}"]
    done = run_child(program, prefix=prefix, **arguments)
    assert done.returncode == 0, done.stderr
    return log.read_text("utf-8", "replace")


def sample(count: int, size: int) -> list[int]:
    """`size` numbers from 1 to `count`, evenly spread, both ends among them."""
    if count <= size:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (size - 1)) for step in range(size)})


# --- mounts ------------------------------------------------------------------------------------------------------


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not permitted: {done.stderr.strip()}")


def _unmount(directory: Path) -> None:
    subprocess.run(["umount", "--lazy", str(directory)], capture_output=True, check=True)


@contextlib.contextmanager
def tiny_disk(directory: Path, size: str = "1m") -> Iterator[Callable[[str], None]]:
    """A file system of `size` at `directory`; what it yields changes the size."""
    directory.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory))
    try:
        yield lambda new_size: _mount("-o", f"remount,size={new_size}", str(directory))
    finally:
        _unmount(directory)


class PowerCutDisk:
    """A file system that forgets what was not flushed when its power is cut."""

    EXT4_SHUTDOWN = 0x8004587D
    NO_LOG_FLUSH = struct.pack("I", 2)

    def __init__(self, image: Path, directory: Path) -> None:
        self.image = image
        self.directory = directory

    def power_up(self) -> None:
        _mount("-o", "loop", str(self.image), str(self.directory))

    def cut_power(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, self.EXT4_SHUTDOWN, self.NO_LOG_FLUSH)
        finally:
            os.close(descriptor)
        _unmount(self.directory)


@contextlib.contextmanager
def power_cut_disk(scratch: Path) -> Iterator[PowerCutDisk]:
    """An ext4 in a file; skips where such a thing cannot be mounted."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    disk = PowerCutDisk(scratch / "disk.img", scratch / "disk")
    disk.directory.mkdir(exist_ok=True)
    with disk.image.open("wb") as image:
        image.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-qF", str(disk.image)], check=True, capture_output=True)
    disk.power_up()
    try:
        yield disk
    finally:
        if disk.directory.is_mount():
            _unmount(disk.directory)
        disk.image.unlink()


@contextlib.contextmanager
def read_only_directory(directory: Path) -> Iterator[None]:
    """`directory` as a file system that takes no writes, also not from root."""
    _mount("--bind", str(directory), str(directory))
    try:
        _mount("-o", "remount,ro,bind", str(directory))
        with pytest.raises(OSError, match="Read-only") as refused:
            (directory / "probe").touch()
        assert refused.value.errno == errno.EROFS
        yield
    finally:
        _unmount(directory)


# --- progress that stops what it tells of ------------------------------------------------------------------------


class Stop(Exception):  # noqa: N818
    """What a progress callback raises."""


class StopAfter:
    """A progress callback that lets `steps` calls pass, and stops the work in each one after them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.calls = 0

    def __call__(self, done: int, total: int) -> None:
        self.calls += 1
        if self.calls > self.steps:
            raise Stop(f"{done} of {total}")


# --- every public call of a LogStore -----------------------------------------------------------------------------

_ENTRY = ("system", "tick", None, None, 0)
_RUN = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 0)

LOG_STORE_WRITES: dict[str, Callable[[ns.LogStore], object]] = {
    "append": lambda store: store.append("system", "tick"),
    "append_many": lambda store: store.append_many([_ENTRY]),
    "set_meta": lambda store: store.set_meta("key", "value"),
    "upsert_workflow_run": lambda store: store.upsert_workflow_run(_ENTRY, _RUN),
    "append_with_workflow_update": lambda store: store.append_with_workflow_update(_ENTRY, _RUN),
    "transition": lambda store: store.transition("run-1", "completed"),
    "archive_logs": lambda store: store.archive_logs(),
    "restore_archive": lambda store: store.restore_archive(date(2026, 1, 1)),
    "reindex": lambda store: store.reindex(),
}
LOG_STORE_READS: dict[str, Callable[[ns.LogStore], object]] = {
    "query": lambda store: store.query(),
    "iter": lambda store: list(store.iter()),
    "count": lambda store: store.count(),
    "follow": lambda store: next(store.follow(after_id=0)),
    "sql": lambda store: store.sql("SELECT 1"),
    "get_meta": lambda store: store.get_meta("key"),
    "get_workflow_run": lambda store: store.get_workflow_run("run-1"),
    "get_active_workflow_runs": lambda store: store.get_active_workflow_runs(),
    "get_all_workflow_runs": lambda store: store.get_all_workflow_runs(),
    "get_trigger_payload": lambda store: store.get_trigger_payload("run-1"),
    "get_thread_events": lambda store: store.get_thread_events("run-1"),
    "get_thread_messages": lambda store: store.get_thread_messages("run-1"),
    "get_thread_round_count": lambda store: store.get_thread_round_count("run-1"),
    "get_thread_rounds": lambda store: store.get_thread_rounds("run-1", limit=1),
    "archived_days": lambda store: store.archived_days(),
    "read_archive": lambda store: list(store.read_archive(date(2026, 1, 1))),
    "verify": lambda store: store.verify(),
    "stats": lambda store: store.stats(),
}
LOG_STORE_CALLS = {**LOG_STORE_WRITES, **LOG_STORE_READS}


def public_methods(cls: type) -> set[str]:
    """The names of the public methods of `cls`."""
    return {name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))}


def is_one_line(error: BaseException) -> bool:
    """Whether the message of `error` is one line that says something."""
    return bool(str(error).strip()) and "\n" not in str(error)


def as_json(record: Any) -> Any:
    """A dataclass of ours as plain JSON values, so that a child process can print it."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=str))


def refused(
    expected: type[Exception] | tuple[type[Exception], ...], call: Callable[..., object], *arguments: Any, **named: Any
) -> Exception:
    """The error that `call` raises, which must be one of `expected` and print on one line."""
    with pytest.raises(expected) as raised:
        call(*arguments, **named)
    assert is_one_line(raised.value)
    return raised.value


def closed_store(path: Path) -> None:
    """Leaves a database with a row at `path`."""
    with ns.LogStore(path) as store:
        store.append("system", "tick", timestamp=0)
