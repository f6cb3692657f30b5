"""Several objectives: the front, and what it lies before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hpc_hpo.pareto import nondominated
from hpc_hpo.results.fronts import Goal, goals_of, signed, volume
from hpc_hpo.results.report.history import history
from hpc_hpo.results.report.material import Group, Material, rounded, thinned

#: Other trials that are drawn, on the whole page and of each segment at least.
MOST_OTHERS, LEAST_OTHERS = 3000, 60


def goal_data(material: Material) -> list[dict[str, Any]]:
    """The objectives as JSON values; none where there is one loss."""
    return [
        {"name": goal.name, "maximise": goal.sign < 0, "reference": goal.reference}
        for goal in goals_of(material.study)
    ]


def front(material: Material, group: Group, of: int) -> dict[str, Any] | None:
    """The front of one segment; None where there is one loss.

    Args:
        of: how many segments have plots.

    Returns:
        trial, values (a column for each objective) and points of those on the front, by the first
        objective, best first; others: trial and values of those that are not, or of a part of
        them; of: how many trials have ended; hypervolume, or None.
    """
    goals = goals_of(material.study)
    if not goals:
        return None
    values = signed(group.done, goals)
    on_front = nondominated(values)
    best = sorted(np.flatnonzero(on_front).tolist(), key=lambda i: (*values[i], group.done[i].id))
    rest = np.flatnonzero(~on_front & np.isfinite(values).all(axis=1))
    others = rest[thinned(len(rest), max(LEAST_OTHERS, MOST_OTHERS // of))].tolist()
    trials = [group.done[i] for i in best]
    return {
        **_columns(group, best),
        "points": [trial.point for trial in trials],
        "others": _columns(group, others),
        "of": len(group.done),
        "hypervolume": volume(trials, goals),
    }


def _columns(group: Group, rows: list[int]) -> dict[str, Any]:
    some = [group.done[i] for i in rows]
    columns = zip(*(trial.values or [] for trial in some), strict=True)
    return {"trial": [t.id for t in some], "values": [rounded(c, 9) for c in columns]}


def histories(material: Material, group: Group, most_dots: int) -> list[dict[str, Any]] | None:
    """The history of each objective, as history.history has that of a loss."""
    goals = goals_of(material.study)
    return [_history(material, group, goal, i, most_dots) for i, goal in enumerate(goals)] or None


def _history(
    material: Material, group: Group, goal: Goal, at: int, most_dots: int
) -> dict[str, Any]:
    known = [i for i, trial in enumerate(group.done) if trial.values is not None]
    done = [group.done[i] for i in known]
    losses = np.array([(trial.values or [])[at] for trial in done], dtype=float)
    own = replace(group, done=done, ends=group.ends[known], losses=losses)
    return history(material, own, most_dots, sign=goal.sign)
