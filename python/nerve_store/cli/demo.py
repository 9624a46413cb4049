"""`nerve-store demo`: a daemon's day on a fresh directory."""

from __future__ import annotations

import argparse
import os

from nerve_store import BUILD_PROFILE, SQLITE_VERSION, __version__
from nerve_store.cli.arguments import integer
from nerve_store.cli.json_text import plain
from nerve_store.cli.output import print_json, print_line, print_text
from nerve_store.cli.place import Place
from nerve_store.cli.problem import Problem
from nerve_store.cli.stats import print_summary, summarize
from nerve_store.cli.stores import refuse_server

__all__ = ["add_arguments"]

_DEFAULT_ROWS = 20_000
_FEWEST_ROWS = 1_000
_MOST_ROWS = 1_000_000


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.set_defaults(run=_run)
    parser.add_argument(
        "--rows",
        metavar="N",
        type=integer(_FEWEST_ROWS, _MOST_ROWS),
        default=_DEFAULT_ROWS,
        help="about how many log rows to write (default: %(default)s)",
    )


def _run(arguments: argparse.Namespace) -> int:
    from nerve_store.cli.demo_steps import Demo

    place: Place = arguments.place
    refuse_server(place, "the demo")
    data = place.data
    _require_fresh(data)
    versions = {"nerve_store": __version__, "sqlite": SQLITE_VERSION, "build": BUILD_PROFILE}
    steps: list[dict[str, object]] = []
    if not arguments.json:
        print_text(f"nerve_store {__version__} (SQLite {SQLITE_VERSION}, {BUILD_PROFILE} build) in {data}")
    for step in Demo(data, arguments.rows).steps():
        steps.append({"step": step.name, **step.figures})
        if not arguments.json:
            print_text(step.text, f"{step.name + ':':<15}")
    summary = summarize(place)
    if arguments.json:
        print_json({"versions": versions, "steps": steps, "summary": plain(summary)})
    else:
        print_line("")
        print_summary(summary)
    return 0


def _require_fresh(data: str) -> None:
    """Refuse to write into anything that is there, above all a data directory in use."""
    try:
        with os.scandir(data) as entries:
            if next(entries, None) is None:
                return
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise Problem(f"{data!r} is not a directory; name a fresh one with --data DIR") from None
    raise Problem(f"{data!r} is not empty; name a fresh directory with --data DIR, or remove this one")
