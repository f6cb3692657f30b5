"""Search by a model of the loss: one fit serves many points, and points in flight count.

Losses are taken in by *epochs*: a fit is made from the first so many losses, and again when
enough new ones have come, one for eight points in flight. Between two fits points come in
*chunks*, each chosen with all points asked before it in mind. Where epochs and chunks begin follows
from the numbers of asks and tells alone, so a replay goes on in the middle of a chunk.
"""

from __future__ import annotations

import copy
import itertools
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers import pools
from hpc_hpo.optimizers.base import BaseOptimizer, Option, Taken
from hpc_hpo.optimizers.codec import Codec
from hpc_hpo.optimizers.picking import Picker
from hpc_hpo.optimizers.pools import Pool
from hpc_hpo.optimizers.sobol import SobolSequence
from hpc_hpo.optimizers.surrogates import Surrogate, one_thread
from hpc_hpo.space import Space

#: Losses needed before a model is worth more than the initial design.
_MIN_TOLD = 3
#: Points in flight for each loss that the model may be behind.
_BEHIND = 8
#: Points of the largest chunk.
_CHUNK = 128
_SCATTERED, _AROUND_BEST = 500, 300
_BEST = 8
#: Points in flight that are accounted for, the most recent ones.
_MAX_PENDING = 512
_PURPOSE_CANDIDATES = 1


class Rows:
    """A matrix that grows by rows."""

    def __init__(self, columns: int) -> None:
        self._data = np.empty((64, columns))
        self._count = 0

    def append(self, row: np.ndarray) -> None:
        """Add one row."""
        if self._count == len(self._data):
            self._data = np.vstack([self._data, np.empty_like(self._data)])
        self._data[self._count] = row
        self._count += 1

    @property
    def rows(self) -> np.ndarray:
        """All of them, shape (n, columns)."""
        return self._data[: self._count]


class ModelSearch(BaseOptimizer):
    """A family adds `_model`.

    Args:
        n_initial: points of the initial Sobol design. Default: two for each dimension and
            two more, at most 24 and at most a third of the budget.
        acq: EI (expected improvement) or LCB (lower confidence bound with a random weight of
            the uncertainty for each point, which spreads large batches more).
        ready: whether a study fits in the helper process; if not, equal seeds and equal orders of
            ends give equal points, and workers wait for fits.
    """

    #: of every family
    SHARED: ClassVar[Mapping[str, Option]] = {
        "n_initial": Option(low=1),
        "acq": Option(choices=("EI", "LCB")),
        "ready": Option(kind="flag"),
    }

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        n_initial: int | None = None,
        acq: str = "EI",
        ready: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self.ready = ready
        self.acq = acq
        default = min(2 * space.dims + 2, 24)
        if budget is not None:
            default = min(default, max(budget // 3, _MIN_TOLD))
        self.n_initial = n_initial or default
        self.codec = Codec(space)
        self._design = SobolSequence(space, seed)
        self._features = Rows(space.features)  # in the order asked
        self._order: dict[int, int] = {}  # trial -> its row
        self._ids: list[int] = []  # and back
        self._told: list[int] = []  # rows in the order told
        self._told_losses = Rows(1)  # NaN for failures
        self._epoch = (0, 0)  # losses and points there were when it began
        self._next_epoch = 1
        self._chunk: tuple[tuple[int, int], int] = ((0, 0), -1)
        self._queue: list[Point] = []
        self._fitted: tuple[int, Surrogate] | None = None  # to so many losses, no more

    # ---------------------------------------------------------------- the history

    def adopt(self, id: int, point: Point) -> None:
        super().adopt(id, point)
        self._order[id] = len(self._ids)
        self._ids.append(id)
        self._features.append(self.codec.encode([point])[0])

    def tell(self, id: int, loss: float | None) -> None:
        super().tell(id, loss)
        self._told.append(self._order[id])
        known = self.losses[id]
        self._told_losses.append(np.array([np.nan if known is None else known]))
        told = len(self._told)
        if told >= self._next_epoch:
            self._epoch = (told, len(self.points))
            self._next_epoch = told + max(1, (len(self.points) - told) // _BEHIND)

    def retell(self, losses: Sequence[float | None]) -> None:
        super().retell(losses)
        self._told_losses.rows[:, 0] = [np.nan if loss is None else loss for loss in losses]
        # What was made of the others counts no more.
        self._fitted, self._chunk, self._queue = None, ((0, 0), -1), []

    def _chunk_of(self, number: int) -> tuple[int, int]:
        """First number and size of the chunk to which a number of the epoch belongs."""
        told, start = self._epoch
        size = max(1, (start - told) // _BEHIND)
        while number >= start + size:
            start += size
            size = min(3 * size, max(_CHUNK, size))
        return start, size

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        for number, taken in self._one_by_one(count):
            modelled = number >= self.n_initial and self._epoch[0] >= _MIN_TOLD
            if modelled and self.space.dims:
                point = self._from_chunk(number, taken, points)
            else:
                point = self._design.next(number, taken)
            point = point or self._draw(number, taken)
            if point is None:
                break
            points.append(point)
            taken.add(self.space.key(point))
        return points

    def _from_chunk(
        self, number: int, taken: Collection[str], batch: Sequence[Point]
    ) -> Point | None:
        start, size = self._chunk_of(number)
        if self._chunk != (self._epoch, start):
            known = self._features.rows
            before = np.vstack([known, self.codec.encode(list(batch))])[:start]
            if start < number:
                # After a restart, or under other losses: the chunk is that of all its numbers, not
                # of those that are left.
                first = itertools.islice(itertools.chain(self.points.values(), batch), start)
                earlier: Collection[str] = {self.space.key(p) for p in first}
            else:
                earlier = taken
            self._queue = self._choose(start, size, self._epoch[0], before, earlier)
            self._chunk = self._epoch, start
        while self._queue:
            point = self._queue.pop(0)
            if self.space.key(point) not in taken:
                return point
        return None

    def fresh(self, count: int, reserved: Sequence[Point], salt: int) -> list[Point]:
        """Points from a fit of all that is known, without registering them.

        Args:
            count: how many, at most.
            reserved: points that others are about to take: they count as in flight.
            salt: a number; others give other points.
        """
        if len(self._told) < _MIN_TOLD or len(self.points) < self.n_initial or not self.space.dims:
            return []
        before = np.vstack([self._features.rows, self.codec.encode(list(reserved))])
        taken = Taken(self._keys)
        taken.update(self.space.key(p) for p in reserved)
        points: list[Point] = []
        while len(points) < count:
            wanted = min(count - len(points), 8 * _CHUNK)
            new = self._choose(salt + len(points), wanted, len(self._told), before, taken)[:wanted]
            if not new:
                break
            points += new
            taken.update(self.space.key(p) for p in new)
            before = np.vstack([before, self.codec.encode(new)])
        return points

    # ---------------------------------------------------------------- choosing

    @abstractmethod
    def _model(self, x: np.ndarray, losses: np.ndarray) -> Surrogate:
        """A new surrogate, a function of these alone.

        Args:
            x: features of the points told, shape (n, features).
            losses: theirs, shape (n,), NaN for failures.
        """

    def _model_of(self, x: np.ndarray, losses: np.ndarray) -> Surrogate:
        """The surrogate of the first losses, fitted once for all chunks of an epoch."""
        if self._fitted is None or self._fitted[0] != len(losses):
            self._fitted = len(losses), self._model(x, losses)
        return copy.copy(self._fitted[1])  # extend() leaves the original alone

    def _choose(
        self, number: int, count: int, told: int, asked: np.ndarray, taken: Collection[str]
    ) -> list[Point]:
        """About `count` points, and a few to spare, by the model.

        Args:
            number: seeds the random numbers.
            told: how many of the losses count.
            asked: features of all points asked before, in their order.
        """
        rng = self._rng(number, _PURPOSE_CANDIDATES, told)
        flying = np.ones(len(asked), dtype=bool)
        flying[self._told[:told]] = False
        pending = asked[flying][-_MAX_PENDING:]
        pool = self._pool(rng, count, told, taken)
        if len(pool) == 0:
            return []
        with one_thread():
            x = self._features.rows[self._told[:told]]
            losses = self._told_losses.rows[:told, 0]
            model = self._model_of(x, losses)
            model.extend(pending)
            best = self._best_mean(model, x, losses, pending)
            picker = Picker(self.space, self.codec, model, best, self.acq, rng)
            return picker.pick(pool, count, taken)

    def _best(self, told: int) -> list[int]:
        """Rows of the best losses, best first."""
        return [self._told[i] for i in _lowest(self._told_losses.rows[:told, 0])]

    def _pool(
        self, rng: np.random.Generator, count: int, told: int, taken: Collection[str]
    ) -> Pool:
        """All that is left of a small space, else scattered points and neighbours of the best."""
        wanted = max(_SCATTERED, 2 * count)
        if self.space.enumerable():
            cardinality = self.space.cardinality() or 0
            if cardinality - len(taken) <= 2 * wanted:
                return pools.listed(self.space, self.codec, self._remaining(taken))
        pool = pools.scattered(self.codec, self.space.dims, wanted, rng)
        bases = [self.points[self._ids[row]] for row in self._best(told)]
        if bases:
            units = np.stack([self.space.to_unit(p, absent=np.nan) for p in bases])
            near = max(_AROUND_BEST, 2 * count)
            pool = pool.with_units(
                self.codec, pools.around(units, near, self.space.steps, rng, (0.3, 2.3))
            )
        return pool

    def _best_mean(
        self, model: Surrogate, x: np.ndarray, losses: np.ndarray, pending: np.ndarray
    ) -> float:
        """The lowest loss the model expects at the best points told and those in flight.

        Without the latter, going where another trial is already looking would still count
        as an improvement.
        """
        rows = _lowest(losses) or [len(x) - 1]
        return float(model.expect(np.vstack([x[rows], pending])).min())


def _lowest(losses: np.ndarray) -> list[int]:
    """Indices of the lowest losses, lowest first; NaN is none of them."""
    known = np.flatnonzero(~np.isnan(losses))
    if len(known) > 64 * _BEST:
        # Equal losses at the edge: the earlier ones, whatever the partition does.
        edge = np.partition(losses[known], _BEST - 1)[_BEST - 1]
        known = known[losses[known] <= edge]
    found: list[int] = known[np.argsort(losses[known], kind="stable")[:_BEST]].tolist()
    return found
