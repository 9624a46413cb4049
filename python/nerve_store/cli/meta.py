"""`nerve-store meta`: the keys and values beside the log."""

from __future__ import annotations

import argparse

from nerve_store.cli.arguments import add_command
from nerve_store.cli.output import Column, print_json, print_line, print_table
from nerve_store.cli.problem import Problem
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import escape

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    subcommands = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True)
    listing = add_command(subcommands, "ls", common, "list the keys and their values", example="meta ls app.")
    listing.set_defaults(run=_list)
    listing.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only keys that begin so")
    get = add_command(subcommands, "get", common, "print the value of a key", example="meta get app.cursor")
    get.set_defaults(run=_get)
    set_ = add_command(subcommands, "set", common, "set the value of a key", example="meta set app.cursor 17")
    set_.set_defaults(run=_set)
    remove = add_command(subcommands, "rm", common, "remove a key", example="meta rm app.cursor")
    remove.set_defaults(run=_remove)
    for command in (get, set_, remove):
        command.add_argument("key", metavar="KEY")
    set_.add_argument("value", metavar="VALUE")


def _list(arguments: argparse.Namespace) -> int:
    with open_logs(arguments.place) as store:
        values = store.list_meta(arguments.prefix)
    if arguments.json:
        print_json(values)
    else:
        print_table((Column("key", least=8), Column("value")), values.items())
    return 0


def _get(arguments: argparse.Namespace) -> int:
    with open_logs(arguments.place) as store:
        value = store.get_meta(arguments.key)
    if value is None:
        raise _missing(arguments)
    if arguments.json:
        print_json(value)
    else:
        print_line(escape(value))
    return 0


def _set(arguments: argparse.Namespace) -> int:
    with open_logs(arguments.place, writable=True) as store:
        store.set_meta(arguments.key, arguments.value)
    if arguments.json:
        print_json({arguments.key: arguments.value})
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    with open_logs(arguments.place, writable=True) as store:
        if not store.delete_meta(arguments.key):
            raise _missing(arguments)
    if arguments.json:
        print_json({"removed": arguments.key})
    return 0


def _missing(arguments: argparse.Namespace) -> Problem:
    return Problem(f"there is no key {arguments.key!r}; 'nerve-store meta ls' lists them")
