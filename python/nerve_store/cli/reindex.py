"""`nerve-store reindex`: the index and the manifest built anew."""

from __future__ import annotations

import argparse

from nerve_store.cli.output import print_json, print_line
from nerve_store.cli.problem import counting_problems
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import open_logs

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Say what carries the command out."""
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with (
        open_logs(arguments.place, writable=True) as store,
        counting_problems() as problems,
        progress_bar("indexing rows") as progress,
    ):
        store.reindex(progress=progress)
    if arguments.json:
        print_json({"reindexed": True, "problems": problems})
    else:
        print_line("built the index and the manifest anew")
    return 1 if problems else 0
