"""The JSON text of a payload that is given as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["dumps"]


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain).encode


def dumps(value: object) -> str:
    """The value's text: compact, not escaped, no NaN; what is none is a `TypeError` or a `ValueError` about `json`."""
    try:
        return _encode(value)
    except TypeError as error:
        raise TypeError(f"json cannot be serialized: {error}") from error
    except ValueError as error:
        raise ValueError(f"json cannot be serialized: {error}") from error
    except RecursionError as error:
        raise ValueError("json cannot be serialized: it is nested too deeply") from error
