"""Candidates: scattered over the space, and around the best of what is known."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.codec import Codec
from hpc_hpo.space import Space


@dataclass
class Pool:
    """Candidates of one choice.

    Attributes:
        features: shape (n, features).
        units: shape (n, dims); None when the candidates are listed as points.
        points: all that is left of a small space.
    """

    features: np.ndarray
    units: np.ndarray | None = None
    points: list[Point] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def point(self, space: Space, index: int) -> Point:
        """The candidate as a point."""
        if self.points is not None:
            return self.points[index]
        assert self.units is not None
        return space.from_unit(self.units[index])

    def take(self, rows: np.ndarray) -> Pool:
        """Those of `rows` alone."""
        return Pool(
            self.features[rows],
            None if self.units is None else self.units[rows],
            None if self.points is None else [self.points[i] for i in rows],
        )

    def with_units(self, codec: Codec, units: np.ndarray) -> Pool:
        """These and those at `units` that are allowed and new to the pool."""
        features, rows = codec.features(units)
        mine = self.units if self.units is not None else units[:0]
        return distinct(np.vstack([self.features, features]), np.vstack([mine, units[rows]]))


def distinct(features: np.ndarray, units: np.ndarray) -> Pool:
    """A pool of candidates with different features, in their order."""
    _, first = np.unique(features, axis=0, return_index=True)
    first.sort()
    return Pool(features[first], units[first])


def scattered(codec: Codec, dims: int, count: int, rng: np.random.Generator) -> Pool:
    """Random candidates."""
    units = rng.random((count, dims))
    features, rows = codec.features(units)
    return distinct(features, units[rows])


def around(
    bases: np.ndarray,
    count: int,
    steps: np.ndarray,
    rng: np.random.Generator,
    decades: tuple[float, float],
) -> np.ndarray:
    """`count` neighbours of `bases`, shape (b, dims), at distances 10**-decades of the unit
    interval. NaN, an absent parameter, becomes anything.

    A third of them differ from their base in one coordinate, a third in some, a third in all;
    numbers move, choices are drawn anew.
    """
    dims = bases.shape[1]
    u = bases[np.arange(count) % len(bases)]
    u = np.where(np.isnan(u), rng.random(u.shape), u)
    share = np.array([1.0 / dims, min(1.0, 3.0 / dims), 1.0])
    moved = rng.random((count, dims)) < rng.choice(share, size=(count, 1))
    moved[np.arange(count), rng.integers(dims, size=count)] = True
    distance = 10.0 ** -rng.uniform(*decades, size=(count, 1))
    shift = rng.normal(size=(count, dims)) * np.maximum(distance, 0.7 * steps)
    near = np.abs(u + shift) % 2.0
    near = np.where(near > 1.0, 2.0 - near, near)
    choice = (steps >= 1.0)[None, :]
    # Where everything moves a little, choices mostly stay.
    redrawn = moved & choice & (rng.random((count, dims)) < 0.5)
    redrawn |= moved & choice & (moved.sum(1) == 1)[:, None]
    found = np.where(moved & ~choice, near, u)
    result: np.ndarray = np.where(redrawn, rng.random((count, dims)), found)
    return result


def listed(space: Space, codec: Codec, left: Collection[Point]) -> Pool:
    """All points that are left of a small space."""
    points = list(left)
    return Pool(codec.encode(points), None, points)
