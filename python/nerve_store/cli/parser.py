"""The parser of the command line; each command's own arguments stand beside the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from nerve_store import BUILD_PROFILE, SQLITE_VERSION, __version__
from nerve_store.cli.arguments import HelpFormatter, Parser, add_command
from nerve_store.cli.place import add_place_options, place_of

__all__ = ["build_parser", "parse_arguments", "whole_parser"]

_WITHOUT_REMOTE = ("demo", "salvage", "completion")
_COMMANDS = {
    "demo": (
        "let a daemon work, die, recover and archive on a fresh data directory, and check that nothing is lost",
        "--data day demo --rows 2000",
    ),
    "archive": ("move old days from the database to files, one a day", "archive --retention-days 30 --zstd"),
    "logs": (
        "print the rows that match every filter given, the newest 20 unless told",
        "logs --since 2h --grep error -f",
    ),
    "runs": ("list workflow runs, newest first", "runs --status failed,crashed --since 3d"),
    "blob": ("store, read, list and remove blobs", "blob put report.pdf"),
    "meta": ("list, read, set and remove the keys beside the log", "meta ls"),
    "sql": ("run one statement that only reads", 'sql "SELECT type, count(*) FROM logs GROUP BY type"'),
    "export": (
        "write rows to a file: .jsonl, .csv, .arrow or .parquet",
        "export march.csv --since 2026-03 --until 2026-03",
    ),
    "stats": ("print how much there is, of what and since when", "stats --json"),
    "doctor": ("look for what is wrong or soon will be, and say what to do", "doctor"),
    "verify": ("check the database, its rows, the archive and the blobs", "verify --json"),
    "backup": ("copy the data directory, while others write", "backup /mnt/backup/agent"),
    "copy": (
        "bring a log from a data directory or a server to another, while others write",
        "copy data 'postgresql://db/nerve?archive=/srv/days'",
    ),
    "salvage": ("save what can still be read of a damaged database", "salvage data saved.db"),
    "reindex": ("build the index and the manifest of the archive anew", "reindex"),
    "completion": ("print a completion script for a shell", "completion bash > ~/.bash_completion.d/nerve-store"),
}
"""Each one is a module beside this one, and says the rest about itself."""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments with their defaults; `run` is the function that carries the command out on `place`."""
    words = sys.argv[1:] if argv is None else argv
    arguments = build_parser(words).parse_args(words)
    arguments.place = place_of(arguments, _WITHOUT_REMOTE)
    arguments.json = getattr(arguments, "json", False)
    return arguments


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for `words`: a command that they do not name is listed, but not loaded."""
    common = _common_options()
    parser = Parser(
        prog="nerve-store",
        parents=[common],
        allow_abbrev=False,
        formatter_class=HelpFormatter,
        description="Look after a nerve_store data directory: its log, workflow runs, archive and blobs.",
        epilog="Exit code: 0 done, 1 found a problem, 2 wrong usage, 130 interrupted.",
    )
    version = f"%(prog)s {__version__} (SQLite {SQLITE_VERSION}, {BUILD_PROFILE} build)"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (help_text, example) in _COMMANDS.items():
        command = add_command(commands, name, common, help_text, example=example)
        if name in words:
            import_module(f"nerve_store.cli.{name}").add_arguments(command, common)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    return build_parser(tuple(_COMMANDS))


def _common_options() -> argparse.ArgumentParser:
    """Options that stand before or after the command: without defaults, which would undo what stood before it."""
    common = argparse.ArgumentParser(add_help=False, formatter_class=HelpFormatter, argument_default=argparse.SUPPRESS)
    add_place_options(common)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for machines")
    return common
