"""From the unit cube to a surrogate's features, for many points at once.

``Space.encode(Space.from_unit(u))`` says the same for one point; a pool of thousands of
candidates needs it in milliseconds, and only the few that are picked become points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.space import Space
from hpc_hpo.space.domains import Choice, Lattice

#: Longest table of a lattice's values; the steps of finer ones do not matter to a surrogate.
_TABLE = 1024


class Codec:
    """Features of one space.

    Attributes:
        groups: shape (features,): which parameter a feature is of; a surrogate has one length
            for each.
        scales: shape (features,): what to multiply features with so that two different
            categories are as far apart as the ends of a range.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        described = space.describe()
        #: with conditions or constraints each candidate is looked at as a point
        self.plain = not space.constraints and not any("condition" in d for d in described.values())
        groups: list[int] = []
        scales: list[float] = []
        self._parts: list[tuple[int, Any]] = []  # (first unit dimension, Choice or table or None)
        at = 0
        for number, name in enumerate(space.names):
            domain = space.domain(name)
            choice = isinstance(domain, Choice)
            flag = "condition" in described[name] and domain.dims > 0 and not choice
            groups += [number] * (domain.features + flag)
            scales += [0.5**0.5 if choice else 1.0] * (domain.features + flag)
            for i in range(domain.dims):
                self._parts.append((at + i, domain if choice else _table(domain)))
            at += domain.dims
        _, self.groups = np.unique(np.array(groups, dtype=int), return_inverse=True)
        self.scales = np.array(scales)

    def features(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of those of `units`, shape (n, dims), that the constraints allow.

        Returns:
            (features, their rows in `units`)
        """
        if not self.plain:
            points = [self._space.from_unit(u) for u in units]
            rows = [i for i, point in enumerate(points) if self._space.allows(point)]
            return self.encode([points[i] for i in rows]), np.array(rows, dtype=int)
        columns: list[np.ndarray] = []
        for at, part in self._parts:
            u = units[:, at]
            if part is None:
                columns.append(u[:, None])
            elif isinstance(part, Choice):
                count = len(part.values)
                hot = np.minimum((u * count).astype(int), count - 1)
                columns.append((hot[:, None] == np.arange(count)).astype(float))
            else:
                middles, edges = part
                columns.append(middles[np.searchsorted(edges, u, side="right")][:, None])
        stacked = np.hstack(columns) if columns else np.zeros((len(units), 0))
        return stacked * self.scales, np.arange(len(units))

    def encode(self, points: list[Point]) -> np.ndarray:
        """Features of points, shape (n, features)."""
        scaled: np.ndarray = self._space.encode(points) * self.scales
        return scaled


def _table(domain: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """(middles, inner edges) of a lattice's cells in the unit interval; None for floats."""
    if not isinstance(domain, Lattice) or domain.size is None or domain.size > _TABLE:
        return None
    middles = np.array([domain.to_unit(value)[0] for value in domain.grid(None)])
    edges = np.zeros(len(middles) + 1)
    for i, middle in enumerate(middles):  # cells lie side by side and start at 0
        edges[i + 1] = 2.0 * middle - edges[i]
    return middles, edges[1:-1]
