"""The report in a real browser, from a file and with the network denied."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.simulated import Shape, early_stopping, fifteen_segments, write_study
from hpc_hpo.cli.main import cli
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import read_events, replay
from hpc_hpo.results.report.material import Material
from hpc_hpo.results.report.page import write_report
from hpc_hpo.study import load_study
from tests import events as ev

pytestmark = pytest.mark.slow

PLOTS = (
    "history-plot", "importance-plot", "slice-plot-0", "slice-plot-1", "contour-plot",
    "curves-plot", "timeline-plot", "load-plot",
)  # fmt: skip
#: Points of a plot's traces, those of gaps not counted.
POINTS = """id => (document.getElementById(id).data || []).reduce(
    (sum, trace) => sum + [...(trace.x || [])].filter(value => value !== null).length, 0)"""
HOSTILE = (
    "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>"
    '<a href="javascript:window.hit=3">%%OWN%%</a>'
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    needed = os.environ.get("HPC_HPO_NEEDS_CHROMIUM")
    if program is None:
        if needed:
            pytest.fail("there is no chromium")
        pytest.skip("there is no chromium")
    name = "playwright.sync_api"
    api = importlib.import_module(name) if needed else pytest.importorskip(name)
    with api.sync_playwright() as playwright:
        # No sandbox: tests run as root, too.
        chromium = playwright.chromium.launch(
            executable_path=program, headless=True, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


class Opened:
    """A page, and what it complained of or asked the network for."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(
            offline=True, **{"viewport": {"width": 1280, "height": 900}, **options}
        )
        self.complaints: list[str] = []
        self.context.route("**/*", self._judge)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    def _judge(self, route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.complaints.append(f"asked for {route.request.url}")
            route.abort()

    def points(self, plot: str) -> int:
        found: int = self.page.evaluate(POINTS, plot)
        return found


def report_of(folder: StudyFolder, now: float = 2e9) -> Path:
    study = load_study(folder.study).to_dict()
    target = folder.path / "report.html"
    state = replay(read_events(folder.journal))
    write_report([Material(folder, study, state, now)], target)
    return target


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(write_study(tmp_path_factory.mktemp("small"), Shape(200)))


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(write_study(tmp_path_factory.mktemp("segmented"), fifteen_segments(20)))


def test_that_every_plot_of_two_hundred_trials_has_data(browser: Any, small: Path) -> None:
    opened = Opened(browser, small)
    empty = [plot for plot in PLOTS if opened.points(plot) == 0]
    assert not empty
    lines = opened.page.locator("#parallel path[data-trial]").count()
    assert lines == opened.page.evaluate("document.getElementById('history-plot').data[0].x.length")
    assert lines > 150
    assert opened.page.locator("#failures details").count() >= 2
    assert opened.complaints == []
    opened.context.close()


#: Where each of some slices lies on the screen once it is scrolled to, and what it is to tell.
PLACE = """([trace, i]) => {
  const plot = document.getElementById('timeline-plot'), l = plot._fullLayout;
  const own = plot.data.filter(t => t.meta === 'slices')[trace];
  const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
  window.scrollBy(0, box.top + l.yaxis.d2p(own.y[i]) - 400);
  const now = plot.querySelector('.nsewdrag').getBoundingClientRect();
  return {x: now.left + l.xaxis.d2p(own.base[i] + own.x[i] / 2), y: now.top + l.yaxis.d2p(own.y[i]),
          width: l.xaxis.d2p(own.x[i]) - l.xaxis.d2p(0), text: own.hovertext[i].split(',')[0]};
}"""


def test_that_hovering_a_slice_shows_its_trial(browser: Any, small: Path) -> None:
    opened = Opened(browser, small)
    page = opened.page
    page.locator("#timeline-plot").scroll_into_view_if_needed()
    counts = page.evaluate(
        "document.getElementById('timeline-plot').data.filter(t => t.meta === 'slices')"
        ".map(t => t.x.length)"
    )
    # Those of every end, long ones and short ones, over the whole plot.
    some = [(t, i) for t, n in enumerate(counts) for i in range(0, n, max(1, n // 6))]
    told = 0
    for trace, i in some:
        at = page.evaluate(PLACE, [trace, i])
        if at["width"] < 3:
            continue
        page.mouse.move(5, 5)
        page.wait_for_selector("#timeline-plot .hoverlayer .hovertext", state="detached")
        page.mouse.move(at["x"] - 1, at["y"])
        page.mouse.move(at["x"], at["y"])
        page.wait_for_selector("#timeline-plot .hoverlayer .hovertext", timeout=10_000)
        assert at["text"].startswith("trial ")
        assert at["text"] + "," in str(page.locator("#timeline-plot .hoverlayer").text_content())
        assert page.locator("#slice-panel").inner_text().startswith(at["text"] + ",")
        told += 1
    assert told > 15
    opened.context.close()


def test_that_the_page_is_used_by_keyboard_alone(browser: Any, small: Path) -> None:
    opened = Opened(browser, small)
    page = opened.page
    page.get_by_role("button", name="next slice").focus()
    page.keyboard.press("Enter")
    assert page.locator("#slice-panel").inner_text().startswith("trial ")
    page.get_by_role("slider", name="lowest dropout").focus()
    for _ in range(10):
        page.keyboard.press("ArrowUp")
    off = page.locator("#parallel path.off").count()
    assert 0 < off < page.locator("#parallel path[data-trial]").count()
    page.get_by_role("button", name="by node-hours").focus()
    page.keyboard.press("Space")
    title = page.evaluate("document.getElementById('history-plot').layout.xaxis.title.text")
    assert title == "node-hours"
    assert opened.complaints == []
    opened.context.close()


def test_that_fifteen_segments_have_their_plots_and_their_heat_map(
    browser: Any, segmented: Path
) -> None:
    opened = Opened(browser, segmented)
    page = opened.page
    assert page.locator(".multiples button").count() == 15
    shape = page.evaluate(
        "(z => [z.length, z[0].length, z.flat().filter(v => v !== null).length])"
        "(document.getElementById('heat-plot').data[0].z)"
    )
    assert sorted(shape[:2]) == [3, 5] and shape[2] == 15
    for name in ("pid22_eta0", "pid211_eta80"):
        page.locator(f".multiples button[data-segment={name}]").click()
        empty = [plot for plot in (*PLOTS, "pooled-plot") if opened.points(plot) == 0]
        assert not empty, name
    assert opened.complaints == []
    opened.context.close()


def test_that_the_rungs_of_a_study_stopped_early_are_drawn_and_told(
    browser: Any, tmp_path: Path
) -> None:
    opened = Opened(browser, report_of(write_study(tmp_path, early_stopping(200))))
    page = opened.page
    assert [plot for plot in PLOTS if opened.points(plot) == 0] == []
    drawn = page.evaluate(
        "(p => [p.layout.shapes.map(s => s.x0), p.data.map(t => t.name).filter(n => n)])"
        "(document.getElementById('curves-plot'))"
    )
    assert drawn[0] == [3, 9]
    assert "stopped early, or not completed" in drawn[1]
    assert "stopped early" in page.locator("#history figcaption").inner_text()
    opened.context.close()


def test_that_slices_and_contours_are_of_the_chosen_pair(browser: Any, small: Path) -> None:
    opened = Opened(browser, small)
    page = opened.page
    page.get_by_role("combobox", name="first parameter").select_option(label="lr")
    page.get_by_role("combobox", name="second parameter").select_option(label="dropout")
    titles = page.evaluate(
        """['slice-plot-0', 'slice-plot-1', 'contour-plot'].map(id => {
          const l = document.getElementById(id).layout;
          return [l.xaxis.title.text, l.yaxis.title.text, l.xaxis.type];
        })"""
    )
    assert titles == [
        ["lr", "loss", "log"], ["dropout", "loss", "linear"], ["lr", "dropout", "log"]
    ]  # fmt: skip
    assert page.evaluate("document.getElementById('contour-plot').data[0].type") == "contour"
    labels = page.locator("#slice-plot-0 .xtick text").all_text_contents()
    assert "0.001" in labels and "0.01" in labels
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_that_nothing_sticks_out_of_a_narrow_window(
    browser: Any, segmented: Path, scheme: str
) -> None:
    opened = Opened(browser, segmented, viewport={"width": 400, "height": 800}, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 400
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(int(part) for part in background[4:-1].split(",")) < 3 * 128
    assert dark == (scheme == "dark")
    assert opened.complaints == []
    opened.context.close()


def test_that_the_page_prints(browser: Any, small: Path) -> None:
    opened = Opened(browser, small)
    assert len(opened.page.pdf()) > 50_000
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    heights = "[...document.querySelectorAll('.plot')].map(p => p.offsetHeight)"
    assert max(opened.page.evaluate(heights)) <= 820, "no plot is on two sheets"
    assert opened.complaints == []
    opened.context.close()


def hostile_study(folder: Path) -> Path:
    """A study of which every text that a person or a payload may write is an attack."""
    home = write_study(folder, Shape(0, {HOSTILE: {}}))
    home.study.unlink()
    story = [
        ev.run(),
        ev.block("b0", "running", ev.START, started=ev.START, workers=2, reason=HOSTILE),
    ]
    for trial in range(20):
        at = ev.START + 100.0 * trial + 100
        point = {HOSTILE: HOSTILE + str(trial % 3), "x" + HOSTILE: trial, "y": 20 - trial}
        own = {"segment": HOSTILE if trial % 2 else "b"}
        reports = [[s, {HOSTILE: 1.0 / s}] for s in (1, 2)]
        error = {"kind": HOSTILE, "message": HOSTILE, "traceback": HOSTILE, "log_tail": HOSTILE}
        names = {"host": HOSTILE, "worker": HOSTILE, "reason": HOSTILE, "reports": reports}
        story += [
            {**ev.asked(trial, point, at), **own}, ev.submit(trial, 1, at),
            ev.end(trial, 1, "failed", "paused", at=at + 20, error=error, **names),
            ev.submit(trial, 2, at + 20),
            ev.end(trial, 2, "completed", "completed", at=at + 90, loss=float(trial), **names),
        ]  # fmt: skip
    for number, name in enumerate((HOSTILE, "b")):
        spec = {"values": {"p": 1, "q": number, HOSTILE: HOSTILE}}
        story.append({"e": "segment", "op": "add", "segment": name, "spec": spec, "at": ev.START})
    study = {"name": HOSTILE, "site": HOSTILE, "optimizer": {"name": HOSTILE}, "direction": HOSTILE}
    target = folder / "report.html"
    write_report([Material(home, study, replay(story), ev.START + 1e4)], target)
    both = [Material(home, {**study, "seed": s}, replay(story), ev.START + 1e4) for s in (1, 2)]
    write_report(both, folder / "compare.html")
    return target


def test_that_no_text_of_a_study_runs_as_script(browser: Any, tmp_path: Path) -> None:
    target = hostile_study(tmp_path)
    for file in (target, target.with_name("compare.html")):
        opened = Opened(browser, file)
        page = opened.page
        for plot in page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.hover()
        for closed in page.locator("details").all():
            closed.locator("summary").click()
        page.wait_for_timeout(300)
        assert page.evaluate("window.hit") is None
        # Whatever a policy would have stopped must not even have become an element.
        assert page.locator("body img, body a[href^='javascript'], svg a").count() == 0
        assert page.locator("script").count() == 3
        assert HOSTILE in page.locator("h1").inner_text()
        assert opened.complaints == []
        opened.context.close()


def test_that_the_page_s_policy_stops_a_script_that_is_not_its_own(
    browser: Any, small: Path, tmp_path: Path
) -> None:
    page = small.read_text().replace("<footer", "<script>window.hit=1</script><footer")
    (tmp_path / "changed.html").write_text(page)
    opened = Opened(browser, tmp_path / "changed.html")
    assert opened.page.evaluate("window.hit") is None
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.context.close()


def test_that_failures_show_the_ends_of_their_logs(browser: Any, small: Path) -> None:
    opened = Opened(browser, small)
    groups = opened.page.locator("#failures details")
    for group in groups.all():
        group.locator("summary").click()
    logs = opened.page.locator("#failures pre").all_inner_texts()
    assert any("RuntimeError: CUDA" in text for text in logs)
    assert "[object" not in opened.page.locator("body").inner_text()
    opened.context.close()


def test_that_two_studies_lie_over_each_other(browser: Any, tmp_path: Path) -> None:
    found = []
    for number, trials in enumerate((30, 40)):
        folder = write_study(tmp_path / str(number), Shape(trials, seed=number))
        study = load_study(folder.study).to_dict()
        found.append(Material(folder, study, replay(read_events(folder.journal)), 2e9))
    write_report(found, tmp_path / "compare.html")
    opened = Opened(browser, tmp_path / "compare.html")
    assert opened.page.evaluate("document.getElementById('compare-plot').data.length") == 2
    differ = opened.page.locator("#settings tr.differs").all_inner_texts()
    assert any("budget.trials" in text and "30" in text and "40" in text for text in differ)
    assert opened.complaints == []
    opened.context.close()


def test_that_a_study_without_trials_says_so(browser: Any, tmp_path: Path) -> None:
    empty = Material(StudyFolder(tmp_path), {"name": "new"}, replay([]), ev.START)
    write_report([empty], tmp_path / "report.html")
    opened = Opened(browser, tmp_path / "report.html")
    assert "No trial has a loss yet." in opened.page.locator("#best").inner_text()
    assert opened.complaints == []
    opened.context.close()


def test_that_the_page_of_a_simulation_draws_its_queue(browser: Any, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: modelled\nobjective: o.py:f\nspace: {x: {float: [0, 1]}}\noptimizer: random\n"
        "budget: {trials: 30}\ntrial: {expected_time: 10m}\n"
    )
    page = tmp_path / "page.html"
    arguments = ["--site", "summit", "--nodes", "2", "--cpu", "0", "--plot", str(page)]
    done = CliRunner().invoke(cli, ["simulate", str(study), *arguments])
    assert done.exit_code == 0, done.output
    opened = Opened(browser, page)
    plots = ("queue-plot", "history-plot", "timeline-plot", "load-plot")
    assert [plot for plot in plots if opened.points(plot) == 0] == []
    assert opened.page.locator("#simulated .legend li").count() >= 3
    assert opened.complaints == []
    opened.context.close()
