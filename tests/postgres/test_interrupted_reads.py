"""A reader that fails or is interrupted in the middle loses no row and gives none twice: the next step goes on."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from nerve_store import _pages
from nerve_store.postgres import follow as following
from nerve_store.postgres import pages, reads, runs
from nerve_store.postgres.archive.lines import read_day
from support.archive import NOW, at, day
from support.signals import Interrupted, without_collections

pytestmark = pytest.mark.parametrize("server", ["18"], indirect=True)
"""It is the reader that is tested."""

DAYS, PER_DAY, LIVE = 3, 8, 12

READERS: dict[str, Callable[[Any], Iterator[Any]]] = {
    "follow": lambda log: log.follow(after_id=0),
    "follow what is in the database": lambda log: log.follow(after_id=DAYS * PER_DAY, archived=False),
    "iter": lambda log: log.iter(),
    "iter backwards": lambda log: log.iter(descending=True, limit=LIVE - 1),
    "iter over the archive": lambda log: log.iter(archived=True),
    "iter over the archive backwards": lambda log: log.iter(archived=True, descending=True, limit=DAYS * PER_DAY),
    "read_archive": lambda log: log.read_archive(day(1)),
    "iter_workflow_runs": lambda log: log.iter_workflow_runs(limit=7),
}
ERRORS = [ns.StoreUnavailableError, ns.ArchiveCorruptError, OSError, Interrupted, KeyboardInterrupt]


@pytest.fixture
def log(place: Backend, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A log with rows in three files and in the database, and runs, which are read some at a time."""
    for module, name in ((pages, "PAGE_ROWS"), (reads, "PAGE_ROWS"), (following, "PAGE_ROWS"),
                         (reads, "_FIRST_PAGE_ROWS"), (runs, "_PAGE_RUNS")):  # fmt: skip
        monkeypatch.setattr(module, name, 3)
    log: Any = place.open()
    log.append_many([("system", "tick", None, str(n), at(n // PER_DAY, n)) for n in range(DAYS * PER_DAY)])
    log.archive_logs(now=NOW)
    log.append_many([("system", "tick", None, str(n), NOW) for n in range(LIVE - 8)])
    for number in range(8):
        log.create_workflow_run(f"run-{number}", "deploy", timestamp=NOW + number)
    return log


def read_on(items: Iterator[Any], count: int) -> tuple[list[Any], int]:
    """So many items, whatever is raised in between; and how often something was."""
    found: list[Any] = []
    raised = 0
    while len(found) < count and raised < 10:
        before = len(found)
        try:
            # Takes each without a step of Python's in between.
            found.extend(itertools.islice(items, count - len(found)))
        except (Exception, KeyboardInterrupt):  # noqa: BLE001, those of the test
            raised += 1
        else:
            if len(found) == before:
                break
    return found, raised


def expected(log: Any, name: str) -> list[Any]:
    """All that there is; a follower would wait for more."""
    count = {"follow": DAYS * PER_DAY + LIVE, "follow what is in the database": LIVE}.get(name)
    return list(itertools.islice(READERS[name](log), count))


class Failing:
    """Lets one of the requests to the server, the openings of files or the readings of lines fail."""

    def __init__(self, log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left, self._error = -1, Exception
        self.has_failed = False
        for owner, name in ((log._connections, "borrowed"), (log._archive, "opened")):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))
        monkeypatch.setattr("nerve_store.postgres.archive.reader.read_day", self._lines)

    def arm(self, number: int, error: type[BaseException]) -> None:
        self._left, self._error, self.has_failed = number, error, False  # type: ignore[assignment]

    def _lines(self, *arguments: Any) -> Iterator[Any]:
        return map(self._wrapped(lambda line: line), read_day(*arguments))

    def _wrapped(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                self.has_failed = True
                raise self._error("the test's")
            return original(*arguments)

        return call


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", READERS)
def test_error_of_any_request_skips_nothing(
    log: Any, name: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = expected(log, name)
    assert len(rows) > 6
    failing = Failing(log, monkeypatch)
    failures = 0
    for number in range(100):
        items = READERS[name](log)
        failing.arm(number, error)
        found, raised = read_on(items, len(rows))
        if not failing.has_failed:
            break
        failures += 1
        assert found == rows, number
        # A day that is found to be damaged is looked up anew: it may be another one by now.
        assert raised == 1 or error is ns.ArchiveCorruptError
    assert failures > 0


@contextmanager
def interrupted_at(number: int) -> Iterator[list[int]]:
    """Interrupt where the readers' code begins a function or comes back from one: where a signal is handled."""
    files = {str(module.__file__) for module in (_pages, pages, following)}
    seen = [0]

    def look(frame: FrameType, event: str, _: object) -> None:
        is_handled = event == "c_return" or (event == "call" and frame.f_code.co_name != "__next__")
        if is_handled and frame.f_code.co_filename in files:
            seen[0] += 1
            if seen[0] == number:
                raise Interrupted

    with without_collections():
        sys.setprofile(look)
        try:
            yield seen
        finally:
            sys.setprofile(None)


@pytest.mark.parametrize("name", READERS)
def test_interrupt_at_any_moment_skips_nothing(log: Any, name: str) -> None:
    rows = expected(log, name)
    for number in itertools.count(1):
        items = READERS[name](log)
        with interrupted_at(number) as seen:
            found, raised = read_on(items, len(rows))
        assert found == rows, number
        if not raised:
            assert seen[0] < number
            break
    assert number > 10
