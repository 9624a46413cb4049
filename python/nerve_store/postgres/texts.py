"""Texts as PostgreSQL takes them, and back.

PostgreSQL refuses NUL in a text, and the store keeps it. A noncharacter that hardly any text contains marks the two
characters that are written in another way: the mapping is one to one, so that equality in the database is equality of
the texts, and nearly every text is stored as it is.
"""

from __future__ import annotations

import hashlib
import json
from typing import overload

_MARK = "\U0010ffff"
_DIGEST, _LONGEST_KEY = _MARK + "sha256:", 512
_NUL, _ITSELF = _MARK + "0", _MARK + "1"


@overload
def encode(text: str) -> str: ...
@overload
def encode(text: None) -> None: ...
def encode(text: str | None) -> str | None:
    """`text` without NUL."""
    if text is None or ("\0" not in text and _MARK not in text):
        return text
    return text.replace(_MARK, _ITSELF).replace("\0", _NUL)


def encode_all(texts: list[str] | None) -> list[str] | None:
    """All of them without NUL."""
    return None if texts is None else [encode(text) for text in texts]


def index_key(key: str) -> str:
    """What an idempotency key is stored as: a long one by its digest, as SQLite's log stores it (docs/format.md)."""
    content = key.encode()
    if len(content) <= _LONGEST_KEY and not key.startswith(_DIGEST):
        return key
    return f"{_DIGEST}{hashlib.sha256(content).hexdigest()}"


@overload
def decode(text: str) -> str: ...
@overload
def decode(text: None) -> None: ...
def decode(text: str | None) -> str | None:
    """The text that `encode` was given."""
    if text is None or _MARK not in text:
        return text
    return text.replace(_NUL, "\0").replace(_ITSELF, _MARK)


def quoted(text: str | None) -> str:
    """The text as a message of ours names it."""
    return "None" if text is None else json.dumps(text, ensure_ascii=False)
