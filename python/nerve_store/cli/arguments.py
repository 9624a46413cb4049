"""What command-line arguments mean: commands, numbers, and the types of `nerve_store.cli.times`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from nerve_store.cli.times import calendar_day, since, until

__all__ = [
    "Commands",
    "HelpFormatter",
    "Parser",
    "add_command",
    "calendar_day",
    "integer",
    "not_empty",
    "refuse_options",
    "since",
    "until",
]

Commands: TypeAlias = "argparse._SubParsersAction[Any]"  # noqa: SLF001 - it has no other name

_COLUMNS_OF_A_PIPE = 80
_LARGEST = 2**63 - 1


class HelpFormatter(argparse.HelpFormatter):
    """The standard one, which asks `shutil` for the width: a slow import, even when no help is asked for."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class Parser(argparse.ArgumentParser):
    """One that says what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2, the usage and the message."""
        suggestion = self._suggestion(message)
        if wrong := re.match(r"argument COMMAND: invalid choice: (.*?) \(choose from", message):
            message = f"there is no command {wrong[1]}{suggestion or '; --help lists them'}"
            suggestion = ""
        super().error(message + suggestion)

    def _suggestion(self, message: str) -> str:
        from difflib import get_close_matches

        wrong = re.search(r"(?:unrecognized arguments: |invalid choice: ')([^ '=]+)", message)
        if wrong is None:
            return ""
        if wrong[1].startswith("-"):
            known = [option for action in self._actions for option in action.option_strings]
        else:
            known = [str(name) for action in self._actions for name in action.choices or ()]
        close = get_close_matches(wrong[1], known, 1)
        return f"; did you mean {close[0]}?" if close else ""

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """As argparse; what a subcommand does not know, it says itself, with its own usage."""
        namespace, rest = super().parse_known_args(*arguments, **options)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(map(str, rest))}")
        return namespace, rest


def _columns() -> int:
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named) > 0:
        return int(named)
    try:
        return os.get_terminal_size(1).columns or _COLUMNS_OF_A_PIPE
    except OSError:
        return _COLUMNS_OF_A_PIPE


def add_command(
    commands: Commands, name: str, common: argparse.ArgumentParser, summary: str, *, example: str | None = None
) -> argparse.ArgumentParser:
    """Add the command `name`, which takes the common options; `run` among its defaults is to carry it out.

    `example` is what follows `nerve-store` in an example of its use.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        parents=[common],
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=None if example is None else f"example: nerve-store {example}",
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
