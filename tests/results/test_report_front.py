"""The front of several objectives in a real browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import seal
from tests import events as ev
from tests.results.test_report_browser import Opened, report_of
from tests.results.test_report_browser import browser as browser

pytestmark = pytest.mark.slow


#: Of trial n of 60; the second is maximised, and of the third many are equal.
def _three(n: int) -> list[float]:
    x = (n * 37 % 60) / 60
    return [x, 1 - (x - 1) ** 2 - (n % 7) / 10, float(n % 3)]


@pytest.mark.parametrize("count", [2, 3])
def test_that_a_front_is_drawn_and_each_objective_has_its_history(
    browser: Any, tmp_path: Path, count: int
) -> None:
    names = ["error <b>", "gain", "cost"]
    objectives = [
        f"{{name: '{name}', direction: {'maximize' if i == 1 else 'minimize'}, reference: 1}}"
        for i, name in enumerate(names[:count])
    ]
    folder = StudyFolder(tmp_path / "several")
    folder.make()
    folder.study.write_text(
        "name: several\nobjective: o.py:f\nspace: {x: {float: [0, 1]}, y: {float: [0, 1]}}\n"
        f"budget: {{trials: 60}}\nobjectives: [{', '.join(objectives)}]\n"
    )
    history = [ev.run()]
    for n in range(60):
        values, at = _three(n)[:count], ev.START + 60.0 * n
        history += [ev.asked(n, {"x": n / 60, "y": 0.5}, at), ev.submit(n, 1, at)]
        history.append(
            ev.end(n, 1, "completed", "completed", at=at + 50, loss=values[0], values=values)
        )
    folder.journal.write_bytes(b"".join(map(seal, history)))
    opened = Opened(browser, report_of(folder))
    page = opened.page
    listed = page.locator("#front tbody tr").count()
    drawn = "document.getElementById('front-plot').data.map(t => t.x.length)"
    others, front = page.evaluate(drawn)
    assert (front, others + front) == (listed, 60) and 2 <= front < 60
    assert f"{front} trials of 60" in (page.locator("#front").text_content() or "")
    shape = page.evaluate("document.getElementById('front-plot').data[1].line.shape")
    assert shape == "hv"
    title = "document.getElementById('history-plot').layout.yaxis.title.text"
    assert page.evaluate(title) == "error &lt;b&gt;"
    page.locator("#history select").select_option("1")
    assert page.evaluate(title) == "gain (maximised)"
    best = "document.getElementById('history-plot').data.find(t => t.name === 'best so far').y"
    rising = page.evaluate(best)
    assert rising == sorted(rising) and rising[-1] > rising[0]
    if count == 3:
        page.locator("#front select").nth(1).select_option("2")
        last = "document.getElementById('front-plot').layout.yaxis.title.text"
        assert page.evaluate(last) == "cost"
    assert opened.complaints == []
    if where := os.environ.get("HPC_HPO_PICTURES"):
        page.locator("#front").screenshot(path=f"{where}/report-front-{count}.png")
    opened.context.close()
