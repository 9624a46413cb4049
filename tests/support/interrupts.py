"""Interrupts at each point where Python looks for signals, without waiting for one to come at the right moment."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import nerve_store

_CHECKS = {
    dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD") if name in dis.opmap
}
"""After these instructions a handler may run."""
_PACKAGE = str(Path(nerve_store.__file__).parent)


@functools.cache
def _handlers(code: CodeType) -> tuple[tuple[int, int, int], ...]:
    return tuple((entry.start, entry.end, entry.target) for entry in dis.Bytecode(code).exception_entries)  # type: ignore[attr-defined]


def _looks(frame: FrameType, last: int) -> bool:
    """Whether Python looked for signals in the instruction before, where this frame's handlers are still the same."""
    if frame.f_code.co_code[last] not in _CHECKS:
        return False
    entries = _handlers(frame.f_code)

    def handler(offset: int) -> int | None:
        return next((target for start, end, target in entries if start <= offset < end), None)

    return handler(last) == handler(frame.f_lasti)


class Interrupted(BaseException):
    """What the handler raises."""


def interrupted_at(point: int, call: Callable[[], object], *files: str) -> tuple[bool, BaseException | None]:
    """Make the call, interrupted at the point of this number, in the package's files or those that are named.

    Returns whether there is such a point, and what the call raised.
    """
    count = 0
    is_reached = False

    def trace(frame: FrameType, _: str, __: Any) -> Any:
        if not frame.f_code.co_filename.startswith((_PACKAGE, *files)):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        last: int | None = None

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal count, is_reached, last
            if event == "opcode":
                if last is not None and _looks(frame, last):
                    count += 1
                    if count == point:
                        is_reached = True
                        sys.settrace(None)
                        raise Interrupted
                last = frame.f_lasti
            return step

        return step

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except BaseException as error:  # noqa: BLE001
        return is_reached, error
    finally:
        sys.settrace(before)
    return is_reached, None
