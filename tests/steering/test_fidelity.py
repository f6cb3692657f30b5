"""Fidelity policies: by themselves, and as the steering loop carries them through a study."""

from __future__ import annotations

import math
import random

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.journal import read_events, replay
from hpc_hpo.model import TrialState
from hpc_hpo.steering.fidelity.asha import Asha, Hyperband
from hpc_hpo.steering.fidelity.base import Standing
from hpc_hpo.steering.fidelity.median import Median
from hpc_hpo.steering.fidelity.rungs import Rungs
from hpc_hpo.steering.terms import Terms
from hpc_hpo.study import load_study
from hpc_hpo.study.fidelity import Fidelity
from tests.extras import needs
from tests.steering.test_loop import completed, ended, steer

ASHA = Fidelity(policy="asha", min=1, max=27, eta=3)


def at(trial, step, loss):
    return Standing(trial, step, loss, loss, loss)


def test_that_asha_sends_on_the_best_third_of_a_rung_as_they_come():
    policy = Asha(1, 9, 3)
    assert policy.begun(0) == 1
    assert not policy.reached(at(0, 1, 0.5)) and policy.ripe() is None
    assert not policy.reached(at(1, 1, 0.7)) and policy.ripe() is None
    assert not policy.reached(at(2, 1, 0.9)), "the third makes room for one, but is not the best"
    assert policy.ripe() == (0, 3)
    policy.went_on(0)
    assert policy.ripe() is None
    assert policy.reached(at(3, 1, 0.1)) is True, "it takes the place of the one that went on"
    assert policy.ripe() == (3, 3)
    assert policy.waiting == [1, 2, 3]


def test_that_asha_prefers_the_highest_rung_and_sends_its_last_to_the_end():
    policy = Asha(1, 9, 3)
    for trial in range(9):
        policy.reached(at(trial, 1, float(trial)))
    for trial in range(3):
        assert policy.ripe() == (trial, 3)
        policy.went_on(trial)
        policy.reached(at(trial, 3, 1.0 - trial))
    assert policy.ripe() == (2, None)


def test_that_a_trial_that_skips_steps_is_at_the_highest_rung_it_has_passed():
    policy = Asha(1, 27, 3)
    policy.reached(at(0, 5, 0.1))
    assert policy.last_resort() == (0, 9)


def test_that_the_best_of_a_rung_are_those_of_a_sorted_list():
    rng, policy, losses = random.Random(1), Asha(1, 3, 4), {}
    for trial in range(500):
        losses[trial] = rng.choice([rng.random(), 0.5, math.inf])
        policy.reached(at(trial, 1, losses[trial]))
    best = sorted(losses, key=lambda t: (losses[t], t))[: 500 // 4]
    sent = []
    while found := policy.ripe():
        sent.append(found[0])
        policy.went_on(found[0])
    assert sent == [t for t in best if math.isfinite(losses[t])]


def test_that_hyperband_deals_trials_in_the_shares_of_its_brackets():
    policy = Hyperband(1, 9, 3)
    first = [policy.begun(trial) for trial in range(17 * 10)]
    # s = 2, 1, 0: ceil(3/3 * 9) = 9, ceil(3/2 * 3) = 5, ceil(3/1) = 3 of 17.
    counts = {step: first.count(step) for step in (1, 3, None)}
    assert counts == {1: 90, 3: 50, None: 30}


def test_that_the_median_rule_stops_who_is_worse_than_the_median_of_means():
    policy = Median(2, 10)
    assert policy.begun(0) == 2
    for trial, loss in enumerate([1.0, 2.0, 3.0, 4.0]):
        assert policy.reached(at(trial, 2, loss)), "too few to compare with"
    assert policy.reached(Standing(4, 2, 9.0, 2.5, 5.0)), "its best is as good as the median, 2.5"
    assert not policy.reached(Standing(5, 2, 9.0, 3.1, 5.0)), "the median of means is 3 now"
    assert policy.condemned() == 5
    assert policy.ripe() == (0, 4)


def curve(point, step):
    return point["x"] + 1.0 / step


def trains(calls, longest=27, obeys=True):
    """A payload that reports each step and pauses at its rung."""

    def execute(request):
        calls.append((request["trial"], request["slice"], request["stop_step"]))
        stop = request["stop_step"] if obeys else None
        last = longest if stop is None else min(stop, longest)
        steps = range(max(request["known_step"], 0) + 1, last + 1)
        reports = [[s, {"loss": curve(request["point"], s)}] for s in steps]
        if last == longest:
            return {**completed(request, curve(request["point"], longest)), "reports": reports}
        return ended(request, "paused", reason="rung", reports=reports)

    return execute


def terms(spec=ASHA, sign=1):
    return Terms(sign=sign, task="t", fidelity=spec)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("optimizer", ["random", "tpe", "evolution"])
def test_that_a_study_under_asha_trains_few_to_the_end(tmp_path, workers, optimizer):
    reason, state = steer(
        tmp_path, trains([]), trials=81, terms=terms(), optimizer=optimizer, workers=workers
    )
    assert reason == "budget"
    states = state.trial_states
    assert states["completed"] + states["stopped"] == 81
    # A search that keeps improving sends on one new best after the other.
    most = {"random": (12, 0.3), "tpe": (27, 0.5), "evolution": (27, 0.5)}[optimizer]
    assert 1 <= states["completed"] <= most[0]
    assert state.steps < most[1] * 81 * 27
    assert state.best().state is TrialState.COMPLETED
    assert state.segments[None].stopped_early == states["stopped"]
    if optimizer == "random":
        xs = sorted(t.point["x"] for t in state.trials.values())
        assert state.best().point["x"] == xs[0], "the best of this order is never passed over"


def test_that_a_small_study_under_asha_has_a_trial_with_its_whole_loss(tmp_path):
    _, state = steer(tmp_path, trains([]), trials=2, terms=terms())
    assert state.trial_states["completed"] == 1
    assert state.best().point["x"] == min(t.point["x"] for t in state.trials.values())


def test_that_a_maximising_study_sends_on_the_greatest(tmp_path):
    _, state = steer(tmp_path, trains([]), trials=27, terms=terms(sign=-1))
    assert state.best(-1).point["x"] == max(t.point["x"] for t in state.trials.values())


def test_that_a_payload_that_ignores_its_rungs_completes_and_is_counted(tmp_path):
    _, state = steer(tmp_path, trains([], obeys=False), trials=5, terms=terms())
    assert state.trial_states["completed"] == 5
    assert state.overran == [0, 1, 2, 3, 4]


def test_that_a_trial_that_ends_before_its_rung_is_complete(tmp_path):
    spec = Fidelity(policy="asha", min=9, max=27, eta=3)
    _, state = steer(tmp_path, trains([], longest=4), trials=5, terms=terms(spec))
    assert state.trial_states["completed"] == 5
    assert not state.overran


def test_that_a_pause_for_walltime_on_the_way_keeps_the_rung(tmp_path):
    calls, whole = [], trains([])

    def execute(request):
        calls.append((request["trial"], request["slice"], request["stop_step"]))
        if request["slice"] == 2:
            return ended(request, "paused", reason="walltime")
        return whole(request)

    steer(tmp_path, execute, trials=9, terms=terms())
    onward = [(t, step) for t, slice_, step in calls if slice_ == 2]
    assert onward
    assert all((t, 3, step) in calls for t, step in onward)


def check_promotions(tmp_path, spec):
    """Whoever went on from a rung was the one of its segment that the journal alone says."""
    events = list(read_events(tmp_path / "journal.jsonl"))
    submits = [n for n, e in enumerate(events) if e["e"] == "submit" and e["slice"] > 1]
    assert submits
    for number in submits:
        before = replay(events[:number])
        moved = before.trials[events[number]["trial"]]
        if moved.waits:
            # Between segments with somebody to go on there is no order.
            found = Rungs(spec, before, 1).next(lambda t, name=moved.segment: t.segment == name)
            forced = not any(t.state is TrialState.RUNNING for t in before.trials.values())
            if found is None and forced:
                continue  # the last resort, which is found anew when nothing else is left
            assert found is not None
            assert (found[0].id, found[1]) == (
                events[number]["trial"], events[number].get("stop_step"),
            )  # fmt: skip


@pytest.mark.parametrize("policy", ["asha", "hyperband", "median"])
def test_that_every_moment_of_the_journal_replays_to_the_same_decisions(tmp_path, policy):
    spec = Fidelity(policy=policy, min=1, max=27, eta=3)
    steer(tmp_path, trains([]), trials=30, terms=terms(spec), workers=3)
    check_promotions(tmp_path, spec)


@pytest.mark.parametrize("optimizer", ["cmaes", "optuna", "nevergrad"])
def test_that_searches_of_other_packages_hear_of_rungs_and_go_on_after_a_stop(tmp_path, optimizer):
    needs("nevergrad" if optimizer == "nevergrad" else "cmaes")
    turns = iter(range(1000))
    shared = {"trials": 27, "terms": terms(), "workers": 2, "optimizer": optimizer}
    reason, before = steer(
        tmp_path, trains([]), stop=lambda: "drain" if next(turns) == 20 else "", **shared
    )
    assert reason == "stop" and any(len(t.heard) + t.final > 1 for t in before.trials.values())
    reason, state = steer(tmp_path, trains([]), **shared)
    assert reason == "budget"
    assert state.trial_states["completed"] + state.trial_states["stopped"] == 27


def test_that_a_study_stopped_in_between_goes_on_from_its_rungs(tmp_path):
    turns = iter(range(1000))
    calls = []
    reason, before = steer(
        tmp_path, trains(calls), trials=27, terms=terms(), workers=2,
        stop=lambda: "drain" if next(turns) == 12 else "",
    )  # fmt: skip
    assert reason == "stop"
    assert any(t.waits for t in before.trials.values())
    seen = len(calls)
    reason, state = steer(tmp_path, trains(calls), trials=27, terms=terms(), workers=2)
    assert reason == "budget"
    assert any(number > 1 for _, number, _ in calls[seen:])
    check_promotions(tmp_path, ASHA)
    assert state.trial_states["completed"] + state.trial_states["stopped"] == 27


def study(tmp_path, **keys):
    import yaml

    spec = {
        "name": "s", "objective": "o.py:f", "space": {"x": {"float": [0, 1]}},
        "budget": {"trials": 4}, **keys,
    }  # fmt: skip
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in spec.items() if v is not None}))
    return load_study(file)


def test_that_a_command_with_checkpoint_files_may_have_rungs(tmp_path):
    files = {"checkpoint": {"files": ["*.ckpt"]}, "objective": None, "command": ["true"]}
    assert study(tmp_path, fidelity={"policy": "asha", "max": 9}, **files).fidelity.max == 9


@pytest.mark.parametrize(
    ("keys", "key", "word"),
    [
        ({"fidelity": {"policy": "ahsa", "max": 9}}, "fidelity.policy", "asha"),
        ({"fidelity": {"policy": "asha", "min": 9, "max": 9}}, "fidelity.min", "less than 9"),
        (
            {"fidelity": {"policy": "asha", "max": 9}, "objective": None, "command": ["true"]},
            "fidelity",
            "checkpoint.files",
        ),
        (
            {
                "fidelity": {"policy": "asha", "max": 9},
                "objective": None,
                "command": ["true"],
                "contract": "evaluation",
            },
            "fidelity",
            "no checkpoints",
        ),
        (
            {
                "fidelity": {"policy": "asha", "max": 9},
                "objective": None,
                "command": ["true"],
                "checkpoint": {"files": ["a"]},
                "loss": {"stdout": "loss=(.+)"},
            },
            "fidelity",
            "loss.file",
        ),
    ],
)
def test_that_a_policy_that_cannot_work_is_refused_with_its_key(tmp_path, keys, key, word):
    with pytest.raises(InputError) as found:
        study(tmp_path, **keys)
    assert found.value.key == key
    assert word in str(found.value)
