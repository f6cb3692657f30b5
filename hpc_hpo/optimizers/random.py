"""Random search: every point drawn from the space's distributions."""

from __future__ import annotations

from typing import ClassVar

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer


class RandomSearch(BaseOptimizer):
    """Independent draws; the n-th point depends on the seed and n alone."""

    LEARNS: ClassVar[bool] = False

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        for number, taken in self._one_by_one(count):
            point = self._draw(number, taken)
            if point is None:
                break
            points.append(point)
            taken.add(self.space.key(point))
        return points
