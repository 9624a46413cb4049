"""`nerve-store runs`: workflow runs and their threads."""

from __future__ import annotations

import argparse

from nerve_store import ExitCode, ThreadMessage, WorkflowRun, WorkflowRunStatus
from nerve_store.cli.arguments import add_command, integer, refuse_options, since
from nerve_store.cli.claims import claim_of, claim_text
from nerve_store.cli.json_text import json_text
from nerve_store.cli.output import Column, print_json, print_pairs, print_table, print_text, table_time
from nerve_store.cli.problem import Problem, counting_problems
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import format_age, format_timestamp
from nerve_store.protocols import Log

__all__ = ["add_arguments"]

_LIST_OPTIONS = ("active", "workflow", "status", "since", "limit", "all", "relative")
_NEWEST = 50
_COLORS = {
    "queued": "36",
    "started": "34",
    "completed": "32",
    "failed": "31",
    "crashed": "31",
    "killed": "31",
    "interrupted": "33",
    "dropped": "90",
}
_DEFAULT_ROUNDS = 20


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the command's options and its subcommands."""
    parser.add_argument("--active", action="store_true", help="only queued and started ones, oldest first")
    parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    parser.add_argument("--status", metavar="S[,S]", type=_statuses, help="only runs in this state, or these")
    parser.add_argument("--since", metavar="TIME", type=since, help="only runs that took their state then or later")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--limit", metavar="N", type=integer(0), help=f"the newest N of them (default: {_NEWEST}; --active: all)"
    )
    which.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--relative", action="store_true", help="also print how long ago each took its state")
    parser.set_defaults(run=_list, runs_parser=parser)
    subcommands = parser.add_subparsers(title="subcommands", metavar="COMMAND")
    kill = add_command(
        subcommands, "kill", common, "set a run to killed, also one that is claimed", example="runs kill run-7"
    )
    kill.set_defaults(run=_kill)
    kill.add_argument("run_id", metavar="RUN")
    show = add_command(
        subcommands, "show", common, "print one run: its state, trigger and thread", example="runs show run-7"
    )
    show.set_defaults(run=_show)
    show.add_argument("run_id", metavar="RUN")
    rounds = add_command(
        subcommands,
        "rounds",
        common,
        "print the rounds of a run's thread, newest first",
        example="runs rounds run-7 --limit 5",
    )
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
    messages = add_command(
        subcommands,
        "messages",
        common,
        "print the messages of a run's thread, in order",
        example="runs messages run-7 --json",
    )
    messages.set_defaults(run=_messages)
    messages.add_argument("run_id", metavar="RUN")


def _statuses(text: str) -> list[WorkflowRunStatus]:
    """A type for states, separated by commas."""
    try:
        return [WorkflowRunStatus(name.strip()) for name in text.split(",")]
    except ValueError:
        known = ", ".join(WorkflowRunStatus)
        raise argparse.ArgumentTypeError(f"{text!r} is no state, nor several: {known}") from None


def _color(status: str) -> str:
    return _COLORS.get(status, "")


def _list(arguments: argparse.Namespace) -> int:
    with open_logs(arguments.place) as store, counting_problems() as problems:
        runs = _wanted(store, arguments)
    if arguments.json:
        print_json(runs)
        return 1 if problems else 0
    columns = [
        Column("run", least=8),
        Column("workflow", least=8),
        Column("status", color=_color),
        Column("exit", right=True),
        Column("since"),
    ]
    if arguments.relative:
        columns.append(Column("age", right=True, least=3))
    print_table(columns, (_run_cells(run, relative=arguments.relative) for run in runs))
    return 1 if problems else 0


def _wanted(store: Log, arguments: argparse.Namespace) -> list[WorkflowRun]:
    if arguments.active:
        runs = store.get_active_workflow_runs(arguments.workflow)
        statuses = set(WorkflowRunStatus) if arguments.status is None else set(arguments.status)
        earliest = arguments.since
        runs = [run for run in runs if run.status in statuses and (earliest is None or run.timestamp >= earliest)]
        return runs if arguments.limit is None else runs[max(len(runs) - arguments.limit, 0) :]
    limit = _NEWEST if arguments.limit is None and not arguments.all else arguments.limit
    return store.query_workflow_runs(
        workflow=arguments.workflow, status=arguments.status, since=arguments.since, limit=limit
    )


def _run_cells(run: WorkflowRun, *, relative: bool) -> tuple[str, ...]:
    cells = (run.run_id, run.workflow, run.status.value, _exit_code(run), table_time(run.timestamp))
    return (*cells, format_age(run.timestamp)) if relative else cells


def _kill(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.runs_parser, _LIST_OPTIONS)
    with open_logs(arguments.place, writable=True) as store, counting_problems() as problems:
        _require_run(store, arguments)
        run = store.transition(arguments.run_id, WorkflowRunStatus.KILLED, exit_code=ExitCode.KILLED)
    if arguments.json:
        print_json(run)
    else:
        print_text(f"killed {run.run_id} of {run.workflow}")
    return 1 if problems else 0


def _exit_code(run: WorkflowRun) -> str:
    return "-" if run.exit_code is None else str(run.exit_code)


def _show(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.runs_parser, _LIST_OPTIONS)
    with open_logs(arguments.place) as store, counting_problems() as problems:
        run = _require_run(store, arguments)
        trigger = store.get_trigger_payload(run.run_id)
        rounds = store.get_thread_round_count(run.run_id)
        messages = len(store.get_thread_messages(run.run_id))
        events = len(store.get_thread_events(run.run_id))
        claim = claim_of(store, run)
    if arguments.json:
        counts = {"round_count": rounds, "message_count": messages, "event_count": events}
        print_json({"run": run, "claim": claim, "trigger_payload": trigger, **counts})
        return 1 if problems else 0
    print_pairs(
        [
            ("run", run.run_id),
            ("workflow", run.workflow),
            ("status", run.status.value),
            ("exit code", _exit_code(run)),
            ("since", format_timestamp(run.timestamp)),
            ("claim", "-" if claim is None else claim_text(claim)),
            ("rounds", str(rounds)),
            ("messages", str(messages)),
            ("events", str(events)),
            ("trigger", "-" if trigger is None else json_text(trigger)),
        ]
    )
    return 1 if problems else 0


def _rounds(arguments: argparse.Namespace) -> int:
    # It has a limit of its own.
    refuse_options(arguments, arguments.runs_parser, [name for name in _LIST_OPTIONS if name != "limit"])
    with open_logs(arguments.place) as store, counting_problems() as problems:
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
        Column("role", least=6),
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
    with open_logs(arguments.place) as store, counting_problems() as problems:
        messages = store.get_thread_messages(arguments.run_id)
        if not messages:
            _require_run(store, arguments)
    if arguments.json:
        print_json(messages)
        return 1 if problems else 0
    columns = (Column("timestamp"), Column("role", least=6), Column("content"))
    print_table(columns, map(_message_cells, messages))
    return 1 if problems else 0


def _message_cells(message: ThreadMessage) -> tuple[str, str, str]:
    """The timestamp is the writer's own, and 0 where it gave none."""
    written = format_timestamp(message.timestamp) if message.timestamp else "-"
    return (written, message.role, message.content)


def _require_run(store: Log, arguments: argparse.Namespace) -> WorkflowRun:
    run = store.get_workflow_run(arguments.run_id)
    if run is None:
        raise Problem(
            f"there is no run {arguments.run_id!r} in {arguments.place.shown!r}; 'nerve-store runs' lists them"
        )
    return run
