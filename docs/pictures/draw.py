"""The pictures of docs/results.md, drawn by the package itself from simulated studies.

    python docs/pictures/draw.py [--report] [--to FOLDER]

The terminal's are SVG, the same on every machine. With --report those of the page are taken anew,
too, by chromium through playwright.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from click.testing import CliRunner
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.simulated import (  # noqa: E402
    Shape,
    events,
    fifteen_segments,
    study_spec,
    write_study,
)
from hpc_hpo.cli.main import cli  # noqa: E402
from hpc_hpo.cli.screen import Screen  # noqa: E402
from hpc_hpo.cli.tally import Scene, Tally, journal_capacity  # noqa: E402
from hpc_hpo.journal import StudyState  # noqa: E402

#: A picture asks no other machine for a font.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
#: Elements of the page: name of the file, selector, colours.
PARTS = (("timeline", "#timeline-plot", "light"), ("parallel", "#parallel", "dark"))


def console(width: int, height: int = 40) -> Console:
    """One that draws nothing, and remembers what it would have drawn."""
    return Console(
        record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor",
        width=width, height=height, highlight=False, legacy_windows=False,
    )  # fmt: skip


def save(drawn: Console, file: Path, title: str) -> None:
    """Write one picture."""
    text = drawn.export_svg(title=title, theme=MONOKAI, code_format=FORMAT)
    file.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def draw_screen(shape: Shape, share: float, name: str, height: int, to: Path) -> None:
    """What `watch` shows once so much of a study's events have happened."""
    story = list(events(shape))
    state = StudyState()
    for event in story[: int(share * len(story))]:
        state.apply(event)
    now = (state.last_at or 0.0) + 7.0
    tally = Tally(study_spec(shape), lambda: now)
    tally.update(state)
    drawn = console(100, height)
    title = f"{name} in /scratch/{name}"
    drawn.print(Screen(Scene(title, tally, state, journal_capacity(state, now))))
    save(drawn, to / f"watch-{name}.svg", f"hpc-hpo watch {name}")


def draw_commands(folder: Path, calls: Iterable[list[str]], file: Path) -> None:
    """What commands print about a study."""
    drawn = console(100)
    for number, (command, *more) in enumerate(calls):
        found = CliRunner().invoke(cli, [command, str(folder), *more], prog_name="hpc-hpo")
        line = " ".join(["hpc-hpo", command, folder.name, *more])
        drawn.print(Text(("\n" if number else "") + f"$ {line}", style="bold"))
        drawn.print(Text(found.output.rstrip().replace(str(folder), folder.name)))
    save(drawn, file, "hpc-hpo")


def draw_report(folder: Path, to: Path) -> None:
    """Parts of the page, as chromium shows them."""
    from playwright.sync_api import sync_playwright

    CliRunner().invoke(cli, ["report", str(folder)])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, selector, scheme in PARTS:
            page = browser.new_page(
                viewport={"width": 1000, "height": 800},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            page.goto((folder / "report.html").as_uri())
            page.wait_for_selector("html[data-ready]")
            page.add_style_tag(content="nav { display: none !important; }")
            page.locator(selector).screenshot(path=to / f"report-{name}.png")
        browser.close()


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="take the page's pictures, too")
    parser.add_argument("--to", type=Path, default=HERE, metavar="FOLDER", help="not in docs/")
    options = parser.parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    to = options.to
    draw_screen(Shape(200), 0.5, "digits", 24, to)
    draw_screen(fifteen_segments(20), 0.4, "showers", 34, to)
    with tempfile.TemporaryDirectory() as scratch:
        digits = Path(scratch) / "digits"
        digits.mkdir()
        write_study(digits, Shape(200))
        calls = [["best"], ["best", "--params"], ["show", "53"], ["show", "failures"]]
        draw_commands(digits, calls, to / "show.svg")
        if options.report:
            small = Path(scratch) / "small"
            small.mkdir()
            write_study(small, Shape(90))
            draw_report(small, to)


if __name__ == "__main__":
    main()
