"""The trials that are best in several objectives: the front of each segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.pareto import hypervolume, nondominated


@dataclass(frozen=True)
class Goal:
    """One of several objectives.

    Attributes:
        sign: +1 when it is minimised, -1 when it is maximised.
        reference: the worst value that counts.
    """

    name: str
    sign: int
    reference: float | None


def goals_of(study: Mapping[str, Any]) -> list[Goal]:
    """The objectives of a study; none where it has one loss.

    Args:
        study: the frozen study as a plain dict.
    """
    return [
        Goal(one["name"], -1 if one.get("direction") == "maximize" else 1, one.get("reference"))
        for one in study.get("objectives") or ()
    ]


def signed(trials: Sequence[Trial], goals: Sequence[Goal]) -> np.ndarray:
    """The objectives of completed trials, to be minimised: shape (trials, goals).

    Journals of a study that had one loss then hold no values: those are NaN.
    """
    none = [np.nan] * len(goals)
    values = np.array([trial.values or none for trial in trials], dtype=float)
    return values.reshape(-1, len(goals)) * [goal.sign for goal in goals]


def fronts(state: StudyState, goals: Sequence[Goal]) -> dict[str | None, list[Trial]]:
    """Of each segment, the trials that no other dominates, by their first objective, best first.

    Trials of a segment that was begun again do not count.
    """
    done: dict[str | None, list[Trial]] = {}
    for trial in state.trials.values():
        if goals and trial.state is TrialState.COMPLETED and not trial.superseded:
            done.setdefault(trial.segment, []).append(trial)
    return {name: front_of(trials, goals) for name, trials in done.items()}


def front_of(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """The same of some completed trials."""
    values = signed(trials, goals)
    on_front = np.flatnonzero(nondominated(values)).tolist()
    return [trials[i] for i in sorted(on_front, key=lambda i: (*values[i], trials[i].id))]


class Front:
    """The front of one segment while its trials end, one after another."""

    def __init__(self, goals: Sequence[Goal]) -> None:
        self._goals = goals
        self.trials: list[Trial] = []

    def add(self, trial: Trial) -> bool:
        """Take in a completed trial; whether it is on the front now."""
        if trial.values is None:
            return False
        own, others = signed([trial], self._goals), signed(self.trials, self._goals)
        as_good, better = np.all(others <= own, axis=1), np.any(others < own, axis=1)
        if np.any(as_good & better):
            return False
        beaten: np.ndarray = np.all(own <= others, axis=1) & np.any(own < others, axis=1)
        kept = [t for t, gone in zip(self.trials, beaten.tolist(), strict=True) if not gone]
        self.trials = [*kept, trial]
        return True


def volume(front: Sequence[Trial], goals: Sequence[Goal]) -> float | None:
    """The hypervolume between a front and the references; None where an objective has none."""
    references = [g.sign * g.reference for g in goals if g.reference is not None]
    if not goals or len(references) < len(goals):
        return None
    return hypervolume(signed(front, goals), np.array(references))


def front_row(front: Sequence[Trial], goals: Sequence[Goal]) -> dict[str, Any] | None:
    """A front as JSON values: its trials and hypervolume; None where there is one loss."""
    if not goals:
        return None
    return {"trials": [trial.id for trial in front], "hypervolume": volume(front, goals)}


def named(trial: Trial, goals: Sequence[Goal]) -> dict[str, float]:
    """The objectives of a trial by their names."""
    return dict(zip((goal.name for goal in goals), trial.values or (), strict=False))
