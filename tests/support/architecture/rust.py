"""The arrows between the files of a Rust crate, read from its `use` trees and from the paths in its code.

A path is followed to the file that defines the name: through re-exports, through a module that was imported, through
globs. The re-exports of a file that only re-exports are no arrows of its own, so that a facade closes no circle; those
of a file that defines something, too, are. What is compiled for tests alone does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.architecture.graph import Arrows

LEXEME = re.compile(
    r"""
    (?P<skip> \s+ | //[^\n]* )
    | (?P<block> /\* )
    | (?P<text> b?c?"(?:[^"\\]|\\.)*" | b?c?r(?P<hashes>\#*)".*?"(?P=hashes) | b?'(?:[^'\\]|\\(?:u\{[^}]*\}|x..|.))' )
    | (?P<lifetime> '\w+ )
    | (?P<token> (?:r\#)?[^\W\d]\w* | \d[\w.]* | :: | -> | => | . )
    """,
    re.VERBOSE | re.DOTALL,
)
ITEMS = {"fn", "struct", "enum", "union", "trait", "type", "const", "static"}
ITEM_WORDS = ITEMS | {"use", "mod", "pub", "impl", "unsafe", "extern", "async", "macro_rules"}


def tokens_of(source: str) -> list[str]:
    """The tokens without comments; a text is the token `""`."""
    tokens: list[str] = []
    at = 0
    while at < len(source):
        found = LEXEME.match(source, at)
        assert found is not None
        at = found.end()
        if found["block"]:
            depth = 1
            while depth:
                mark = re.compile(r"/\*|\*/").search(source, at)
                assert mark is not None, "a comment without an end"
                depth += 1 if mark[0] == "/*" else -1
                at = mark.end()
        elif found["text"]:
            tokens.append('""')
        elif found["token"]:
            tokens.append(found["token"].removeprefix("r#"))
    return tokens


Names = tuple[str, ...]
"""A path."""
Found = tuple[Names, str]
"""A module, and the name of what it defines, "" for the module itself."""
Seen = frozenset[Found]


@dataclass
class Module:
    """A module: what it defines, imports and mentions. Modules within a file share the file."""

    path: Names
    file: str
    items: set[str] = field(default_factory=set)
    imports: dict[str, list[Names]] = field(default_factory=dict)
    """By the name here, the paths imported: as many as there are namespaces and configurations."""
    globs: list[Names] = field(default_factory=list)
    arrows: list[Names] = field(default_factory=list)
    """The paths of imports for its own use, and those in its code."""
    reexports: list[Names] = field(default_factory=list)
    words: set[str] = field(default_factory=set)


class Crate:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules: dict[Names, Module] = {}
        self._read((), root / "lib.rs", root)

    def _read(self, path: Names, file: Path, directory: Path) -> None:
        tokens = tokens_of(file.read_text("utf-8"))
        module = Module(path, str(file.relative_to(self.root)))
        self.modules[path] = module
        Reader(self, tokens, directory).read(module, 0, len(tokens))

    def read_child(self, path: Names, directory: Path) -> None:
        name = path[-1]
        file = directory / f"{name}.rs"
        self._read(path, file if file.exists() else directory / name / "mod.rs", directory / name)

    def find(self, start: Names, path: Names, seen: Seen = frozenset()) -> Found | None:
        """What `path` leads to from the module `start`; None if that is foreign."""
        at, rest = start, path
        if rest[0] == "crate":
            at, rest = (), rest[1:]
        while rest and rest[0] in ("self", "super"):
            at, rest = (at[:-1] if rest[0] == "super" else at), rest[1:]
        is_first = at == start and rest == path
        for number, name in enumerate(rest):
            if (*at, name) in self.modules:
                at = (*at, name)
                continue
            module = self.modules[at]
            if name in module.items:
                return at, name
            if (at, name) in seen:
                return None
            onward = self._imported(module, name, seen | {(at, name)})
            if onward is None:
                # Made by a macro, say: it counts as what the module itself defines, if the path names the module.
                return None if is_first and number == 0 else (at, name)
            if onward[1]:
                return onward
            at = onward[0]
        return at, ""

    def _imported(self, module: Module, name: str, seen: Seen) -> Found | None:
        for target in module.imports.get(name, ()):
            if (found := self.find(module.path, target, seen)) is not None:
                return found
        for glob in module.globs:
            source = self.find(module.path, glob, seen)
            if source is None or source[1]:
                continue
            if (found := self.find(source[0], (name,), seen)) is not None:
                return found
        return None


class Reader:
    """Reads the tokens of a file into its modules."""

    def __init__(self, crate: Crate, tokens: list[str], directory: Path) -> None:
        self.crate = crate
        self.tokens = tokens
        self.directory = directory

    def read(self, module: Module, at: int, end: int) -> None:
        depth = 0
        while at < end:
            token = self.tokens[at]
            depth += (token == "{") - (token == "}")
            if token == "#" and self.tokens[at + 1 : at + 2] in (["["], ["!"]):
                at = self.read_attribute(at, end)
            elif token == "pub" and self.tokens[at + 1 : at + 3] == ["(", "in"]:
                at = self.closing(at + 1) + 1
            elif token == "use":
                at = self.read_use(module, at + 1, is_public=at > 0 and self.tokens[at - 1] in ("pub", ")"))
            elif token == "mod" and self.tokens[at + 2 : at + 3] in ([";"], ["{"]):
                at = self.read_module(module, at + 1)
            else:
                at = self.read_token(module, at, is_item=depth == 0)

    def read_attribute(self, at: int, end: int) -> int:
        is_inner = self.tokens[at + 1] == "!"
        bracket = at + 1 + is_inner
        close = self.closing(bracket)
        if not is_for_tests(self.tokens[bracket + 1 : close]):
            return close + 1
        return end if is_inner else self.after_item(close + 1)

    def read_token(self, module: Module, at: int, *, is_item: bool) -> int:
        token, ahead = self.tokens[at], self.tokens[at + 1 : at + 3]
        if token == "macro_rules":
            module.items.add(ahead[1])
        elif token in ITEMS and is_item and ahead:
            module.items.add(ahead[1] if ahead[0] in ("mut", "fn", "unsafe") else ahead[0])
        if not is_name(token) or (at > 0 and self.tokens[at - 1] in (".", "::")):
            return at + 1
        path, at = self.read_path(at)
        module.words.add(path[0])
        if len(path) > 1:
            module.arrows.append(path)
        return at

    def read_module(self, module: Module, at: int) -> int:
        path = (*module.path, self.tokens[at])
        if self.tokens[at + 1] == ";":
            inline = module.path[len(self.file_path(module)) :]
            self.crate.read_child(path, self.directory.joinpath(*inline))
            return at + 2
        close = self.closing(at + 1)
        self.crate.modules[path] = Module(path, module.file)
        self.read(self.crate.modules[path], at + 2, close)
        return close + 1

    def file_path(self, module: Module) -> Names:
        path = module.path
        while path and self.crate.modules[path[:-1]].file == module.file:
            path = path[:-1]
        return path

    def read_path(self, at: int) -> tuple[Names, int]:
        path = [self.tokens[at]]
        at += 1
        while at + 1 < len(self.tokens) and self.tokens[at] == "::" and is_name(self.tokens[at + 1]):
            path.append(self.tokens[at + 1])
            at += 2
        return tuple(path), at

    def read_use(self, module: Module, at: int, *, is_public: bool) -> int:
        end = self.tokens.index(";", at)
        for path, name in use_tree(self.tokens[at:end]):
            if name == "*":
                module.globs.append(path)
                continue
            if name != "_":
                module.imports.setdefault(name, []).append(path)
            (module.reexports if is_public else module.arrows).append(path)
        return end + 1

    def closing(self, at: int) -> int:
        """Where the bracket that opens at `at` is closed."""
        depth = 0
        for number in range(at, len(self.tokens)):
            depth += self.tokens[number] in ("(", "[", "{")
            depth -= self.tokens[number] in (")", "]", "}")
            if depth == 0:
                return number
        raise AssertionError("a bracket that is not closed")

    def after_item(self, at: int) -> int:
        """Where the item, statement, field or arm ends that begins at `at`, after its attributes."""
        while self.tokens[at] == "#":
            at = self.closing(at + 1) + 1
        is_item = self.tokens[at] in ITEM_WORDS
        goes_on = self.tokens[at] in ("use", "let") or "use" in self.tokens[at : at + 2]
        while at < len(self.tokens):
            token = self.tokens[at]
            if token in ("(", "[", "{"):
                at = self.closing(at)
                if token == "{" and not goes_on and self.tokens[at + 1 : at + 2] != [";"]:
                    return at + 1
            elif token == ";" or (token == "," and not is_item):
                return at + 1
            elif token in (")", "]", "}"):
                return at
            at += 1
        return at


def is_name(token: str) -> bool:
    return token[0].isalpha() or token[0] == "_"


def is_for_tests(attribute: list[str]) -> bool:
    """Whether what has the attribute is compiled for tests, or for loom's models, alone."""
    if attribute == ["test"]:
        return True
    return attribute[:1] == ["cfg"] and bool({"test", "loom"} & set(attribute)) and not {"not", "any"} & set(attribute)


def use_tree(tokens: list[str], prefix: Names = ()) -> Iterator[tuple[Names, str]]:
    """Each path of a `use`, and what it is called here; "*" for a glob."""
    brace = tokens.index("{") if "{" in tokens else len(tokens)
    plain = [token for token in tokens[:brace] if token != "::"]
    if brace < len(tokens):
        for part in parts_of(tokens[brace + 1 : -1]):
            yield from use_tree(part, (*prefix, *plain))
    elif plain[-1] == "*":
        yield (*prefix, *plain[:-1]), "*"
    else:
        called = plain[-1]
        if "as" in plain:
            plain = plain[:-2]
        path = (*prefix, *plain)
        if path[-1] == "self" and len(path) > 1:
            path = path[:-1]
        yield path, path[-1] if called == "self" else called


def parts_of(tokens: list[str]) -> Iterator[list[str]]:
    """What stands between the commas that are in no braces."""
    part: list[str] = []
    depth = 0
    for token in tokens:
        if token == "," and depth == 0:
            yield part
            part = []
        else:
            depth += (token == "{") - (token == "}")
            part.append(token)
    if part:
        yield part


def rust_arrows(root: Path) -> Arrows:
    """The arrows between the files under `root`, where `lib.rs` is; files are named from there."""
    crate = Crate(root)
    arrows = Arrows()
    definitions: dict[str, int] = {}
    for module in crate.modules.values():
        definitions[module.file] = definitions.get(module.file, 0) + len(module.items)
    for module in crate.modules.values():
        paths = list(module.arrows)
        if definitions[module.file]:
            paths += module.reexports
        if module.globs:
            paths += [(word,) for word in module.words if word not in module.items and word not in module.imports]
        for path in paths:
            found = crate.find(module.path, path)
            if found is not None and found[1]:
                arrows.add(module.file, crate.modules[found[0]].file, found[1])
    return arrows
