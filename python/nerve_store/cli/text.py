"""Values as text for people: escaped, dated, sized."""

from __future__ import annotations

import re
import time
import unicodedata
from datetime import UTC, datetime, timedelta

__all__ = [
    "cut",
    "decimal_text",
    "display_width",
    "escape",
    "format_age",
    "format_bytes",
    "format_count",
    "format_rate",
    "format_timestamp",
    "wrap",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BITS_THAT_ALWAYS_CONVERT = 2_000
"""No interpreter refuses an integer of 640 digits, whatever `sys.set_int_max_str_digits` was told."""


def escape(text: str) -> str:
    """`text` on one line and harmless on a terminal: control, format and surrogate characters as escapes."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def display_width(text: str) -> int:
    """How many columns a terminal gives to `text`."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    # Marks lie upon the character before them, also those of no combining class: vowel signs, variation selectors.
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, with an ellipsis where it was cut."""
    if display_width(text) <= width:
        return text
    kept: list[str] = []
    left = max(width, 1) - 1
    for character in text:
        left -= _character_width(character)
        if left < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, at least 2, broken at blanks where there are any."""
    lines: list[str] = []
    line, left = "", width
    for piece in re.findall(" *[^ ]+", text):
        word = piece.lstrip() if lines and not line else piece
        if display_width(word) > left and line:
            lines.append(line)
            line, left, word = "", width, piece.lstrip()
        for character in word if display_width(word) > left else [word]:
            columns = display_width(character)
            if columns > left:
                lines.append(line)
                line, left = "", width
            line += character
            left -= columns
    return [*lines, line] if line else lines or [""]


def format_timestamp(milliseconds: int) -> str:
    """ISO 8601 in UTC; the bare number where no calendar reaches."""
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return decimal_text(milliseconds)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def format_age(milliseconds: int) -> str:
    """How long ago that was, in the largest unit that fits, `3h`; with a sign if it is still to come."""
    seconds = time.time() - milliseconds / 1000
    sign, seconds = ("-", -seconds) if seconds <= -1 else ("", max(seconds, 0.0))
    for unit, length in (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length or (unit == "m" and seconds >= length):
            return f"{sign}{int(seconds // length)}{unit}"
    return f"{sign}{int(seconds)}s"


def decimal_text(number: int) -> str:
    """The digits of an integer of any size."""
    if number < 0:
        return "-" + decimal_text(-number)
    if number.bit_length() <= _BITS_THAT_ALWAYS_CONVERT:
        return str(number)
    half = number.bit_length() * 30_103 // 200_000
    high, low = divmod(number, 10**half)
    return decimal_text(high) + decimal_text(low).rjust(half, "0")


def format_count(count: int, noun: str) -> str:
    """`1 row`, `1,234 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_bytes(size: int) -> str:
    """`512 B`, `1.5 MB`; decimal units."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"


def format_rate(count: int, seconds: float) -> str:
    """Things a second, to three figures: more would be noise."""
    rate = count / max(seconds, 1e-9)
    return f"{float(f'{rate:.3g}'):,.0f}"
