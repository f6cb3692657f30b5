"""Several objectives, all minimised: which points are the best of them, and how good those are.

A point *dominates* another when it is as good in all objectives and better in one. The *front*
is what no other point dominates; equal points do not dominate each other.
"""

from __future__ import annotations

import numpy as np

#: Rows held against all others at once.
_BLOCK = 256


def nondominated(values: np.ndarray) -> np.ndarray:
    """Which rows are on the front.

    Args:
        values: shape (n, objectives), to be minimised. A row with NaN or an infinity is no point:
            it is not on the front and keeps no other from it.

    Returns:
        shape (n,), bool.
    """
    values = np.asarray(values, dtype=float)
    found: np.ndarray = np.isfinite(values).all(axis=1)
    rows = np.flatnonzero(found)
    if len(rows) == 0:
        return found
    # Equal rows stand or fall together. Sorted by the first objective, then the others: none is
    # dominated by one after it.
    unique, back = np.unique(values[rows], axis=0, return_inverse=True)
    found[rows] = _front_of_sorted(unique)[back.reshape(-1)]
    return found


def _front_of_sorted(values: np.ndarray) -> np.ndarray:
    """The same for rows that differ and are sorted lexicographically."""
    on_front = np.ones(len(values), dtype=bool)
    if values.shape[1] == 2:
        best = np.minimum.accumulate(values[:, 1])
        on_front[1:] = values[1:, 1] < best[:-1]
        return on_front
    on_front[:] = False
    front = np.empty((0, values.shape[1]))
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        free = ~_dominated(block, front)
        rows, own = np.flatnonzero(free) + start, block[free]
        keep = ~_dominated(own, own)
        on_front[rows[keep]] = True
        front = np.vstack([front, own[keep]])
    return on_front


def _dominated(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which rows one of `others` dominates."""
    found = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(others), _BLOCK):
        some = others[start : start + _BLOCK]
        as_good = np.all(some[None] <= rows[:, None], axis=2)
        better = np.any(some[None] < rows[:, None], axis=2)
        found |= np.any(as_good & better, axis=1)
    return found


def fronts(values: np.ndarray, most: int) -> np.ndarray:
    """On which front each row is: 0 for the first, 1 for the front of the others, and so on.

    Args:
        values: as of `nondominated`.
        most: rows that are sorted, at least, where there are so many; the others, and what is no
            point, are all on the same front after these.
    """
    left = np.array(values, dtype=float)
    found = np.zeros(len(left), dtype=int)
    waits = np.ones(len(left), dtype=bool)
    front = 0
    while len(left) - waits.sum() < most and (best := nondominated(left)).any():
        waits &= ~best
        left[best] = np.nan
        front += 1
        found[waits] = front
    return found


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
    """The volume of what the points dominate, up to a reference point (Zitzler and Thiele, 1998).

    Exact; the time grows steeply with the number of objectives (While et al., IEEE TEC 2012).

    Args:
        values: shape (n, objectives), to be minimised.
        reference: shape (objectives,): the worst values that count.
    """
    values = np.asarray(values, dtype=float)
    inside = np.isfinite(values).all(axis=1) & (values < reference).all(axis=1)
    front = values[nondominated(np.where(inside[:, None], values, np.nan))]
    return _volume(np.unique(front, axis=0), np.asarray(reference, dtype=float))


def _volume(front: np.ndarray, reference: np.ndarray) -> float:
    """Of rows that differ, none of which dominates another, sorted lexicographically."""
    if len(front) == 0:
        return 0.0
    if front.shape[1] == 1:
        return float(reference[0] - front[:, 0].min())
    if front.shape[1] == 2:
        ends = np.concatenate([front[1:, 0], reference[:1]])
        return float(((ends - front[:, 0]) * (reference[1] - front[:, 1])).sum())
    total = 0.0
    for i, point in enumerate(front):
        # What this point alone brings: its box without those of the points after it.
        rest = np.maximum(front[i + 1 :], point)
        own = float(np.prod(reference - point))
        total += own - _volume(np.unique(rest[nondominated(rest)], axis=0), reference)
    return total
