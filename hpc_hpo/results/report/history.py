"""How the loss went down: by trial, by time, and by node-hours."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from hpc_hpo.results.report.material import Group, Material, rounded

#: Trials of a group that are drawn one by one; more are drawn as quantiles of stretches.
MOST_DOTS = 2000
STRETCHES = 150
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def history(
    material: Material, group: Group, most_dots: int = MOST_DOTS, sign: int | None = None
) -> dict[str, Any]:
    """The history of one segment.

    Args:
        sign: -1 when the group's losses are maximised; None: as the study's are.

    Returns:
        best: each improvement: trial, loss, and where it lies on the three axes: n (trials that
        had a loss by then), hours since the study began, node_hours. end: where the axes end. dots:
        the same columns for every trial, or None; bands: for equal stretches of trials, the axes
        at their ends and the QUANTILES of the losses, or None.
    """
    count = len(group.done)
    n = np.arange(1, count + 1)
    hours = (group.ends - material.begin) / 3600
    node_hours = material.node_hours_at(group.ends)
    signed = (material.sign if sign is None else sign) * group.losses
    best_so_far = np.minimum.accumulate(signed) if count else np.empty(0)
    steps = np.flatnonzero(np.diff(best_so_far, prepend=np.inf) < 0)

    def columns(at: np.ndarray) -> dict[str, Any]:
        return {
            "trial": [group.done[i].id for i in at],
            "loss": rounded(group.losses[at], 9),
            "n": n[at].tolist(),
            "hours": rounded(hours[at]),
            "node_hours": rounded(node_hours[at]),
        }

    last = np.array([material.until])
    return {
        "count": count,
        "best": columns(steps),
        "end": {
            "n": count,
            "hours": rounded((last - material.begin) / 3600)[0],
            "node_hours": rounded(material.node_hours_at(last))[0],
        },
        "dots": columns(np.arange(count)) if count <= most_dots else None,
        "bands": None if count <= most_dots else _bands(group.losses, n, hours, node_hours),
    }


def _bands(
    losses: np.ndarray, n: np.ndarray, hours: np.ndarray, node_hours: np.ndarray
) -> dict[str, Any]:
    edges = np.linspace(0, len(losses), min(STRETCHES, len(losses)) + 1).round().astype(int)
    last = edges[1:] - 1
    found = [np.quantile(losses[a:b], QUANTILES) for a, b in itertools.pairwise(edges)]
    return {
        "n": n[last].tolist(),
        "hours": rounded(hours[last]),
        "node_hours": rounded(node_hours[last]),
        "quantiles": [rounded(column) for column in np.array(found).T],
    }
