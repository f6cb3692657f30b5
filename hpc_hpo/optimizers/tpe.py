"""Tree-structured Parzen estimators over all parameters at once, with numpy alone.

The points told are split into the best few and the others; each set is a mixture of kernels,
one around every point (Bergstra et al., NIPS 2011; the joint kernels as in Falkner et al., ICML
2018). Candidates are drawn from the first mixture, and the one is taken that is most likely there
against the second, which also holds the points in flight and those that failed. It needs
neither scikit-learn nor scipy, so a process that is started for one answer gives it at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.space import Space
from hpc_hpo.space.domains import Choice

#: Losses needed before the best of them say anything.
_MIN_TOLD = 4
#: Share of the losses that count as good, and how many at most.
_GOOD_SHARE, _MOST_GOOD = 0.15, 25
_CANDIDATES = 48
#: Kernels of the second mixture, and points in flight, at most; the newest count.
_MOST_OTHERS, _MOST_FLYING = 600, 200
#: Smallest width of a kernel in the unit interval with a single loss; it falls with the root of
#: their number. And the largest.
_RESOLUTION, _WIDEST = 0.5, 0.5
#: Draws that may hit known points before the search falls back on random ones.
_ROUNDS = 20
#: Largest space whose remaining points are all compared.
_LISTED = 2000
_PURPOSE = 3


@dataclass(frozen=True)
class Axes:
    """What the unit dimensions of a space are.

    Attributes:
        sizes: shape (dims,): number of categories of an unordered dimension, 0 of a number.
        steps: shape (dims,): distance of neighbouring values of numbers, 0 for floats.
    """

    sizes: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, space: Space) -> Axes:
        sizes: list[int] = []
        for name in space.names:
            domain = space.domain(name)
            unordered = domain.size if isinstance(domain, Choice) and domain.size else 0
            sizes += [unordered] * domain.dims
        steps = np.where(np.array(sizes) > 0, 0.0, space.steps) if sizes else space.steps
        return cls(np.array(sizes, dtype=int), np.asarray(steps, dtype=float))


class Mixture:
    """Equal kernels around points of the unit cube, and one that is uniform over it.

    Numbers have normal kernels cut off at the ends of the unit interval, categories keep their
    value with some probability. A dimension that a point does not have (NaN) is uniform in its
    kernel; densities are relative to the uniform distribution, so it then counts for nothing.

    Args:
        rows: shape (n, dims), NaN where a parameter is absent.
        widths: shape (dims,), standard deviations of the kernels.
        stay: probability that a kernel keeps its category.
    """

    def __init__(self, rows: np.ndarray, axes: Axes, widths: np.ndarray, stay: float) -> None:
        self._axes, self._widths, self._stay = axes, widths, stay
        self._numbers = axes.sizes == 0
        self._rows = rows
        here = ~np.isnan(rows)
        self._here = here.astype(float)
        mu = np.where(here, rows, 0.5)
        s = widths
        root = math.sqrt(0.5)
        cut = _erf((1.0 - mu) / s * root) + _erf(mu / s * root)
        scale = np.log(s) + 0.5 * math.log(2.0 * math.pi) + np.log(np.maximum(0.5 * cut, 1e-12))
        number = self._here * self._numbers
        self._present = number.T
        self._centre = (mu / s * number).T
        self._square = ((mu / s) ** 2 * number / 2.0 + scale * number).T
        self._category = self._categories(mu)

    def _categories(self, rows: np.ndarray) -> np.ndarray:
        """Index of each category, shape (n, dims); meaningless for numbers."""
        sizes = np.maximum(self._axes.sizes, 1)
        found: np.ndarray = np.minimum((rows * sizes).astype(int), sizes - 1)
        return found

    def log_density(self, x: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Logarithm of the density at `x` against the uniform one, shape (m,).

        Args:
            x: shape (m, dims), without NaN.
            present: shape (m, dims): which of the dimensions the points have.
        """
        m = present.astype(float)
        scaled = x / self._widths
        parts = -(
            0.5 * (scaled**2 * m) @ self._present
            + m @ self._square
            - (scaled * m) @ self._centre
        )  # fmt: skip
        category = self._categories(x)
        for d in np.flatnonzero(~self._numbers):
            size = self._axes.sizes[d]
            same, other = self._chances(size)
            equal = category[:, d, None] == self._category[None, :, d]
            both = m[:, d, None] * self._here[None, :, d]
            parts += both * np.where(equal, math.log(same * size), math.log(other * size))
        count = len(self._rows)
        parts = np.hstack([parts, np.zeros((len(x), 1))])
        top = parts.max(axis=1, keepdims=True)
        total = np.log(np.exp(parts - top).sum(axis=1)) + top[:, 0]
        result: np.ndarray = total - math.log(count + 1)
        return result

    def _chances(self, size: int) -> tuple[float, float]:
        """Probability of a kernel's own category and of each other one."""
        spread = (1.0 - self._stay) / size
        return self._stay + spread, spread

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` points of the unit cube, shape (count, dims)."""
        dims = self._rows.shape[1]
        uniform = rng.random((count, dims))
        chosen = rng.integers(len(self._rows) + 1, size=count)
        kernel = np.minimum(chosen, len(self._rows) - 1)
        centre = self._rows[kernel]
        moved = centre + rng.normal(size=(count, dims)) * self._widths
        for _ in range(8):  # the normal is cut off, not folded, at the ends
            outside = (moved < 0.0) | (moved > 1.0)
            again = centre + rng.normal(size=(count, dims)) * self._widths
            moved = np.where(outside, again, moved)
        moved = np.clip(moved, 0.0, 1.0)
        keeps = rng.random((count, dims)) < self._stay
        kept = np.where(keeps, centre, uniform)
        found = np.where(self._numbers, moved, kept)
        found = np.where(np.isnan(centre), uniform, found)
        return np.where((chosen == len(self._rows))[:, None], uniform, found)


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function; numpy has none of its own."""
    flat = [math.erf(v) for v in x.ravel().tolist()]
    return np.array(flat, dtype=float).reshape(x.shape)


class TpeSearch(BaseOptimizer):
    """Looks where good points are dense against all others.

    Args:
        n_initial: points of the initial design, spread evenly. Default: two for each dimension
            and two more, at most 24 and at most a third of the budget.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {"n_initial": Option(low=1)}

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        n_initial: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        default = min(2 * space.dims + 2, 24)
        if budget is not None:
            default = min(default, max(budget // 3, _MIN_TOLD))
        self.n_initial = n_initial or default
        self._axes = Axes.of(space)
        self._units: dict[int, np.ndarray] = {}
        self._strides = _strides(space.dims)
        self._shift = np.random.default_rng([seed, _PURPOSE]).random(space.dims)

    def adopt(self, id: int, point: Point) -> None:
        super().adopt(id, point)
        self._units[id] = self.space.to_unit(point, absent=math.nan)

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        for number, taken in self._one_by_one(count):
            known = sum(loss is not None for loss in self.losses.values())
            point = None
            if number >= self.n_initial and known >= _MIN_TOLD and self.space.dims:
                point = self._best(number, taken, points)
            elif self.space.dims:
                point = self._spread(number, taken)
            point = point or self._draw(number, taken)
            if point is None:
                break
            points.append(point)
            taken.add(self.space.key(point))
        return points

    def _spread(self, number: int, taken: set[str]) -> Point | None:
        """The next point of an additive recurrence, whose points lie evenly in any number."""
        for i in range(number, number + 100):
            point = self.space.from_unit((self._shift + (i + 1) * self._strides) % 1.0)
            if self.space.allows(point) and self.space.key(point) not in taken:
                return point
        return None

    # ---------------------------------------------------------------- the two mixtures

    def _rows(self, batch: Sequence[Point]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit coordinates of the good points, the others with a result, those in flight."""
        told = enumerate(self.losses.items())
        known = sorted((loss, i, t) for i, (t, loss) in told if loss is not None)
        good = min(max(math.ceil(_GOOD_SHARE * len(known)), 2), _MOST_GOOD)
        # Of many equal losses at the border, none says more than the others.
        border = known[good][0] if good < len(known) else math.inf
        best = [t for loss, _, t in known[:good] if loss < border]
        best = best or [t for _, _, t in known[:good]]
        others = [t for t in self.losses if t not in set(best)][-_MOST_OTHERS:]
        flying = [u for t, u in self._units.items() if t not in self.losses]
        flying += [self.space.to_unit(p, absent=math.nan) for p in batch]
        return (
            self._stack([self._units[t] for t in best]),
            self._stack([self._units[t] for t in others]),
            self._stack(flying[-_MOST_FLYING:]),
        )

    def _stack(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.array(rows, dtype=float).reshape(-1, self.space.dims)

    def _widths(self, rows: np.ndarray) -> np.ndarray:
        """Standard deviations of kernels around `rows`, shape (dims,)."""
        n, dims = rows.shape
        here = ~np.isnan(rows)
        count = np.maximum(here.sum(axis=0), 1)
        mean = np.where(here, rows, 0.0).sum(axis=0) / count
        spread = np.sqrt(np.where(here, (rows - mean) ** 2, 0.0).sum(axis=0) / count)
        # Scott's rule, but never narrower than what so many losses can resolve: a few good
        # points that lie together by chance would hold the search there.
        narrowest = np.maximum(_RESOLUTION / math.sqrt(len(self.losses)), 0.5 * self._axes.steps)
        widths: np.ndarray = np.clip(spread * n ** (-1.0 / (dims + 4)), narrowest, _WIDEST)
        return widths

    def _best(self, number: int, taken: set[str], batch: Sequence[Point]) -> Point | None:
        """The most promising of the candidates that are new; None when none is."""
        rng = self._rng(number, _PURPOSE)
        good_rows, other_rows, flying = self._rows(batch)
        widths = self._widths(good_rows)
        stay = _stay(len(good_rows))
        good = Mixture(good_rows, self._axes, widths, stay)
        candidates = self._candidates(rng, good, taken)
        if not candidates:
            return None
        units = np.stack([self.space.to_unit(p, absent=math.nan) for p in candidates])
        present = ~np.isnan(units)
        x = np.where(present, units, 0.5)
        against = np.zeros(len(x))
        if len(other_rows):
            others = Mixture(
                other_rows, self._axes, self._widths(other_rows), _stay(len(other_rows))
            )
            against = others.log_density(x, present)
        if len(flying):
            # As narrow as the good points' kernels: each takes away what one of them promises.
            spent = Mixture(flying, self._axes, widths, stay).log_density(x, present)
            share = math.log(len(flying) / len(good_rows))
            against = np.logaddexp(against, spent + share)
        score = good.log_density(x, present) - against
        return candidates[int(np.argmax(score))]

    def _candidates(self, rng: np.random.Generator, good: Mixture, taken: set[str]) -> list[Point]:
        if self.space.enumerable() and (self.space.cardinality() or 0) - len(taken) <= _LISTED:
            return self._remaining(taken)
        found: dict[str, Point] = {}
        for _ in range(_ROUNDS):
            for u in good.draw(rng, _CANDIDATES):
                point = self.space.from_unit(u)
                key = self.space.key(point)
                if key not in taken and self.space.allows(point):
                    found.setdefault(key, point)
            if len(found) >= _CANDIDATES // 2:
                break
        return list(found.values())


def _stay(count: int) -> float:
    """Probability that a kernel keeps its category, among `count` kernels."""
    return 1.0 - 1.0 / (1.0 + 0.2 * count)


def _strides(dims: int) -> np.ndarray:
    """Steps of the additive recurrence, shape (dims,): powers of the root of
    x**(dims + 1) = x + 1, a generalised golden ratio."""
    root = 2.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (dims + 1))
    found: np.ndarray = (1.0 / root) ** np.arange(1, dims + 1)
    return found
