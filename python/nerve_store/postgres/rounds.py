"""Which rows are rounds of a run's thread: the rule of `src/row/round.rs`.

SQLite decides in the log on one machine: strict JSON, nested at most 1,000 deep, up to the first NUL of the text; of a
repeated member the first one counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

SOURCE = "workflow"
MESSAGE, EVENT = "thread_workflow_message", "thread_command_event"
_MAX_DEPTH = 1_000
_SAFE_DEPTH = 200
"""A depth that the standard library's parser takes on any stack."""

_TOKEN = re.compile(
    r'[ \t\n\r]*(?:(?P<mark>[][{}:,])|(?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")'
    r"|(?P<other>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null))"
)
_SPACE = re.compile(r"[ \t\n\r]*")


def is_round(source: str, kind: str, payload: str | None) -> bool:
    """Whether a row counts as a round: a message or an event whose payload is JSON and no start of a thread."""
    return source == SOURCE and kind in (MESSAGE, EVENT) and payload is not None and _continues_a_thread(payload)


def _continues_a_thread(payload: str) -> bool:
    text = payload.split("\0", 1)[0]
    try:
        if text.count("[") + text.count("{") <= _SAFE_DEPTH:
            members = _members_of_shallow(text)
        else:
            members = _members_of_deep(text)
    except ValueError:
        return False
    return members.get("type") != "thread_start" and members.get("role") != "__start__"


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class _Pairs(list[tuple[str, object]]):
    """An object: its members in order, repeated ones too."""


def _first_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in reversed(pairs) if name in ("type", "role")}


def _members_of_shallow(text: str) -> dict[str, object]:
    value = json.loads(text, parse_constant=_refuse_constant, parse_int=len, parse_float=len, object_pairs_hook=_Pairs)
    return _first_members(value) if isinstance(value, _Pairs) else {}


def _members_of_deep(text: str) -> dict[str, object]:
    """The same without recursion: what nests deeper than a stack is no reason to fail."""
    reader = _Reader()
    for mark, string, _ in tokens(text):
        reader.take(mark, string)
    if reader.expected != "end":
        raise ValueError("the text ends too early")
    return reader.members


class _Reader:
    """What may come next, and the first members of the outermost object."""

    def __init__(self) -> None:
        self.members: dict[str, object] = {}
        self.expected = "value"
        self._is_object: list[bool] = []
        """Of what is open, outermost first."""
        self._name = ""

    def take(self, mark: str, string: str | None) -> None:
        """The next token; `ValueError` if it cannot be there."""
        if mark in ("]", "}"):
            self._close(is_object=mark == "}")
        elif self.expected == "key" or (self.expected == "first" and self._is_object[-1]):
            if string is None:
                raise ValueError("no name of a member")
            self._name, self.expected = string, "colon"
        elif self.expected in ("value", "first"):
            self._value(mark, string)
        elif self.expected == "colon" and mark == ":":
            self.expected = "value"
        elif self.expected == "next" and mark == ",":
            self.expected = "key" if self._is_object[-1] else "value"
        else:
            raise ValueError("a token that cannot be there")

    def _close(self, *, is_object: bool) -> None:
        if self.expected not in ("next", "first") or not self._is_object or self._is_object.pop() != is_object:
            raise ValueError("nothing to end here")
        self.expected = "next" if self._is_object else "end"

    def _value(self, mark: str, string: str | None) -> None:
        if mark in (":", ","):
            raise ValueError("no value")
        if self._is_object == [True]:
            self.members.setdefault(json.loads(self._name), None if string is None else json.loads(string))
        if mark:
            self._is_object.append(mark == "{")
            if len(self._is_object) > _MAX_DEPTH:
                raise ValueError("nested too deep")
            self.expected = "first"
        else:
            self.expected = "next" if self._is_object else "end"


def tokens(text: str) -> Iterator[tuple[str, str | None, str]]:
    """The tokens of a text: a mark, a string with its quotes, or another value; `ValueError` for what is none."""
    position, end = 0, len(text)
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            if _SPACE.fullmatch(text, position):
                return
            raise ValueError("no token of JSON")
        position = found.end()
        yield found["mark"] or "", found["string"], found["other"] or ""
