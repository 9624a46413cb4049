"""The parser of the command line; each command's own arguments stand beside the command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from nerve_store import BUILD_PROFILE, SQLITE_VERSION, __version__
from nerve_store.cli.arguments import HelpFormatter, add_command, not_empty

__all__ = ["build_parser", "parse_arguments"]

_DEFAULT_DATA = "data"
_DATA_VARIABLE = "NERVE_STORE_DATA"
_COMMANDS = {
    "demo": "let a daemon work, die, recover and archive on a fresh data directory, and check that nothing is lost",
    "archive": "move old days from the database to files, one a day",
    "logs": "print the rows that match every filter given",
    "runs": "list workflow runs, newest first",
    "blob": "store, read, list and remove blobs",
    "verify": "check the database, its rows, the archive and the blobs",
    "stats": "print how much there is, of what and since when",
}
"""Each one is a module beside this one, and says the rest about itself."""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments with their defaults; `run` is the function that carries the command out."""
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser(words).parse_args(words)
    arguments.data = getattr(arguments, "data", None) or os.environ.get(_DATA_VARIABLE) or _DEFAULT_DATA
    arguments.json = getattr(arguments, "json", False)
    return arguments


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for `words`: a command that they do not name is listed, but not loaded."""
    common = _common_options()
    parser = argparse.ArgumentParser(
        prog="nerve-store",
        parents=[common],
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        description="Look after a nerve_store data directory: its log, workflow runs, archive and blobs.",
        epilog="Exit code: 0 done, 1 found a problem, 2 wrong usage.",
    )
    version = f"%(prog)s {__version__} (SQLite {SQLITE_VERSION}, {BUILD_PROFILE} build)"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, help_text in _COMMANDS.items():
        command = add_command(commands, name, common, help_text)
        if name in words:
            import_module(f"nerve_store.cli.{name}").add_arguments(command, common)
    return parser


def _common_options() -> argparse.ArgumentParser:
    """Options that stand before or after the command: without defaults, which would undo what stood before it."""
    common = argparse.ArgumentParser(add_help=False, formatter_class=HelpFormatter, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--data",
        metavar="DIR",
        type=not_empty,
        help=f"the data directory (default: {_DATA_VARIABLE} of the environment, or '{_DEFAULT_DATA}')",
    )
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for machines")
    return common
