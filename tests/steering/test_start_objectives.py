"""start_from with several objectives."""

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.journal import read_events, replay
from tests.steering.test_start import completed, folder_of, run, started, write

TWO = [{"name": "error"}, {"name": "gain", "direction": "maximize"}]


def execute(request):
    outcome = completed(request)
    return outcome | {"values": [outcome["loss"], outcome["loss"] ** 2]}


@pytest.fixture(name="old")
def _old(tmp_path):
    path = write(tmp_path, "old", objectives=TWO)
    run(path, execute)
    return str(folder_of(path))


def told(start):
    return [given.loss for given in start.told.get(None, [])]


def test_that_results_of_a_study_are_told_with_all_objectives(tmp_path, old):
    start = started(tmp_path, {"study": old}, objectives=[{**TWO[0], "reference": 2}, TWO[1]])
    assert len(told(start)) == 6
    assert all(values == [values[0], values[0] ** 2] for values in told(start))


def test_that_a_study_begins_with_them_and_goes_on(tmp_path, old):
    path = write(
        tmp_path, "new", trials=4, objectives=TWO, optimizer="tpe",
        start_from=[{"study": old}, {"points": [{"x": 0.25, "act": "relu"}]}],
    )  # fmt: skip
    steering, _ = run(path, execute)
    assert len(steering.state.trials) == 4
    assert steering.state.trials[0].point == {"x": 0.25, "act": "relu"}
    assert len(steering.state.segments[None].told) == 6


@pytest.mark.parametrize(
    "theirs", [None, [TWO[0], {"name": "time"}], [TWO[1], TWO[0]], [TWO[0], {"name": "gain"}]]
)
def test_that_a_study_of_other_objectives_is_refused_unless_its_best_are_evaluated(
    tmp_path, theirs
):
    path = write(tmp_path, "other", **({} if theirs is None else {"objectives": theirs}))
    run(path, execute if theirs else completed)
    source = {"study": str(folder_of(path))}
    with pytest.raises(InputError, match="its trials have other objectives"):
        started(tmp_path, source | {"accept": ["objective"]}, objectives=TWO)
    start = started(tmp_path, source | {"take": "best", "best": 2}, objectives=TWO)
    assert (len(start.queued[None]), told(start)) == (2, [])
    # Other objectives cannot be weighed here: the first one says which are best.
    losses = sorted(
        (t.loss, t.point["x"])
        for t in replay(read_events(folder_of(path) / "journal.jsonl")).trials.values()
    )
    best = losses[-2:] if theirs and theirs[0] == TWO[1] else losses[:2]
    assert {given.point["x"] for given in start.queued[None]} == {x for _, x in best}


def test_that_results_with_objectives_are_refused_by_a_study_of_one_loss(tmp_path, old):
    with pytest.raises(InputError, match=r"other objectives.*valid: one loss there"):
        started(tmp_path, {"study": old})


def test_that_the_best_points_are_those_of_the_first_fronts(tmp_path):
    points = [
        {"point": {"x": 0.1 * i, "act": "relu"}, "loss": {"gain": gain, "error": error}}
        for i, (error, gain) in enumerate([(5, 0), (1, 1), (4, 1), (2, 2), (5, 5)])
    ]
    start = started(tmp_path, {"points": points, "take": "best", "best": 3}, objectives=TWO)
    assert [g.point["x"] for g in start.queued[None]] == pytest.approx([0.1, 0.3, 0.4])


@pytest.mark.parametrize("loss", [0.5, [1], [1, 2, 3], {"error": 1}, {"error": 1, "gain": "x"}])
def test_that_a_point_by_hand_needs_all_of_them(tmp_path, loss):
    point = {"point": {"x": 0.5, "act": "relu"}, "loss": loss}
    with pytest.raises(InputError, match=r"points\[0\].loss: not a loss.*mapping of error, gain"):
        started(tmp_path, {"points": [point]}, objectives=TWO)


def test_that_a_table_has_a_column_for_each(tmp_path):
    file = tmp_path / "new.in" / "points.csv"
    file.parent.mkdir()
    file.write_text(
        "x,act,objective.error,objective.gain\n0.5,relu,1,2\n0.25,tanh,,\n0.75,tanh,3,4\n"
    )
    start = started(tmp_path, {"csv": "points.csv"}, objectives=TWO)
    assert told(start) == [[1.0, 2.0], [3.0, 4.0]]
    assert [g.point["x"] for g in start.queued[None]] == [0.25]
    file.write_text("x,act,objective.error,objective.gain\n0.5,relu,1,\n")
    with pytest.raises(InputError, match=r":2: objective.gain: an objective is missing"):
        started(tmp_path, {"csv": "points.csv"}, objectives=TWO)
    file.write_text("x,act,loss\n0.5,relu,1\n")
    with pytest.raises(InputError, match="unknown column"):
        started(tmp_path, {"csv": "points.csv"}, objectives=TWO)
