"""What is learned about time, and which slices it lets start."""

from __future__ import annotations

import pytest

from hpc_hpo.model import SliceOutcome, Trial
from hpc_hpo.steering.pace import SAFETY, Pace


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


def test_that_no_slice_waits_for_more_than_a_fresh_block_offers() -> None:
    pace = Pace(floor_s=2.0, expected_s=5000.0, block_s=1000.0)
    assert pace.needs_s(new_trial()) < 1000.0
