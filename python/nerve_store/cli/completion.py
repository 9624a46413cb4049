"""`nerve-store completion`: the words that a shell completes, from the parser itself."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from typing import NamedTuple, cast

from nerve_store.cli.output import print_json

__all__ = ["add_arguments"]

_SHELLS = ("bash", "zsh", "fish")

_COMMON = """\
# What may follow the command $1 in `names`, and its options that take a value in `valued`.
_nerve_store_table() {{
    case "$1" in
{table}
        *) return 1 ;;
    esac
}}

# What may follow the words given in `names`: nothing where the value of an option follows that may be anything.
_nerve_store_after() {{
    local word option="" command="nerve-store"
    _nerve_store_table "$command"
    for word in "$@"; do
        if [[ -n "$option" ]]; then
            # Bash takes an equals sign for a word.
            [[ "$word" == "=" ]] || option=""
        elif [[ " $valued " == *" $word "* ]]; then
            option="$word"
        elif [[ "$word" != -* ]] && _nerve_store_table "$command $word"; then
            command="$command $word"
        fi
    done
    if [[ -n "$option" ]]; then
        _nerve_store_table "$command $option" || names=""
    fi
}}
"""

_BASH = """
_nerve_store() {
    local names="" valued="" word="${COMP_WORDS[COMP_CWORD]}"
    _nerve_store_after "${COMP_WORDS[@]:1:COMP_CWORD-1}"
    COMPREPLY=($(compgen -W "$names" -- "${word#=}"))
}
complete -o default -F _nerve_store nerve-store
"""

_ZSH = """
_nerve-store() {
    local names="" valued="" word="${words[CURRENT]}"
    if [[ "$word" == --*=* ]]; then
        _nerve_store_after "${(@)words[2,CURRENT-1]}" "${word%%=*}"
        compset -P '*='
    else
        _nerve_store_after "${(@)words[2,CURRENT-1]}"
    fi
    compadd -- ${=names} || _files
}

# The first call of what lies in a directory of `fpath` reads this file.
if [[ "${funcstack[1]}" == _nerve-store ]]; then
    _nerve-store "$@"
else
    compdef _nerve-store nerve-store
fi
"""


class _Command(NamedTuple):
    """What may follow a command."""

    names: list[str]
    """Options, and words: subcommands or values of an argument."""
    valued: dict[str, list[str]]
    """The options that take a value, and the values that there are; none: any."""


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.set_defaults(run=_run)
    parser.add_argument("shell", choices=_SHELLS, help="put what is printed where the shell looks for completions")


def _run(arguments: argparse.Namespace) -> int:
    from nerve_store.cli.parser import whole_parser

    commands = dict(_commands(whole_parser(), ""))
    if arguments.json:
        print_json({"shell": arguments.shell, "words": {path: command.names for path, command in commands.items()}})
    else:
        print({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](commands), end="")
    return 0


def _commands(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, _Command]]:
    """What may follow each command, by the words before it."""
    names: set[str] = set()
    valued: dict[str, list[str]] = {}
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001 - argparse tells it in no other way
        options = [option for option in action.option_strings if option != "-h"]
        choices = action.choices
        names.update(options)
        if isinstance(choices, dict):
            below.extend(cast("dict[str, argparse.ArgumentParser]", choices).items())
        elif not options:
            names.update(map(str, choices or ()))
        elif action.nargs != 0:
            valued.update((option, [str(choice) for choice in choices or ()]) for option in options)
    names.update(name for name, _ in below)
    yield path, _Command(sorted(names), valued)
    for name, command in below:
        yield from _commands(command, f"{path} {name}".strip())


def _common(commands: dict[str, _Command]) -> str:
    return _COMMON.format(table=_table(commands))


def _bash(commands: dict[str, _Command]) -> str:
    return _common(commands) + _BASH


def _zsh(commands: dict[str, _Command]) -> str:
    return "#compdef nerve-store\n\n" + _common(commands) + _ZSH


def _table(commands: dict[str, _Command]) -> str:
    return "\n".join(
        line
        for path, (names, valued) in commands.items()
        for line in (
            _case(path, names, f" valued={shlex.quote(' '.join(valued))}"),
            *(_case(f"{path} {option}", values) for option, values in valued.items() if values),
        )
    )


def _case(path: str, names: list[str], more: str = "") -> str:
    return f"        {shlex.quote(f'nerve-store {path}'.strip())}) names={shlex.quote(' '.join(names))}{more} ;;"


def _fish(commands: dict[str, _Command]) -> str:
    lines = ["complete -c nerve-store -e"]
    first = [word for word in commands[""].names if not word.startswith("-")]
    for path, (names, valued) in commands.items():
        if path:
            seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in path.split())
        else:
            seen = f"not __fish_seen_subcommand_from {' '.join(first)}"
        for name in names:
            word = f"-a {name}"
            if name.startswith("-"):
                word = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            if name in valued:
                word += f" -x -a '{' '.join(valued[name])}'" if valued[name] else " -r"
            lines.append(f"complete -c nerve-store -n '{seen}' {word}")
    return "\n".join(lines) + "\n"
