"""`nerve-store completion`: the words that a shell completes, from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import cast

from nerve_store.cli.output import print_json

__all__ = ["add_arguments"]

_SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_nerve_store() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" path="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case " ${{_nerve_store_words[$path]}} " in
            *" ${{COMP_WORDS[index]}} "*)
                [[ ${{COMP_WORDS[index]}} == -* ]] || path="$path ${{COMP_WORDS[index]}}"
                path="${{path# }}" ;;
        esac
    done
    COMPREPLY=($(compgen -W "${{_nerve_store_words[$path]}}" -- "$word"))
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] || compopt -o default
}}
declare -gA _nerve_store_words=(
{table})
complete -F _nerve_store nerve-store
"""


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.set_defaults(run=_run)
    parser.add_argument("shell", choices=_SHELLS, help="put what is printed where the shell looks for completions")


def _run(arguments: argparse.Namespace) -> int:
    from nerve_store.cli.parser import whole_parser

    words = dict(_words(whole_parser(), ""))
    if arguments.json:
        print_json({"shell": arguments.shell, "words": words})
    else:
        print({"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell](words), end="")
    return 0


def _words(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    """What may follow each command, by the words before it."""
    words: list[str] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001 - argparse tells it in no other way
        words.extend(option for option in action.option_strings if option != "-h")
        choices = action.choices
        if isinstance(choices, dict):
            below.extend(cast("dict[str, argparse.ArgumentParser]", choices).items())
        elif choices and not action.option_strings:
            words.extend(str(choice) for choice in choices)
    yield path, sorted({*words, *(name for name, _ in below)})
    for name, command in below:
        yield from _words(command, f"{path} {name}".strip())


def _bash(words: dict[str, list[str]]) -> str:
    table = "".join(f'    ["{path}"]="{" ".join(names)}"\n' for path, names in words.items())
    # An empty subscript is none: the commands themselves stand under a blank.
    return (
        _BASH.format(table=table.replace('[""]', '[" "]'))
        .replace('path="" index', 'path=" " index')
        .replace('path="$path ${COMP_WORDS[index]}"', 'path="${path% } ${COMP_WORDS[index]}"')
    )


def _zsh(words: dict[str, list[str]]) -> str:
    return "#compdef nerve-store\nautoload -U +X bashcompinit && bashcompinit\n" + _bash(words).replace(
        "declare -gA", "typeset -gA"
    ).replace("compopt -o default", "true")


def _fish(words: dict[str, list[str]]) -> str:
    lines = ["complete -c nerve-store -e"]
    commands = [word for word in words[""] if not word.startswith("-")]
    for path, names in words.items():
        if path:
            seen = " and ".join(f"__fish_seen_subcommand_from {name}" for name in path.split())
        else:
            seen = f"not __fish_seen_subcommand_from {' '.join(commands)}"
        seen = seen.replace(" and ", "; and ")
        for name in names:
            option = (
                f"-l {name[2:]}"
                if name.startswith("--")
                else f"-s {name[1:]}"
                if name.startswith("-")
                else f"-a {name}"
            )
            lines.append(f"complete -c nerve-store -n '{seen}' {option}")
    return "\n".join(lines) + "\n"
