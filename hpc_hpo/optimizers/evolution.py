"""Regularised evolution: children of the better of a few of the latest trials.

The population is the last `population` trials that were told, so that the old die whatever
their loss, and a lucky noisy loss does not lead the search for ever (Real et al., AAAI 2019).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.optimizers.sobol import SobolSequence
from hpc_hpo.space import Space

_MOST = 100
#: Children tried until one is new; each further one lies farther from its parent.
_TRIES = 50
_PURPOSE = 4


class EvolutionSearch(BaseOptimizer):
    """Mutates one or a few parameters of the winner of a tournament.

    Args:
        population: trials that may have children, the latest told; as many points of a Sobol
            design come first. Default: 100, and at most a quarter of the budget.
        sample: trials in a tournament. Default: a quarter of the population.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "population": Option(low=2),
        "sample": Option(low=1),
    }

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        population: int | None = None,
        sample: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        default = _MOST if budget is None else min(_MOST, budget // 4)
        self.population = population or max(default, 4)
        self.sample = sample or max(2, self.population // 4)
        self._design = SobolSequence(space, seed)

    def _propose(self, count: int) -> list[Point]:
        latest = list(itertools.islice(reversed(self.losses.items()), self.population))
        # A failure can win only against failures.
        ranked = [(math.inf if loss is None else loss, t) for t, loss in latest]
        points: list[Point] = []
        for number, taken in self._one_by_one(count):
            if number < self.population or len(ranked) < 2:
                point = self._design.next(number, taken)
            else:
                point = self._child(number, ranked, taken)
            point = point or self._draw(number, taken)
            if point is None:
                break
            points.append(point)
            taken.add(self.space.key(point))
        return points

    def _child(
        self, number: int, ranked: list[tuple[float, int]], taken: Collection[str]
    ) -> Point | None:
        """A new child of a tournament's winner; None when none of its like is new."""
        rng = self._rng(number, _PURPOSE)
        entrants = rng.choice(len(ranked), size=min(self.sample, len(ranked)), replace=False)
        parent = self.points[min(ranked[i] for i in entrants)[1]]
        origin = self.space.to_unit(parent, absent=np.nan)
        # A condition may bring an absent parameter in: then any value is as good.
        origin = np.where(np.isnan(origin), rng.random(origin.shape), origin)
        for attempt in range(_TRIES if self.space.dims else 0):
            # Mostly one parameter changes; sometimes, or when that brings nothing new, more.
            changes = min(self.space.dims, int(rng.geometric(max(0.1, 0.7 - 0.05 * attempt))))
            child = self.space.from_unit(_mutate(origin, changes, self.space.steps, rng))
            if self.space.allows(child) and self.space.key(child) not in taken:
                return child
        return None


def _mutate(
    origin: np.ndarray, changes: int, steps: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`origin` with `changes` of its coordinates moved, reflected at the ends."""
    child = origin.copy()
    for axis in rng.choice(len(origin), size=changes, replace=False):
        if steps[axis] >= 1.0:  # a choice: its values have no neighbours
            child[axis] = rng.random()
            continue
        width = max(10.0 ** -rng.uniform(0.3, 2.0), steps[axis])
        moved = abs(child[axis] + rng.normal() * width) % 2.0
        child[axis] = 2.0 - moved if moved > 1.0 else moved
    return child
