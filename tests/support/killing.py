"""Killing a process at a call that it makes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def killing(function: Callable[..., Any], when: str, number: int = 1) -> Callable[..., Any]:
    """The function, whose call with this number ends the process: `before` or `after` it does what it does."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        is_due = calls == number
        if is_due and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if is_due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call
