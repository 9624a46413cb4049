"""What command-line arguments mean: numbers, times, days."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias

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
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


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


def calendar_day(text: str) -> date:
    """A type for UTC days, `YYYY-MM-DD`."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: {error}") from None


def since(text: str) -> int:
    """A type for the first millisecond wanted; a bare date begins with its first."""
    moment = _moment(text)
    if isinstance(moment, int):
        return moment
    return -((_EPOCH - moment) // _MILLISECOND)


def until(text: str) -> int:
    """A type for the last millisecond wanted; a bare date ends with its last."""
    moment = _moment(text)
    if isinstance(moment, int):
        return moment
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return (moment - _EPOCH) // _MILLISECOND + 86_400_000 - 1
    return (moment - _EPOCH) // _MILLISECOND


def _moment(text: str) -> int | datetime:
    """Milliseconds, or a date or time that is UTC where it names no zone."""
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return integer(-_LARGEST, _LARGEST)(text)
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: milliseconds, 2026-03-11, 2026-03-11T05:26:18 or 2026-03-11T05:26:18.301+01:00"
        ) from None
