"""Draws the ratios of a run as bars: `python benches/plot.py [SUMMARY [DIRECTORY]]`.

Reads what `make bench` wrote to docs/benchmarks/latest.json and writes ratios-light.svg and ratios-dark.svg beside it,
or into DIRECTORY. The scale is logarithmic; a tick on a bar's line marks the target.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

import figures
from figures import Figure, Kind

SUMMARY = Path(__file__).parent.parent / "docs" / "benchmarks" / "latest.json"
PEER = "sqlite3"

WIDTH = 960
LABELS = 420
RIGHT = 70
TOP = 64
STEP = 26
BAR = 16
BOTTOM = 66
FONT = "font-family: ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Theme:
    """Colours."""

    name: str
    text: str
    faint: str
    grid: str
    bar: str
    slower: str


THEMES = (
    Theme("light", text="#1f2328", faint="#59636e", grid="#d1d9e0", bar="#1f77b4", slower="#c4562f"),
    Theme("dark", text="#f0f6fc", faint="#9198a1", grid="#3d444d", bar="#58a6ff", slower="#e5804d"),
)


class Scale:
    """From ratios to horizontal positions, by powers of ten."""

    def __init__(self, ratios: list[float]) -> None:
        self._low = min(1.0, *ratios) * 0.95
        self._high = max(10.0, *ratios) * 1.05

    def x(self, ratio: float) -> float:
        """The position of `ratio`."""
        share = math.log(ratio / self._low) / math.log(self._high / self._low)
        return LABELS + share * (WIDTH - LABELS - RIGHT)

    def ticks(self) -> list[float]:
        """The ratios that have a line, 1, 2, 5, 10 and so on."""
        powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        candidates = [step * 10.0**power for power in powers for step in (1, 2, 5)]
        return [tick for tick in candidates if self._low <= tick <= self._high]


def draw(measured: list[Figure], conditions: dict[str, str | int], theme: Theme) -> str:
    """The SVG."""
    scale = Scale([bound for one in measured for bound in (one.value, one.target.bound or one.value)])
    bottom = TOP + STEP * len(measured)
    height = bottom + BOTTOM
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' role="img" aria-label="How many times faster than {PEER}" style="{FONT}">'
        ),
        text(16, 26, "How many times faster than sqlite3 with the same durability", theme.text, size=16, bold=True),
        text(16, 46, "log scale; the tick on each line is the target", theme.faint),
    ]
    for tick in scale.ticks():
        x = scale.x(tick)
        heavy = 1.5 if tick == 1 else 0.75
        parts.append(line(x, TOP - 4, x, bottom, theme.faint if tick == 1 else theme.grid, heavy))
        parts.append(text(x, bottom + 14, f"{tick:g}x", theme.faint, anchor="middle", size=11))
    for index, one in enumerate(measured):
        parts += bar(one, TOP + STEP * index, scale, theme)
    for index, name in enumerate(("machine", "nerve_store")):
        parts.append(text(16, bottom + 36 + 16 * index, f"{name}: {conditions[name]}", theme.faint, size=11))
    return "\n".join([*parts, "</svg>", ""])


def bar(one: Figure, top: float, scale: Scale, theme: Theme) -> list[str]:
    """One case."""
    start, end = sorted((scale.x(1), scale.x(one.value)))
    middle = top + STEP / 2
    colour = theme.bar if one.value >= 1 else theme.slower
    figure = f"{one.value:,.1f}x" if one.value < 100 else f"{one.value:,.0f}x"
    parts = [
        text(LABELS - 12, middle + 4, one.case, theme.text, anchor="end"),
        (
            f'<rect x="{start:.1f}" y="{middle - BAR / 2:.1f}" width="{max(end - start, 1):.1f}" height="{BAR}" rx="2"'
            f' fill="{colour}"/>'
        ),
    ]
    behind = end
    if one.target.bound is not None:
        x = scale.x(one.target.bound)
        parts.append(line(x, middle - BAR / 2 - 3, x, middle + BAR / 2 + 3, theme.text, 2))
        # The number keeps clear of a target just behind the bar.
        behind = x if end - 2 < x < end + 50 else end
    parts.append(text(behind + 7, middle + 4, figure, theme.text, bold=True))
    return parts


def text(
    x: float, y: float, content: str, colour: str, *, anchor: str = "start", size: int = 12, bold: bool = False
) -> str:
    """A line of text."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>'
        f"{escape(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    """A straight line."""
    points = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {points} stroke="{colour}" stroke-width="{width}"/>'


def main(arguments: list[str]) -> None:
    """Draw both variants."""
    summary = Path(arguments[0]) if arguments else SUMMARY
    directory = Path(arguments[1]) if len(arguments) > 1 else summary.parent
    measured, conditions = figures.read(summary)
    beside = [one for one in measured if one.target.kind is Kind.FASTER and one.peer_name.startswith(PEER)]
    for theme in THEMES:
        path = directory / f"ratios-{theme.name}.svg"
        path.write_text(draw(beside, conditions, theme), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
