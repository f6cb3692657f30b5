"""Population based training: the policy, the points of copies, and whole studies under it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.space import Space
from hpc_hpo.steering.fidelity.base import Standing
from hpc_hpo.steering.fidelity.explore import explore
from hpc_hpo.steering.fidelity.pbt import Pbt
from hpc_hpo.study.fidelity import Fidelity
from tests.steering.test_fidelity import study

SPEC = Fidelity(policy="pbt", population=4, every=5, max=20, quantile=0.25)


def at(trial, step, loss):
    return Standing(trial, step, loss, loss, loss)


# -------------------------------------------------------------------- the policy


def test_that_the_worst_quarter_of_a_rung_is_to_be_replaced_by_the_best():
    policy = Pbt(4, 5, 20, 0.25)
    assert [policy.begun(trial) for trial in range(5)] == [5] * 5
    for trial, loss in enumerate([1.0, 2.0, 3.0]):
        assert policy.reached(at(trial, 5, loss)), "too few to have a worst quarter"
    assert not policy.reached(at(3, 5, 4.0))
    assert policy.poor() == [3]
    assert policy.models(3) == [0]
    assert policy.condemned() is None, "not before a copy was asked"
    assert policy.begun(4, 5) == 10
    policy.replaced(3)
    assert policy.condemned() == 3 and policy.poor() == []
    policy.ended(3)
    assert policy.condemned() is None and policy.waiting == [0, 1, 2]


def test_that_members_are_compared_at_equal_steps_and_the_last_goes_on_first():
    policy = Pbt(4, 5, 20, 0.5)
    policy.reached(at(0, 5, 9.0))
    policy.went_on(0)
    assert policy.reached(at(0, 10, 0.1))
    assert policy.reached(at(1, 5, 5.0)), "worse than what the other has now, not than it was there"
    assert policy.poor() == [0], "one that is ahead is judged once others have come as far"
    assert policy.models(0) == [1]
    policy.spared(0)
    assert policy.ripe() == (1, 10)
    policy.went_on(1)
    assert policy.ripe() == (0, 15)


def test_that_who_waits_is_judged_again_with_everyone_who_comes():
    policy = Pbt(4, 5, 20, 0.25)
    for trial, loss in enumerate([9.0, 1.0, 2.0]):
        assert policy.reached(at(trial, 5, loss))
    assert policy.reached(at(3, 5, 3.0)), "it is not the worst"
    assert policy.poor() == [0]


def test_that_a_member_at_its_last_rung_goes_to_its_end():
    policy = Pbt(4, 5, 20, 0.25)
    policy.reached(at(0, 15, 1.0))
    assert policy.ripe() == (0, None)
    assert policy.begun(1, 15) is None


def test_that_nobody_is_copied_who_was_given_up():
    policy = Pbt(4, 5, 20, 0.25)
    for trial, loss in enumerate([0.0, 1.0, 2.0, 3.0, 9.0]):
        policy.reached(at(trial, 5, loss))
    assert policy.models(4) == [0]
    policy.went_on(0)
    policy.failed(0, 5)
    assert policy.models(4) == [1]
    for trial in (1, 2, 3):
        policy.failed(trial, 5)
    assert policy.models(4) == []
    policy.spared(4)
    assert 4 not in policy.poor() and policy.ripe() is not None


def test_that_a_member_without_a_finite_loss_or_that_failed_is_replaced():
    policy = Pbt(4, 5, 20, 0.25)
    assert policy.reached(at(0, 5, 1.0))
    assert not policy.reached(at(1, 5, math.inf))
    policy.ended(2)
    policy.failed(2, 0)
    assert policy.poor() == [1, 2]
    assert policy.models(1) == policy.models(2) == [0]
    policy.replaced(2)
    assert policy.condemned() is None, "it has ended by itself"


# -------------------------------------------------------------------- the copies' points

SPACE = Space.parse(
    {
        "lr": {"method": "loguniform", "dimension": {"low": 1e-4, "high": 1e-1}},
        "batch": {"int": [1, 64]},
        "shift": {"float": [-1.0, 1.0]},
        "act": {"choice": ["relu", "tanh", "gelu"]},
        "nesterov": {"choice": [True, False]},
        "momentum": {"float": [0.1, 0.9], "condition": "nesterov"},
    },
    constraints="lr * batch <= 2",
)


@pytest.mark.parametrize("seed", range(50))
def test_that_a_copy_s_point_is_one_of_the_space(seed):
    rng = np.random.default_rng(seed)
    point = SPACE.sample(rng)
    for _ in range(20):
        point = explore(SPACE, point, SPEC, rng)
        assert SPACE.validate(point) == point
        assert ("momentum" in point) == point["nesterov"]


def test_that_numbers_are_multiplied_and_others_are_kept_without_resampling():
    spec = SPEC.model_copy(update={"resample": 0.0})
    point = {"lr": 0.01, "batch": 10, "shift": -0.5, "act": "relu", "nesterov": False}
    found = [explore(SPACE, point, spec, np.random.default_rng(n)) for n in range(40)]
    assert {round(p["lr"] / 0.01, 6) for p in found} == {0.8, 1.2}
    assert {p["batch"] for p in found} == {8, 12}
    assert {round(p["shift"], 6) for p in found} == {-0.4, -0.6}
    assert {p["act"] for p in found} == {"relu"}
    assert len({str(p) for p in found}) > 4, "each parameter has its own lot"


def test_that_an_integer_moves_by_a_step_and_nothing_leaves_its_range():
    spec = SPEC.model_copy(update={"resample": 0.0})
    point = {"lr": 1e-1, "batch": 1, "shift": 1.0, "act": "relu", "nesterov": False}
    found = [explore(SPACE, point, spec, np.random.default_rng(n)) for n in range(40)]
    assert {p["batch"] for p in found} == {1, 2}
    assert {round(p["lr"], 6) for p in found} == {0.08, 0.1}
    assert {round(p["shift"], 6) for p in found} == {0.8, 1.0}


def test_that_only_the_parameters_of_vary_change():
    spec = SPEC.model_copy(update={"vary": ("lr",), "resample": 0.5})
    point = SPACE.sample(np.random.default_rng(3))
    for seed in range(20):
        found = explore(SPACE, point, spec, np.random.default_rng(seed))
        assert {k: v for k, v in found.items() if k != "lr"} == {
            k: v for k, v in point.items() if k != "lr"
        }


def test_that_resampling_draws_anew():
    spec = SPEC.model_copy(update={"resample": 1.0})
    point = SPACE.sample(np.random.default_rng(3))
    found = [explore(SPACE, point, spec, np.random.default_rng(n)) for n in range(60)]
    assert {p["act"] for p in found} == {"relu", "tanh", "gelu"}
    assert len({p["shift"] for p in found}) == 60


# -------------------------------------------------------------------- the section


@pytest.mark.parametrize(
    ("keys", "key", "word"),
    [
        ({"policy": "pbt", "max": 9}, "fidelity.population", "required"),
        ({"policy": "pbt", "max": 9, "every": 9, "population": 3}, "fidelity.every", "less than 9"),
        (
            {"policy": "pbt", "max": 9, "every": 3, "population": 3, "eta": 4},
            "fidelity.eta", "does not go with",
        ),
        ({"policy": "asha", "max": 9, "population": 3}, "fidelity.population", "policy: pbt"),
        (
            {"policy": "pbt", "max": 9, "every": 3, "population": 3, "vary": ["y"]},
            "fidelity.vary[0]", "no such parameter",
        ),
        (
            {"policy": "pbt", "max": 9, "every": 3, "population": 4},
            "budget.trials", "copies count as trials",
        ),
        (
            {"policy": "pbt", "max": 9, "every": 3, "population": 3, "perturb": [0.8, 0]},
            "fidelity.perturb", "above 0",
        ),
    ],
)  # fmt: skip
def test_that_what_does_not_go_together_is_refused_with_its_key(tmp_path, keys, key, word):
    with pytest.raises(InputError) as found:
        study(tmp_path, fidelity=keys)
    errors = getattr(found.value, "errors", [found.value])
    assert key in [e.key for e in errors]
    assert word in str(found.value)


@pytest.mark.parametrize("policy", ["asha", "pbt"])
def test_that_a_frozen_study_is_a_study_again(tmp_path, policy):
    more = {"population": 3, "every": 2, "perturb": [0.5, 2]} if policy == "pbt" else {}
    first = study(tmp_path, fidelity={"policy": policy, "max": 9, **more})
    again = study(tmp_path, **{k: v for k, v in first.to_dict().items() if k != "contract"})
    assert again.to_dict() == first.to_dict()
