"""`nerve-store blob verify` and `blob collect`: looking after the blobs that are there."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta

from nerve_store import BlobVerifyReport, CollectReport, normalize_blob_hash
from nerve_store.cli.arguments import Commands, add_command, integer
from nerve_store.cli.output import print_json, print_text
from nerve_store.cli.problem import Problem, located, report, standard_input
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import open_blobs
from nerve_store.cli.text import format_bytes, format_count

__all__ = ["add_care_commands"]

_STANDARD_STREAM = "-"
_LONGEST_GRACE = 10 * 366 * 24 * 3600


def add_care_commands(subcommands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `verify` and `collect`."""
    verify = add_command(
        subcommands, "verify", common, "read every blob, and move damaged ones aside", example="blob verify"
    )
    verify.set_defaults(run=_verify)
    verify.add_argument("--no-quarantine", action="store_true", help="change nothing; only say what is damaged")
    collect = add_command(
        subcommands,
        "collect",
        common,
        "delete the blobs that a list of hashes does not name",
        example="blob collect --keep hashes.txt --dry-run",
    )
    collect.set_defaults(run=_collect)
    collect.add_argument(
        "--keep",
        metavar="FILE",
        required=True,
        help="the hashes to keep, one at the beginning of each line; '-' is standard input",
    )
    collect.add_argument(
        "--grace",
        metavar="SECONDS",
        type=integer(0, _LONGEST_GRACE),
        default=3600,
        help="spare what was written, or written again, within so many seconds (default: %(default)s)",
    )
    collect.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")


def _verify(arguments: argparse.Namespace) -> int:
    blobs = open_blobs(arguments.place, writable=not arguments.no_quarantine)
    with progress_bar("verifying bytes") as progress:
        found = blobs.verify(progress=progress)
    if arguments.json:
        print_json({"ok": found.ok, **_fields(found)})
    else:
        for problem in found.problems:
            report(located(problem.path, problem.reason))
            if problem.quarantine is not None:
                print_text(f"moved to {problem.quarantine}")
        read = f"{format_count(found.blob_count, 'blob')}, {format_bytes(found.size)}"
        print_text(f"verified {read}: {format_count(len(found.problems), 'problem')}")
    return 0 if found.ok else 1


def _fields(found: BlobVerifyReport) -> dict[str, object]:
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


def _collect(arguments: argparse.Namespace) -> int:
    keep = list(_hashes(arguments.keep))
    blobs = open_blobs(arguments.place, writable=not arguments.dry_run)
    grace = timedelta(seconds=arguments.grace)
    with progress_bar("collecting shards") as progress:
        result = blobs.collect(keep, grace=grace, dry_run=arguments.dry_run, progress=progress)
    if arguments.json:
        print_json(result)
    else:
        _print_result(result)
    return 1 if result.missing else 0


def _print_result(result: CollectReport) -> None:
    verb = "would delete" if result.dry_run else "deleted"
    print_text(f"{verb} {format_count(result.deleted_count, 'blob')}, {format_bytes(result.deleted_size)}")
    print_text(f"kept {format_count(result.kept_count, 'blob')} on the list and {result.young_count:,} young")
    for digest in result.missing:
        report(f"{digest} is on the list, and there is no such blob")


def _hashes(file: str) -> Iterator[str]:
    if file == _STANDARD_STREAM:
        yield from _parse(standard_input(), "standard input")
        return
    with open(file, encoding="utf-8", errors="surrogateescape") as stream:
        yield from _parse(stream, os.fspath(file))


def _parse(lines: Iterable[str], name: str) -> Iterator[str]:
    """The first word of each line, so that the output of `blob put` and `blob ls` will do."""
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        digest = normalize_blob_hash(words[0])
        if digest is None:
            raise Problem(f"{name}, line {number}: {words[0]!r} is not a sha256 hash; nothing was deleted")
        yield digest
