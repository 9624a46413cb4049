"""The arrows between the files of a Python package, lazy imports in functions among them; those for types alone not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.architecture.graph import Arrows


@dataclass
class Module:
    file: str
    tree: ast.Module
    imports: list[tuple[str, str, str]] = field(default_factory=list)
    """Of each import the module, the name taken from it ("" for the module itself), and what it is called here."""

    @property
    def is_facade(self) -> bool:
        """Whether it only says what there is: imports, a docstring, and constants such as `__all__`."""
        allowed = (ast.Import, ast.ImportFrom, ast.If, ast.Expr)
        return all(
            isinstance(node, allowed)
            or (isinstance(node, ast.Assign) and all(isinstance(t, ast.Name) and t.id[0] == "_" for t in node.targets))
            for node in self.tree.body
        )

    def attributes_of(self, name: str) -> list[str]:
        """What is used of the module that is called `name` here."""
        return [
            node.attr
            for node in walk(self.tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
        ]


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, but for what only type checkers see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from walk(other)
        else:
            yield from walk(child)


def read_modules(package: Path) -> dict[str, Module]:
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = (package.name, *path.relative_to(package).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        module = Module(str(path.relative_to(package)), ast.parse(path.read_text("utf-8")))
        own_package = parts[:-1]
        for node in walk(module.tree):
            if isinstance(node, ast.Import):
                module.imports += [(alias.name, "", alias.asname or alias.name.split(".")[0]) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(own_package[: len(own_package) - node.level + 1]) if node.level else ""
                source = ".".join(part for part in (base, node.module) if part)
                module.imports += [(source, alias.name, alias.asname or alias.name) for alias in node.names]
        modules[name] = module
    return modules


class Package:
    def __init__(self, path: Path) -> None:
        self.modules = read_modules(path)

    def definer(self, source: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> str | None:
        """The module that defines the name, by way of those that only hand it on; None if it is not ours."""
        if f"{source}.{name}" in self.modules:
            return f"{source}.{name}"
        if source not in self.modules:
            return None
        if self.modules[source].is_facade and (source, name) not in seen:
            for other, taken, called in self.modules[source].imports:
                if called == name and taken:
                    return self.definer(other, taken, seen | {(source, name)})
        return source

    def used(self, module: Module, source: str, taken: str, called: str) -> Iterator[tuple[str | None, str]]:
        """What an import makes use of: the modules, and the names."""
        whole = ".".join(part for part in (source, taken) if part)
        if whole not in self.modules:
            yield self.definer(source, taken), taken
            return
        # A module: what is used of it counts, not the module that hands it on.
        attributes = module.attributes_of(called)
        if not attributes:
            yield whole, whole
        for attribute in attributes:
            yield self.definer(whole, attribute), attribute


def python_arrows(path: Path) -> Arrows:
    """The arrows between the files of the package at this path; files are named from there."""
    package = Package(path)
    arrows = Arrows()
    for module in package.modules.values():
        if module.is_facade and module.file.endswith("__init__.py"):
            continue
        for source, taken, called in module.imports:
            for target, name in package.used(module, source, taken, called):
                if target in package.modules:
                    arrows.add(module.file, package.modules[target].file, name)
    return arrows
