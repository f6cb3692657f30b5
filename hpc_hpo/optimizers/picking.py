"""From candidates to points: what a model says of them, the acquisition function, the picks.

What a model knows of a candidate is worked out once (`Prediction`) and goes with it through all
rounds of looking closer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers import pools
from hpc_hpo.optimizers.codec import Codec
from hpc_hpo.optimizers.pools import Pool
from hpc_hpo.optimizers.prediction import Prediction
from hpc_hpo.optimizers.surrogates import Surrogate, condition
from hpc_hpo.space import Space

#: Points of one choice from which on each has a weight of the uncertainty and a part of the
#: candidates of its own instead of counting on the others.
MANY = 48
_KEPT = 120
#: Rounds of looking closer around the most promising candidates: distances and neighbours.
_ROUNDS = (((0.7, 1.7), 160), ((1.3, 2.5), 120), ((2.0, 3.5), 80))
#: Of the candidates looked around: the most promising ones, and those that would be picked for
#: workers side by side. The latter keep other holes than the deepest in sight.
_TOP, _SIDE_BY_SIDE = 4, 8
_MEAN_KAPPA = 1.96


@dataclass(frozen=True)
class Picker:
    """Picks by one model.

    Attributes:
        model: conditioned on all points in flight.
        best: the loss to improve on.
        acq: as of ModelSearch.
        rng: of the candidates and of the weights of the uncertainty.
    """

    space: Space
    codec: Codec
    model: Surrogate
    best: float
    acq: str
    rng: np.random.Generator

    def pick(self, pool: Pool, count: int, taken: Collection[str]) -> list[Point]:
        """About `count` points of the pool and from around its best, and a few to spare."""
        return self._greedy(*self._refined(pool, count), count, taken)

    def _refined(self, pool: Pool, count: int) -> tuple[Pool, Prediction]:
        """The most promising candidates, and what lies around the best of them."""
        kept = max(_KEPT, 2 * count)
        known = self.model.predict(pool.features)
        score = self._score(known.mean, known.deviation, self.best, _MEAN_KAPPA)
        if pool.units is None:
            order = np.argsort(-score, kind="stable")[: max(2 * kept, 400)]
            return pool.take(order), known.take(order)
        for decades, neighbours in _ROUNDS:
            order = np.argsort(-score, kind="stable")[:kept]
            pool, known, score = pool.take(order), known.take(order), score[order]
            assert pool.units is not None
            if count < MANY:
                picked = self._side_by_side(known)
                bases = pool.units[[*range(min(_TOP, len(pool))), *picked]]
            else:
                picked, bases = [], pool.units[:_KEPT]
            before = len(pool)
            units = pools.around(
                bases, max(neighbours, count // 2), self.space.steps, self.rng, decades
            )
            pool = pool.with_units(self.codec, units)
            new = pool.features[before:]
            if len(new):
                more = self.model.predict(new)
                known = known.joined(more)
                beside = self._score(more.mean, more.deviation, self.best, _MEAN_KAPPA)
                score = np.concatenate([score, beside])
            # Neighbours of the first would crowd them out of the next round.
            score[picked] = np.inf
        return pool, known

    def _side_by_side(self, known: Prediction) -> list[int]:
        """Candidates, each the most promising once those before it are measured."""
        mean, cov, best = known.mean, known.covariance(), self.best
        free = np.ones(len(mean), dtype=bool)
        picked: list[int] = []
        while len(picked) < min(_SIDE_BY_SIDE, len(mean)):
            score = self._score(mean, _deviation(cov), best, _MEAN_KAPPA)
            index = int(np.argmax(np.where(free, score, -np.inf)))
            free[index] = False
            picked.append(index)
            best = min(best, float(mean[index]))
            cov = condition(cov, index, self.model.noise)
        return picked

    def _greedy(
        self, pool: Pool, known: Prediction, count: int, taken: Collection[str]
    ) -> list[Point]:
        """Pick candidates; each pick counts as measured at its mean."""
        many, best = count >= MANY, self.best
        mean, deviation = known.mean, known.deviation
        cov = np.zeros((0, 0))
        if not many:
            cov = known.covariance()
            deviation = _deviation(cov)
        free = np.ones(len(pool), dtype=bool)
        picks: list[Point] = []
        chosen: set[str] = set()
        while len(picks) < count + 2 and free.any():
            kappa = float(self.rng.exponential(_MEAN_KAPPA))
            if many:
                score = kappa * deviation - mean
                score = np.where(self.rng.random(len(pool)) < 0.2, score, score - 100.0)
            else:
                score = self._score(mean, deviation, best, kappa)
            index = int(np.argmax(np.where(free, score, -np.inf)))
            free[index] = False
            point = pool.point(self.space, index)
            key = self.space.key(point)
            if key in taken or key in chosen:
                continue
            picks.append(point)
            chosen.add(key)
            if not many:
                best = min(best, float(mean[index]))
                cov = condition(cov, index, self.model.noise)
                deviation = _deviation(cov)
        return picks

    def _score(
        self, mean: np.ndarray, deviation: np.ndarray, best: float, kappa: float
    ) -> np.ndarray:
        """The acquisition function, to be maximised, shape (n,)."""
        bound: np.ndarray = kappa * deviation - mean
        if self.acq == "LCB":
            return bound
        gain: np.ndarray = log_improvement((best - mean) / deviation) + np.log(deviation)
        return gain


def _deviation(covariance: np.ndarray) -> np.ndarray:
    deviation: np.ndarray = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    return deviation


def log_improvement(z: np.ndarray) -> np.ndarray:
    """Logarithm of the expected improvement at `z` standard deviations below the best, for a
    deviation of 1; exact also where the improvement itself would be rounded to 0."""
    from scipy.special import erfcx, log_ndtr  # slow to import

    density = -0.5 * z * z - 0.5 * np.log(2.0 * np.pi)
    middle = np.maximum(z, -5.0)
    near = np.log(middle * np.exp(log_ndtr(middle)) + np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi))
    # phi(z) (1 + z Phi(z) / phi(z)), with the ratio by the scaled error function.
    far = np.minimum(z, -5.0)
    ratio = 1.0 + far * np.sqrt(np.pi / 2.0) * erfcx(-far / np.sqrt(2.0))
    tail = density + np.log(np.maximum(ratio, 1e-15))
    result: np.ndarray = np.where(z > -5.0, near, tail)
    return result
