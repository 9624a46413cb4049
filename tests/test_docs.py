"""Every snippet of the README and of docs/ runs.

A page's snippets run in the order they stand in, in an empty directory: ```python blocks share one namespace; of
```console and ```sh blocks, the commands that begin with `nerve-store` (after the prompt `$ `, where there is one)
must succeed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if path.is_file())
FENCED = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE
)


class Snippet(NamedTuple):
    """A fenced block that is to run."""

    language: str
    body: str
    line: int
    """The line of the page that the body begins on."""


def snippets_of(text: str) -> Iterator[Snippet]:
    for match in FENCED.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["body"].splitlines(keepends=True))
        snippet = Snippet(match["language"], body, text.count("\n", 0, match.start("body")) + 1)
        if snippet.language == "python" or any(commands_of(snippet)):
            yield snippet


def commands_of(snippet: Snippet) -> Iterator[tuple[int, str]]:
    """Line numbers and commands; one that ends in a backslash goes on on the next line."""
    if snippet.language not in {"console", "sh"}:
        return
    text = snippet.body.replace("\\\n", "\\\0")
    line = snippet.line
    for command in text.split("\n"):
        bare = command.removeprefix("$ ").replace("\\\0", " ")
        if re.match(r"nerve-store\b", bare):
            yield line, bare
        line += 1 + command.count("\0")


def run_python(snippet: Snippet, page: Path, namespace: dict[str, Any]) -> None:
    # The empty lines in front make a traceback name the line of the page.
    code = compile("\n" * (snippet.line - 1) + snippet.body, str(page), "exec", dont_inherit=True)
    exec(code, namespace)


def run_commands(snippet: Snippet, page: Path) -> None:
    environment = os.environ | {
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
        "PYTHONWARNINGS": "error",
    }
    environment.pop("NERVE_STORE_DATA", None)
    for line, command in commands_of(snippet):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        where = f"{page.relative_to(ROOT)}:{line}: {command}"
        assert done.returncode == 0, f"{where}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_snippet_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [page.name])
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for snippet in snippets_of(page.read_text(encoding="utf-8")):
        if snippet.language == "python":
            run_python(snippet, page, namespace)
        else:
            run_commands(snippet, page)
    capsys.readouterr()


def test_the_readme_has_snippets() -> None:
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("there is no README.md")
    assert list(snippets_of(readme.read_text(encoding="utf-8")))


def test_snippets_are_found() -> None:
    page = """x
```python
a = 1
```
- item
  ```console
  $ nerve-store --data d \\
      stats
  rows 3
  $ ls
  ```
```sh
make demo
nerve-store runs | head
```
```json
{}
```
```sh
make test
```
"""
    first, second, third = snippets_of(page)
    assert first == ("python", "a = 1\n", 3)
    assert list(commands_of(second)) == [(7, "nerve-store --data d      stats")]
    assert list(commands_of(third)) == [(14, "nerve-store runs | head")]
