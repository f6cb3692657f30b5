"""What simulated trials have for a loss: functions, learning curves, tables."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hpc_hpo.cli.main import cli
from hpc_hpo.journal import StudyState, read_events, replay
from hpc_hpo.model import TrialState
from hpc_hpo.simulate.functions import FUNCTIONS
from hpc_hpo.simulate.objectives import objective_named, smooth
from hpc_hpo.study.load import load_study
from hpc_hpo.units import format_duration

STUDY = """\
name: modelled
objective: objective.py:train
space: {x: {float: [-5, 10]}, y: {float: [0, 15]}}
optimizer: random
budget: {trials: 60}
trial: {expected_time: 10m}
site: local
blocks: {walltime: 2h, max: 2, workers_per_node: 2}
"""
ASHA = "fidelity: {policy: asha, min: 1, max: 27, eta: 3}\n"
GRID = """\
name: tabled
objective: objective.py:train
space: {width: {int: [1, 4]}, act: {choice: [relu, tanh]}}
optimizer: random
budget: {trials: 8}
site: local
"""


def run(folder: Path, *arguments: str, text: str = STUDY) -> Result:
    (folder / "study.yaml").write_text(text)
    every = ["simulate", str(folder / "study.yaml"), "--cpu", "0", *arguments]
    return CliRunner().invoke(cli, every)


def kept(folder: Path, *arguments: str, text: str = STUDY) -> StudyState:
    done = run(folder, "--keep", str(folder / "kept"), *arguments, text=text)
    assert done.exit_code == 0, done.output
    return replay(read_events(folder / "kept" / "journal.jsonl"))


def table(folder: Path, *lines: str) -> str:
    file = folder / "table.csv"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_that_no_random_point_is_below_a_function_s_lowest(name: str) -> None:
    function, rng = FUNCTIONS[name], np.random.default_rng(1)
    dims = function.dims or 4
    losses = [function.at(rng.random(dims)) for _ in range(2000)]
    assert min(losses) >= function.optimum
    assert max(losses) > function.optimum + 1.0


def test_that_a_named_function_is_searched_over_the_study_s_space(tmp_path: Path) -> None:
    text = STUDY.replace("random", "bayes")
    state = kept(tmp_path, "--objective", "branin", text=text)
    best = min(t.loss for t in state.trials.values() if t.loss is not None)
    assert 0.0 <= best < 2.0, "Branin's function has its minima at 0 here"
    (file := tmp_path / "study.yaml").write_text(STUDY)
    study = load_study(file)
    objective = objective_named("branin", study, 0)(None, study.space)
    assert objective.loss({"x": math.pi, "y": 2.275}, 20, 20) == pytest.approx(0.0, abs=1e-4)


def test_that_the_best_loss_is_printed_against_time(tmp_path: Path) -> None:
    done = run(tmp_path, "--objective", "branin", "--trials", "200", "--json")
    best = json.loads(done.output)["best"]
    assert best == sorted(best) and [loss for _, loss in best] == sorted(
        (loss for _, loss in best), reverse=True
    )
    text = run(tmp_path, "--objective", "branin", "--trials", "200").output
    lines = [line for line in text.splitlines() if " after " in line]
    assert 1 < len(lines) <= min(8, len(best))
    assert lines[0].split()[:2] == ["best", "loss"]
    at, loss = best[-1]
    assert f"{loss:.6g} after {format_duration(round(at))}" in lines[-1]
    assert "of the assumed function" in run(tmp_path).output


def test_that_a_study_that_maximises_has_the_function_upside_down(tmp_path: Path) -> None:
    state = kept(tmp_path, "--objective", "branin", text=STUDY + "direction: maximize\n")
    losses = [t.loss for t in state.trials.values() if t.loss is not None]
    assert max(losses) <= 0.0
    assert max(losses) > -20.0


def test_that_a_learning_curve_falls_to_the_last_loss_as_a_power_law(tmp_path: Path) -> None:
    (file := tmp_path / "study.yaml").write_text(STUDY)
    study = load_study(file)
    objective = smooth(study, 3)(None, study.space)
    point = {"x": 1.0, "y": 2.0}
    curve = np.array([objective.loss(point, step, 81) for step in range(1, 82)])
    assert (np.diff(curve) < 0).all()
    above = curve[:-1] - curve[-1]
    basis = np.arange(1, 81) ** -0.5 - 81**-0.5
    assert above / basis == pytest.approx(above[0] / basis[0])
    other = objective.loss({"x": 1.5, "y": 2.0}, 1, 81) - objective.loss(
        {"x": 1.5, "y": 2.0}, 81, 81
    )
    assert other != pytest.approx(above[0], rel=1e-3), "each point has a height of its own"


@pytest.mark.parametrize("checkpoints", ["--checkpoints", "--no-checkpoints"])
def test_that_rungs_hear_of_the_curve_and_not_of_the_end(tmp_path: Path, checkpoints: str) -> None:
    state = kept(tmp_path, "--objective", "branin", checkpoints, text=STUDY + ASHA)
    trials = state.trials.values()
    early = [t for t in trials if t.state is TrialState.STOPPED]
    done = [t for t in trials if t.state is TrialState.COMPLETED]
    assert len(early) > len(done) > 0
    for trial in done:
        assert sorted(trial.reports) == list(range(1, 28))
        losses = [trial.reports[step]["loss"] for step in sorted(trial.reports)]
        assert all(a > b for a, b in itertools.pairwise(losses))
        assert losses[-1] == trial.loss
    assert {max(t.reports) for t in early} <= {1, 3, 9}


def test_that_a_function_may_draw_its_own_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_curve.py").write_text("def f(point, step):\n    return 100 - step\n")
    state = kept(tmp_path, "--objective", "own_curve:f", text=STUDY + ASHA)
    done = [t for t in state.trials.values() if t.state is TrialState.COMPLETED]
    assert done
    assert all(t.reports[9]["loss"] == 91 and t.loss == 73 for t in done)


def test_that_a_loss_that_is_no_number_fails_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "def f(point):\n    return float('nan') if point['x'] > 0 else 1.0\n"
    (tmp_path / "own_nan.py").write_text(text)
    state = kept(tmp_path, "--objective", "own_nan:f")
    for trial in state.trials.values():
        assert (trial.state is TrialState.FAILED) == (trial.point["x"] > 0)
    assert state.trial_states["failed"] > 0


SEVERAL = STUDY + "objectives: [{name: error}, {name: speed, direction: maximize}]\n"


def test_that_several_objectives_are_simulated_and_one_loss_is_refused_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "def f(point):\n    return {'speed': point['x'], 'error': point['y'], 'more': 1}\n"
    (tmp_path / "own_two.py").write_text(text)
    state = kept(tmp_path, "--objective", "own_two:f", text=SEVERAL)
    for trial in state.trials.values():
        assert trial.values == [trial.point["y"], trial.point["x"]]
        assert trial.loss == trial.point["y"]
    done = run(tmp_path, text=SEVERAL.replace("random", "bayes"))
    assert done.exit_code == 0 and "60 completed" in done.output
    check(run(tmp_path, "--objective", "branin", text=SEVERAL), ["branin", "several objectives"])
    file = table(tmp_path, "x,y,loss", "1,1,1")
    check(run(tmp_path, "--table", file, text=SEVERAL), ["--table", "several objectives"])


# ---------------------------------------------------------------- tables


def test_that_a_table_gives_losses_curves_and_times(tmp_path: Path) -> None:
    lines = ["width,act,epoch,loss,time"]
    for width, act in itertools.product(range(1, 5), ("relu", "tanh")):
        for epoch in (1, 3, 9):
            lines.append(f"{width},{act},{epoch},{width / epoch},{100 * width * epoch}")
    text = GRID + "fidelity: {policy: median, min: 3, max: 9}\n"
    state = kept(tmp_path, "--table", table(tmp_path, *lines), text=text)
    for trial in state.trials.values():
        assert trial.state is TrialState.COMPLETED
        width = trial.point["width"]
        assert trial.loss == width / 9
        assert trial.reports[5]["loss"] == width / 3
        assert trial.spent_s == pytest.approx(900 * width, rel=0.1)


def test_that_a_point_that_a_table_lacks_has_the_loss_of_its_nearest(tmp_path: Path) -> None:
    file = table(tmp_path, "act,width,loss", "relu,1,1.0", "relu,4,4.0", "tanh,1,10", "tanh,1,30")
    done = run(tmp_path, "--table", file, "--trial-time", "10m", "--keep", str(tmp_path / "kept"),
               text=GRID)  # fmt: skip
    state = replay(read_events(tmp_path / "kept" / "journal.jsonl"))
    nearest = {("relu", 1): 1, ("relu", 2): 1, ("relu", 3): 4, ("relu", 4): 4}
    for trial in state.trials.values():
        # Lines of one point are repetitions: their mean counts.
        loss = nearest.get((trial.point["act"], trial.point["width"]), 20)
        assert trial.loss == loss
    asked = {(t.point["act"], t.point["width"]) for t in state.trials.values()}
    known = asked & {("relu", 1), ("relu", 4), ("tanh", 1)}
    assert f"{len(known)} of {len(asked)} points are in it" in done.output


def test_that_the_export_of_a_study_is_a_table(tmp_path: Path) -> None:
    first = kept(tmp_path, "--trial-time", "uniform(5m, 15m)", "--objective", "branin")
    file = tmp_path / "trials.csv"
    done = CliRunner().invoke(
        cli, ["export", str(tmp_path / "kept"), "--format", "csv", "-o", str(file)]
    )
    assert done.exit_code == 0, done.output
    (tmp_path / "again").mkdir()
    second = kept(tmp_path / "again", "--table", str(file))
    assert len(second.trials) == len(first.trials)
    for number, trial in first.trials.items():
        # The same seed asks the same points of a search that learns nothing.
        assert second.trials[number].loss == trial.loss
        assert second.trials[number].spent_s == pytest.approx(trial.spent_s, rel=0.05)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--objective", "bramin"], ["--objective: no such function", "did you mean 'branin'"]),
    (["--objective", "hartmann6"], ["hartmann6 takes 6 numbers, and the space has 2"]),
    (["--objective", "own_bad:f"], ["own_bad:f raised KeyError: 'z'", "--objective"]),
    (["--objective", "own_bad:text"], ["own_bad:text returned something else; found 'low'"]),
    (["--objective", "branin", "--table", "t.csv"], ["--objective: a table has the losses"]),
    (["--table", "nothing.csv"], ["nothing.csv: --table: cannot be read"]),
])  # fmt: skip
def test_that_an_objective_that_is_none_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "def f(point):\n    return point['z']\n\n\ndef text(point):\n    return 'low'\n"
    (tmp_path / "own_bad.py").write_text(text)
    check(run(tmp_path, *arguments), words)


@pytest.mark.parametrize(("lines", "words"), [
    (["width,act", "1,relu"], ["table.csv:1: --table: there is no column loss"]),
    (["width,loss", "1,2"], ["table.csv:1: act: there is no column of this parameter"]),
    (["width,act,los,loss", "1,relu,2,2"], ["unknown column", "did you mean 'loss'"]),
    (["width,act,loss", "1,relu"], ["table.csv:2: the line has another number of cells"]),
    (["width,act,loss", "1,relu,low"], ["table.csv:2: loss: not a finite number; found 'low'"]),
    (["width,act,loss", "9,relu,1"], ["table.csv:2: width: not a valid value; found 9"]),
    (["width,act,loss"], ["--table: no line has a loss"]),
    (["width,act,loss,step", "1,relu,1,0.5"], ["table.csv:2: step: not a step"]),
    (["width,act,loss,time", "1,relu,1,-5"], ["table.csv:2: time: not a time"]),
    (["width,act,loss", "1,relu,1"], ["trial.expected_time"]),
])  # fmt: skip
def test_that_what_is_wrong_with_a_table_is_said_with_its_line(
    tmp_path: Path, lines: list[str], words: list[str]
) -> None:
    check(run(tmp_path, "--table", table(tmp_path, *lines), text=GRID), words)


def test_that_a_table_s_curves_reach_the_study_s_last_step(tmp_path: Path) -> None:
    file = table(tmp_path, "width,act,loss,step", "1,relu,1,5")
    text = GRID + "fidelity: {policy: asha, max: 27}\n"
    check(run(tmp_path, "--table", file, text=text), ["fidelity.max; found 5"])
    check(run(tmp_path, "--steps", "5", text=STUDY + ASHA), ["--steps: ", "found 5"])


def check(done: Result, words: list[str]) -> None:
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    for word in words:
        assert word in done.output
