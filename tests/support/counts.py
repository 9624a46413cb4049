"""How much a sweep did: each test notes its figures, and `python -m support.counts FILE` adds them up.

`NERVE_TORTURE_COUNTS` names the file; without it, the figures are only printed. `NERVE_TORTURE=long` makes the sweeps
of `make torture` ten times as long, and those of `make torture-remote` as long as its description says.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, defaultdict
from pathlib import Path

LONG = os.environ.get("NERVE_TORTURE") == "long"


def scaled(count: int, *, long: int) -> int:
    """How often a sweep tries, or a long one."""
    return long if LONG else count


def amount(count: int) -> int:
    """How many of something a sweep takes; ten times as many in a long one."""
    return scaled(count, long=10 * count)


def note(sweep: str, detail: str, **figures: int) -> None:
    """Say what a test did; the figures of all tests of a sweep are added up."""
    print(f"{sweep}, {detail}: {figures}", file=sys.stderr)
    if path := os.environ.get("NERVE_TORTURE_COUNTS"):
        line = json.dumps({"sweep": sweep, "detail": detail, "figures": figures}) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def main(path: str) -> None:
    """Print the sum of each sweep, and how many tests it has."""
    tests: Counter[str] = Counter()
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for line in Path(path).read_text("utf-8").splitlines():
        noted = json.loads(line)
        tests[noted["sweep"]] += 1
        sums[noted["sweep"]].update(noted["figures"])
    for sweep, figures in sums.items():
        print(f"{sweep}: {tests[sweep]} tests")
        for name, figure in figures.most_common():
            print(f"  {figure:>12,} {name}")


if __name__ == "__main__":
    main(sys.argv[1])
