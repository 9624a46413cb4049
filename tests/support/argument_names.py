"""Calls with values that few arguments take: what is refused has to be named."""

from __future__ import annotations

import asyncio
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns

_WRONG: list[Any] = [
    "x" * 70_000,
    1.5,
    "\ud800",
    None,
    True,
    -1,
    2**70,
    b"x",
    object(),
    [1],
    "zz",
    timedelta(-1),
    1e400,
    {1: 2},
]
GOOD: dict[str, Any] = {
    "boundary": 10**12,
    "claim": ns.RunClaim(ns.WorkflowRun("r", "w", "started", 1), "me", 1, 1, 1),
    "data": b"",
    "day": date(2020, 1, 1),
    "entries": [],
    "entry": ("s", "t", "r", None, 1),
    "hash": "0" * 64,
    "id": 1,
    "items": [],
    "keep": [],
    "key": "k",
    "limit": 1,
    "owner": "me",
    "query": "SELECT 1",
    "ref_id": "r",
    "payload": None,
    "run": ns.WorkflowRun("r", "w", "started", 1),
    "run_id": "r",
    "source": "s",
    "status": "started",
    "text": "x",
    "timestamp": 1,
    "type": "t",
    "value": "v",
    "workflow": "w",
}
_NOT_PYTHON = re.compile(
    r"rust|usize|\b[iu](8|16|32|64)\b|unwrap|\bC (int|long|ssize)|Py[A-Z]|panic|downcast", re.IGNORECASE
)


def _parameters_of(call: Callable[..., object]) -> list[inspect.Parameter]:
    return [parameter for parameter in inspect.signature(call).parameters.values() if parameter.name != "self"]


def check_that_refused_arguments_are_named(target: Callable[..., Any], good: Mapping[str, Any]) -> None:
    """Call `target` with each argument wrong and the others, where they are required, from `good`.

    It raises a `TypeError` or a `ValueError` that names the argument, in Python's words, or an error of our own.
    """
    parameters = _parameters_of(target)
    for refused in parameters:
        for wrong in _WRONG:
            arguments = {p.name: good[p.name] for p in parameters if p.default is p.empty} | {refused.name: wrong}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made = target(**arguments)
                    if hasattr(made, "close"):
                        made.close()
            except (TypeError, ValueError) as error:
                if isinstance(error, ns.NerveStoreError):
                    continue
                text = str(error)
                assert re.search(rf"\b{refused.name}\b", text), (refused.name, wrong, text)
                assert not _NOT_PYTHON.search(text), text
                assert "\n" not in text
            except (ns.NerveStoreError, OSError):
                continue


def check_that_what_is_no_log_is_refused(target: Callable[[Any], object], directory: Path) -> None:
    """Call `target`, which takes a log or a store, with what is none; asynchronous ones are none, either."""

    def check(wrong: object) -> None:
        with pytest.raises(TypeError, match=f"^store must be Log or Store, not {type(wrong).__name__}$"):
            target(wrong)

    async def check_asynchronous() -> None:
        async with ns.AsyncStore(directory / "data") as store:
            check(store)
            check(store.logs)

    asyncio.run(check_asynchronous())
    for wrong in (None, 5, "data", directory, ns.BlobStore(directory / "blobs"), ns.Store, ns.LogStore):
        check(wrong)
