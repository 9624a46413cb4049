"""Every snippet of the README and of docs/ runs, each page's in an empty directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.snippets import commands_of, run, snippets_of

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")] if path.is_file())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_snippet_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [page.name])
    run(page)
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
<!-- needs: json missing_module -->
```python
b = 2
```
<!-- needs: json re -->
```python
c = 3
```
```json
{}
```
```sh
make test
```
"""
    first, second, third, fourth = snippets_of(page)
    assert first == ("python", "a = 1\n", 3)
    assert list(commands_of(second)) == [(7, "nerve-store --data d      stats")]
    assert list(commands_of(third)) == [(14, "nerve-store runs | head")]
    assert fourth == ("python", "c = 3\n", 22)
