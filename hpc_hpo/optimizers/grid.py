"""Grid search: every combination of evenly spread values, in random order.

The order is random so that a study which stops before the grid's end has covered the whole
space coarsely instead of one corner of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.space import MAX_ENUMERATED, Space

_LARGEST_RESOLUTION = 64
_POINTS_WITHOUT_BUDGET = 1000


def fitting_resolution(space: Space, budget: int | None) -> int:
    """The largest number of values for each parameter whose grid fits into the budget; at
    least 2."""
    limit = _POINTS_WITHOUT_BUDGET if budget is None else budget
    resolution = 2
    while resolution < _LARGEST_RESOLUTION and space.grid_size(resolution + 1) <= limit:
        resolution += 1
    return resolution


class GridSearch(BaseOptimizer):
    """Asks for each point of the grid once, then is exhausted.

    Args:
        resolution: values of each parameter; what has fewer (and every choice) gives all its
            own. Default: as fine as the budget allows.

    Raises:
        InputError: the grid is too large to be listed.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {"resolution": Option(low=2)}
    LEARNS: ClassVar[bool] = False

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        resolution: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self.resolution = resolution or fitting_resolution(space, budget)
        size = space.grid_size(self.resolution)
        if size > MAX_ENUMERATED:
            raise InputError(
                f"the grid has {size} points at resolution {self.resolution}, more than "
                f"{MAX_ENUMERATED}; take a smaller resolution, or sobol",
                key="resolution",
            )
        points = list(space.grid(self.resolution))
        order = self._rng(0).permutation(len(points))
        self._grid = [points[i] for i in order]
        self._next = 0

    @property
    def exhausted(self) -> bool:
        self._skip(self._keys)
        return self._next >= len(self._grid)

    def _skip(self, taken: set[str]) -> None:
        """Move on to the first point of the grid that is not taken."""
        while self._next < len(self._grid):
            if self.space.key(self._grid[self._next]) not in taken:
                return
            self._next += 1

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        for _, taken in self._one_by_one(count):
            self._skip(taken)
            if self._next >= len(self._grid):
                break
            points.append(self._grid[self._next])
            taken.add(self.space.key(points[-1]))
        return points
