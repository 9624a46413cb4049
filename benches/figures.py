"""What was measured: a figure for each case, the table of them, and the JSON that commits are compared by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What of ours and the peer's is held against the target."""

    FASTER = "faster"
    """How many times less than the peer's: at least the target."""
    SHARE = "share"
    """How many times the peer's: at most the target."""
    COST = "cost"
    """Ours as it is: at most the target."""
    EXTRA = "extra"
    """What ours takes more than the peer: at most the target."""


@dataclass(frozen=True)
class Target:
    """What the issues ask for; no bound: nothing."""

    kind: Kind = Kind.FASTER
    bound: float | None = None


NO_TARGET = Target()


@dataclass(frozen=True)
class Figure:
    """The medians of one case, in seconds or bytes."""

    case: str
    unit: str
    """`s` or `B`."""
    ours: float
    target: Target
    peer: float | None = None
    peer_name: str = ""
    apsw: float | None = None
    rows: int = 0
    """How many rows the seconds were for, where the rate is what counts."""

    @property
    def value(self) -> float:
        """What the target is for."""
        match self.target.kind:
            case Kind.FASTER:
                return self._peer / self.ours
            case Kind.SHARE:
                return self.ours / self._peer
            case Kind.EXTRA:
                return self.ours - self._peer
            case Kind.COST:
                return self.ours

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target.bound is None:
            return None
        return self.value >= self.target.bound if self.target.kind is Kind.FASTER else self.value <= self.target.bound

    @property
    def _peer(self) -> float:
        assert self.peer is not None, f"{self.case}: its target needs a peer"
        return self.peer

    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        relative = self.target.kind in {Kind.FASTER, Kind.SHARE}
        least = ">=" if self.target.kind is Kind.FASTER else "<="

        def shown(value: float) -> str:
            return f"{value:,.2f}" if relative else self._quantity(value)

        bound = "" if self.target.bound is None else f"{least} {shown(self.target.bound)}"
        return (
            self.case,
            self._amount(self.ours),
            "" if self.peer is None else self._amount(self.peer),
            self.peer_name,
            shown(self.value),
            bound,
            {None: "", True: "yes", False: "NO"}[self.met],
            "" if self.apsw is None else self._amount(self.apsw),
            "" if self.apsw is None else f"{self.apsw / self.ours:,.2f}",
        )

    def _amount(self, value: float) -> str:
        return f"{self.rows / value:,.0f}/s" if self.rows else self._quantity(value)

    def _quantity(self, value: float) -> str:
        if self.unit == "B":
            return f"{value / 1e6:,.1f} MB"
        return f"{value:,.2f} s" if abs(value) >= 1 else f"{value * 1e3:,.2f} ms"


HEADINGS = ("case", "ours", "peer", "", "ratio", "target", "met", "apsw", "ratio")
RIGHT = {"ours", "peer", "ratio", "target", "apsw"}


def table(figures: Sequence[Figure]) -> list[str]:
    """The lines of the table."""
    lines = [HEADINGS, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if heading in RIGHT else cell.ljust(width)
            for cell, width, heading in zip(line, widths, HEADINGS, strict=True)
        ).rstrip()
        for line in lines
    ]


def write(path: Path, figures: Sequence[Figure], conditions: Mapping[str, str | int]) -> None:
    """Write the summary that `plot.py` draws."""
    path.parent.mkdir(parents=True, exist_ok=True)
    summary = {
        "conditions": dict(conditions),
        "figures": [{**asdict(figure), "value": figure.value, "met": figure.met} for figure in figures],
    }
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[list[Figure], dict[str, str | int]]:
    """What `write` wrote."""
    summary = json.loads(path.read_text(encoding="utf-8"))
    figures = []
    for stored in summary["figures"]:
        del stored["value"], stored["met"]
        target = stored.pop("target")
        figures.append(Figure(target=Target(Kind(target["kind"]), target["bound"]), **stored))
    return figures, summary["conditions"]
