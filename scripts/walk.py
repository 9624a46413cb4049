"""Makes a shell script of what docs/walk.md says to type: `python scripts/walk.py > walk.sh; bash walk.sh`.

The programs of the page are written to the current directory, under their titles. The shell prints each line as it
reads it, and ends at the first command that fails.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "walk.md"
PART = re.compile(
    r'^## (?P<heading>[^\n]*)$|^```(?:bash|py title="(?P<file>[^"]+)")\n(?P<body>.*?)^```$', re.MULTILINE | re.DOTALL
)


def script_of(page: str) -> str:
    """The whole walk, from the directory that it runs in."""
    lines = ["set -e"]
    for part in PART.finditer(page):
        if part["heading"]:
            lines += ["{ set +v; } 2>/dev/null", f'echo; echo "== {part["heading"]} ($SECONDS s)"', "set -v"]
        elif part["file"]:
            lines.append(f"cat > {part['file']} <<'END'\n{part['body']}END")
        else:
            lines.append(part["body"].rstrip())
    return "\n".join([*lines, "{ set +v; } 2>/dev/null", 'echo; echo "== The end ($SECONDS s)"', ""])


if __name__ == "__main__":
    print(script_of(PAGE.read_text(encoding="utf-8")), end="")
