"""Budgets other than a number of trials: steps of all trials together, and node-hours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.journal import StudyState, read_events, replay
from hpc_hpo.model import TrialState
from hpc_hpo.optimizers.registry import create
from hpc_hpo.results.limits import in_words, limits
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.search import Search
from hpc_hpo.steering.spending import used_up
from hpc_hpo.steering.terms import Terms
from hpc_hpo.study.changes import compare
from tests.simulate.test_simulate import STUDY, run
from tests.steering.test_fidelity import ASHA, study, trains
from tests.steering.test_loop import SPACE, completed, ended, steer

LENGTH = 27


def terms(epochs, fidelity=None, **more):
    return Terms(sign=1, task="t", epochs=epochs, endless=True, fidelity=fidelity, **more)


def test_that_a_budget_without_any_limit_of_work_is_refused(tmp_path):
    with pytest.raises(InputError) as found:
        study(tmp_path, budget={"parallel": 4})
    assert found.value.key == "budget"
    assert "valid: trials, epochs or node_hours" in str(found.value)


def test_that_steps_are_no_budget_of_an_evaluation(tmp_path):
    command = {"objective": None, "command": ["true"]}
    assert study(tmp_path, budget={"epochs": 4}, **command).budget.epochs == 4
    with pytest.raises(InputError) as found:
        study(tmp_path, budget={"epochs": 4}, contract="evaluation", **command)
    assert found.value.key == "budget.epochs"
    assert "reports no steps" in str(found.value)


def test_that_another_kind_of_limit_between_runs_is_harmless(tmp_path):
    before = study(tmp_path, budget={"trials": 4}).to_dict()
    changes = compare(before, study(tmp_path, budget={"epochs": 9, "node_hours": 2.5}).to_dict())
    assert {c.key for c in changes} == {"budget.trials", "budget.epochs", "budget.node_hours"}
    assert all(change.harmless for change in changes)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_that_steps_are_overspent_by_less_than_a_trial(tmp_path, workers):
    epochs = 30 * LENGTH + 5
    reason, state = steer(tmp_path, trains([]), trials=None, terms=terms(epochs), workers=workers)
    assert reason == "epochs"
    assert epochs <= state.steps < epochs + LENGTH
    assert state.trial_states["completed"] == 31, "what was begun ended, and nothing else was"


def test_that_the_first_limit_that_is_reached_ends_a_study(tmp_path):
    reason, state = steer(tmp_path, trains([]), trials=3, terms=terms(30 * LENGTH))
    assert (reason, state.trial_states["completed"]) == ("budget", 3)


def test_that_steps_of_asha_are_not_overspent_and_its_waiting_trials_go_on_with_more(tmp_path):
    reason, first = steer(tmp_path, trains([]), trials=None, terms=terms(300, ASHA), workers=4)
    assert reason == "epochs"
    assert 300 <= first.steps <= 300 + LENGTH
    assert not first.trial_states["stopped"]
    waiting = {t.id for t in first.trials.values() if t.waits}
    assert waiting
    calls = []
    reason, state = steer(tmp_path, trains(calls), trials=None, terms=terms(600, ASHA), workers=4)
    assert reason == "epochs"
    assert 600 <= state.steps <= 600 + LENGTH
    assert waiting & {trial for trial, number, _ in calls if number > 1}


def test_that_a_study_whose_steps_end_before_any_trial_has_one_result(tmp_path):
    reason, state = steer(tmp_path, trains([]), trials=None, terms=terms(5, ASHA), workers=5)
    assert reason == "epochs"
    assert state.trial_states["completed"] == 1
    best = min(state.trials.values(), key=lambda t: t.point["x"])
    assert best.state is TrialState.COMPLETED
    assert state.steps == 5 + LENGTH - 1


def test_that_a_step_done_again_counts_once_and_retries_do_not_add(tmp_path):
    def execute(request):
        reports = [[s, {"loss": 1.0}] for s in range(1, 11) if s > request["known_step"]]
        if request["slice"] == 1:
            return ended(request, "failed", error={"kind": "exception"}, reports=reports[:6])
        if request["slice"] == 2:
            return ended(request, "lost", reason="node")
        return {**completed(request, 0.5), "reports": reports}

    reason, state = steer(tmp_path, execute, trials=None, terms=terms(40), workers=2)
    assert reason == "epochs"
    assert state.steps == 40
    assert state.trial_states["completed"] == 4


def test_that_trials_without_steps_do_not_make_a_study_endless(tmp_path):
    def fails(request):
        return ended(request, "failed", error={"kind": "loss", "message": "nan"})

    reason, state = steer(tmp_path, fails, trials=None, terms=terms(7), workers=2)
    assert (reason, state.trial_states["failed"]) == ("epochs", 7)


def test_that_a_study_of_node_hours_whose_trials_all_fail_ends(tmp_path):
    def fails(request):
        return ended(request, "failed", error={"kind": "import", "message": "no torch"})

    hours = terms(None, node_s=1e9)
    reason, state = steer(tmp_path, fails, trials=None, terms=hours, workers=4)
    assert reason == "failing"
    assert 100 <= state.trial_states["failed"] < 110
    reason, state = steer(tmp_path, fails, trials=None, terms=hours, workers=4)
    assert reason == "failing", "a further run tries again"
    assert 200 <= state.trial_states["failed"] < 220
    reason, state = steer(tmp_path, trains([]), trials=None, terms=terms(5400 + 200), workers=4)
    assert reason == "epochs", "and goes on once the objective has been mended"


def test_that_a_run_that_is_stopped_goes_on_to_the_same_number_of_steps(tmp_path):
    turns = iter(range(1000))
    limit = terms(400, ASHA)
    reason, state = steer(
        tmp_path, trains([]), trials=None, terms=limit, workers=3,
        stop=lambda: "drain" if next(turns) == 9 else "",
    )  # fmt: skip
    assert reason == "stop"
    assert not used_up(limit, state, lambda trial: True)
    reason, state = steer(tmp_path, trains([]), trials=None, terms=limit, workers=3)
    assert reason == "epochs"
    assert 400 <= state.steps <= 400 + LENGTH
    again = replay(read_events(tmp_path / "journal.jsonl"))
    assert used_up(limit, again, lambda trial: True)
    assert not used_up(replace(limit, epochs=1000), again, lambda trial: True)


@pytest.mark.parametrize("policy", ["fair", "best-gain"])
def test_that_segments_without_a_number_of_trials_take_turns(policy):
    state = StudyState()
    searches = [Search(name, None, lambda n: create("random", SPACE, 1)) for name in "abc"]
    portfolio = Portfolio(searches, state, policy=policy)
    for number in range(0, 300, 5):
        ids = range(number, number + 5)
        for trial, (name, point, _) in zip(ids, portfolio.ask(ids), strict=True):
            state.apply({"e": "asked", "trial": trial, "segment": name, "point": point})
            portfolio.asked(state.trials[trial])
    assert {name: record.asked for name, record in state.segments.items()} == dict.fromkeys(
        "abc", 100
    )
    assert portfolio.left > 10**9 and portfolio.finished() == ""


def test_that_node_hours_end_a_study_with_its_checkpoints_kept(tmp_path):
    text = STUDY.replace("trials: 1000", "node_hours: 10")
    found = run(tmp_path, text=text)
    assert found.reason == "node_hours"
    # Two nodes end once their slices have been saved.
    assert 10 <= found.node_hours < 10.1
    assert not found.state.slice_ends["lost"]
    paused = [t for t in found.state.trials.values() if t.state is TrialState.PAUSED]
    assert len(paused) == 12 and all(t.checkpoint for t in paused)
    assert found.state.node_s(1e12, 2) / 3600 == pytest.approx(found.node_hours, rel=1e-3)


def test_that_steps_of_a_simulated_study_end_it(tmp_path):
    text = STUDY.replace("trials: 1000", "epochs: 1000")
    found = run(tmp_path, text=text, steps=20)
    assert found.reason == "epochs"
    assert found.state.trial_states["completed"] == 50


def test_that_limits_come_with_the_nearest_first():
    state = StudyState()
    state.apply({"e": "block", "block": "1.0", "state": "running", "started": 0.0, "nodes": 4})
    state.steps = 300
    budget = {"trials": 10, "epochs": 1000, "node_hours": 8}
    found = limits(state, {"budget": budget}, 10, 3600.0, True)
    assert in_words(found) == "node-hours 4 of 8, steps 300 of 1000, trials 0 of 10"
