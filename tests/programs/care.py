"""A program that looks after a data directory as a user who may not read all of it."""

from __future__ import annotations

import os

import nerve_store as ns
from programs import say


def look_after(*, path: str, target: str, user: int | None = None) -> None:
    """Back the directory up and verify it, as another user if one is given; says at which paths there are problems."""
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    with ns.Store(path) as store:
        say({"backup": _paths(store.backup(target).problems)})
        say({"backup that reports": _paths(store.backup(target, progress=_ignore).problems)})
        say({"verify": _paths(store.logs.verify().problems)})
        say({"verify of blobs": _paths(store.blobs.verify().problems)})
        say({"verify of blobs that reports": _paths(store.blobs.verify(progress=_ignore).problems)})


def _ignore(_done: int, _total: int) -> None:
    """A report that is not looked at."""


def _paths(problems: tuple[ns.VerifyProblem, ...] | tuple[ns.BlobProblem, ...]) -> list[str]:
    return [problem.path for problem in problems]
