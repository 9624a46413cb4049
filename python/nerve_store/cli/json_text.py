"""Values as JSON: any depth, integers of any size.

`json.dumps` ends with a `RecursionError` some thousand levels deep, and with a `ValueError` at an integer of more
digits than `sys.set_int_max_str_digits` allows. What the store hands out has neither limit.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import TypeAlias, cast

from nerve_store import LogEntry
from nerve_store.cli.text import decimal_text

__all__ = ["json_chunks", "json_text", "plain"]

_Encode: TypeAlias = "Callable[[object], str]"

_INDENT = 2
_MOST_INDENTED_LEVELS = 50
"""Deeper values stay on one line: their indentation would grow with the square of the depth."""


def json_text(value: object) -> str:
    """`value` on one line, in Unicode."""
    return "".join(json_chunks(value, indented=False, ensure_ascii=False))


def json_chunks(value: object, *, indented: bool, ensure_ascii: bool) -> Iterator[str]:
    """The parts of `value` as JSON; like JavaScript, an infinite number becomes null."""
    encode = json.JSONEncoder(ensure_ascii=ensure_ascii).encode
    open_values: list[tuple[Iterator[tuple[str, object]], str]] = []
    prefix = ""
    while True:
        value = plain(value)
        yield prefix
        if isinstance(value, dict | list):
            is_object = isinstance(value, dict)
            members = _members(cast("dict[str, object] | list[object]", value), encode)
            closing = "}" if is_object else "]"
            yield "{" if is_object else "["
            open_values.append((members, closing))
            separator = ""
        else:
            yield decimal_text(value) if type(value) is int else encode(value)
            separator = ","
        while open_values:
            members, closing = open_values[-1]
            is_broken = indented and len(open_values) <= _MOST_INDENTED_LEVELS
            member = next(members, None)
            if member is not None:
                name, value = member
                space = "\n" + " " * (_INDENT * len(open_values)) if is_broken else " " if separator else ""
                prefix = separator + space + name
                break
            open_values.pop()
            if is_broken and separator:
                yield "\n" + " " * (_INDENT * len(open_values))
            yield closing
            separator = ","
        else:
            return


def _members(value: dict[str, object] | list[object], encode: _Encode) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        return ((f"{encode(str(name))}: ", item) for name, item in value.items())
    return (("", item) for item in value)


def plain(value: object) -> object:
    """`value` as JSON knows it, but not what is in it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, LogEntry):
        return {name: getattr(value, name) for name in LogEntry.__match_args__}
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, tuple):
        return list(cast("tuple[object, ...]", value))
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value
