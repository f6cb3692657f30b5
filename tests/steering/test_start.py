"""Studies that begin with the results and points of others."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from hpc_hpo.cli.main import cli
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import SealedWriter, seal
from hpc_hpo.journal import read_events, replay
from hpc_hpo.launch import SteeringRun, open_study, site_of, start_report
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.steering.search import FIRST_GIVEN
from hpc_hpo.steering.start import gather

SPACE = {"x": {"float": [0, 1]}, "act": {"choice": ["relu", "tanh"]}}


def write(folder, name, *, space=None, trials=6, optimizer="random", **more):
    """A study file in a folder of its own; its path."""
    room = folder / f"{name}.in"
    room.mkdir(exist_ok=True)
    (room / "objective.py").write_text("def train(config):\n    return config['x']\n")
    content = {
        "name": name, "objective": "objective.py:train", "space": space or SPACE,
        "optimizer": optimizer, "budget": {"trials": trials}, **more,
    }  # fmt: skip
    (room / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return room / "study.yaml"


def completed(request):
    loss = request["point"]["x"]
    return {
        "run": request["run"], "trial": request["trial"], "slice": request["slice"],
        "end": "completed", "loss": loss, "started": 1.0, "ended": 2.0,
    }  # fmt: skip


def run(path, execute=completed, **options):
    """One run of a study: (the run, its outcome)."""
    study, folder = open_study(path)
    steering = SteeringRun(study, site_of(study), folder)
    steering.open()
    try:
        return steering, steering.steer(pilot=InlinePilot(execute, 1), **options)
    finally:
        steering.close()


def folder_of(path):
    return path.parent / path.parent.name.removesuffix(".in")


@pytest.fixture(name="old")
def _old(tmp_path):
    path = write(tmp_path, "old")
    run(path)
    return str(folder_of(path))


def started(tmp_path, *sources, **options):
    study, _ = open_study(write(tmp_path, "new", start_from=list(sources), **options))
    return gather(study)


def test_that_results_of_another_study_are_told_and_spend_no_budget(tmp_path, old):
    path = write(tmp_path, "new", trials=4, start_from=[{"study": old}])
    steering, outcome = run(path)
    assert steering.notes[0] == f"started from {old}: 6 results told"
    assert len(outcome.state.trials) == 4
    assert outcome.state.best().id in outcome.state.trials
    seat = next(iter(steering.opening.portfolio()._seats.values()))
    assert len(seat.record.told) == 6
    assert [g.loss for g in seat.record.told] == [g.point["x"] for g in seat.record.told]
    known = {str(g.point) for g in seat.record.told}
    assert not known & {str(t.point) for t in outcome.state.trials.values()}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_that_the_optimiser_learns_the_losses_with_the_sign_of_the_study(tmp_path, direction):
    points = [{"point": {"x": 0.5, "act": "tanh"}, "loss": 3.0}]
    path = write(tmp_path, "new", trials=9, direction=direction, start_from=[{"points": points}])
    turns = iter(range(1000))
    steering, _ = run(path, stop=lambda: "now" if next(turns) == 2 else "")
    searches = steering.opening.portfolio()
    optimizer = searches._optimizer(searches._seats[None])
    assert optimizer.losses[FIRST_GIVEN] == (3.0 if direction == "minimize" else -3.0)
    assert optimizer.points[FIRST_GIVEN] == points[0]["point"]


def test_that_a_restart_has_the_same_optimiser_after_the_source_is_gone(tmp_path, old):
    optimizer = {"name": "bayes", "ready": False, "n_initial": 4}
    whole = write(tmp_path, "whole", trials=6, optimizer=optimizer, start_from=[{"study": old}])
    parted = write(tmp_path, "parted", trials=6, optimizer=optimizer, start_from=[{"study": old}])
    _, expected = run(whole)
    turns = iter(range(1000))
    run(parted, stop=lambda: "now" if next(turns) == 2 else "")
    begun = len(replay(read_events(folder_of(parted) / "journal.jsonl")).trials)
    assert 0 < begun < 6
    shutil.rmtree(old)
    steering, outcome = run(parted)
    assert "started" not in str(steering.notes)
    points = [t.point for t in outcome.state.trials.values()]
    assert points == [t.point for t in expected.state.trials.values()]


def test_that_told_results_change_what_a_model_proposes(tmp_path, old):
    optimizer = {"name": "bayes", "ready": False, "n_initial": 4}
    _, warm = run(
        write(tmp_path, "warm", optimizer=optimizer, trials=2, start_from=[{"study": old}])
    )
    _, cold = run(write(tmp_path, "cold", optimizer=optimizer, trials=2))
    assert [t.point for t in warm.state.trials.values()] != [
        t.point for t in cold.state.trials.values()
    ]
    assert min(t.loss for t in warm.state.trials.values()) < 0.2, "the model is used at once"


def test_that_the_best_are_evaluated_first_and_are_trials(tmp_path, old):
    losses = sorted(t.loss for t in replay(read_events(_journal(old))).trials.values())
    path = write(tmp_path, "new", trials=5, start_from=[{"study": old, "take": "best", "best": 3}])
    steering, outcome = run(path)
    assert steering.notes[0].startswith(f"started from {old}: 3 points to evaluate first")
    assert [t.loss for t in outcome.state.trials.values()][:3] == losses[:3]
    assert [t.given for t in outcome.state.trials.values()] == [0, 1, 2, None, None]


def _journal(folder):
    return StudyFolder(Path(folder)).journal


def test_that_points_by_hand_are_completed_told_or_evaluated(tmp_path):
    points = [{"x": 0.25}, {"point": {"x": 0.5, "act": "tanh"}, "loss": 3.0}]
    path = write(tmp_path, "new", trials=3, start_from=[{"points": points}])
    steering, outcome = run(path)
    first = outcome.state.trials[0]
    assert first.point["x"] == 0.25 and first.point["act"] in ("relu", "tanh")
    assert steering.notes == [
        "started from points given by hand: 1 results told, 1 points to evaluate first; "
        "1 completed at random",
        "started from random pays no heed to losses: what it is told is only not asked again",
    ]


def test_that_completion_respects_conditions_and_constraints(tmp_path):
    space = {
        "x": {"float": [0, 1]}, "layers": {"int": [1, 3]},
        "width": {"int": [1, 9], "condition": "layers >= 3"},
    }  # fmt: skip
    points = [{"width": 7}, {"layers": 1}, {"x": 0.9}]
    start = started(tmp_path, {"points": points}, space=space, constraint="x * layers < 2")
    first, second, third = (given.point for given in start.queued[None])
    assert first["layers"] == 3 and first["width"] == 7 and first["x"] * 3 < 2
    assert "width" not in second and second["layers"] == 1
    assert third["x"] == 0.9 and third["layers"] <= 2
    bad = started(tmp_path, {"points": [{"width": 7, "layers": 1}]}, space=space)
    assert not bad.queued and "left out: 1 " in bad.report[0]


def test_that_an_exported_table_says_the_same_as_the_study(tmp_path, old):
    table = tmp_path / "table.csv"
    done = CliRunner().invoke(cli, ["export", old, "--format", "csv", "-o", str(table)])
    assert done.exit_code == 0
    by_table = started(tmp_path, {"csv": str(table)})
    by_study = started(tmp_path, {"study": old})
    assert [(g.point, g.loss) for g in by_table.told[None]] == [
        (g.point, g.loss) for g in by_study.told[None]
    ]


def test_that_trials_that_were_stopped_early_are_no_results(tmp_path):
    def stops(request):
        # Losses grow with steps: at a rung they look better than those of whole trials.
        step, outcome = request["stop_step"], completed(request)
        loss = outcome["loss"] + (step or 3)
        outcome["reports"] = [[step or 3, {"loss": loss}]]
        if step is None:
            return outcome | {"loss": loss}
        return outcome | {"end": "paused", "reason": "rung", "loss": None}

    fidelity = {"policy": "asha", "min": 1, "max": 3, "eta": 3}
    path = write(tmp_path, "rungs", space={"x": SPACE["x"]}, trials=9, fidelity=fidelity)
    _, outcome = run(path, stops)
    whole = [t.loss for t in outcome.state.trials.values() if t.state.value == "completed"]
    early = 9 - len(whole)
    assert whole and early
    folder, table = str(folder_of(path)), tmp_path / "table.csv"
    done = CliRunner().invoke(cli, ["export", folder, "--format", "csv", "-o", str(table)])
    assert done.exit_code == 0
    for source in ({"study": folder}, {"csv": str(table)}):
        start = started(tmp_path, source, space={"x": SPACE["x"]})
        assert sorted(g.loss for g in start.told[None]) == sorted(whole)
        assert start.report[0].endswith(
            f"{len(whole)} results told; left out: {early} stopped early"
        )
        best = started(tmp_path, {**source, "take": "best", "best": 9}, space={"x": SPACE["x"]})
        assert len(best.queued[None]) == len(whole)


def test_that_a_plain_csv_gives_results_and_points(tmp_path):
    table = tmp_path / "points.csv"
    with open(table, "w", newline="") as stream:
        csv.writer(stream).writerows(
            [["x", "act", "loss"], [0.5, "relu", 1.5], [0.25, "tanh", ""], [0.125, "", ""]]
        )
    start = started(tmp_path, {"csv": str(table)})
    assert [(g.point, g.loss) for g in start.told[None]] == [({"x": 0.5, "act": "relu"}, 1.5)]
    assert [g.point["x"] for g in start.queued[None]] == [0.25, 0.125]
    table.write_text("x,lossy\n0.5,1\n")
    with pytest.raises(InputError, match=r"points.csv:1: unknown column; found 'lossy'.*'loss'"):
        started(tmp_path, {"csv": str(table)})
    table.write_text("x,act,loss\n0.5,relu,nan\n")
    with pytest.raises(InputError, match=r"points.csv:2: loss: not a loss; found 'nan'"):
        started(tmp_path, {"csv": str(table)})


NEW = {**SPACE, "momentum": {"float": [0, 1]}}


@pytest.mark.parametrize(
    ("space", "source", "words"),
    [
        (NEW, {}, "lacks the parameter momentum"),
        ({"x": SPACE["x"]}, {}, r"has the parameter act.*drop: \[act\]"),
        (SPACE, {"fill": {"momentun": 1}}, "fill: there is no such parameter; found 'momentun'"),
        (SPACE, {"from_segment": "a"}, "no results of this segment"),
    ],
)
def test_that_an_unanswered_change_of_the_space_is_refused_by_name(
    tmp_path, old, space, source, words
):
    with pytest.raises(InputError, match=rf"study.yaml:\d+: start_from\[0\].*{words}"):
        started(tmp_path, {"study": old, **source}, space=space)


def test_that_an_answered_change_of_the_space_is_mapped_and_said(tmp_path, old):
    space = {
        "y": {"float": [0, 0.5]}, "momentum": {"float": [0, 1]},
        "layers": {"method": "fixed", "dimension": {"value": 2}},
    }  # fmt: skip
    source = {"study": old, "rename": {"x": "y"}, "fill": {"momentum": 0.9}, "drop": ["act"]}
    start = started(tmp_path, source, space=space)
    losses = [t.loss for t in replay(read_events(_journal(old))).trials.values()]
    inside = [loss for loss in losses if loss <= 0.5]
    assert 0 < len(inside) < 6
    assert [g.point for g in start.told[None]] == [
        {"y": loss, "momentum": 0.9, "layers": 2} for loss in inside
    ]
    assert f"left out: {6 - len(inside)} y is not a float from 0 to 0.5" in start.report[0] or (
        f"left out: {6 - len(inside)} y is not" in start.report[0]
    )
    assert "x is y here, momentum = 0.9 filled in, act left away" in start.report[0]


def test_that_a_choice_that_is_gone_is_named_with_a_count(tmp_path, old):
    space = {"x": SPACE["x"], "act": {"choice": ["relu", "gelu"]}}
    gone = sum(t.point["act"] == "tanh" for t in replay(read_events(_journal(old))).trials.values())
    assert gone
    start = started(tmp_path, {"study": old}, space=space)
    assert f'left out: {gone} act has no choice "tanh" any more' in start.report[0]


def test_that_another_direction_is_refused_or_turned(tmp_path, old):
    with pytest.raises(InputError, match=r"`direction` is another.*accept"):
        started(tmp_path, {"study": old}, direction="maximize")
    source = {"study": old, "take": "both", "best": 1, "accept": ["direction"]}
    start = started(tmp_path, source, direction="maximize")
    assert all(g.loss == -g.point["x"] for g in start.told[None])
    assert start.queued[None][0].point["x"] == min(g.point["x"] for g in start.told[None])


def test_that_another_objective_is_refused_for_results_alone(tmp_path, old):
    path = write(tmp_path, "new", start_from=[{"study": old}])
    text = path.read_text().replace("objective.py:train", "other.py:train")
    path.write_text(text)
    with pytest.raises(InputError, match="`objective` is another"):
        gather(open_study(path)[0])
    path.write_text(text.replace("- study", "- take: best\n  study"))
    assert len(gather(open_study(path)[0]).queued[None]) == 6


def test_that_a_study_that_still_runs_is_read_without_its_lock_or_torn_record(tmp_path, old):
    with open(_journal(old), "ab") as stream:
        stream.write(seal({"e": "asked", "trial": 99, "point": {}})[:-9])
    before = sorted((p.name, p.stat().st_size) for p in _journal(old).parent.iterdir())
    assert len(started(tmp_path, {"study": old}).told[None]) == 6
    assert sorted((p.name, p.stat().st_size) for p in _journal(old).parent.iterdir()) == before


def test_that_segments_get_those_of_their_name_or_the_one_that_is_named(tmp_path):
    first = write(tmp_path, "first", trials=3, segments=[{"name": "a"}, {"name": "b"}])
    run(first)
    source = {"study": str(folder_of(first))}
    start = started(tmp_path, source, segments=[{"name": "b"}, {"name": "c"}])
    assert {name: len(some) for name, some in start.told.items()} == {"b": 3}
    assert "3 of segment a, which this study has not" in start.report[0]
    one = {**source, "from_segment": "a", "segment": "c"}
    start = started(tmp_path, one, segments=[{"name": "b"}, {"name": "c"}])
    assert {name: len(some) for name, some in start.told.items()} == {"c": 3}
    with pytest.raises(InputError, match="the source has segments and this study has none"):
        started(tmp_path, source)
    with pytest.raises(InputError, match="there is no such segment; found 'd'"):
        started(tmp_path, {**one, "segment": "d"}, segments=[{"name": "b"}])
    hand = {"points": [{"x": 0.5, "act": "relu"}]}
    start = started(tmp_path, hand, segments=[{"name": "b"}, {"name": "c"}])
    assert {name: len(some) for name, some in start.queued.items()} == {"b": 1, "c": 1}


def test_that_a_begin_that_was_cut_off_in_the_journal_is_made_anew(tmp_path, old):
    path = write(tmp_path, "new", trials=2, start_from=[{"study": old}])
    folder = folder_of(path)
    folder.mkdir()
    writer = SealedWriter(folder / "journal.jsonl")
    point = {"segment": None, "point": {"x": 0.5, "act": "relu"}, "from": "?", "loss": 9.0}
    writer.append(seal({"e": "start", "at": 1.0, "part": 0, "parts": 2, "points": [point]}))
    writer.close()
    _, outcome = run(path)
    told = outcome.state.segments[None].told
    assert len(told) == 6 and all(g.loss != 9.0 for g in told)


def test_that_a_later_change_of_the_key_is_refused(tmp_path, old):
    path = write(tmp_path, "new", trials=2, start_from=[{"study": old}])
    run(path)
    write(tmp_path, "new", trials=3, start_from=[{"study": old, "take": "best"}])
    with pytest.raises(InputError, match="start_from"):
        run(path)


def test_that_check_says_what_is_taken_also_when_the_source_is_gone(tmp_path, old):
    path = write(tmp_path, "new", trials=2, start_from=[{"study": old}])
    result = CliRunner().invoke(cli, ["check", str(path)])
    assert result.exit_code == 0 and "6 results told" in result.output
    run(path)
    shutil.rmtree(old)
    assert any(line.endswith("6 results told") for line in start_report(*open_study(path)))
    other = write(tmp_path, "third", start_from=[{"study": old}])
    result = CliRunner().invoke(cli, ["check", str(other)])
    assert result.exit_code == 2
    assert "start_from[0].study: there is no study that has run" in result.output


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"study": "a", "csv": "b"}, "several sources in one entry"),
        ({"take": "best"}, "no source"),
        (
            {"points": []},
            r"start_from\[0\].points: a list without points; found \[\]; valid: one point",
        ),
        ({"csv": "b", "best": 3}, r"start_from\[0\].best: this goes with take"),
        ({"csv": "b", "takes": "best"}, r"start_from\[0\].takes: unknown key"),
        ({"points": [{"point": {"x": 1}, "los": 3}]}, r"points\[0\].los: unknown key"),
        ({"points": [{"point": {"x": 1}, "loss": "low"}]}, r"points\[0\].loss: not a loss"),
    ],
)
def test_that_a_wrong_source_is_one_clear_error(tmp_path, source, words):
    with pytest.raises(InputError, match=words):
        started(tmp_path, source)


@pytest.mark.parametrize(
    ("raw", "problem"), [([], "a list without sources"), (5, "not a list of sources")]
)
def test_that_anything_but_a_list_of_sources_is_refused(tmp_path, raw, problem):
    path = write(tmp_path, "new", start_from=raw)
    with pytest.raises(InputError, match=rf"start_from: {problem}; found .*; valid: as in \["):
        open_study(path)


def test_that_every_family_takes_what_it_is_told(tmp_path, old):
    assert FIRST_GIVEN > 1 << 32
    for name in ("sobol", "grid", "tpe", "evolution", "skopt"):
        optimizer = {"name": name, **({"ready": False} if name == "skopt" else {})}
        path = write(tmp_path, name, trials=3, optimizer=optimizer, start_from=[{"study": old}])
        _, outcome = run(path)
        assert len(outcome.state.trials) == 3, name
