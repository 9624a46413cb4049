"""`nerve-store copy`: a log from a directory or a server to another, and an object store, while others write."""

from __future__ import annotations

import argparse

from nerve_store.cli.arguments import not_empty
from nerve_store.cli.output import print_json, print_text
from nerve_store.cli.place import Place, refuse_other_urls, remote_option, remote_url
from nerve_store.cli.problem import Problem
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import log_path, require_directory
from nerve_store.cli.text import format_count

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the two places."""
    parser.set_defaults(run=_run, usage_error=parser.error)
    place = "a data directory, or postgresql://HOST/DATABASE?schema=NAME&archive=DIR"
    parser.add_argument("source", metavar="SOURCE", type=not_empty, help=place)
    parser.add_argument("target", metavar="DEST", type=not_empty, help="the same, without a log in it")
    parser.add_argument(
        "--source-remote",
        metavar="URL",
        type=remote_url,
        help="the object store of SOURCE, as --remote is that of DEST: the days and blobs there",
    )
    parser.add_argument(
        "--source-remote-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=remote_option,
        help="an option of it; repeatable",
    )
    parser.add_argument(
        "--finish",
        action="store_true",
        help="once what writes to SOURCE has ended: bring the rest, and make DEST a log",
    )


def _run(arguments: argparse.Namespace) -> int:
    place: Place = arguments.place
    options = dict(arguments.source_remote_option)
    source = Place(arguments.source, arguments.source_remote, options if arguments.source_remote else None)
    if options and source.remote is None:
        arguments.usage_error("--source-remote-option is for a --source-remote, and there is none")
    for data, name, remote in (
        (arguments.source, "SOURCE", "--source-remote"),
        (arguments.target, "DEST", "--remote"),
    ):
        refuse_other_urls(data, name, remote, arguments.usage_error)
    if not source.is_server:
        require_directory(source)
    try:
        from nerve_store.moving import copy
    except ImportError as error:
        raise Problem(str(error)) from None
    with progress_bar("copying rows") as progress:
        report = copy(
            source.data,
            arguments.target,
            remote=place.remote,
            remote_options=place.options,
            source_remote=source.remote,
            source_remote_options=source.options,
            finish=arguments.finish,
            progress=progress,
        )
    if arguments.json:
        print_json(report)
        return 0
    days = f"{format_count(report.copied_days, 'day')} of {report.day_count}"
    blobs = ""
    if report.blob_count is not None:
        blobs = f" and {format_count(report.copied_blobs, 'blob')} of {report.blob_count}"
    print_text(f"{report.target}: copied {format_count(report.copied_rows, 'row')} and {days}{blobs}")
    if not report.is_finished:
        print_text("end what writes to SOURCE, and finish: the same command once more, with --finish", "  ")
        return 0
    print_text(
        f"finished: {format_count(report.row_count or 0, 'row')}, {format_count(report.run_count or 0, 'run')}, "
        f"{format_count(report.key_count or 0, 'key')}; verify checks all of it once more"
    )
    if report.blob_count is None and not source.is_server:
        print_text(f"blobs are not copied: they stay beside {log_path(arguments.source)}")
    return 0
