"""Make the docs' pictures anew: `make pictures` (two minutes on two idle cores, and Chromium).

The default preset is trained in a terminal of 80 columns. `terminal.svg` is what that showed,
`seeing.png` the page of the run. `pictures.json` says what they were made of, by which
`tests/test_pictures.py` finds that one is stale. What is in FOLDER already is used again:

    python docs/pictures.py [FOLDER]    default: build/pictures
    python docs/pictures.py --study     docs/five-parts alone, drawn from its results.json
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

DOCS = Path(__file__).parent
COLUMNS = 80
COMMANDS = ("train",)
RUN = "runs/mnist-5k-seed0"
"""Where `train` puts the default preset's run."""

LOOKS = (
    *("report/template/run.*", "report/template/macros.html", "report/template/page.css"),
    *("charts/template/*.css", "charts/template/marks.svg", "charts/template/macros.svg"),
)
"""What decides how the page looks, in the package."""

_GREY = [(110, 119, 129)] * 8
_LIGHT = TerminalTheme((246, 247, 249), (27, 32, 38), [(27, 32, 38), *_GREY[1:]])
_DARK = TerminalTheme((29, 35, 42), (232, 235, 239), [(232, 235, 239), *_GREY[1:]])
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 996 HIGH" role="img">
<style>
.paper {{ fill: #f6f7f9; stroke: #d9dee4; }}
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "Liberation Mono", \
monospace; }}
{styles}
DARK
</style>
<defs>{lines}</defs>
<rect class="paper" x="1" y="1" width="994" height="99%" rx="10"/>
<g transform="translate(10 6)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def record(words: list[str], folder: Path) -> str:
    """What a command shows at last on a terminal of `COLUMNS` columns, with its colours.

    Of a line that is written over, as progress is, the newest text stays.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "simsiam_zoo", *words],
        cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += (new := os.read(ours, 1 << 16))
        except OSError:  # Linux tells the end so
            break
        if not new:
            break
    if process.wait():
        raise SystemExit(f"simsiam-zoo {' '.join(words)} failed: {shown.decode()[-2000:]}")
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in shown.decode().split("\n"))
    return re.sub(r"\x1b\[(?:2K|\?25[lh])", "", "\n".join(lines))


def drawn(text: str) -> str:
    """A terminal's text as SVG, for light and dark pages."""
    svgs = []
    for theme in (_LIGHT, _DARK):
        console = Console(file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True)
        console.print(Text.from_ansi(text))
        svgs.append(console.export_svg(theme=theme, code_format=_SVG, unique_id="t"))
    colors = "".join(re.findall(r"^ *\.t-r\d+ \{.*\}$", svgs[1], re.MULTILINE))
    paper = ".paper { fill: #1d232a; stroke: #343c46; }"
    high = round(24.4 * (text.count("\n") + 1) + 18)  # rich's lines are so many px apart
    dark = f"@media (prefers-color-scheme: dark) {{ {paper} {colors} }}"
    return svgs[0].replace("DARK", dark).replace("HIGH", str(high))


def looks() -> str:
    """A digest of what decides how the page of a run looks."""
    package = DOCS.parent / "simsiam_zoo"
    files = sorted(path for pattern in LOOKS for path in package.glob(pattern))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def shoot(page: Path, out: Path) -> None:
    """The upper part of a page, as a browser of 1100 px shows it."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    from chromium import Chromium
    from PIL import Image

    with tempfile.TemporaryDirectory() as profile, Chromium(Path(profile)) as browser:
        browser.tab("Emulation.setScrollbarsHidden", hidden=True)
        browser.open(page.resolve().as_uri(), 1100, 1780)
        browser.screenshot(out, whole=False)
    with Image.open(out) as image:
        image.convert("RGB").save(out, optimize=True)


def study_files() -> dict[str, str]:
    """What the report of docs/five-parts shows of its results.json, by path within that folder.

    The page and the curves were made of the runs' metrics too, which are not kept there.
    """
    from simsiam_zoo.report.study import read_results
    from simsiam_zoo.report.study_charts import PLOTS, plot_files
    from simsiam_zoo.report.write import render_markdown

    study = read_results(json.loads((DOCS / "five-parts" / "results.json").read_text()))
    plots = plot_files(study, {"loss": [], "std_sqrt_d": [], "top1 ": []})
    files = {f"plots/{name}": svg for name, svg in plots.items()}
    return files | {"report.md": render_markdown(study, list(PLOTS))}


def main(folder: Path) -> None:
    """Train, record, look, draw."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "terminal.json"
    if not kept.exists():
        shown = {words: record(words.split(), folder) for words in COMMANDS}
        kept.write_text(json.dumps(shown))
    shown = json.loads(kept.read_text())
    text = "\n".join(f"\x1b[1m$ simsiam-zoo {words}\x1b[0m\n{shown[words]}" for words in COMMANDS)
    (DOCS / "terminal.svg").write_text(drawn(text.rstrip()))
    record(["look", RUN, "--map", "tsne"], folder)
    shoot(folder / RUN / "look.html", DOCS / "seeing.png")
    result = json.loads((folder / RUN / "result.json").read_text())
    told = {"looks": looks(), "run": RUN, "result": result}
    (DOCS / "pictures.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    for name, text in study_files().items():
        (DOCS / "five-parts" / name).write_text(text)
    if sys.argv[1:] != ["--study"]:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else DOCS.parent / "build" / "pictures"))
