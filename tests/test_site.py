"""The documentation site builds without a warning, says what the library does, and can be read on desktop and phone.

The tools of the site (requirements-docs.txt) are in an environment of their own, which `make docs` makes; Chromium is
Debian's. Tests that need what is not there are skipped, and say so.
"""

from __future__ import annotations

import functools
import html.parser
import http.server
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from html import escape, unescape
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest

import nerve_store as ns
from support import TESTS

PROJECT = TESTS.parent
DOCS = PROJECT / "docs"
MKDOCS = next((path for path in PROJECT.glob(".venv*-docs/bin/mkdocs")), None)
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if MKDOCS is None:
        pytest.skip("the tools of the site are not installed: make docs")
    target = tmp_path_factory.mktemp("site")
    command = [str(MKDOCS), "build", "--strict", "--quiet", "--site-dir", str(target)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["NO_MKDOCS_2_WARNING"] = "1"
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


# --- what it says ------------------------------------------------------------------------------------------------


def test_every_error_has_its_way_out() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    errors = {name for name in ns.__all__ if name.endswith("Error") and name != "NerveStoreError"}
    assert set(re.findall(r"^## (\w+Error)$", text, re.MULTILINE)) == errors


def test_the_states_of_a_run_are_those_of_the_library(tmp_path: Path) -> None:
    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    table = {
        line[1]: set(re.findall(r"`(\w+)`", line[2]))
        for line in re.finditer(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    }
    assert table.keys() == set(ns.WorkflowRunStatus)
    with closing(ns.LogStore(tmp_path / "logs.db")) as logs:
        for source, written in table.items():
            followers = set()
            for target in ns.WorkflowRunStatus:
                run = ns.WorkflowRun(f"{source}-{target}", "states", ns.WorkflowRunStatus(source), 1)
                logs.upsert_workflow_run(("workflow", source, run.run_id, None, 1), run)
                try:
                    logs.transition(run.run_id, target)
                except ns.IllegalTransitionError:
                    continue
                if target != source:
                    followers.add(str(target))
            assert followers == written, source
    drawn = (DOCS / "images" / "run-states.svg").read_text(encoding="utf-8")
    assert {str(status) for status in ns.WorkflowRunStatus} <= set(re.findall(r">(\w+)</text>", drawn))


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    pages = [site / "reference" / f"{name}.html" for name in ("api", "errors", "records")]
    shown = {
        name.split(".")[-1] for page in pages for name in re.findall(r'id="nerve_store\.([\w.]+)"', page.read_text())
    }
    public = {name for name in ns.__all__ if callable(getattr(ns, name))}
    assert public <= shown, public - shown


def test_every_command_is_in_the_reference(site: Path) -> None:
    from nerve_store.cli.parser import build_parser

    text = unescape((site / "reference" / "commands.html").read_text(encoding="utf-8"))
    listed = re.findall(r"^ {4}(\w+) ", build_parser([]).format_help(), re.MULTILINE)
    assert listed
    for command in listed:
        assert f"<code>nerve-store {command}</code></a>" in text or f"<code>nerve-store {command}</code>" in text, (
            command
        )


def test_every_benchmark_is_in_a_table(site: Path) -> None:
    text = unescape((site / "performance.html").read_text(encoding="utf-8"))
    cases = [figure["case"] for figure in json.loads((DOCS / "benchmarks" / "latest.json").read_text())["figures"]]
    assert cases
    assert [case for case in cases if f"<td>{case}</td>" not in text] == []


MAKE_ALL = """
import json, sys
from pathlib import Path
from types import SimpleNamespace as Some
sys.path.insert(0, "scripts")
import site_hooks
site_hooks.on_config(None)
pages = {str(path.relative_to("docs")): path.read_text(encoding="utf-8") for path in Path("docs").rglob("*.md")}
made = {name: site_hooks.on_page_markdown(text, page=Some(file=Some(src_uri=name))) for name, text in pages.items()}
json.dump(made, sys.stdout)
"""


def test_the_tables_can_be_made_without_the_tools_of_the_site() -> None:
    """A command or a benchmark that belongs nowhere ends the making of the site, where that is not done each time."""
    done = subprocess.run([sys.executable, "-c", MAKE_ALL], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    cases = [figure["case"] for figure in json.loads((DOCS / "benchmarks" / "latest.json").read_text())["figures"]]
    assert [case for case in cases if f"| {escape(case)} |" not in made["performance.md"]] == []
    assert "### `nerve-store archive restore`" in made["reference/commands.md"]


# --- where it leads ----------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """The links of a page, what it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.leads.append(values["href"])
        is_loaded = tag in {"img", "script", "source", "iframe"} or values.get("rel") in {"stylesheet", "icon"}
        if is_loaded:
            self.loads += [values[name] for name in ("src", "srcset", "href") if name in values]


def test_no_link_leads_nowhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    complaints = []
    for name, page in pages.items():
        for link in [*page.leads, *page.loads]:
            if urlparse(link).scheme:
                if link in page.loads:
                    complaints.append(f"{name} loads {link}")
                continue
            target, anchor = urldefrag(urljoin(name, link))
            target = unquote(target) or name
            if target in {".", "./"} or target.endswith("/"):
                target = target.rstrip("./") + "index.html"
            if not (site / target).is_file():
                complaints.append(f"{name}: {link}")
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                complaints.append(f"{name}: {link} has no such place")
    assert complaints == []


# --- how it looks ------------------------------------------------------------------------------------------------

# Chromium's windows are no narrower than 500; a frame in a page is.
WIDTHS = {"desktop": 1280, "phone": 500}
LOOKED_AT = ["index", "performance", "reference/api"]
PHONE = 390
# A picture of a fourth of the pixels shows as much, and is read sooner.
SCALE = 0.5


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def browse(directory: Path, *arguments: str) -> str:
    """What Chromium prints."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt install chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={directory}"]
    command = [CHROMIUM, *options, "--virtual-time-budget=5000", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pixels(png: Path) -> tuple[int, int, list[bytes]]:
    """Width, height, and every eighth line as RGB; of a PNG with 8 bits a channel, which is what Chromium writes."""
    data = png.read_bytes()
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    size = {2: 3, 6: 4}[kind]
    assert depth == 8
    compressed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            compressed += data[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(compressed), width * size
    lines, above = [], bytearray(stride)
    for y in range(height):
        start = y * (stride + 1)
        line = unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), above, size)
        if y % 8 == 0:
            lines.append(bytes(value for index, value in enumerate(line) if index % size < 3))
        above = line
    return width, height, lines


def unfiltered(kind: int, line: bytearray, above: bytearray, size: int) -> bytearray:
    for index, value in enumerate(line):
        left = line[index - size] if index >= size else 0
        corner = above[index - size] if index >= size else 0
        up = above[index]
        match kind:
            case 0:
                return line
            case 1:
                add = left
            case 2:
                add = up
            case 3:
                add = (left + up) // 2
            case _:
                guess = left + up - corner
                add = min((left, up, corner), key=lambda near: abs(guess - near))
        line[index] = (value + add) & 255
    return line


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("page", LOOKED_AT)
def test_a_page_can_be_read(address: str, tmp_path: Path, page: str, device: str, colours: str) -> None:
    directory = Path(os.environ.get("NERVE_SITE_PICTURES", tmp_path))  # kept, to be looked at
    picture = directory / f"{page.replace('/', '-')}-{device}-{colours}.png"
    browse(
        tmp_path / "profile",
        f"--window-size={WIDTHS[device]},900",
        f"--force-device-scale-factor={SCALE}",
        f"--blink-settings=preferredColorScheme={'0' if colours == 'dark' else '1'}",
        f"--screenshot={picture}",
        f"{address}/{page}.html",
    )
    width, height, lines = pixels(picture)
    assert (width, height) == (WIDTHS[device] * SCALE, 900 * SCALE)
    found = Counter(line[at : at + 3] for line in lines[6:] for at in range(0, len(line), 3))
    background, share = found.most_common(1)[0]
    brightness = sum(background) / 3
    assert brightness < 70 if colours == "dark" else brightness > 200
    # There is a text, and it stands out from the background.
    assert share < found.total()
    assert max(abs(sum(colour) / 3 - brightness) for colour in found) > 100


PROBE = """<iframe id="phone" width="{width}" height="800"></iframe><pre id="answer"></pre><script>
const pages = {pages}, phone = document.getElementById("phone"), answer = document.getElementById("answer");
phone.onload = () => setTimeout(() => {{
    const root = phone.contentDocument.documentElement;
    answer.textContent += `${{pages.shift()}} ${{root.scrollWidth}} ${{root.clientWidth}}\\n`;
    if (pages.length) phone.src = pages[0]; else answer.textContent += "done";
}}, 50);
phone.src = pages[0];
</script>"""


def test_no_page_scrolls_to_the_side_on_a_phone(address: str, site: Path, tmp_path: Path) -> None:
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html")
    probe = site / "probe.html"
    probe.write_text(PROBE.format(width=PHONE, pages=json.dumps(pages)), encoding="utf-8")
    shown = browse(tmp_path / "profile", "--dump-dom", "--virtual-time-budget=60000", f"{address}/{probe.name}")
    probe.unlink()
    widths = {
        page: (int(content), int(view))
        for page, content, view in re.findall(r"([\w./-]+\.html) (\d+) (\d+)$", shown, re.MULTILINE)
    }
    assert widths.keys() == set(pages)
    assert {view for _, view in widths.values()} == {PHONE}
    assert {page: content for page, (content, _) in widths.items() if content > PHONE} == {}
