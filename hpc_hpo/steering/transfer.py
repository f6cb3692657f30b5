"""What a search takes from searches of similar segments: their best points, tried early.

Segments are alike when their values are. A column of numbers at equal steps, or of more than four
different ones, is a scale; any other is a set of kinds, which are all equally different (particle
22 is no nearer to 11 than to 211).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: More different numbers than this are a scale, whatever their steps.
_KINDS = 4


def _scale(column: Sequence[Any]) -> list[np.ndarray]:
    """One column as coordinates, so that the largest distance in it is 1."""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in column)
    if numbers:
        values = np.asarray(column, dtype=float)
        different = np.unique(values)
        even = len(different) > 2 and np.allclose(np.diff(different), different[1] - different[0])
        if even or len(different) > _KINDS:
            return [(values - different[0]) / (different[-1] - different[0])]
    kinds = list(dict.fromkeys(column))
    if len(kinds) == 1:
        return []
    # Two different kinds differ in two coordinates, by 1/sqrt(2) each.
    return [np.array([v == kind for v in column]) / np.sqrt(2.0) for kind in kinds]


class Neighbours:
    """Which segments are like which.

    Args:
        values: of each segment; a value that one lacks is a kind of its own.
        count: segments that one is told of, the nearest first.
    """

    def __init__(self, values: Mapping[str | None, Mapping[str, Any]], count: int) -> None:
        self._names = list(values)
        self._index = {name: i for i, name in enumerate(self._names)}
        self._count = count
        columns = dict.fromkeys(key for own in values.values() for key in own)
        rows = [_scale([own.get(key) for own in values.values()]) for key in columns]
        flat = [coordinate for some in rows for coordinate in some]
        self._at = np.stack(flat, axis=1) if flat else np.zeros((len(self._names), 1))
        self._learned = np.zeros(len(self._names), dtype=bool)

    def learned(self, name: str | None) -> None:
        """A segment knows enough to tell others."""
        if name in self._index:
            self._learned[self._index[name]] = True

    def forgotten(self, name: str | None) -> None:
        """It was begun again."""
        if name in self._index:
            self._learned[self._index[name]] = False

    def nearest(self, name: str | None) -> list[str | None]:
        """The segments that have learned, nearest first, at most `count`; in order where equal."""
        own = self._index.get(name)
        if own is None or not self._learned.any():
            return []
        among = np.flatnonzero(self._learned)
        among = among[among != own]
        distance = np.linalg.norm(self._at[among] - self._at[own], axis=1)
        order = np.argsort(distance, kind="stable")[: self._count]
        return [self._names[i] for i in among[order]]


def pioneers(names: Sequence[str | None]) -> set[str | None]:
    """The searches that go ahead, so that others can learn from them: about the square root of
    their number, evenly over their order."""
    step = max(2, round(len(names) ** 0.5))
    return set(names[::step])
