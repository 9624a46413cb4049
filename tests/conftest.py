"""Fixtures and hypothesis profiles of the whole suite."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import nerve_store as ns
from support.cli import DAY, T0, Cli, fill

UPSTREAM = Path(__file__).parent / "fixtures" / "upstream-0.5.0"

# Every example that touches a store syncs its disk, so that a deadline would measure the machine. "fast" tries the same
# examples each time, so that a red run is of the change it judges; `make torture` looks for new ones, with "long".
settings.register_profile(
    "fast",
    max_examples=25,
    derandomize=True,
    database=None,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "long", settings.get_profile("fast"), max_examples=300, stateful_step_count=60, derandomize=False
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# A shell has what it runs in the background ignore Ctrl-C, and the processes of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest-xdist sets it in its workers, to which the command line would fit its tables.
os.environ.pop("COLUMNS", None)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Where a store's directory will be; it is not there yet."""
    return tmp_path / "data"


@pytest.fixture
def store(data_dir: Path) -> Iterator[ns.Store]:
    with ns.Store(data_dir) as opened:
        yield opened


@pytest.fixture
def log_store(data_dir: Path) -> Iterator[ns.LogStore]:
    with ns.LogStore(data_dir / "logs.db") as opened:
        yield opened


@pytest.fixture
def blobs(tmp_path: Path) -> ns.BlobStore:
    return ns.BlobStore(tmp_path / "data" / "blobs", durability="normal")


@pytest.fixture
def kept(log_store: ns.LogStore) -> Iterator[ns.LogStore]:
    """A store with a row, a run and a meta value, of which a test must leave everything as it is."""
    run = ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1)
    log_store.upsert_workflow_run(("workflow", "started", "run-1", "{}", 1), run)
    log_store.set_meta("key", "value")
    rows = log_store.query()
    yield log_store
    assert log_store.query() == rows
    assert log_store.get_all_workflow_runs() == [run]
    assert log_store.sql("SELECT * FROM meta") == [("key", "value")]
    assert not Path(log_store.archive_dir).exists()
    assert log_store.append("system", "next", timestamp=0).id == 2


@pytest.fixture
def upstream_data(tmp_path: Path) -> Path:
    """A writable copy of the predecessor's data directory."""
    return Path(shutil.copytree(UPSTREAM / "data", tmp_path / "upstream"))


@pytest.fixture
def upstream_archived(tmp_path: Path) -> Path:
    """A writable copy of the predecessor's data directory after its own archive jobs."""
    return Path(shutil.copytree(UPSTREAM / "archived", tmp_path / "upstream-archived"))


@pytest.fixture
def cli(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line on a data directory that is not there yet."""
    return Cli(data_dir, capsys)


@pytest.fixture
def filled(cli: Cli) -> Cli:
    """The command line on a directory with rows, runs and a blob."""
    fill(cli.data)
    return cli


# --- pytest-run-parallel -----------------------------------------------------------------------------------------

# Fixtures of this file, made anew for a thread in a directory of its own.
OWN_FIXTURES: dict[str, Callable[[Path, ExitStack], Any]] = {
    "data_dir": lambda directory, _: directory / "data",
    "store": lambda directory, stack: stack.enter_context(ns.Store(directory / "data")),
    "log_store": lambda directory, stack: stack.enter_context(ns.LogStore(directory / "data" / "logs.db")),
    "upstream_data": lambda directory, _: Path(shutil.copytree(UPSTREAM / "data", directory / "upstream")),
    "upstream_archived": lambda directory, _: Path(
        shutil.copytree(UPSTREAM / "archived", directory / "upstream-archived")
    ),
}


def with_own_fixtures(test: Callable[..., None]) -> Callable[..., None]:
    """`test` with fixtures of the calling thread's own: pytest-run-parallel gives all threads the same ones."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nerve-store-thread-")))
            own = {name: make(directory, stack) for name, make in OWN_FIXTURES.items() if name in fixtures}
            test(*arguments, **{**fixtures, **own})

    return run


def is_shared_by_threads(item: pytest.Function, fixture: str) -> bool:
    """Whether the suite defines the fixture, and not among those that are made anew for a thread."""
    modules = {definition.func.__module__ for definition in item._fixtureinfo.name2fixturedefs.get(fixture, ())}
    return any(name.startswith("test_") for name in modules) or (__name__ in modules and fixture not in OWN_FIXTURES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("parallel_threads", 1) in (1, "1"):
        return
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if any(is_shared_by_threads(item, fixture) for fixture in item.fixturenames):
            item.add_marker(pytest.mark.thread_unsafe(reason="uses a fixture that is made once for all threads"))
        elif OWN_FIXTURES.keys() & set(item.fixturenames):
            item.obj = with_own_fixtures(item.obj)


@pytest.fixture
def long_log(cli: Cli) -> Cli:
    """A hundred rows, and seventy runs in all states."""
    statuses = list(ns.WorkflowRunStatus)
    with ns.LogStore(cli.data / "logs.db") as store:
        store.append_many(("system", "tick", f"ref-{n % 4}", f"payload {n}", T0 + n) for n in range(100))
        for number in range(70):
            status = statuses[number % len(statuses)]
            run = ns.WorkflowRun(f"run-{number:02}", f"flow-{number % 2}", status, T0 + number)
            store.upsert_workflow_run(("workflow", status, run.run_id, None, T0 + number), run, force=True)
    return cli


@pytest.fixture
def wide(long_log: Cli) -> Cli:
    """With an archive, and blobs."""
    with ns.Store(long_log.data) as store:
        store.logs.append("workflow", "thread_workflow_message", "run-01", '{"role": "coder", "content": "words"}', T0)
        store.logs.archive_logs(now=T0 + 40 * DAY, max_days=1)
        store.blobs.write("content")
    return long_log
