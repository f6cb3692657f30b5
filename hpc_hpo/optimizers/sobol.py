"""Quasi-random search: a scrambled Sobol sequence through the space's unit cube."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer
from hpc_hpo.space import Space

_BLOCK = 64
#: Largest dimension of scipy's direction numbers (Joe and Kuo, 2008).
_MAX_DIMS = 21201


class SobolSequence:
    """The points of one sequence, leaving out those taken or refused by a constraint.

    The next point is the first of the sequence that is neither, a function of what is taken
    alone; the position kept here only saves looking at the same points again.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._position = 0
        self._block = np.empty((0, space.dims))
        self._block_end = 0
        self._engine: Any = None

    def _row(self) -> np.ndarray:
        from scipy.stats import qmc  # slow to import

        if self._engine is None:
            rng = np.random.default_rng(self._seed)
            # The keyword of the generator changes its name between scipy's versions.
            key = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"
            self._engine = qmc.Sobol(self._space.dims, scramble=True, **{key: rng})
        while self._position >= self._block_end:
            self._block = self._engine.random(_BLOCK)
            self._block_end += _BLOCK
        row: np.ndarray = self._block[self._position - self._block_end]
        return row

    def next(self, number: int, taken: Collection[str]) -> Point | None:
        """The next point when `number` were asked before; None in a space so small or so
        constrained that the sequence hardly meets a new one."""
        if not 0 < self._space.dims <= _MAX_DIMS:
            return None
        while self._position < 4096 + 64 * number:
            point = self._space.from_unit(self._row())
            if self._space.allows(point) and self._space.key(point) not in taken:
                return point
            self._position += 1
        return None


class SobolSearch(BaseOptimizer):
    """Points of low discrepancy; random ones where the sequence finds no new one."""

    LEARNS: ClassVar[bool] = False

    def __init__(self, space: Space, *, seed: int, budget: int | None = None) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self._sequence = SobolSequence(space, seed)

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        for number, taken in self._one_by_one(count):
            point = self._sequence.next(number, taken) or self._draw(number, taken)
            if point is None:
                break
            points.append(point)
            taken.add(self.space.key(point))
        return points
