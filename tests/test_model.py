"""The state table of trials, and what a trial knows of its slices."""

import itertools

import pytest

from hpc_hpo.model import FINAL, TRANSITIONS, SliceEnd, SliceRecord, Trial, TrialState


@pytest.mark.parametrize(("old", "new"), list(itertools.product(TrialState, TrialState)))
def test_that_a_trial_moves_only_along_the_table(old: TrialState, new: TrialState) -> None:
    trial = Trial(4, {"x": 1}, state=old)
    if new in TRANSITIONS[old]:
        trial.move(new)
        assert trial.state is new
    else:
        with pytest.raises(ValueError, match=f"trial 4: no way from {old.value} to {new.value}"):
            trial.move(new)
        assert trial.state is old


def test_that_a_final_trial_stays_as_it_is() -> None:
    assert {state for state, ways in TRANSITIONS.items() if not ways} == FINAL
    assert {state for state in TrialState if Trial(0, {}, state=state).final} == FINAL


def test_that_every_other_state_leads_to_an_end() -> None:
    for state in set(TrialState) - FINAL:
        reached = {state}
        for _ in TrialState:
            reached |= {new for old in reached for new in TRANSITIONS[old]}
        assert reached >= FINAL


def test_that_only_the_last_slice_can_be_open() -> None:
    trial = Trial(0, {})
    assert trial.open_slice is None
    trial.slices = (SliceRecord(1, 1, 0.0), SliceRecord(2, 1, 5.0))
    assert trial.open_slice is trial.slices[1]
    trial.slices[1].end = SliceEnd.LOST
    assert trial.open_slice is None


def test_that_states_and_ends_are_plain_text_in_json() -> None:
    assert TrialState("paused") is TrialState.PAUSED
    assert SliceEnd("lost") == "lost"
