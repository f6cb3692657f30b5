"""The figures that `run` shows."""

from __future__ import annotations

from hpc_hpo.cli.progress import Tally
from hpc_hpo.journal import StudyState, replay
from hpc_hpo.pilot.base import Capacity
from tests import events as ev


def after(completed: int) -> StudyState:
    """A study of which so many trials are completed and one more runs."""
    history = [ev.run()]
    for trial in range(completed + 1):
        history += [ev.asked(trial, {"x": 0.5}), ev.submit(trial, 1)]
        if trial < completed:
            history.append(ev.end(trial, 1, "completed", "completed", loss=1.0))
    return replay(history)


def time_row(tally: Tally, state: StudyState) -> str:
    tally.update(state)
    return dict(tally.figures(state, Capacity(1, None, 0)))["time"]


def test_that_the_time_to_go_follows_from_this_runs_pace_and_is_gone_at_the_end() -> None:
    clock = iter(range(0, 1000, 10))
    tally = Tally(lambda: 4, sign=1, now=lambda: float(next(clock)))
    assert "to go" not in time_row(tally, after(0))
    assert "to go" in time_row(tally, after(2))
    assert "to go" not in time_row(tally, after(4))
