"""What command-line arguments mean: commands, numbers, and the types of `nerve_store.cli.times`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from nerve_store.cli.times import calendar_day, since, until

__all__ = [
    "Commands",
    "HelpFormatter",
    "add_command",
    "calendar_day",
    "integer",
    "not_empty",
    "refuse_options",
    "since",
    "until",
]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no other name

_COLUMNS_OF_A_PIPE = 80
_LARGEST = 2**63 - 1


class HelpFormatter(argparse.HelpFormatter):
    """The standard one, which asks `shutil` for the width: a slow import, even when no help is asked for."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named) > 0:
        return int(named)
    try:
        return os.get_terminal_size(1).columns or _COLUMNS_OF_A_PIPE
    except OSError:
        return _COLUMNS_OF_A_PIPE


def add_command(
    commands: Commands, name: str, common: argparse.ArgumentParser, summary: str
) -> argparse.ArgumentParser:
    """Add the command `name`, which takes the common options; `run` among its defaults is to carry it out."""
    parser = commands.add_parser(
        name,
        parents=[common],
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
    )
    parser.set_defaults(parser=parser)
    return parser


def refuse_options(arguments: argparse.Namespace, parent: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Exit with a usage error if an option of `parent` was given that its subcommand would silently ignore."""
    for name in names:
        if getattr(arguments, name) != parent.get_default(name):
            option = "--" + name.replace("_", "-")
            arguments.parser.error(f"{option} belongs to '{parent.prog}' and does nothing here")


def integer(least: int, most: int = _LARGEST) -> Callable[[str], int]:
    """A type for integers from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer, or too large")
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} is out of range: {least} to {most}")
        return number

    return parse


def not_empty(text: str) -> str:
    """A type for text that must not be empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text
