"""What one form of a store refuses, every other refuses: by the same exception, and of an argument with the same words.

The store in a directory is the measure; the others are the log on a server, blobs in an object store, and the
asynchronous forms.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.backends import Backend
from support.argument_names import GOOD

WRONG: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**63, 2**70, -(2**70), 1e30, 1e400, float("nan"), "", "zz", "x" * 70_000, "\ud800",
    b"x", object(), [], [1], ["zz"], ["\ud800"], {1: 2}, timedelta(-1), timedelta(0), timedelta.max, date(1969, 1, 1),
    date(2020, 1, 1), datetime(2020, 1, 1),  # noqa: DTZ001, naive
    datetime(1960, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC), print,
    ns.WorkflowRun("other", "w", "started", 1), ns.RunClaim(ns.WorkflowRun("other", "w", "started", 1), "me", 1, 1, 1),
]  # fmt: skip
OTHER_TYPES = {"params": list, "wait": int | float | timedelta}
"""Values that are taken by more than one form, or last: a server knows more types, and a wait is one."""


def calls_of(owner: type, *but: str) -> list[str]:
    return sorted(
        name
        for name in dir(owner)
        if not name.startswith("_")
        and name not in ("close", *but)
        and inspect.isroutine(inspect.getattr_static(owner, name))
    )


def outcome(call: Callable[..., Any], arguments: dict[str, Any], run: Callable[[Any], Any]) -> Any:
    """The exception of a call: of a refused argument its text, of another error its fields; () for a result."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = call(**arguments)
            if inspect.isawaitable(made):
                made = run(made)
            close = getattr(made, "close", None) or getattr(made, "aclose", None)
            closing = None if close is None else close()
            if inspect.isawaitable(closing):
                run(closing)
    except (ns.NerveStoreError, TypeError, ValueError, OverflowError, AttributeError, OSError) as error:
        if isinstance(error, ns.NerveStoreError):
            return type(error), {key: value for key, value in vars(error).items() if key != "path"}
        # The words about a statement are the server's.
        return type(error), "" if call.__name__ == "sql" else re.sub(r"0x[0-9a-f]+", "", str(error))
    return ()


def differences(
    here: Callable[..., Any], there: Callable[..., Any], good: dict[str, Any], run: Callable[[Any], Any]
) -> list[Any]:
    """The arguments, each wrong with the others right, of which two calls make something else."""
    parameters = [p for p in inspect.signature(here).parameters.values() if p.name != "self"]
    required = {p.name: good[p.name] for p in parameters if p.default is p.empty}
    different = []
    for parameter in parameters:
        for wrong in WRONG:
            if wrong and isinstance(wrong, OTHER_TYPES.get(parameter.name, ())):
                continue
            arguments = required | {parameter.name: wrong}
            found = [outcome(call, arguments, run) for call in (here, there)]
            if found[0] != found[1]:
                different.append((parameter.name, wrong, *found))
    return different


def good_for(name: str, directory: Path) -> dict[str, Any]:
    before = date(2020, 1, 1) if name == "expire_archive" else 1
    return GOOD | {"before": before, "file": __file__, "target": directory / "copy"}


# `backup` is the server's own.
@pytest.mark.parametrize("name", calls_of(ns.PostgresLogStore, "backup"))
def test_a_log_on_a_server_refuses_what_a_directory_refuses(server: Backend, tmp_path: Path, name: str) -> None:
    with ns.LogStore(tmp_path / "logs.db", busy_timeout=0.5) as here:
        there = server.open(busy_timeout=5)
        good = good_for(name, tmp_path)
        assert differences(getattr(here, name), getattr(there, name), good, asyncio.run) == []


@pytest.mark.parametrize("name", calls_of(ns.WriteBatch))
def test_a_batch_on_a_server_refuses_what_one_on_a_directory_refuses(
    server: Backend, tmp_path: Path, name: str
) -> None:
    with ns.LogStore(tmp_path / "logs.db") as here:
        call, other = getattr(here.batch(), name), getattr(server.open().batch(), name)
        assert differences(call, other, good_for(name, tmp_path), asyncio.run) == []


@pytest.mark.parametrize("name", calls_of(ns.BlobStore))
def test_blobs_in_an_object_store_refuse_what_a_directory_refuses(tmp_path: Path, name: str) -> None:
    pytest.importorskip("obstore")
    with ns.BlobStore(tmp_path / "blobs") as here, ns.ObjectBlobStore("memory:///blobs") as there:
        assert differences(getattr(here, name), getattr(there, name), good_for(name, tmp_path), asyncio.run) == []


ASYNCHRONOUS = [
    *((ns.LogStore, ns.AsyncLogStore, name) for name in calls_of(ns.AsyncLogStore, "backup")),
    *((ns.BlobStore, ns.AsyncBlobStore, name) for name in calls_of(ns.AsyncBlobStore)),
]


@pytest.mark.parametrize(("form", "asynchronous", "name"), ASYNCHRONOUS)
def test_an_asynchronous_call_refuses_what_the_other_refuses(
    form: Any, asynchronous: Any, name: str, tmp_path: Path
) -> None:
    with asyncio.Runner() as runner, form(tmp_path / "here" / "one") as here:

        async def opened() -> Any:
            return asynchronous(tmp_path / "there" / "one")

        there = runner.run(opened())
        patience = 0.3 if name == "follow" else 10  # a follower that refuses nothing waits for rows

        def run(awaitable: Awaitable[Any]) -> Any:
            async def awaited() -> Any:
                return await awaitable

            return runner.run(awaited())

        def call(**arguments: Any) -> Any:
            async def called() -> Any:
                made = getattr(there, name)(**arguments)
                if hasattr(made, "__anext__"):  # it looks at its arguments when it begins
                    with suppress(StopAsyncIteration, TimeoutError):
                        await asyncio.wait_for(anext(made), patience)
                return await made if inspect.isawaitable(made) else made

            return runner.run(called())

        call.__name__ = name
        try:
            assert differences(getattr(here, name), call, good_for(name, tmp_path), run) == []
        finally:
            run(there.aclose()) if hasattr(there, "aclose") else run(there.close())
