"""No link of the README, of docs/ or of the other pages at the top level leads nowhere.

The README is shown on the package index, too, where a path of the repository leads nowhere: its links are whole
addresses below the project's own, and are looked up in this checkout. Addresses of other sites are not asked for.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import TESTS

PROJECT = TESTS.parent
README = PROJECT / "README.md"
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob(".github/**/*.md"), *PROJECT.glob("docs/**/*.md")])
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
URLS: dict[str, str] = METADATA["urls"]

CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
DEFINED = re.compile(r"^\[([^\]]+)\]: (\S+)", re.MULTILINE)
IN_HTML = re.compile(r"\b(?:href|src|srcset)=\"([^\"]+)\"")
BY_LABEL = re.compile(r"(?<!\])\[([^\]\n]+)\](?:\[([^\]\n]*)\])?(?![(\[])")


def links(text: str) -> Iterator[str]:
    text = CODE.sub("", text)
    for pattern in (INLINE, IN_HTML):
        yield from pattern.findall(text)
    yield from (target for _, target in DEFINED.findall(text))


def anchors(page: Path) -> set[str]:
    """What GitHub and MkDocs name the headings, and the names that the page gives itself."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = set(re.findall(r"(?:id|name)=\"([^\"]+)\"|\{ *#([\w-]+)", text))
    names = {name for pair in found for name in pair if name}
    for heading in re.findall(r"^#+ +(.*?)(?: +\{.*\})?$", text, re.MULTILINE):
        bare = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        names.add(bare.replace(" ", "-"))
    return names


def complaint(page: Path, link: str) -> str | None:
    """Why the link leads nowhere, if it does."""
    source = URLS["Source"]
    target, _, anchor = link.partition("#")
    for base in (
        f"{source}/blob/main/",
        f"{source}/tree/main/",
        f"{source.replace('github', 'raw.githubusercontent')}/main/",
    ):
        if target.startswith(base):
            found = PROJECT / target.removeprefix(base)
            break
    else:
        if re.match(r"[a-z]+:", target):
            return None
        if page == README:
            return "the package index has no such path"
        found = page.parent / target if target else page
    if not found.exists():
        return "there is no such file"
    if anchor and found.suffix == ".md" and anchor not in anchors(found):
        return f"there is no heading #{anchor}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_no_link_leads_nowhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    complaints = [f"{link}: {why}" for link in links(text) if (why := complaint(page, link)) is not None]
    assert complaints == []


def test_every_label_of_the_readme_is_defined() -> None:
    text = CODE.sub("", README.read_text(encoding="utf-8"))
    defined = {label for label, _ in DEFINED.findall(text)}
    used = {second or first for first, second in BY_LABEL.findall(DEFINED.sub("", text))}
    assert used == defined


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("docs/missing.md", "the package index has no such path"),
        ("docs/format.md", "the package index has no such path"),
        ("SOURCE/blob/main/docs/missing.md", "there is no such file"),
        ("SOURCE/blob/main/docs/durability.md#missing", "there is no heading #missing"),
        ("SOURCE/blob/main/docs/durability.md", None),
        ("https://sqlite.org/wal.html", None),
    ],
)
def test_a_link_that_leads_nowhere_is_found(link: str, why: str | None) -> None:
    assert complaint(README, link.replace("SOURCE", URLS["Source"])) == why


def test_links_of_every_kind_are_found() -> None:
    text = '[a](b.md#c) ![d](e.svg "title") <img src="f.svg">\n[g]: h.md\n`[i](j.md)`\n```md\n[k](l.md)\n```\n'
    assert list(links(text)) == ["b.md#c", "e.svg", "f.svg", "h.md"]


def test_the_readme_names_the_versions_that_the_build_asks_for() -> None:
    text = README.read_text(encoding="utf-8")
    cargo = tomllib.loads((PROJECT / "Cargo.toml").read_text(encoding="utf-8"))["package"]
    assert f"Python {METADATA['requires-python'].removeprefix('>=')} or newer" in text
    assert f"Rust {cargo['rust-version']} or newer" in text


def test_the_project_is_found() -> None:
    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} <= URLS.keys()
    cargo = tomllib.loads((PROJECT / "Cargo.toml").read_text(encoding="utf-8"))["package"]
    assert cargo["repository"] == URLS["Source"]
