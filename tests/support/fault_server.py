"""The process that `support.faults` asks to run a work under a fault: it has loaded all, and forks a child a run.

One JSON request and one JSON answer a line. Run as `python -m support.fault_server LIBRARY`, which is `fault_tracer.c`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import nerve_store as ns
from programs import failure, say

SECONDS = 120
"""After which a run counts as hanging, and is ended by SIGALRM."""


def nothing() -> None:
    """The work that shows whether a child may be traced here."""


def work_in_child(tracer: ctypes.CDLL, request: dict[str, Any], descriptors: tuple[int, int]) -> NoReturn:
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, descriptor in enumerate(descriptors, 1):
            os.dup2(descriptor, number)
        signal.alarm(SECONDS)
        work = getattr(importlib.import_module(request["module"]), request["function"])
        if (refusal := tracer.fault_attach(request["threads"], request["reads"])) != 0:
            sys.exit(f"this process may not be traced: {os.strerror(refusal)}")
        try:
            work(**request["arguments"])
        except (ns.NerveStoreError, OSError) as error:
            say(failure(error))
        code = 0
    except BaseException:  # noqa: BLE001 - the child ends here, and says why.
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def content(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        file.seek(0)
        return file.read()


def answer(tracer: ctypes.CDLL, request: dict[str, Any]) -> dict[str, Any]:
    # Loaded here, so that no child has to do it again.
    importlib.import_module(request["module"])
    output, errors, calls = (os.memfd_create(name) for name in ("output", "errors", "calls"))
    gc.freeze()
    if (child := os.fork()) == 0:
        work_in_child(tracer, request, (output, errors))
    code = tracer.fault_trace(child, calls, request["fault"], request["when"], request["lasting"], request["reads"])
    return {
        "returncode": code,
        "stdout": content(output),
        "stderr": content(errors),
        "calls": content(calls).split(),
    }


def serve(library: str) -> None:
    tracer = ctypes.CDLL(library)
    tracer.fault_trace.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    for line in sys.stdin:
        print(json.dumps(answer(tracer, json.loads(line))), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
