"""The command line: `nerve-store` and `python -m nerve_store`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from nerve_store.cli.parser import parse_arguments
from nerve_store.cli.problem import Problem, report
from nerve_store.exceptions import NerveStoreError, StoreUnavailableError

__all__ = ["main"]

_INTERRUPTED = 130
"""What a shell reports for a program that SIGINT ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 found a problem; wrong usage exits with 2."""
    if sys.stdout is None:
        # Closed by the caller (`>&-`), who wants no output.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    try:
        return _carry_out(parse_arguments(argv))
    except KeyboardInterrupt:
        return _INTERRUPTED


def _carry_out(arguments: argparse.Namespace) -> int:
    try:
        exit_code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted: that is no problem of ours.
        _discard_output()
        return 0
    except (Problem, NerveStoreError, OSError, ValueError, RecursionError) as error:
        report(_explained(error, arguments))
        _discard_output_if_broken()
        return 1
    return exit_code


def _explained(error: Exception, arguments: argparse.Namespace) -> Exception:
    """The error; where an object store was not named, one that names the option."""
    if not isinstance(error, StoreUnavailableError):
        return error
    from nerve_store.cli.stores import way_to

    return way_to(error, arguments.place)


def _discard_output_if_broken() -> None:
    """Keep the interpreter from failing a second time, at exit, on output that could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, descriptor)
    os.close(devnull)
