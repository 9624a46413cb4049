"""`nerve-store salvage`: what can still be read of a damaged database."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable

from nerve_store import salvage
from nerve_store.cli.output import print_json, print_text
from nerve_store.cli.place import Place
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import log_path, refuse_server
from nerve_store.cli.text import format_count

__all__ = ["add_arguments"]

_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the two paths."""
    parser.set_defaults(run=_run)
    parser.add_argument("damaged", metavar="DAMAGED", help="the damaged database, or its data directory")
    parser.add_argument("target", metavar="TARGET", help="the new database, a file that is not there yet")


def _run(arguments: argparse.Namespace) -> int:
    for path in (arguments.damaged, arguments.target):
        refuse_server(Place(path), "salvage")
    damaged = log_path(arguments.damaged) if os.path.isdir(arguments.damaged) else arguments.damaged
    with progress_bar("reading pages") as progress:
        report = salvage(damaged, arguments.target, progress=progress)
    if arguments.json:
        print_json({**dataclasses.asdict(report), "path": os.path.abspath(arguments.target)})
        return 0
    print_text(f"saved {format_count(report.row_count, 'row')} to {arguments.target}")
    missing, reserved = _apart(report.missing, report.last_id or 0)
    for what, spans in (
        ("no checksum vouches for", report.unverified),
        ("missing", missing),
        ("lost, or reserved and never given out", reserved),
    ):
        if spans:
            print_text(f"{what}: ids {_named(spans)}")
    beside = ", ".join(f"{os.path.basename(damaged)}{suffix}" for suffix in ("-wal", "-shm", "-ids"))
    print_text(f"to put it to use, move it to {damaged} while no program has that open, and remove {beside}")
    return 0


def _apart(missing: Iterable[tuple[int, int]], last_id: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What is missing among the saved rows, and behind them: ids that writers reserved, and perhaps never gave out."""
    spans = list(missing)
    behind = spans[-1:] if spans and spans[-1][0] > last_id else []
    return spans[: len(spans) - len(behind)], behind


def _named(spans: Iterable[tuple[int, int]]) -> str:
    named = [str(first) if first == last else f"{first} to {_end(last)}" for first, last in spans]
    rest = len(named) - _SHOWN
    return ", ".join(named[:_SHOWN]) + (f", and {rest} spans more (--json lists them)" if rest > 0 else "")


def _end(last: int) -> str:
    return "an unknown end" if last == 2**63 - 1 else str(last)
