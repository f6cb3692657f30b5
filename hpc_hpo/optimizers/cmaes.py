"""CMA-ES: a normal distribution that moves and stretches towards the better points.

The losses of a population update the distribution together, in the order told; which of them
were asked for in flight of an older distribution does not matter to it, so that no worker
waits for a generation to end. When the distribution has shrunk to a point, a new one starts
with twice the population (Auger and Hansen, CEC 2005).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.optimizers.extras import fill_absent, require
from hpc_hpo.space import Space

_SIGMA = 0.3
#: Draws until one is new; small spaces repeat themselves.
_TRIES = 50
_PURPOSE_DRAW, _PURPOSE_START = 7, 8


class CmaEsSearch(BaseOptimizer):
    """Needs the extra `optuna`, which brings the package cmaes.

    It is made for numbers; a choice is a coordinate cut into equal parts, in the order listed.

    Args:
        population: losses for each update. Default: 4 + 3 log(dimensions).

    Raises:
        InputError: the package is missing, or the space has too many dimensions.
    """

    RETELLS: ClassVar[bool] = False
    OPTIONS: ClassVar[Mapping[str, Option]] = {"population": Option(low=2)}

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        population: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self._cmaes = require("cmaes", "optuna")
        if space.dims > 1000:
            raise InputError(
                "the covariance matrix of so many dimensions does not fit",
                found=space.dims, valid="at most 1000",
            )  # fmt: skip
        # It is defined from two dimensions on; a coordinate without meaning makes up for one.
        self._dims = max(space.dims, 2)
        self._population = population or 4 + math.floor(3 * math.log(self._dims))
        self._starts = 0
        self._told: list[tuple[np.ndarray, float]] = []
        self._distribution = self._start()

    def _start(self) -> Any:
        """A new distribution around a random place; the first one around the middle."""
        rng = self._rng(self._starts, _PURPOSE_START)
        middle = np.full(self._dims, 0.5) if self._starts == 0 else rng.random(self._dims)
        population = self._population * 2**self._starts
        self._starts += 1
        return self._cmaes.CMA(
            mean=middle,
            sigma=_SIGMA,
            bounds=np.array([[0.0, 1.0]] * self._dims),
            population_size=population,
            seed=int(rng.integers(2**31)),
        )

    def _place(self, trial: int) -> np.ndarray:
        units = self.space.to_unit(self.points[trial], absent=np.nan)
        padded = np.concatenate([units, np.full(self._dims - len(units), np.nan)])
        return fill_absent(padded, self.seed, trial)

    def tell(self, id: int, loss: float | None) -> None:
        super().tell(id, loss)
        known = self.losses[id]
        self._told.append((self._place(id), math.inf if known is None else known))
        if len(self._told) < self._distribution.population_size:
            return
        batch, self._told = self._told, []
        losses = [loss for _, loss in batch]
        if not any(map(math.isfinite, losses)):
            return  # nothing is better than anything: there is no way to go
        # Only the order counts to it; ranks cannot overflow.
        ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable")
        self._distribution.tell(
            [(place, float(rank)) for (place, _), rank in zip(batch, ranks, strict=True)]
        )
        if self._distribution.should_stop():
            self._distribution = self._start()

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        for number, taken in self._one_by_one(count):
            point = self._sample(number, taken) or self._draw(number, taken)
            if point is None:
                break
            points.append(point)
            taken.add(self.space.key(point))
        return points

    def _sample(self, number: int, taken: Collection[str]) -> Point | None:
        if self.space.dims == 0:
            return None
        seed = int(self._rng(number, _PURPOSE_DRAW).integers(2**31))
        self._distribution.reseed_rng(seed)
        for _ in range(_TRIES):
            point = self.space.from_unit(self._distribution.ask()[: self.space.dims])
            if self.space.allows(point) and self.space.key(point) not in taken:
                return point
        return None
