"""When a slice saves its trial, and how long ahead of its deadline it begins to stop."""

from __future__ import annotations

import pytest

from hpc_hpo.model import Usual
from hpc_hpo.worker.margin import ENOUGH, NONE, SAFETY, Steps, interval, margin

USUAL = Usual(floor_s=2.0, checkpoint_s=4.0, spread=1.5)


def steps(*seconds: float) -> Steps:
    found = Steps()
    for step in seconds:
        found.add(step)
    return found


def test_that_a_slice_goes_by_the_study_until_it_knows_its_own_steps() -> None:
    few = steps(*[1.0] * (ENOUGH - 1))
    assert margin(60.0, USUAL, few, 0.0) == 60.0
    assert margin(60.0, USUAL, steps(*[1.0] * ENOUGH), 0.0) == SAFETY * (1.5 + 4.0)


def test_that_a_slow_trial_takes_more_than_others_and_a_fast_one_less() -> None:
    fast, slow = steps(*[0.1] * 5), steps(*[100.0] * 5)
    assert margin(60.0, USUAL, fast, 0.0) == pytest.approx(SAFETY * 4.15)
    assert margin(60.0, USUAL, slow, 0.0) == pytest.approx(SAFETY * 154.0)


def test_that_a_margin_is_never_less_than_the_slices_own_longest_ones_and_the_floor() -> None:
    uneven = steps(1.0, 1.0, 1.0, 50.0)
    assert margin(2.0, USUAL, uneven, 30.0) > 80.0
    assert margin(2.0, Usual(floor_s=7.0, checkpoint_s=0.0, spread=1.0), steps(*[0.1] * 4), 0) == 7
    assert margin(3.0, None, NONE, 0.0) == 3.0


def test_that_what_a_slice_tells_has_a_mean_only_where_that_means_something() -> None:
    assert Steps().pace() == {}
    assert steps(2.0).pace() == {"step_s": 2.0}
    assert steps(1.0, 2.0, 6.0).pace() == {"step_s": 6.0, "mean_step_s": 3.0}


def test_that_long_checkpoints_are_rarer_unless_the_user_has_said_how_often() -> None:
    assert interval(None, 0.5) == 300.0
    assert interval(None, 12.0) == 1200.0
    assert interval(60.0, 12.0) == 60.0
