"""Pi by a quadrature rule over MPI ranks: the smallest study of trials with several ranks."""

from __future__ import annotations

import math
import platform
from typing import Any

import numpy as np


def quadrature(config: dict[str, Any], trial: Any) -> float:
    """Integrate 4 / (1 + x^2) from 0 to 1, each rank every `size`-th interval.

    Args:
        config: the point: ``intervals``, and ``shift``, where in its interval (0 its left end,
            1 its right end) the function is taken.
        trial: the trial's context.

    Returns:
        log10 of the error of pi. It is least near ``shift = 0.5``, the midpoint rule.
    """
    count = int(config["intervals"])
    x = (np.arange(trial.rank, count, trial.size) + config["shift"]) / count
    part = float(np.sum(4.0 / (1.0 + x * x))) / count
    print(f"rank {trial.rank} of {trial.size} on {platform.node()}: {part:.12f}")
    pi = trial.reduce(part, how="sum")  # the same number on every rank
    # An error of nothing but rounding counts as 1e-15: the loss must be finite.
    return math.log10(max(abs(pi - math.pi), 1e-15))
