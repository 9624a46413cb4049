"""Arrows between files: their circles, and whether they follow an order of modules."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path


class Arrows:
    """For each file, by its path in the tree, the files that it uses, and the names that tie it to them."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def add(self, user: str, used: str, name: str) -> None:
        if user != used:
            self._names[user][used].add(name)

    def of(self, file: str) -> dict[str, set[str]]:
        return self._names.get(file, {})

    def __iter__(self) -> Iterator[tuple[str, str, set[str]]]:
        for user, all_used in sorted(self._names.items()):
            for used, names in sorted(all_used.items()):
                yield user, used, names

    def circles(self) -> list[list[str]]:
        """For each file that reaches itself, a shortest circle through it; the same files only once."""
        circles: dict[frozenset[str], list[str]] = {}
        for file in sorted({user for user, _, _ in self}):
            if file in self._reached(file):
                circle = self._shortest_circle(file)
                circles.setdefault(frozenset(circle), circle)
        return list(circles.values())

    def _reached(self, start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            for used in self.of(ahead.pop()):
                if used not in found:
                    found.add(used)
                    ahead.append(used)
        return found

    def _shortest_circle(self, start: str) -> list[str]:
        ways = [[start]]
        seen: set[str] = set()
        for way in ways:  # Grows meanwhile: breadth first.
            for used in sorted(self.of(way[-1])):
                if used == start:
                    return [*way, start]
                if used not in seen:
                    seen.add(used)
                    ways.append([*way, used])
        raise AssertionError(f"{start} is on no circle")


def complaints_about_circles(arrows: Arrows) -> list[str]:
    """A line for each circle, with the files and the names that tie them."""
    complaints = []
    for circle in arrows.circles():
        steps = [
            f" -> {used} ({', '.join(sorted(arrows.of(user)[used]))})" for user, used in itertools.pairwise(circle)
        ]
        complaints.append(f"circle: {circle[0]}{''.join(steps)}")
    return complaints


Order = dict[str, set[str]]
"""For each module, those below it, which it may use."""

CHAIN = re.compile(r"\w+(?:\s*<\s*\w+)+")


def read_order(document: Path, label: str) -> Order:
    """The order that a document gives after a label such as "Order of the modules:".

    It is any number of chains `lowest < ... < highest`, in the same paragraph or in a fenced block that follows it. A
    module may use what is below it in some chain, or below that. Modules that no chain brings together may not use each
    other.
    """
    text = document.read_text("utf-8")
    found = re.search(re.escape(label) + r"(.*?)(?:\n\n(?!```)|\Z)", text, re.DOTALL)
    chains = [re.split(r"\s*<\s*", chain) for chain in CHAIN.findall(found[1])] if found else []
    if not chains:
        raise ValueError(f"{document} gives no order after {label!r}")
    order: Order = {name: set() for chain in chains for name in chain}
    for chain in chains:
        for number, name in enumerate(chain):
            order[name].update(chain[:number])
    for middle in order:
        for name, below in order.items():
            if middle in below:
                order[name] |= order[middle]
    if upside_down := sorted(name for name, below in order.items() if name in below):
        raise ValueError(f"{document} puts {', '.join(upside_down)} below itself")
    return order


def complaints_about_order(arrows: Arrows, order: Order, *, without: Iterable[str] = ()) -> list[str]:
    """A line for each arrow from one top-level module to another that the order does not allow.

    `without`: files at the top that belong to no module, because they only say what there is.
    """
    complaints = []
    aside = set(without)
    for user, used, names in arrows:
        if {user, used} & aside:
            continue
        upper, lower = top_module(user), top_module(used)
        if upper == lower:
            continue
        tie = f"{user} -> {used} ({', '.join(sorted(names))})"
        if unknown := sorted({upper, lower} - order.keys()):
            complaints.append(f"not in the order: {', '.join(unknown)}: {tie}")
        elif lower not in order[upper]:
            complaints.append(f"against the order: {upper} may not use {lower}: {tie}")
    return complaints


def top_module(file: str) -> str:
    """The module at the top of the tree that a file is in, or is."""
    return re.sub(r"\.\w+$", "", file.split("/", maxsplit=1)[0])
