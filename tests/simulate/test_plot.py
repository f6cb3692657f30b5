"""The page of a simulated study."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_hpo.cli.main import cli
from hpc_hpo.journal import StudyState
from hpc_hpo.simulate.clock import START
from hpc_hpo.simulate.plot import jobs

STUDY = """\
name: drawn
objective: objective.py:train
space: {x: {float: [0, 1]}, y: {float: [0, 1]}}
optimizer: random
budget: {trials: 40}
trial: {expected_time: 10m, cores_per_rank: 7, gpus_per_rank: 1}
"""


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_that_the_page_has_the_parts_the_queue_and_every_worker_s_lane(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    page = tmp_path / "page.html"
    arguments = ["--site", "summit", "--nodes", "2", "--cpu", "0", "--plot", str(page), "--json"]
    done = CliRunner().invoke(cli, ["simulate", str(tmp_path / "study.yaml"), *arguments])
    assert done.exit_code == 0, done.output
    printed, data = json.loads(done.output), data_of(page)
    shown = data["simulated"]
    assert "summit" in shown["words"]
    assert {name: share for name, share, _ in shown["parts"]} == pytest.approx(
        {name: part["share"] for name, part in printed["parts"].items()}
    )
    assert sum(share for _, share, _ in shown["parts"]) == pytest.approx(1.0)
    assert shown["jobs"]["waiting"][0] == 1 and shown["jobs"]["running"][0] == 0
    assert max(shown["jobs"]["running"]) >= 1
    timeline = data["timeline"]
    # 2 nodes of 6 workers, and each ran something: the trials are 40.
    first = next(block for block in timeline["blocks"] if block["lane"] == 0)
    assert first["lanes"] == 12
    assert set(timeline["slices"]["lane"]) >= set(range(12))
    by_lane: dict[int, list[tuple[float, float]]] = {}
    slices = timeline["slices"]
    for lane, start, end in zip(slices["lane"], slices["start"], slices["end"], strict=True):
        by_lane.setdefault(lane, []).append((start, end))
    for spans in by_lane.values():
        spans.sort()
        assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(spans))
    losses = data["groups"][0]["history"]["best"]["loss"]
    assert losses == pytest.approx([loss for _, loss in printed["best"]])


def test_that_jobs_are_counted_from_their_request_to_their_end() -> None:
    state = StudyState()
    state.apply({"e": "run", "run": 1, "at": START, "version": "0", "site": "summit"})
    for at, block, facts in [
        (0, "1.0", {"state": "requested", "requested": START}),
        (0, "1.1", {"state": "requested", "requested": START}),
        (3600, "1.0", {"state": "running", "started": START + 3600, "workers": 6}),
        (7200, "1.1", {"state": "ended", "ended": START + 7200, "reason": "released"}),
        (9000, "1.0", {"state": "ended", "ended": START + 9000, "reason": "walltime"}),
    ]:
        state.apply({"e": "block", "block": block, "at": START + at, **facts})
    assert jobs(state) == {
        "hours": [0.0, 1.0, 2.0, 2.5], "waiting": [2, 1, 0, 0], "running": [0, 1, 1, 0],
    }  # fmt: skip


@pytest.mark.parametrize(("target", "word"), [
    ("page.svg", "ends in .html"), ("nowhere/page.html", "there is no folder"),
    ("folder.html", "is a folder"),
])  # fmt: skip
def test_that_a_page_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, target: str, word: str
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "folder.html").mkdir()
    arguments = ["--site", "summit", "--nodes", "4608", "--trials", "1000000000", "--plot"]
    done = CliRunner().invoke(
        cli, ["simulate", str(tmp_path / "study.yaml"), *arguments, str(tmp_path / target)]
    )
    assert done.exit_code == 2
    assert "--plot" in done.output and word in done.output
