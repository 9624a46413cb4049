"""What the documentation site makes at each build: the reference of the command line, the tables of the benchmarks."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent

COMMANDS = "<!-- every command -->"
BENCHMARKS = "<!-- benchmark tables -->"
OTHER_NAMES = "<!-- every other name -->"
CONDITIONS = "<!-- benchmark conditions -->"


def on_config(config: Any) -> Any:
    """What is documented is what lies here. MkDocs undoes changes of the path that a hook makes as it is loaded."""
    sys.path[:0] = [str(PROJECT / "python"), str(PROJECT / "benches")]
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Puts what is generated in the place of its mark."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, command_reference())
    if BENCHMARKS in markdown:
        markdown = markdown.replace(BENCHMARKS, benchmark_tables()).replace(CONDITIONS, benchmark_conditions())
    if OTHER_NAMES in markdown:
        markdown = markdown.replace(OTHER_NAMES, other_names(markdown))
    return outside_links(markdown, page.file.src_uri)


def outside_links(markdown: str, page: str) -> str:
    """Links to files of the repository that are no pages lead to where the repository is published."""
    base = "https://github.com/nerve-store/nerve-store/blob/main/"
    folder = PROJECT / "docs" / Path(page).parent

    def published(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        found = (folder / target).resolve()
        if not found.exists() or found.is_relative_to(PROJECT / "docs"):
            return match[0]
        return f"]({base}{found.relative_to(PROJECT)}{anchor})"

    return re.sub(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)", published, markdown)


def other_names(markdown: str) -> str:
    """The public classes and functions that the page does not name, so that none is left out."""
    import nerve_store

    here = set(re.findall(r"^::: nerve_store\.(\w+)", markdown, re.MULTILINE))
    elsewhere = {"nerve_store.exceptions", "nerve_store.records"}
    names = [
        name
        for name in nerve_store.__all__
        if callable(value := getattr(nerve_store, name)) and name not in here and value.__module__ not in elsewhere
    ]
    return "\n\n".join(f"::: nerve_store.{name}" for name in names)


# --- the command line ----------------------------------------------------------------------------------------------


def command_reference() -> str:
    """A section for each command, from its parser."""
    from nerve_store.cli import parser as cli

    root = cli.whole_parser()
    sections = [section(root, 2, common=set())]
    common = {action.dest for action in root._actions}  # noqa: SLF001
    sections += [section(parser, depth, common) for parser, depth in subparsers(root, 2)]
    return "\n\n".join(sections)


def subparsers(parser: argparse.ArgumentParser, depth: int) -> Iterator[tuple[argparse.ArgumentParser, int]]:
    """The parsers of the commands below, each once, in the order of `--help`."""
    for action in parser._actions:  # noqa: SLF001, argparse has no public way to walk a parser
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            seen: set[int] = set()
            for below in action.choices.values():
                if id(below) not in seen:
                    seen.add(id(below))
                    yield below, depth
                    yield from subparsers(below, min(depth + 1, 4))


def section(parser: argparse.ArgumentParser, depth: int, common: set[str]) -> str:
    """Usage, description, arguments and the examples of one command."""
    usage = parser.format_usage().removeprefix("usage: ").strip()
    parts = [f"{'#' * depth} `{parser.prog}`", f"```text\n{usage}\n```"]
    if parser.description:
        parts.append(plain(parser.description))
    rows = [row for action in parser._actions if action.dest not in common and (row := argument(action))]  # noqa: SLF001
    if rows:
        parts.append("| argument | meaning |\n| --- | --- |\n" + "\n".join(rows))
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(parts)


def argument(action: argparse.Action) -> str | None:
    """A line of the table of arguments."""
    if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction | argparse._HelpAction):  # noqa: SLF001
        return None
    metavar = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    if action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    names = [f"`{name} {value}`".replace(" `", "`") for name in action.option_strings] or [f"`{value}`"]
    facts = {**vars(action), "prog": "nerve-store"}
    text = (action.help or "") % facts
    return f"| {', '.join(names)} | {plain(text).replace('|', chr(92) + '|')} |".replace("\n", " ")


def plain(text: str) -> str:
    """Help text as Markdown: what it says, letter by letter."""
    return re.sub(r"([\\*_\[\]<>#])", r"\\\1", text)


# --- the benchmarks ------------------------------------------------------------------------------------------------

SECTIONS = {
    "Appending": ("append", "AsyncLogStore"),
    "Changes of runs": ("upsert", "batch of", "append with a key", "claim"),
    "Reading": ("query", "iter()", "count", "stats()"),
    "Runs": ("get_active", "query_workflow_runs", "get_thread"),
    "Following, logging and data tools": ("follow", "async follow", "400 idle", "StoreHandler", "arrow"),
    "The archive": (
        "archive",
        "read_archive",
        "verify, ",
        "50 messages",
        "peak memory of archiving",
        "another program deletes",
    ),
    "Blobs": ("hash", "write", "read ", "verify 1 GiB", "2,000 times presence", "AsyncBlobStore"),
    "Opening, and space": ("import", "opening", "migrating", "database file"),
}


def benchmark_tables() -> str:
    """A table for each group of cases. A case that belongs to no group is an error, so that none is left out."""
    import figures

    measured, _ = figures.read(PROJECT / "docs" / "benchmarks" / "latest.json")
    groups: dict[str, list[figures.Figure]] = {name: [] for name in SECTIONS}
    for figure in measured:
        groups[group_of(figure.case)].append(figure)
    heading = "| case | nerve_store | compared with | its figure | ratio |\n| --- | ---: | --- | ---: | ---: |\n"
    return "\n\n".join(
        f"### {name}\n\n{heading}" + "\n".join(line(figure) for figure in group)
        for name, group in groups.items()
        if group
    )


def group_of(case: str) -> str:
    """The longest beginning decides."""
    fitting = [(len(start), name) for name, starts in SECTIONS.items() for start in starts if case.startswith(start)]
    if not fitting:
        message = f"scripts/site_hooks.py: no section for the benchmark {case!r}"
        raise ValueError(message)
    return max(fitting)[1]


def line(figure: Any) -> str:
    """A line of a table. The ratio is the peer's time over ours: more is better, and below 1 the peer is faster."""
    _, ours, peer, peer_name, *_ = figure.cells()
    ratio = "" if figure.peer is None else f"{figure.peer / figure.ours:,.2f}"
    return f"| {escape(figure.case)} | {ours} | {escape(peer_name)} | {peer} | {ratio} |"


def benchmark_conditions() -> str:
    """On what it was measured."""
    import figures

    _, conditions = figures.read(PROJECT / "docs" / "benchmarks" / "latest.json")
    return "\n".join(f"- {name}: {value}" for name, value in conditions.items())
