"""What a command works on: a data directory or a log on a server, and the object store that goes with it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from nerve_store._places import MAX_CACHE_BYTES, check_remote, is_url, refuse_url, without_password, without_remote
from nerve_store.cli.arguments import integer, not_empty

__all__ = ["Place", "add_place_options", "place_of", "refuse_other_urls", "remote_option", "remote_url"]

_DEFAULT_DATA = "data"
_DATA_VARIABLE = "NERVE_STORE_DATA"
_REMOTE_VARIABLE = "NERVE_STORE_REMOTE"


class Place(NamedTuple):
    """What `--data` and `--remote` name."""

    data: str
    """A directory, or a URL of PostgreSQL's."""
    remote: str | None = None
    """The object store of archived days and blobs."""
    options: Mapping[str, str] | None = None
    """What obstore takes for it; None without one."""
    max_cache_bytes: int = MAX_CACHE_BYTES

    @property
    def is_server(self) -> bool:
        """Whether the log is on a server."""
        return is_url(self.data)

    @property
    def shown(self) -> str:
        """What `--data` names, without a password."""
        return without_password(self.data) if self.is_server else self.data


class _Collecting(argparse.Action):
    """Collects what stands before the command and what stands after it: a subparser would forget the former."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._given: list[Any] = []

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, _option: str | None = None
    ) -> None:
        self._given.append(value)
        setattr(namespace, self.dest, tuple(self._given))


def remote_url(text: str) -> str:
    """A type for the URL of an object store."""
    try:
        check_remote(text, None, 0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def remote_option(text: str) -> tuple[str, str]:
    """A type for `KEY=VALUE`."""
    name, found, value = text.partition("=")
    if not found or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return name, value


def refuse_other_urls(data: str, name: str, remote: str, usage_error: Callable[[str], NoReturn]) -> None:
    """Exit with a usage error if the place of a log is a URL, and none of a server."""
    if not is_url(data):
        try:
            refuse_url(data, name, remote)
        except ValueError as error:
            usage_error(str(error))


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where: without defaults, which would undo what stood before the command."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=not_empty,
        help=f"the data directory, or postgresql://HOST/DATABASE?schema=NAME&archive=DIR "
        f"(default: {_DATA_VARIABLE} of the environment, or '{_DEFAULT_DATA}')",
    )
    parser.add_argument(
        "--remote",
        metavar="URL",
        type=remote_url,
        help=f"the object store of archived days and blobs, such as s3://BUCKET/PREFIX (default: {_REMOTE_VARIABLE})",
    )
    parser.add_argument(
        "--remote-option",
        metavar="KEY=VALUE",
        action=_Collecting,
        type=remote_option,
        help="an option of it, such as endpoint=URL or region=NAME; repeatable. Keys belong into the environment",
    )
    parser.add_argument(
        "--max-cache-bytes",
        metavar="N",
        type=integer(0),
        help=f"what the cache of archived days may hold (default: {MAX_CACHE_BYTES})",
    )


def place_of(arguments: argparse.Namespace, local: Sequence[str]) -> Place:
    """What the options name; exits with a usage error if a command of `local` was given a remote."""
    data = getattr(arguments, "data", None) or os.environ.get(_DATA_VARIABLE) or _DEFAULT_DATA
    given = "--data" if getattr(arguments, "data", None) else _DATA_VARIABLE
    refuse_other_urls(data, given, "--remote", arguments.parser.error)
    remote: str | None = getattr(arguments, "remote", None)
    options = getattr(arguments, "remote_option", ())
    name = arguments.parser.prog.split()[1]
    if name in local:
        for option in ("remote", "remote_option", "max_cache_bytes"):
            if hasattr(arguments, option):
                arguments.parser.error(
                    f"'{name}' takes no --{option.replace('_', '-')}: it needs files of this machine"
                )
        return Place(data)
    if name == "copy" and hasattr(arguments, "max_cache_bytes"):
        arguments.parser.error("'copy' takes no --max-cache-bytes: it keeps to the default")
    data, named = without_remote(data) if is_url(data) else (data, None)
    if named is not None and remote is not None:
        arguments.parser.error(f"two object stores are named: {named} in the URL, and --remote {remote}")
    remote = named if remote is None else remote
    variable = os.environ.get(_REMOTE_VARIABLE)
    # `copy` has two places: which of them the variable meant could only be guessed.
    if remote is None and variable and name != "copy":
        try:
            remote = remote_url(variable)
        except argparse.ArgumentTypeError as error:
            arguments.parser.error(f"{_REMOTE_VARIABLE} of the environment: {error}")
    if options and remote is None:
        arguments.parser.error("--remote-option is for a --remote, and there is none")
    return Place(
        data, remote, None if remote is None else dict(options), getattr(arguments, "max_cache_bytes", MAX_CACHE_BYTES)
    )
