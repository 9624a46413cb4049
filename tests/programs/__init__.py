"""The programs that tests run in a process of their own, to be killed, starved, or to compete with the test.

Each prints one JSON value a line. A line that was printed is an acknowledgement: it is written by one `write` call as
soon as the store's call has returned. `child.py` runs one by its name, `support.faults` any of them under a fault.
"""

from __future__ import annotations

import json
import os
from typing import Any

import nerve_store as ns


def say(value: Any) -> None:
    os.write(1, (json.dumps(value, default=str) + "\n").encode())


def failure(error: BaseException) -> dict[str, Any]:
    """What a program says about an error, in place of a result."""
    return {
        "error": type(error).__name__,
        "errno": getattr(error, "errno", None),
        "is_ours": isinstance(error, ns.NerveStoreError),
        "message": str(error),
    }
