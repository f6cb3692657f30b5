"""A fixed list of points, each evaluated once: for points that somebody else has chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.space import Space


class PointsSearch(BaseOptimizer):
    """Asks for the points of a list in their order; equal ones once.

    Args:
        points: parameters of each.

    Raises:
        InputError: a point does not belong to the space; the text has its index.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {"points": Option(kind="any")}
    LEARNS: ClassVar[bool] = False

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        points: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        if not isinstance(points, (list, tuple)) or not points:
            raise InputError(
                "not a list of points", key="points", found=points, valid="[{x: 1}, {x: 2}, ...]"
            )
        self._listed: dict[str, Point] = {}
        for index, point in enumerate(points):
            if not isinstance(point, Mapping):
                raise InputError(
                    f"entry {index} is not a point", key="points", found=point, valid="as in {x: 1}"
                )
            try:
                valid = space.validate(point)
            except InputError as error:
                raise InputError(f"point {index}: {error}", key="points") from None
            self._listed.setdefault(space.key(valid), valid)

    @property
    def exhausted(self) -> bool:
        return self._listed.keys() <= self._keys

    def _propose(self, count: int) -> list[Point]:
        left = [dict(p) for key, p in self._listed.items() if key not in self._keys]
        return left[:count]
