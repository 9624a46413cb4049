"""How a command says that something is wrong: one line on standard error."""

from __future__ import annotations

import errno
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from nerve_store.cli.text import escape
from nerve_store.exceptions import NerveStoreError

__all__ = ["Problem", "counting_problems", "located", "report", "standard_input"]


class Problem(Exception):  # noqa: N818 - it is what the command found, and exit code 1 means just that
    """What a command found wrong, as one line for the user; the exit code is 1."""


def report(problem: object, *, kind: str = "error") -> None:
    """Print `nerve-store: error: ...`, one line whatever the message holds."""
    sys.stderr.write(f"nerve-store: {kind}: {escape(_message(problem))}\n")


def located(path: str, reason: str) -> str:
    """What is wrong with a file, on a line that names the file once."""
    return reason if path in reason else f"{path}: {reason}"


def standard_input() -> TextIO:
    """Standard input, if the caller has not closed it (`<&-`)."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed", "standard input")
    return sys.stdin


@contextmanager
def counting_problems(*, are_warnings_errors: bool = False) -> Generator[list[str]]:
    """Report what the store leaves out and goes on without; the list has the errors, without the warnings."""
    import logging

    problems: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if record.levelno < logging.ERROR and not are_warnings_errors:
                report(message, kind="warning")
                return
            problems.append(message)
            report(message)

    logger = logging.getLogger("nerve_store")
    handler = Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield problems
    finally:
        logger.removeHandler(handler)


def _message(problem: object) -> str:
    if isinstance(problem, OSError) and not isinstance(problem, NerveStoreError):
        if problem.filename is not None and problem.strerror:
            return f"{problem.filename}: {problem.strerror}"
        return problem.strerror or str(problem)
    if isinstance(problem, RecursionError):
        return "a value is nested too deeply to print"
    return str(problem) or type(problem).__name__
