"""`JSON.stringify(JSON.parse(text))`, at any depth, without recursion: the rule of `src/workflow/stringify.rs`.

Integers of 64 bits stay exact, numbers beyond every double stay as they are written, and members stay in their order.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from nerve_store.postgres.rounds import tokens

_HALF = re.compile("[\ud800-\udfff]")


class _Written(str):
    """A number, true, false or null, as it is to be written."""

    __slots__ = ()


def stringify(text: str) -> str:
    """What that call gives for a text that is JSON."""
    return _write(_parse(text))


def _parse(text: str) -> Any:
    """Objects as dicts (of a repeated member the last value, in the place of the first), arrays as lists."""
    outermost: list[Any] = []
    open_values: list[Any] = [outermost]
    names: list[str | None] = [None]
    for mark, string, other in tokens(text):
        if mark in ("]", "}"):
            open_values.pop()
            names.pop()
            continue
        if mark in (",", ":"):
            continue
        holder = open_values[-1]
        if isinstance(holder, dict) and names[-1] is None:
            assert string is not None
            names[-1] = json.loads(string)
            continue
        value: Any
        if mark:
            value = {} if mark == "{" else []
        elif string is not None:
            value = json.loads(string)
        else:
            value = _Written(_number(other) if other[0] in "-0123456789" else other)
        if isinstance(holder, dict):
            holder[names[-1]] = value
            names[-1] = None
        else:
            holder.append(value)
        if mark:
            open_values.append(value)
            names.append(None)
    return outermost[0]


def _write(value: Any) -> str:
    pieces: list[str] = []
    # What is left to write, the next last: texts as they are, or values.
    left: list[Any] = [(value,)]
    while left:
        item = left.pop()
        if not isinstance(item, tuple):
            pieces.append(item)
            continue
        (found,) = item
        if isinstance(found, _Written):
            pieces.append(found)
        elif isinstance(found, str):
            pieces.append(_string(found))
        elif isinstance(found, list):
            left.append("]")
            for position in range(len(found) - 1, -1, -1):
                left += ((found[position],), "," if position else "[")
            if not found:
                left.append("[")
        else:
            left.append("}")
            members = list(found.items())
            for position in range(len(members) - 1, -1, -1):
                name, member = members[position]
                left += ((member,), f"{',' if position else '{'}{_string(name)}:")
            if not members:
                left.append("{")
    return "".join(pieces)


def _string(text: str) -> str:
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", json.dumps(text, ensure_ascii=False))


def _number(text: str) -> str:
    if re.fullmatch(r"-?[0-9]{1,20}", text) and text != "-0" and -(2**63) <= int(text) < 2**64:
        return text
    double = float(text)
    if math.isinf(double):
        return text
    return _double(double)


def _double(double: float) -> str:
    """A number as `Number.prototype.toString` prints it."""
    if double == 0:
        return "0"
    sign, digit_tuple, exponent = Decimal(repr(double)).as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, digit_tuple))
    point = len(digits) + exponent
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        text = digits + "0" * (point - len(digits))
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        text = f"{digits[0]}{fraction}e{point - 1:+d}"
    return f"-{text}" if sign else text
