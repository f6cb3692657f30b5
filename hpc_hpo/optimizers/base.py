"""What steering may ask of an optimiser, and the bookkeeping all of them share.

An optimiser's state is a function of the calls made so far: a fresh instance that gets the
same ``adopt`` and ``tell`` calls in the same order goes on like the one that computed the
points. So no random stream runs through its life; each draw is seeded by the study's seed
and the number of points asked before it. Restart is then a replay of the journal.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.space import Space
from hpc_hpo.space.space import MAX_DRAWS

#: Random draws that may hit known points before a small space's remaining ones are listed.
_FEW_DRAWS = 100


@dataclass(frozen=True)
class Option:
    """What an option of an optimiser may be: one of `choices`, or of a kind.

    Attributes:
        low: the least value of an integer or a number.
        kind: integer, number, text, flag, or any (the class looks at it itself).
    """

    choices: tuple[str, ...] | None = None
    low: int = 0
    kind: str = "integer"


class Optimizer(Protocol):
    """Proposes points and learns from their losses, which it minimises.

    A class of the entry-point group ``hpc_hpo.optimizers`` is called as
    ``cls(space, seed=..., budget=..., **options)``; `budget` is the number of trials the study
    may run, or None. Its `OPTIONS` name and check the options.
    """

    OPTIONS: ClassVar[Mapping[str, Option]]

    @property
    def exhausted(self) -> bool:
        """True when no new point is left to ask for."""

    def ask(self, ids: Sequence[int]) -> list[Point]:
        """New points for the trials `ids`, in their order, registered as in flight.

        Fewer when no more are left. None equals a point asked or adopted before.
        """

    def adopt(self, id: int, point: Point) -> None:
        """Register a point that was asked for earlier (a replay) or chosen by the user.

        The same point under another number announces a further observation of it. Numbers are at
        least 0, and need not follow one another.

        Raises:
            ValueError: the trial has a point already.
        """

    def tell(self, id: int, loss: Any) -> None:
        """Register the loss of a trial; None, NaN and infinities mean that it failed.

        One that was made for several objectives gets a list of them, as they are.

        Raises:
            ValueError: the trial is unknown or has been told already.
        """


class Taken(set[str]):
    """The keys of `base` and more: a copy of a large set would cost more than a batch does.

    Only what is added here lies in the set itself; ask with ``in``, ``len`` and ``add``.
    """

    def __init__(self, base: Collection[str]) -> None:
        super().__init__()
        self._base = base

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._base

    def __len__(self) -> int:
        return super().__len__() + len(self._base)


class BaseOptimizer(ABC):
    """Keeps points and losses; a family adds `_propose`."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {}
    #: whether losses change what is proposed
    LEARNS: ClassVar[bool] = True
    #: whether it can be told other losses in the place of those it was told: what it proposes is
    #: a function of `points` and `losses`
    RETELLS: ClassVar[bool] = True

    def __init__(self, space: Space, *, seed: int, budget: int | None = None) -> None:
        self.space, self.seed, self.budget = space, seed, budget
        self.points: dict[int, Point] = {}  #: in the order asked
        self.losses: dict[int, float | None] = {}  #: in the order told; None for a failure
        self._keys: set[str] = set()
        self._dry = False
        self._left: dict[str, Point] | None = None

    @property
    def exhausted(self) -> bool:
        if self._dry:
            return True
        cardinality = self.space.cardinality()
        return cardinality is not None and len(self._keys) >= cardinality

    def ask(self, ids: Sequence[int]) -> list[Point]:
        points = self._propose(len(ids)) if ids else []
        for trial, point in zip(ids, points, strict=False):
            self.adopt(trial, point)
        self._dry = self._dry or len(points) < len(ids)
        return points

    def adopt(self, id: int, point: Point) -> None:
        if id in self.points:
            raise ValueError(f"trial {id} has a point already")
        self.points[id] = point
        self._keys.add(self.space.key(point))

    def tell(self, id: int, loss: float | None) -> None:
        if id not in self.points:
            raise ValueError(f"trial {id} was never asked for")
        if id in self.losses:
            raise ValueError(f"trial {id} has been told already")
        self.losses[id] = None if loss is None or not math.isfinite(loss) else float(loss)

    def retell(self, losses: Sequence[float | None]) -> None:
        """Put others in the place of all losses told, in the order told; see RETELLS."""
        self.losses = dict(zip(self.losses, losses, strict=True))

    @abstractmethod
    def _propose(self, count: int) -> list[Point]:
        """Up to `count` different points, none of them asked before."""

    def _rng(self, number: int, *purpose: int) -> np.random.Generator:
        """The generator of the draw after `number` points were asked."""
        return np.random.default_rng([self.seed, number, *purpose])

    def _one_by_one(self, count: int) -> Iterator[tuple[int, set[str]]]:
        """(points asked before, keys taken) for each point of a batch.

        Its user adds the key of what it proposes. Families that propose so give the same
        points in one batch as in single asks.
        """
        taken = Taken(self._keys)
        for number in range(len(self.points), len(self.points) + count):
            yield number, taken

    def _draw(self, number: int, taken: Collection[str]) -> Point | None:
        """A random point whose key is not in `taken`; None when none can be found."""
        rng = self._rng(number)
        listable = self.space.enumerable()
        for _ in range(_FEW_DRAWS if listable else MAX_DRAWS):
            point = self.space.sample(rng)
            if self.space.key(point) not in taken:
                return point
        left = self._remaining(taken) if listable else []
        return left[int(rng.integers(len(left)))] if left else None

    def _remaining(self, taken: Collection[str]) -> list[Point]:
        """All points of an enumerable space whose key is not in `taken`."""
        if self._left is None:
            self._left = {self.space.key(p): p for p in self.space.grid(None)}
        left = [(key, point) for key, point in self._left.items() if key not in taken]
        # What was asked is never left again, so later searches need not look at it.
        self._left = {k: p for k, p in self._left.items() if k not in self._keys}
        return [dict(point) for _, point in left]
