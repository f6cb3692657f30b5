"""The point of a copy: its model's, changed a little (Jaderberg et al. 2017, section 4.1.1)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.space import Space, canonical
from hpc_hpo.space.domains import Domain
from hpc_hpo.study.fidelity import PERTURB, RESAMPLE, Fidelity

#: Tries to satisfy the constraints before the point stays as it is.
_TRIES = 100


def explore(
    space: Space,
    point: Point,
    spec: Fidelity,
    rng: np.random.Generator,
    taken: Collection[str] = (),
) -> Point:
    """A point near `point` that the space allows.

    Each number is multiplied by one of ``perturb``, or with probability ``resample`` drawn anew;
    values without an order are kept or drawn anew. A parameter that `point` lacks, and whose
    condition holds now, is drawn.

    Args:
        taken: points, as of ``canonical``, that are not to be had again if that can be.
    """
    factors = spec.perturb or PERTURB
    chance = RESAMPLE if spec.resample is None else spec.resample

    def value_of(name: str, domain: Domain) -> Any:
        # Drawn whatever is done with it, so that one parameter's lot is not another's.
        anew, factor = rng.random() < chance, factors[int(rng.integers(len(factors)))]
        fresh = domain.from_unit(rng.random(domain.dims).tolist())
        if name not in point:
            return fresh
        if spec.vary is not None and name not in spec.vary:
            return point[name]
        return fresh if anew else domain.scaled(point[name], factor)

    last = point
    for _ in range(_TRIES):
        found = space.derived(value_of)
        if space.allows(found):
            last = found
            if canonical(found) not in taken:
                break
    return last
