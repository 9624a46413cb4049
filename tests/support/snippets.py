"""The snippets of a page, run one after the other: `python -P tests/support/snippets.py PAGE…`.

They run in the order they stand in, in the current directory: ```python blocks share one namespace; of ```console and
```sh blocks, the commands that begin with `nerve-store` (after the prompt `$ `, where there is one) must succeed. A
block under `<!-- needs: MODULE… -->` is passed over where one of the modules is not installed.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

NEEDS = r"(?:^ *<!-- needs: (?P<needs>[^\n]*) -->\n)?"
FENCED = re.compile(
    NEEDS + r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE
)

# The shell of Alpine knows `pipefail`, too; Debian's does not.
SHELL = shutil.which("bash") or "sh"


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
        is_to_run = snippet.language == "python" or any(commands_of(snippet))
        if is_to_run and all(find_spec(module) for module in (match["needs"] or "").split()):
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


def run(page: Path) -> int:
    """Runs the snippets of the page; says how many there were."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for snippet in snippets_of(page.read_text(encoding="utf-8")):
        if snippet.language == "python":
            run_python(snippet, page, namespace)
        else:
            run_commands(snippet, page)
        count += 1
    return count


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
            [SHELL, "-o", "pipefail", "-c", command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        where = f"{page}:{line}: {command}"
        assert done.returncode == 0, f"{where}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with redirect_stdout(io.StringIO()):
            ran = run(Path(name))
        print(f"{name}: {ran} snippets ran")
