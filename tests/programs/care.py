"""Programs that look after a data directory as a user who may not do everything there."""

from __future__ import annotations

import os

import nerve_store as ns
from programs import failure, say


def look_after(*, path: str, target: str, user: int | None = None) -> None:
    """Back the directory up and verify it, as another user if one is given; says at which paths there are problems."""
    if user is not None:
        _become(user)
    with ns.Store(path) as store:
        say({"backup": _paths(store.backup(target).problems)})
        say({"backup that reports": _paths(store.backup(target, progress=_ignore).problems)})
        say({"backup of the database": _paths(store.logs.backup(f"{target}.db").problems)})
        say({"verify": _paths(store.logs.verify().problems)})
        say({"verify of blobs": _paths(store.blobs.verify().problems)})
        say({"verify of blobs that reports": _paths(store.blobs.verify(progress=_ignore).problems)})


def append_as(*, path: str, user: int | None = None) -> None:
    """Append a row as another user; says the error."""
    if user is not None:
        _become(user)
    try:
        with ns.LogStore(os.path.join(path, "logs.db")) as logs:
            logs.append("s", "t")
    except ns.NerveStoreError as error:
        say(failure(error))


def salvage_as(*, path: str, target: str, user: int) -> None:
    """Salvage a database as another user; says how many rows there are."""
    _become(user)
    say(ns.salvage(path, target).row_count)


def _become(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _ignore(_done: int, _total: int) -> None:
    """A report that is not looked at."""


def _paths(problems: tuple[ns.VerifyProblem, ...] | tuple[ns.BlobProblem, ...]) -> list[str]:
    return [problem.path for problem in problems]
