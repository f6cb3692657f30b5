"""Several objectives by an optimiser of one: random scalarisation.

The objectives are made one loss, the augmented Chebyshev norm of where they lie between the best
values seen and the usual ones, under a random weight of each (ParEGO: Knowles, IEEE TEC 2006).
Each few points have weights of their own, and so another part of the front to look for; the
optimiser is then told all losses anew.

When weights end follows from the numbers of asks and tells alone, and the weights from the seed
and these numbers, so a replay of the journal goes on under the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.space import Space

#: Of the sum of the objectives beside the greatest of them (Knowles takes the same).
_RHO = 0.05
#: Losses are no greater.
_MOST = 1e300
#: A weight lasts for one of so many points in flight, or of so many losses.
_OF_FLYING, _OF_TOLD = 8, 50
#: Weights of a batch that is made ahead.
_PARTS = 8
_PURPOSE, _PURPOSE_FRESH = 13, 14


def vector(losses: object, signs: Sequence[int]) -> list[float] | None:
    """The objectives of one trial, to be minimised; None when one of them is no finite number.

    Raises:
        ValueError: there are more or fewer of them.
    """
    if losses is None or (isinstance(losses, float) and not math.isfinite(losses)):
        return None
    if not isinstance(losses, Sequence) or len(losses) != len(signs):
        raise ValueError(f"{losses!r} are not {len(signs)} objectives")
    found = [sign * math.nan if x is None else sign * float(x)
             for sign, x in zip(signs, losses, strict=True)]  # fmt: skip
    return found if all(map(math.isfinite, found)) else None


class Scale:
    """From objectives to a loss.

    Args:
        seen: shape (n, objectives): those known, NaN for failures. They say which values are good
            and which are usual.
        rng: draws the weights.
    """

    def __init__(self, seen: np.ndarray, rng: np.random.Generator) -> None:
        count = seen.shape[1]
        self._weights = rng.dirichlet(np.ones(count))
        known = seen[~np.isnan(seen[:, 0])] / 2.0  # the distance of two halves does not overflow
        if len(known) == 0:
            known = np.zeros((1, count))
        self._best = known.min(0)
        # The median and not the worst: one trial that went astray must not make all others equal.
        usual, worst = np.median(known, 0) - self._best, known.max(0) - self._best
        self._unit = np.where(usual > 0, usual, np.where(worst > 0, worst, 0.5))

    def losses(self, values: np.ndarray) -> np.ndarray:
        """Shape (n,), of `values` with shape (n, objectives); NaN stays NaN."""
        with np.errstate(over="ignore"):
            places = np.clip((values / 2.0 - self._best) / self._unit, -_MOST, _MOST)
        weighed = self._weights * places
        found: np.ndarray = weighed.max(1) + _RHO * weighed.sum(1)
        return found


class Scalarised:
    """An optimiser of one loss, for several objectives.

    It is told a list with a value for each, or None; see base.Optimizer for all else.

    Args:
        inner: new; its class has RETELLS.
        signs: +1 for each objective that is minimised, -1 for one that is maximised.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, inner: BaseOptimizer, signs: Sequence[int]) -> None:
        self.inner, self.signs = inner, tuple(signs)
        self._vectors: list[list[float]] = []  #: in the order told; NaN for a failure
        self._since = (0, 0)  #: points asked and losses told when the weight began
        self._lasts = 1
        self._scale: Scale | None = None  #: None: the inner one has not been told by it yet

    @property
    def exhausted(self) -> bool:
        return self.inner.exhausted

    def adopt(self, id: int, point: Point) -> None:
        self.inner.adopt(id, point)
        self._count()

    def tell(self, id: int, loss: Any) -> None:
        found = vector(loss, self.signs)
        row = found or [math.nan] * len(self.signs)
        # Without a scale any number does: all are told anew before the next point.
        one = 0.0 if self._scale is None else float(self._scale.losses(np.array([row]))[0])
        self.inner.tell(id, None if found is None else one)
        self._vectors.append(row)
        self._count()

    def ask(self, ids: Sequence[int]) -> list[Point]:
        points: list[Point] = []
        while len(points) < len(ids):
            if self._scale is None and self.inner.LEARNS:
                asked, told = self._since
                self._scale = self._weigh(told, asked, told, _PURPOSE)
            room = self._lasts - (len(self.inner.points) - self._since[0])
            part = ids[len(points) : len(points) + (room if self.inner.LEARNS else len(ids))]
            new = self.inner.ask(part)
            points += new
            self._count()
            if len(new) < len(part):
                break
        return points

    def _count(self) -> None:
        """Whether the weight has served its time."""
        asked, told = len(self.inner.points), len(self._vectors)
        if max(asked - self._since[0], told - self._since[1]) >= self._lasts:
            self._since, self._scale = (asked, told), None
            self._lasts = max(1, (asked - told) // _OF_FLYING, told // _OF_TOLD)

    def _weigh(self, told: int, *seed: int) -> Scale:
        """Tell all losses anew, under a new weight and with the scales of the first `told`."""
        values = np.array(self._vectors).reshape(-1, len(self.signs))
        scale = Scale(values[:told], np.random.default_rng([self.inner.seed, *seed]))
        losses = scale.losses(values).tolist()
        self.inner.retell([None if loss != loss else loss for loss in losses])
        return scale

    # ---------------------------------------------------------------- in the helper process

    @property
    def _keys(self) -> set[str]:
        return self.inner._keys

    @property
    def space(self) -> Space:
        """The inner one's."""
        return self.inner.space

    def fresh(self, count: int, reserved: Sequence[Point], salt: int) -> list[Point]:
        """See model_search.ModelSearch.fresh; each part of the points has its own weight."""
        points: list[Point] = []
        parts = min(_PARTS, count)
        for part in range(parts):
            wanted = count * (part + 1) // parts - len(points)
            self._weigh(len(self._vectors), salt, part, _PURPOSE_FRESH)
            points += self.inner.fresh(wanted, [*reserved, *points], salt + len(points))  # type: ignore[attr-defined]
        self._scale = None
        return points
