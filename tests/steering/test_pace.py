"""What is learned about time, and which slices it lets start."""

from __future__ import annotations

import pytest

from hpc_hpo.model import SliceOutcome, Trial
from hpc_hpo.steering.pace import RECENT, Pace
from hpc_hpo.worker.margin import SAFETY


def outcome(end: str, length: float, **facts) -> SliceOutcome:
    return SliceOutcome(end=end, started=0.0, ended=length, **facts)


def new_trial() -> Trial:
    return Trial(id=0, point={"x": 1.0}, seed=1)


def test_that_a_trial_without_checkpoints_must_reach_its_end() -> None:
    pace = Pace(floor_s=2.0, expected_s=40.0, block_s=1000.0)
    assert pace.needs_s(new_trial()) == 42.0, "the user's guess"
    pace.learn(outcome("completed", 10.0, pace={"step_s": 0.1}), 10.0)
    assert pace.needs_s(new_trial()) == 12.0, "the longest one seen"


def test_that_completed_trials_tell_that_trials_checkpoint() -> None:
    # Their outcome names no checkpoint to go on from; the time that they took does.
    pace = Pace(floor_s=2.0, expected_s=None, block_s=1000.0)
    told = {"step_s": 0.1, "checkpoint_s": 0.2, "first_checkpoint_s": 0.5}
    pace.learn(outcome("completed", 100.0, pace=told), 100.0)
    assert pace.needs_s(new_trial()) == pytest.approx(2.5), "the rest of a block is of use"


def test_that_the_margin_follows_the_slowest_checkpoint_and_has_a_floor() -> None:
    pace = Pace(floor_s=2.0, expected_s=None, block_s=None)
    assert pace.margin_s() == 2.0
    pace.learn(outcome("paused", 5.0, pace={"step_s": 1.0, "checkpoint_s": 3.0}), 5.0)
    pace.learn(outcome("paused", 5.0, pace={"step_s": 0.5, "checkpoint_s": 1.0}), 10.0)
    assert pace.margin_s() == SAFETY * 4.0


def test_that_the_slowest_trial_of_many_does_not_stop_all_others_early() -> None:
    pace = Pace(floor_s=2.0, expected_s=None, block_s=None)
    for _ in range(99):
        pace.learn(outcome("paused", 5.0, pace={"step_s": 10.0, "checkpoint_s": 1.0}), 5.0)
    pace.learn(outcome("paused", 5.0, pace={"step_s": 500.0, "checkpoint_s": 1.0}), 5.0)
    assert pace.margin_s() == SAFETY * 11.0
    for _ in range(10):
        pace.learn(outcome("paused", 5.0, pace={"step_s": 500.0, "checkpoint_s": 1.0}), 5.0)
    assert pace.margin_s() == SAFETY * 501.0, "one of ten is no exception"


def test_that_old_steps_are_forgotten() -> None:
    pace = Pace(floor_s=2.0, expected_s=None, block_s=None)
    for step in [500.0] * RECENT + [10.0] * RECENT:
        pace.learn(outcome("paused", 5.0, pace={"step_s": step}), 5.0)
    assert pace.margin_s() == SAFETY * 10.0


def test_that_slices_are_told_how_uneven_steps_are() -> None:
    pace = Pace(floor_s=2.0, expected_s=None, block_s=None)
    assert pace.usual() is None
    told = {"step_s": 6.0, "mean_step_s": 2.0, "checkpoint_s": 1.5}
    pace.learn(outcome("completed", 5.0, pace=told), 5.0)
    assert pace.usual() == {"floor_s": 2.0, "checkpoint_s": 1.5, "spread": 3.0}


def test_that_no_slice_waits_for_more_than_a_fresh_block_offers() -> None:
    pace = Pace(floor_s=2.0, expected_s=5000.0, block_s=1000.0)
    assert pace.needs_s(new_trial()) < 1000.0
