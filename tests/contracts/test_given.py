"""Studies of points that somebody else has chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.contracts.given import with_points
from hpc_hpo.errors import InputError
from hpc_hpo.optimizers.registry import create
from hpc_hpo.study import load_study

PLAIN = """
name: s
command: [sh, -c, "echo {{}} 0.10"]
contract: evaluation
checkpoint: {files: [a], every: 90s}
space: {lr: {float: [0, 1]}, n: {int: [1, 9]}}
budget: {trials: 30, parallel: 2, wall_time: 1h}
env: {RATE: 0.10}
"""
SEGMENTED = """
name: s
command: [sh, -c, "echo {segment.pid}"]
contract: evaluation
space: {lr: {float: [0, 1]}, n: {int: [1, 9]}}
budget: {trials: 30}
inputs: [{name: d, source: "d{segment.pid}"}, {name: b, source: b}]
segments: {table: {pid: [1, 2, 3]}, changes: [{where: pid == 2, space: {n: null}}]}
"""
P, Q = {"lr": 0.5, "n": 1}, {"lr": 0.25, "n": 2}


def test_that_the_points_are_the_whole_search(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(PLAIN)
    study = load_study(tmp_path / "s.yaml")
    given = with_points(study, {None: [P, Q, P]})
    assert given.budget.trials == 2
    assert (given.budget.parallel, given.budget.wall_time) == (2, None)
    assert (given.command, given.env, given.folder) == (study.command, study.env, study.folder)
    optimizer = create(given.optimizer.spec(), given.space, 0, budget=2)
    assert optimizer.ask(range(9)) == [P, Q]
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(given.text)
    assert load_study(frozen).to_dict() == given.to_dict()


def test_that_segments_without_points_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SEGMENTED)
    study = load_study(tmp_path / "s.yaml")
    given = with_points(study, {"pid2": [{"lr": 0.5}], "pid3": [P, Q]})
    assert list(given.segments) == ["pid2", "pid3"]
    assert [given.segments.trials(name) for name in given.segments] == [1, 2]
    assert given.segments["pid2"].space.names == ["lr"]
    assert given.segments["pid2"].values == {"pid": 2, "model_id": 1}
    sources = {(i.name, i.segment): i.source for i in given.all_inputs()}
    assert sources == {("b", None): "b", ("d", "pid2"): "d2", ("d", "pid3"): "d3"}


def test_that_a_point_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(PLAIN)
    with pytest.raises(InputError, match="lr: not a valid value"):
        with_points(load_study(tmp_path / "s.yaml"), {None: [{"lr": 2, "n": 1}]})


def test_that_a_segment_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SEGMENTED)
    study = load_study(tmp_path / "s.yaml")
    assert study.segments.by_number(2) == "pid3"
    given = with_points(study, {"pid3": [P]})
    assert given.segments.number("pid3") == 2
    assert given.segments.by_number(2) == "pid3"
    assert given.segments.by_number(0) is None
