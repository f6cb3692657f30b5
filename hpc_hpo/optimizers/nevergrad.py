"""Nevergrad's optimisers, by their names.

They carry their state from ask to ask, so a replay asks them again; that costs about a
millisecond a point. What they propose and is not new, or not allowed, is told to them as the
worst, so that they move on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.optimizers.extras import fill_absent, require
from hpc_hpo.space import Space
from hpc_hpo.space.domains import Choice

#: Those that take points in any order and in any number at once. NGOpt is not among them: some
#: of what it chooses wait for each loss, and its metamodel fails with numpy >= 2.4.
#: PSO learns from no points but its own.
ALGORITHMS = ("TwoPointsDE", "DE", "OnePlusOne", "DiscreteOnePlusOne", "CMA")
#: Told to the algorithms, which choose the size of their populations by it.
_WORKERS = 16
#: Draws until one is new.
_TRIES = 20
#: Told in place of a failure's loss; some of them compute with what they are told.
_FAR = 1e6
_PURPOSE = 9


class NevergradSearch(BaseOptimizer):
    """Needs the extra `nevergrad`.

    Args:
        algorithm: one of ALGORITHMS. Default: TwoPointsDE, a differential evolution.

    Raises:
        InputError: the package is missing.
    """

    RETELLS: ClassVar[bool] = False
    OPTIONS: ClassVar[Mapping[str, Option]] = {"algorithm": Option(choices=ALGORITHMS)}

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        algorithm: str = "TwoPointsDE",
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self._ng = require("nevergrad", "nevergrad")
        self._axes = [
            (name, i, len(domain.values) if isinstance(domain, Choice) else 0)
            for name in space.names
            for domain in [space.domain(name)]
            for i in range(domain.dims)
        ]
        self._engine = self._new_engine(algorithm) if self._axes else None
        #: of each trial, the candidate it was asked with; None for what came from elsewhere
        self._candidates: dict[int, Any] = {}
        #: candidates that were drawn and are about to be registered, by their points' keys
        self._drawn: dict[str, Any] = {}

    def _new_engine(self, algorithm: str) -> Any:
        p = self._ng.p
        entries = {
            f"{name}[{i}]": p.Choice(list(range(size))) if size else p.Scalar(lower=0, upper=1)
            for name, i, size in self._axes
        }
        space = p.Dict(**entries)
        space.random_state = np.random.RandomState(int(self._rng(0, _PURPOSE).integers(2**31)))
        try:
            cls = self._ng.optimizers.registry[algorithm]
        except KeyError as error:
            raise InputError(
                "this version of nevergrad has no such algorithm", key="algorithm", found=algorithm
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls(parametrization=space, budget=self.budget, num_workers=_WORKERS)

    # ---------------------------------------------------------------- coordinates

    def _point(self, candidate: Any) -> Point:
        units = []
        for name, i, size in self._axes:
            value = candidate.value[f"{name}[{i}]"]
            units.append((value + 0.5) / size if size else float(value))
        return self.space.from_unit(np.array(units))

    def _foreign(self, engine: Any, id: int) -> Any:
        """A candidate for a point that the algorithm did not propose."""
        units = fill_absent(self.space.to_unit(self.points[id], absent=np.nan), self.seed, id)
        value = {}
        for (name, i, size), u in zip(self._axes, units.tolist(), strict=True):
            value[f"{name}[{i}]"] = min(int(u * size), size - 1) if size else u
        return engine.parametrization.spawn_child(new_value=value)

    # ---------------------------------------------------------------- the protocol

    def _next(self, number: int, taken: Collection[str]) -> tuple[Point | None, Any]:
        """The next new point and its candidate, None when it is a random one."""
        if self._engine is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range(_TRIES):
                    candidate = self._engine.ask()
                    point = self._point(candidate)
                    if self.space.allows(point) and self.space.key(point) not in taken:
                        return point, candidate
                    self._engine.tell(candidate, _FAR)
        return self._draw(number, taken), None

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        for number, taken in self._one_by_one(count):
            point, candidate = self._next(number, taken)
            if point is None:
                break
            points.append(point)
            key = self.space.key(point)
            taken.add(key)
            self._drawn[key] = candidate
        return points

    def adopt(self, id: int, point: Point) -> None:
        key = self.space.key(point)
        if key not in self._drawn and key not in self._keys and id not in self.points:
            # A replay: what was asked then is asked again, which brings the state back. A further
            # observation of a point was never asked.
            again, candidate = self._next(len(self.points), self._keys)
            if again is not None and self.space.key(again) == key:
                self._drawn[key] = candidate
        super().adopt(id, point)
        self._candidates[id] = self._drawn.pop(key, None)

    def tell(self, id: int, loss: float | None) -> None:
        super().tell(id, loss)
        candidate, known = self._candidates.pop(id), self.losses[id]
        if self._engine is None:
            return
        # Squeezed into what the algorithms can compute with; the order stays.
        value = _FAR if known is None else math.asinh(known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._engine.tell(
                self._foreign(self._engine, id) if candidate is None else candidate, value
            )
