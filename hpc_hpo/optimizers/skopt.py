"""Bayesian optimisation with scikit-optimize's regressors and an asking of our own.

scikit-optimize's own Optimizer fits again for each point of a batch, forgets points in
flight, and repeats suggestions; only its models are used. Here one fit serves a whole batch:
candidates are drawn, the most promising are refined, and points are picked one after the
other, each pick taking its share of uncertainty away from its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.optimizers.sobol import SobolSequence
from hpc_hpo.optimizers.surrogates import (
    Forest,
    GaussianProcess,
    Surrogate,
    condition,
    one_thread,
)
from hpc_hpo.space import Space

#: Losses needed before a model is worth more than the initial design.
_MIN_TOLD = 3
#: Points picked from one set of candidates; a larger batch draws new ones.
_PICKS = 128
_SCATTERED, _AROUND_BEST, _KEPT, _REFINED = 300, 200, 150, 200
_BEST = 8
#: Points in flight that are accounted for, the most recent ones.
_MAX_PENDING = 200
_MEAN_KAPPA = 1.96
_PURPOSE_CANDIDATES, _PURPOSE_FIT = 1, 2


class SkoptSearch(BaseOptimizer):
    """A surrogate of the loss chooses where to look next.

    Args:
        surrogate: GP (Gaussian process), ET (extra trees) or RF (random forest).
        n_initial: points of the initial Sobol design. Default: two for each dimension and
            two more, at most 24 and at most a third of the budget.
        acq: EI (expected improvement) or LCB (lower confidence bound with a random weight of
            the uncertainty for each point, which spreads large batches more).
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "surrogate": Option(choices=("GP", "ET", "RF")),
        "n_initial": Option(low=1),
        "acq": Option(choices=("EI", "LCB")),
    }

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        surrogate: str = "GP",
        n_initial: int | None = None,
        acq: str = "EI",
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self.surrogate = surrogate
        self.acq = acq
        default = min(2 * space.dims + 2, 24)
        if budget is not None:
            default = min(default, max(budget // 3, _MIN_TOLD))
        self.n_initial = n_initial or default
        self._design = SobolSequence(space, seed)
        self._features: dict[int, np.ndarray] = {}
        self._learned: tuple[int, Any] = (0, None)

    def adopt(self, id: int, point: Point) -> None:
        super().adopt(id, point)
        self._features[id] = self.space.encode([point])[0]

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        taken = set(self._keys)
        while len(points) < count:
            number = len(self.points) + len(points)
            modelled = number >= self.n_initial and len(self.losses) >= _MIN_TOLD
            wanted = min(count - len(points), _PICKS)
            new = self._pick(wanted, number, taken, points) if modelled else []
            if not new:
                designed = None if modelled else self._design.next(number, taken)
                single = designed or self._draw(number, taken)
                if single is None:
                    break
                new = [single]
            points += new
            taken.update(self.space.key(p) for p in new)
        return points

    # ---------------------------------------------------------------- the model

    def _pending(self, batch: list[Point]) -> np.ndarray:
        """Features of the points in flight and of those picked for this batch, shape (m, f)."""
        flying = [f for t, f in self._features.items() if t not in self.losses]
        flying += list(self.space.encode(batch))
        return np.array(flying[-_MAX_PENDING:]).reshape(-1, self.space.features)

    def _fit(self, number: int, batch: list[Point]) -> Surrogate:
        """The surrogate of all losses, with the points in flight and those of this batch."""
        told = list(self.losses)
        x = np.array([self._features[t] for t in told])
        losses = list(self.losses.values())
        pending = self._pending(batch)
        seed = int(self._rng(number, _PURPOSE_FIT).integers(2**31))
        if self.surrogate != "GP":
            return Forest(x, losses, pending, self.surrogate, seed)
        rows = GaussianProcess.rows_to_learn_from(len(told))
        if self._learned[0] != rows:
            self._learned = rows, GaussianProcess.learn(x[:rows], losses[:rows], self.seed)
        return GaussianProcess(x, losses, pending, self._learned[1])

    # ---------------------------------------------------------------- candidates

    def _pick(self, count: int, number: int, taken: set[str], batch: list[Point]) -> list[Point]:
        """Up to `count` points by the model; none when no candidate is new."""
        rng = self._rng(number, _PURPOSE_CANDIDATES)
        pool = self._candidates(rng, taken, count)
        if not pool:
            return []
        with one_thread():
            return self._choose(pool, count, number, taken, batch, rng)

    def _choose(
        self,
        pool: dict[str, Point],
        count: int,
        number: int,
        taken: set[str],
        batch: list[Point],
        rng: np.random.Generator,
    ) -> list[Point]:
        model = self._fit(number, batch)
        candidates = list(pool.values())
        features = self.space.encode(candidates)
        mean, cov = model.posterior(features)
        score = self._score(mean, cov, mean.min(), _MEAN_KAPPA)
        order = np.argsort(-score, kind="stable")
        # Around the most promising candidates look more closely; drop the least promising.
        kept = order[: max(2 * count, _KEPT)]
        near: dict[str, Point] = {}
        bases = [candidates[i] for i in order[:_BEST]]
        self._add_neighbours(near, bases, _REFINED, rng, taken | pool.keys(), (1.0, 3.0))
        refined = list(near.values())
        features = np.vstack([features[kept], self.space.encode(refined)])
        mean, cov = model.posterior(features)
        return self._greedy(
            [candidates[i] for i in kept] + refined,
            mean,
            cov,
            count,
            self._best_mean(model, batch),
            model.noise,
            rng,
        )

    def _candidates(
        self, rng: np.random.Generator, taken: set[str], count: int
    ) -> dict[str, Point]:
        """Key to point: all that is left of a small space, else scattered points and
        neighbours of the best known."""
        wanted = max(_SCATTERED, 3 * count)
        if self.space.enumerable():
            cardinality = self.space.cardinality() or 0
            if cardinality - len(taken) <= 2 * wanted:
                left = self._remaining(taken)
                chosen = rng.permutation(len(left))[:wanted]
                return {self.space.key(left[i]): left[i] for i in chosen}
        pool: dict[str, Point] = {}
        self._add(pool, rng.random((wanted, self.space.dims)), taken)
        ranked = sorted(
            (loss, order, t)
            for order, (t, loss) in enumerate(self.losses.items())
            if loss is not None
        )
        bases = [self.points[t] for _, _, t in ranked[:_BEST]]
        self._add_neighbours(pool, bases, _AROUND_BEST, rng, taken, (0.5, 2.5))
        return pool

    def _add(self, pool: dict[str, Point], units: np.ndarray, taken: set[str]) -> None:
        for u in units:
            point = self.space.from_unit(u)
            key = self.space.key(point)
            if key not in taken and key not in pool and self.space.allows(point):
                pool[key] = point

    def _add_neighbours(
        self,
        pool: dict[str, Point],
        bases: list[Point],
        count: int,
        rng: np.random.Generator,
        taken: set[str],
        decades: tuple[float, float],
    ) -> None:
        """Add points near `bases`, at distances 10**-decades of the unit interval."""
        if not bases or self.space.dims == 0:
            return
        dims = self.space.dims
        u = np.stack([self.space.to_unit(p, absent=np.nan) for p in bases])
        u = u[np.arange(count) % len(bases)]
        # A condition may bring an absent parameter in: then any value is as good.
        u = np.where(np.isnan(u), rng.random(u.shape), u)
        distance = 10.0 ** -rng.uniform(*decades, size=(count, 1))
        moved = rng.random((count, dims)) < rng.choice([1.0 / dims, 0.5, 1.0], size=(count, 1))
        moved[np.arange(count), rng.integers(dims, size=count)] = True
        shift = rng.normal(size=(count, dims)) * np.maximum(distance, self.space.steps)
        u = np.abs(u + np.where(moved, shift, 0.0)) % 2.0
        self._add(pool, np.where(u > 1.0, 2.0 - u, u), taken)

    # ---------------------------------------------------------------- choosing

    def _score(self, mean: np.ndarray, cov: np.ndarray, best: float, kappa: float) -> np.ndarray:
        """The acquisition function, to be maximised, shape (n,)."""
        deviation = np.sqrt(np.maximum(np.diag(cov), 1e-12))
        bound: np.ndarray = kappa * deviation - mean
        if self.acq == "LCB":
            return bound
        from scipy.special import ndtr  # slow to import

        z = (best - mean) / deviation
        improvement: np.ndarray = deviation * (
            z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
        )
        # Where no candidate promises anything, expected improvement is flat.
        return improvement if improvement.max() > 1e-9 else bound

    def _greedy(
        self,
        candidates: list[Point],
        mean: np.ndarray,
        cov: np.ndarray,
        count: int,
        best: float,
        noise: float,
        rng: np.random.Generator,
    ) -> list[Point]:
        """Pick `count` candidates; each pick counts as measured at its mean."""
        free = np.ones(len(candidates), dtype=bool)
        picks = []
        for _ in range(min(count, len(candidates))):
            kappa = float(rng.exponential(_MEAN_KAPPA))
            score = np.where(free, self._score(mean, cov, best, kappa), -np.inf)
            index = int(np.argmax(score))
            free[index] = False
            picks.append(candidates[index])
            best = min(best, float(mean[index]))
            cov = condition(cov, index, noise)
        return picks

    def _best_mean(self, model: Surrogate, batch: list[Point]) -> float:
        """The lowest loss the model expects at the best points told and those in flight.

        Without the latter, going where another trial is already looking would still count
        as an improvement.
        """
        finite = sorted(
            (loss, i) for i, loss in enumerate(self.losses.values()) if loss is not None
        )
        told = list(self.losses)
        chosen = [told[i] for _, i in finite[:_BEST]] or told[-1:]
        rows = [self._features[t] for t in chosen]
        mean, _ = model.posterior(np.vstack([rows, self._pending(batch)]))
        return float(mean.min())
