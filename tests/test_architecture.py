"""No file of the core or of the package is in a circle with another, and no module uses one above it.

The order of the modules is the one that `docs/architecture.md` gives. The checks of the checker stand below.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import TESTS
from support.architecture.graph import (
    Arrows,
    complaints_about_circles,
    complaints_about_order,
    read_order,
)
from support.architecture.python import python_arrows
from support.architecture.rust import rust_arrows

PROJECT = TESTS.parent
DOCUMENT = PROJECT / "docs" / "architecture.md"
LABEL = "Order of the modules:"


# --- ours --------------------------------------------------------------------------------------------------------


def assert_none(complaints: list[str]) -> None:
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.fixture(scope="module")
def rust() -> Arrows:
    return rust_arrows(PROJECT / "src")


def test_no_circle_between_files_of_the_core(rust: Arrows) -> None:
    assert_none(complaints_about_circles(rust))


def test_modules_of_the_core_use_only_those_below_them(rust: Arrows) -> None:
    # `lib.rs` only says what there is: it is in no module.
    assert_none(complaints_about_order(rust, read_order(DOCUMENT, LABEL), without={"lib.rs"}))


def test_no_circle_between_files_of_the_package() -> None:
    assert_none(complaints_about_circles(python_arrows(PROJECT / "python" / "nerve_store")))


def test_arrows_are_found_in_the_sources(rust: Arrows) -> None:
    """The control of the tests above: a reader that reads nothing would find no circle, either."""
    assert sum(1 for _ in rust) > 300
    assert sum(1 for _ in python_arrows(PROJECT / "python" / "nerve_store")) > 40


@pytest.mark.parametrize("part", range(8))
def test_circle_that_is_put_into_the_sources_by_hand_is_found(tmp_path: Path, rust: Arrows, part: int) -> None:
    """Some file names something of a file that uses it."""
    arrows = sorted(arrows_of(rust))
    user, used = arrows[len(arrows) * part // 8]
    sources = shutil.copytree(PROJECT / "src", tmp_path / "src")
    module = user.removesuffix(".rs").removesuffix("/mod").replace("/", "::")
    with (sources / user).open("a") as file:
        file.write("\npub(crate) struct PutInByHand;\n")
    with (sources / used).open("a") as file:
        file.write(f"\nfn put_in_by_hand(_: crate::{module}::PutInByHand) {{}}\n")
    found = complaints_about_circles(rust_arrows(sources))
    assert any("PutInByHand" in complaint and user in complaint and used in complaint for complaint in found)


# --- the checker, on made-up trees -------------------------------------------------------------------------------


def tree(directory: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return directory


def arrows_of(arrows: Arrows) -> set[tuple[str, str]]:
    return {(user, used) for user, used, _ in arrows}


B_USES_A = "use crate::a::A; pub struct B(A); pub mod nested { pub fn f() {} }"


def two_files(directory: Path, a: str) -> Arrows:
    return rust_arrows(tree(directory, {"lib.rs": "mod a; mod b;", "a.rs": a, "b.rs": B_USES_A}))


CIRCLES = {
    "use": "use crate::b::B; pub struct A;",
    "nested braces": "use crate::{\n    b::{\n        nested::{self as inner},\n        B,\n    },\n};\npub struct A;",
    "another name": "use crate::b::B as Other; pub struct A;",
    "path in a signature": "pub struct A; fn f(b: &crate::b::B) {}",
    "path in a body": "pub struct A; impl A { fn f() { let g = || super::b::nested::f(); g() } }",
    "imported module": "use crate::b; pub struct A; fn f() { b::nested::f(); }",
    "use in a function": "pub struct A; fn f() { use super::b::B; }",
    "inline module": "pub struct A; mod inner { use super::super::b::B; }",
    "glob": "use crate::b::*; pub struct A; fn f(b: B) {}",
    "re-export beside a definition": "pub struct A; pub(crate) use crate::b::B;",
    "visibility": "pub struct A; pub(in crate::a) use super::b::B;",
    "not for tests": "pub struct A; #[cfg(not(test))] use super::b::B;",
    "after a test": "pub struct A; #[cfg(test)] mod tests { use super::*; } use crate::b::B;",
    "after texts": 'pub struct A; const Q: &str = r#"" // "#; const C: char = \'"\'; use crate::b::B;',
    "after a lifetime": "pub struct A; fn f<'a>(x: &'a str) -> &'a str { x } use crate::b::B;",
    "after a comment": "pub struct A; /* use /* nested */ crate */ use crate::b::B;",
}


@pytest.mark.parametrize("a", CIRCLES.values(), ids=CIRCLES)
def test_circle_is_found_and_named(tmp_path: Path, a: str) -> None:
    (complaint,) = complaints_about_circles(two_files(tmp_path, a))
    assert complaint.startswith("circle: a.rs -> b.rs (")
    assert complaint.endswith(") -> a.rs (A)")


NO_CIRCLES = {
    "tests": "pub struct A; #[cfg(test)] mod tests { use crate::b::B; fn f() { crate::b::nested::f(); } }",
    "use for tests": "pub struct A; #[cfg(test)] use crate::b::{B, nested}; fn f() {}",
    "function for tests": "pub struct A; #[cfg(all(test, unix))] fn f<T, U>() { crate::b::nested::f() } fn g() {}",
    "field for tests": "pub struct A { #[cfg(test)] b: crate::b::B, pub c: u8 }",
    "whole file for tests": "#![cfg(test)] use crate::b::B; pub struct A;",
    "comment": "/// As [`crate::b::B`]. /* use crate::b::B; */\npub struct A; // crate::b::nested::f()\n",
    "text": 'pub struct A; const S: &str = "use crate::b::B;"; const R: &str = r#"crate::b::B"#;',
    "itself": "use crate::a::A as Own; pub struct A; fn f(a: super::a::A) {}",
    "other crates": "use std::fmt::{self, b}; pub struct A; fn f() { b::B::new(); fmt::b::f(); }",
    "imported module that is not used": "use crate::b; pub struct A;",
}


@pytest.mark.parametrize("a", NO_CIRCLES.values(), ids=NO_CIRCLES)
def test_what_is_no_circle_is_none(tmp_path: Path, a: str) -> None:
    arrows = two_files(tmp_path, a)
    assert arrows_of(arrows) - {("b.rs", "a.rs")} == set()
    assert complaints_about_circles(arrows) == []


def test_facade_that_only_reexports_closes_no_circle(tmp_path: Path) -> None:
    files = {
        "lib.rs": "pub mod room; pub use room::Upper;",
        "room/mod.rs": "//! A room.\nmod lower;\nmod upper;\npub use lower::Lower;\npub use upper::Upper;",
        "room/lower.rs": "pub struct Lower;",
        "room/upper.rs": "use super::Lower; pub struct Upper(Lower); fn f(l: crate::room::Lower) {}",
    }
    arrows = rust_arrows(tree(tmp_path, files))
    assert arrows_of(arrows) == {("room/upper.rs", "room/lower.rs")}


def test_circle_by_way_of_a_facade_is_found(tmp_path: Path) -> None:
    files = {
        "lib.rs": "pub mod room;",
        "room/mod.rs": "mod lower; mod upper; pub use lower::Lower; pub use upper::Upper;",
        "room/lower.rs": "use super::Upper; pub struct Lower(Upper);",
        "room/upper.rs": "use super::Lower; pub struct Upper(Lower);",
    }
    (complaint,) = complaints_about_circles(rust_arrows(tree(tmp_path, files)))
    assert complaint == "circle: room/lower.rs -> room/upper.rs (Upper) -> room/lower.rs (Lower)"


def test_facade_that_defines_what_its_files_use_closes_a_circle(tmp_path: Path) -> None:
    files = {
        "lib.rs": "pub mod room;",
        "room/mod.rs": "mod upper; pub use upper::Upper; pub(crate) const SIZE: usize = 1;",
        "room/upper.rs": "use super::SIZE; pub struct Upper([u8; SIZE]);",
    }
    (complaint,) = complaints_about_circles(rust_arrows(tree(tmp_path, files)))
    assert complaint == "circle: room/mod.rs -> room/upper.rs (Upper) -> room/mod.rs (SIZE)"


def test_every_file_of_a_longer_circle_is_named(tmp_path: Path) -> None:
    files = {"lib.rs": "mod a; mod b; mod c; mod d;", "d.rs": "use crate::a::A; pub struct D(A);"}
    for name, used in (("a", "b"), ("b", "c"), ("c", "a")):
        files[f"{name}.rs"] = f"use crate::{used}::{used.upper()}; pub struct {name.upper()};"
    (complaint,) = complaints_about_circles(rust_arrows(tree(tmp_path, files)))
    assert complaint == "circle: a.rs -> b.rs (B) -> c.rs (C) -> a.rs (A)"


WAYS = (
    "use crate::f{0}::T{0};",
    "use super::f{0}::{{T{0} as Other{0}, self as module_{0}}};",
    "fn uses_{0}(value: &crate::f{0}::T{0}) {{}}",
    "use crate::f{0}; fn uses_{0}() {{ f{0}::T{0}::new(); }}",
    "mod inner_{0} {{ use super::super::f{0}::T{0}; }}",
    "use crate::{{all::{{T{0}}}}};",
    "fn uses_{0}() {{ use crate::all; all::T{0}; }}",
    "use crate::f{0}::*; fn uses_{0}(value: T{0}) {{}}",
)
FILES = 5
PAIRS = st.tuples(st.integers(0, FILES - 1), st.integers(0, FILES - 1)).filter(lambda pair: pair[0] != pair[1])


@given(st.dictionaries(PAIRS, st.sampled_from(WAYS), max_size=12))
def test_arrows_are_those_that_were_written_in_whatever_way(
    tmp_path_factory: pytest.TempPathFactory, ways: dict[tuple[int, int], str]
) -> None:
    names = range(FILES)
    files = {
        "lib.rs": " ".join(f"mod f{n};" for n in names) + " mod all;",
        "all.rs": " ".join(f"pub use crate::f{n}::T{n};" for n in names),
    }
    for name in names:
        written = [way.format(used) for (user, used), way in ways.items() if user == name]
        files[f"f{name}.rs"] = "\n".join([*written, f"pub struct T{name};"])
    arrows = rust_arrows(tree(tmp_path_factory.mktemp("crate"), files))
    assert arrows_of(arrows) == {(f"f{user}.rs", f"f{used}.rs") for user, used in ways}
    reaches = {(user, used) for user, used in ways}
    for middle in names:
        reaches |= {(a, b) for a in names for b in names if {(a, middle), (middle, b)} <= reaches}
    circular = {f"f{name}.rs" for name in names if (name, name) in reaches}
    assert {file for circle in arrows.circles() for file in circle} == circular


# --- the order ---------------------------------------------------------------------------------------------------

ROOMS = {
    "lib.rs": "mod base; mod db; mod blob; mod log; pub use log::append::Log;",
    "base.rs": "pub struct Error;",
    "db/mod.rs": "mod open; pub use open::Database;",
    "db/open.rs": "use crate::base::Error; pub struct Database(Error);",
    "blob/mod.rs": "pub struct Blob(crate::base::Error);",
    "log/mod.rs": "pub mod append;",
    "log/append.rs": "use crate::db::Database; pub struct Log(Database);",
}
ORDER = "Order of the modules: `base < db < log`; `base < blob`."


def complaints(tmp_path: Path, text: str, files: Mapping[str, str]) -> list[str]:
    document = tmp_path / "architecture.md"
    document.write_text(text)
    arrows = rust_arrows(tree(tmp_path / "src", {**ROOMS, **files}))
    return complaints_about_order(arrows, read_order(document, LABEL), without={"lib.rs"})


@pytest.mark.parametrize(
    "text",
    [
        ORDER,
        f"# Map\n\nOther words, `log < base`.\n\n{ORDER}\n\nMore words: `log < db`.\n",
        "Order of the modules:\n\n```\nbase < db < log\nbase < blob\n```\n\nMore: `log < db`.",
        "Order of the modules: `base<db`, `db < log`\nand `base <\nblob`.",
    ],
)
def test_order_is_read_in_a_line_or_in_a_block(tmp_path: Path, text: str) -> None:
    assert complaints(tmp_path, text, {}) == []
    upward = {"base.rs": "use crate::log::append::Log; pub struct Error;"}
    assert complaints(tmp_path, text, upward) == [
        "against the order: base may not use log: base.rs -> log/append.rs (Log)"
    ]


def test_arrow_upward_behind_a_facade_is_found(tmp_path: Path) -> None:
    upward = {"db/open.rs": "pub struct Database; fn f() { crate::Log::new(); }"}
    (complaint,) = complaints(tmp_path, ORDER, upward)
    assert complaint == "against the order: db may not use log: db/open.rs -> log/append.rs (Log)"


def test_modules_beside_one_another_may_not_use_each_other(tmp_path: Path) -> None:
    (complaint,) = complaints(tmp_path, ORDER, {"blob/mod.rs": "pub struct Blob(crate::db::Database);"})
    assert complaint == "against the order: blob may not use db: blob/mod.rs -> db/open.rs (Database)"


def test_module_that_the_order_does_not_name_is_a_complaint(tmp_path: Path) -> None:
    found = complaints(tmp_path, "Order of the modules: `base < db < log`.", {})
    assert found == ["not in the order: blob: blob/mod.rs -> base.rs (Error)"]


@pytest.mark.parametrize("text", ["", "`base < db < log`", "Order of the modules: base, db.", ORDER + " `log < base`"])
def test_order_that_is_missing_or_upside_down_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"gives no order|below itself"):
        complaints(tmp_path, text, {})


# --- Python ------------------------------------------------------------------------------------------------------

PYTHON_CIRCLES = {
    "import": "from package.b import B",
    "relative": "from .b import B",
    "lazy": "def f():\n    from package import b\n    return b.B",
    "whole module": "import package.b",
    "another name": "from . import b as other\nother.B()",
    "by way of the package": "from package import B",
    "else of TYPE_CHECKING": "if TYPE_CHECKING:\n    x = 1\nelse:\n    from package.b import B",
}
B_IMPORTS_A = "from package.a import A\nclass B: pass\n"
PACKAGE = '"""All."""\nfrom package.a import A\nfrom package.b import B\n__all__ = ["A", "B"]\n'


def two_python_files(directory: Path, a: str) -> Arrows:
    files = {"__init__.py": PACKAGE, "a.py": a + "\nclass A: pass", "b.py": B_IMPORTS_A}
    return python_arrows(tree(directory / "package", files))


@pytest.mark.parametrize("a", PYTHON_CIRCLES.values(), ids=PYTHON_CIRCLES)
def test_circle_of_python_files_is_found(tmp_path: Path, a: str) -> None:
    (complaint,) = complaints_about_circles(two_python_files(tmp_path, a))
    assert complaint.startswith("circle: a.py -> b.py (")
    assert complaint.endswith("-> a.py (A)")


@pytest.mark.parametrize(
    "a",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package.b import B",
        "import typing\nif typing.TYPE_CHECKING:\n    from .b import B",
        "import b\nfrom other.b import B",
        '"""from package.b import B"""',
    ],
)
def test_what_only_type_checkers_import_closes_no_circle(tmp_path: Path, a: str) -> None:
    assert arrows_of(two_python_files(tmp_path, a)) == {("b.py", "a.py")}


def test_package_that_defines_what_its_modules_use_closes_a_circle(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from package.a import A\nLIMIT = 1\n",
        "a.py": "from package import LIMIT\nclass A: pass\n",
    }
    (complaint,) = complaints_about_circles(python_arrows(tree(tmp_path / "package", files)))
    assert complaint == "circle: __init__.py -> a.py (A) -> __init__.py (LIMIT)"
