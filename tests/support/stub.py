"""The stub's docstrings are those of the built module, whose source is the Rust code: `make stub` writes them.

What is compared: every class, method, property and function that the stub names. Special methods have no docstring of
their own at run time; their class documents them.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nerve_store._core as core

STUB = Path(core.__file__).with_name("_core.pyi")
WIDTH = 120


@dataclass(frozen=True)
class Member:
    """Something that the stub names."""

    name: str
    node: ast.ClassDef | ast.FunctionDef
    runtime: object

    @property
    def documentation(self) -> str | None:
        """What the stub says."""
        return ast.get_docstring(self.node)


def members(source: str) -> Iterator[Member]:
    """The classes, methods, properties and functions of the stub `source`."""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or not hasattr(core, node.name):
            continue
        runtime = getattr(core, node.name)
        yield Member(node.name, node, runtime)
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    found = inspect.getattr_static(runtime, member.name)
                    documented = found.__func__ if isinstance(found, staticmethod) else found
                    yield Member(f"{node.name}.{member.name}", member, documented)


def rewritten(source: str) -> str:
    """The stub with the docstrings of the built module."""
    lines = source.splitlines()
    for member in sorted(members(source), key=lambda member: -member.node.lineno):
        documentation = inspect.getdoc(member.runtime)
        if documentation is None:
            continue
        node, first = member.node, member.node.body[0]
        indent = " " * (node.col_offset + 4)
        docstring = _docstring(documentation, indent)
        if member.documentation is not None:
            assert first.end_lineno is not None
            lines[first.lineno - 1 : first.end_lineno] = docstring
        elif isinstance(node, ast.FunctionDef):  # `def name(...) -> type: ...`
            assert first.end_lineno is not None
            head = lines[first.lineno - 1].removesuffix(" ...")
            lines[first.lineno - 1 : first.end_lineno] = [head, *docstring]
        else:
            decorators = getattr(first, "decorator_list", [])
            start = min([first.lineno, *(decorator.lineno for decorator in decorators)])
            lines[start - 1 : start - 1] = docstring
    return "\n".join(lines) + "\n"


def _docstring(documentation: str, indent: str) -> list[str]:
    documentation = documentation.replace("\\", "\\\\")
    one_line = f'{indent}"""{documentation}"""'
    if "\n" not in documentation and len(one_line) <= WIDTH:
        return [one_line]
    summary, *rest = documentation.split("\n")
    return [f'{indent}"""{summary}', *(f"{indent}{line}".rstrip() for line in rest), f'{indent}"""']


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"]
    STUB.write_text(rewritten(STUB.read_text()))
