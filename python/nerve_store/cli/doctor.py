"""`nerve-store doctor`: what is wrong with a log or soon will be, and what to do about it."""

from __future__ import annotations

import argparse
from collections import Counter

from nerve_store.cli.doctor_files import examine_files
from nerve_store.cli.doctor_log import examine_log
from nerve_store.cli.doctor_objects import examine_objects
from nerve_store.cli.doctor_server import examine_server
from nerve_store.cli.findings import LEVELS, Finding
from nerve_store.cli.output import print_json, print_line, print_text
from nerve_store.cli.place import Place
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import require_directory
from nerve_store.cli.text import format_count

__all__ = ["add_arguments"]

_COLORS = {"ok": "32", "warning": "33", "error": "31"}


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Say what carries the command out."""
    parser.set_defaults(run=_run)
    parser.add_argument("--quick", action="store_true", help="leave out the verification, which reads everything once")


def _run(arguments: argparse.Namespace) -> int:
    findings: list[Finding] = []
    place: Place = arguments.place
    if not place.is_server:
        require_directory(place)
        findings += examine_files(place.data)
    objects = None
    if place.remote is not None:
        objects = examine_objects(place, place.remote, is_quick=arguments.quick)
        findings += objects.findings
    examine = examine_server if place.is_server else examine_log
    with progress_bar("verifying rows") as progress:
        findings += examine(place, objects, is_quick=arguments.quick, progress=progress)
    counts = Counter(finding.level for finding in findings)
    if arguments.json:
        print_json({"ok": not counts["error"], "findings": findings})
    else:
        for finding in sorted(findings, key=lambda finding: LEVELS.index(finding.level)):
            _print(finding)
        print_line(f"{format_count(counts['error'], 'error')}, {format_count(counts['warning'], 'warning')}")
    return 1 if counts["error"] else 0


def _print(finding: Finding) -> None:
    print_text(f"{finding.check}: {finding.message}", f"{finding.level:<7}  ", _COLORS[finding.level])
    if finding.action:
        print_text(finding.action, "         -> ")
