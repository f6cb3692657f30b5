"""The loop with several objectives: what the journal keeps and the optimiser hears."""

import math

import numpy as np
import pytest

from hpc_hpo.journal import Journal, StudyState, read_events, replay
from hpc_hpo.optimizers.registry import create
from hpc_hpo.pareto import nondominated
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.segment_record import Given
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.search import Search
from hpc_hpo.steering.terms import Terms
from tests.steering.test_loop import SPACE, FakeClock, completed

SIGNS = (1, -1)


def portfolio(state, trials):
    def make(begun_again):
        return create("tpe", SPACE, 1, budget=24, signs=SIGNS)

    return Portfolio([Search(None, trials, make)], state)


def run(tmp_path, execute, trials):
    path = tmp_path / "journal.jsonl"
    state = replay(read_events(path))
    journal = Journal(path)
    event = {"e": "run", "run": state.runs + 1, "at": 999.0}
    journal.append(event)
    state.apply(event)
    searches = portfolio(state, trials)
    Steering(
        Terms(sign=1, task="t"), str(tmp_path), state, journal, searches, InlinePilot(execute, 1),
        FakeClock(),
    ).run()  # fmt: skip
    journal.close()
    assert replay(read_events(path)) == state
    return state


def both(request):
    x = request["point"]["x"]
    return completed(request, x) | {"values": [x, 1 - (x - 0.5) ** 2]}


def test_that_a_trial_keeps_all_objectives_and_the_first_is_its_loss(tmp_path):
    state = run(tmp_path, both, 12)
    for trial in state.trials.values():
        assert trial.values == [trial.loss, 1 - (trial.loss - 0.5) ** 2]
    values = np.array([t.values for t in state.trials.values()]) * SIGNS
    assert 1 < nondominated(values).sum() <= 12
    assert state.best().loss == values[:, 0].min()


def test_that_a_restart_goes_on_as_if_there_had_been_none(tmp_path):
    for folder, parts in (("whole", [20]), ("parts", [7, 13, 20])):
        (tmp_path / folder).mkdir()
        for trials in parts:
            state = run(tmp_path / folder, both, trials)
        points = [t.point for t in state.trials.values()]
        if folder == "whole":
            expected = points
    assert points == expected
    assert len(points) == 20


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.inf, 1.0]])
def test_that_an_objective_that_is_not_finite_fails_the_trial(tmp_path, values):
    state = run(tmp_path, lambda r: completed(r, 1.0) | {"values": values}, 3)
    assert state.trial_states["failed"] == 3
    trial = state.trials[0]
    assert (trial.loss, trial.values, trial.error["kind"]) == (None, None, "loss")


def test_that_results_to_begin_with_are_told_with_all_objectives():
    state = StudyState()
    told = [Given({"x": 0.1 * i}, [0.1 * i, 1.0], "hand") for i in range(5)]
    state.segment(None).told.extend(told)
    searches = portfolio(state, 10)
    searches.ask([0])
    optimizer = searches._seats[None].optimizer
    assert optimizer._vectors == [[pytest.approx(0.1 * i), -1.0] for i in range(5)]
