"""`nerve-store runs`: workflow runs and their threads."""

from __future__ import annotations

import argparse

from nerve_store import LogStore, WorkflowRun
from nerve_store.cli.arguments import add_command, integer, refuse_options
from nerve_store.cli.json_text import json_text
from nerve_store.cli.output import Column, print_json, print_pairs, print_table
from nerve_store.cli.problem import Problem, counting_problems
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import format_timestamp

__all__ = ["add_arguments"]

_LIST_OPTIONS = ("active", "workflow")
_DEFAULT_ROUNDS = 20


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the command's options and its subcommands."""
    parser.add_argument("--active", action="store_true", help="only queued and started ones, oldest first")
    parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    parser.set_defaults(run=_list, runs_parser=parser)
    subcommands = parser.add_subparsers(title="subcommands", metavar="COMMAND")
    show = add_command(subcommands, "show", common, "print one run: its state, trigger and thread")
    show.set_defaults(run=_show)
    show.add_argument("run_id", metavar="RUN")
    rounds = add_command(subcommands, "rounds", common, "print the rounds of a run's thread, newest first")
    rounds.set_defaults(run=_rounds)
    rounds.add_argument("run_id", metavar="RUN")
    rounds.add_argument(
        "--before", metavar="N", type=integer(0), default=0, help="only rounds numbered below N (default: all)"
    )
    rounds.add_argument(
        "--limit",
        metavar="N",
        type=integer(0),
        default=_DEFAULT_ROUNDS,
        help="from the N newest numbers (default: %(default)s)",
    )
    messages = add_command(subcommands, "messages", common, "print the messages of a run's thread, in order")
    messages.set_defaults(run=_messages)
    messages.add_argument("run_id", metavar="RUN")


def _list(arguments: argparse.Namespace) -> int:
    with open_logs(arguments.data) as store, counting_problems() as problems:
        if arguments.active:
            runs = store.get_active_workflow_runs(arguments.workflow)
        else:
            runs = store.get_all_workflow_runs(arguments.workflow)
    if arguments.json:
        print_json(runs)
    else:
        columns = (
            Column("run"),
            Column("workflow"),
            Column("status"),
            Column("exit", right=True),
            Column("since"),
        )
        print_table(columns, map(_run_cells, runs))
    return 1 if problems else 0


def _run_cells(run: WorkflowRun) -> tuple[str, ...]:
    return run.run_id, run.workflow, run.status.value, _exit_code(run), format_timestamp(run.timestamp)


def _exit_code(run: WorkflowRun) -> str:
    return "-" if run.exit_code is None else str(run.exit_code)


def _show(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.runs_parser, _LIST_OPTIONS)
    with open_logs(arguments.data) as store, counting_problems() as problems:
        run = _require_run(store, arguments)
        trigger = store.get_trigger_payload(run.run_id)
        rounds = store.get_thread_round_count(run.run_id)
        messages = len(store.get_thread_messages(run.run_id))
        events = len(store.get_thread_events(run.run_id))
    if arguments.json:
        counts = {"round_count": rounds, "message_count": messages, "event_count": events}
        print_json({"run": run, "trigger_payload": trigger, **counts})
        return 1 if problems else 0
    print_pairs(
        [
            ("run", run.run_id),
            ("workflow", run.workflow),
            ("status", run.status.value),
            ("exit code", _exit_code(run)),
            ("since", format_timestamp(run.timestamp)),
            ("rounds", str(rounds)),
            ("messages", str(messages)),
            ("events", str(events)),
            ("trigger", "-" if trigger is None else json_text(trigger)),
        ]
    )
    return 1 if problems else 0


def _rounds(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.runs_parser, _LIST_OPTIONS)
    with open_logs(arguments.data) as store, counting_problems() as problems:
        rounds = store.get_thread_rounds(arguments.run_id, before=arguments.before, limit=arguments.limit)
        if not rounds:
            _require_run(store, arguments)
    if arguments.json:
        print_json(rounds)
        return 1 if problems else 0
    columns = (
        Column("round", right=True),
        Column("log id", right=True),
        Column("timestamp"),
        Column("role"),
        Column("content"),
    )
    rows = (
        (
            str(item.round),
            str(item.log_id),
            format_timestamp(item.timestamp),
            item.message.role,
            item.message.content,
        )
        for item in rounds
    )
    print_table(columns, rows)
    return 1 if problems else 0


def _messages(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.runs_parser, _LIST_OPTIONS)
    with open_logs(arguments.data) as store, counting_problems() as problems:
        messages = store.get_thread_messages(arguments.run_id)
        if not messages:
            _require_run(store, arguments)
    if arguments.json:
        print_json(messages)
        return 1 if problems else 0
    columns = (Column("timestamp"), Column("role"), Column("content"))
    print_table(columns, ((format_timestamp(item.timestamp), item.role, item.content) for item in messages))
    return 1 if problems else 0


def _require_run(store: LogStore, arguments: argparse.Namespace) -> WorkflowRun:
    run = store.get_workflow_run(arguments.run_id)
    if run is None:
        raise Problem(f"there is no run {arguments.run_id!r} in {arguments.data!r}; 'nerve-store runs' lists them")
    return run
