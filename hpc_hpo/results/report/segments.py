"""Segments on the page: a table, small multiples of their histories, and values for a heat map."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpc_hpo.results.report.material import Group, Material, rounded, thinned
from hpc_hpo.results.segments import segment_rows

#: Small multiples, and points of each.
MOST_MULTIPLES, MOST_POINTS = 400, 40


def segments(material: Material) -> dict[str, Any] | None:
    """Every segment, or None in a study without.

    Returns:
        values: names of the values that segments have, numeric: those of them that are numbers;
        rows: name, state, values, budget, asked, completed, failed, loss and trial of the best,
        problem; history: {n, loss} of its improvements, for the first MOST_MULTIPLES.
    """
    rows = segment_rows(material.state, material.study)
    if all(row.name is None for row in rows):
        return None
    groups = {group.name: group for group in material.groups}
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    numeric = [
        name for name in names
        if all(_is_number(row.values[name]) for row in rows if name in row.values)
    ]  # fmt: skip
    found = []
    for number, row in enumerate(rows):
        plain = row.plain()
        best = plain.pop("best")
        group = groups.get(row.name)
        shown = number < MOST_MULTIPLES and group is not None
        found.append(
            {
                **plain,
                "loss": best and best["loss"],
                "trial": best and best["trial"],
                "history": _history(group, material.sign) if shown and group else None,
            }
        )
    return {"values": names, "numeric": numeric, "rows": found}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _history(group: Group, sign: int) -> dict[str, Any]:
    best = np.minimum.accumulate(sign * group.losses) if len(group.done) else np.empty(0)
    steps = np.flatnonzero(np.diff(best, prepend=np.inf) < 0)
    kept = steps[thinned(len(steps), MOST_POINTS)]
    return {
        "n": (kept + 1).tolist(),
        "loss": rounded(sign * best[kept]),
        "count": len(group.done),
    }
