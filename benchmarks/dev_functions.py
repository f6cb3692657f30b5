"""What defaults of the search are chosen on: nothing of it is in the benchmark.

    python benchmarks/search_quality.py --table dev --only auto,tpe,random

Styblinski-Tang, Michalewicz, Dixon-Price, Schwefel and Rastrigin are the usual test functions;
`mlp` and `mlpgrid` are made up: the loss of a network by its settings, once over numbers with
noise, once over a coarse grid with the noise frozen in, as a table has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from quality_problems import Problem, scaled

_STYBLINSKI_LOWEST = 39.16616570377142
_MICHALEWICZ5_LOWEST = -4.687658
_SCHWEFEL_LOWEST = 418.9828872724339


def styblinski(x: np.ndarray) -> float:
    """Two holes in each dimension, one deeper, at -2.9035."""
    return float(0.5 * (x**4 - 16 * x**2 + 5 * x).sum()) + _STYBLINSKI_LOWEST * len(x)


def michalewicz(x: np.ndarray) -> float:
    """Narrow valleys in a plain; of 5 numbers."""
    i = np.arange(1, len(x) + 1)
    return -float((np.sin(x) * np.sin(i * x**2 / np.pi) ** 20).sum()) - _MICHALEWICZ5_LOWEST


def dixon_price(x: np.ndarray) -> float:
    """A bent valley with flat ground."""
    i = np.arange(2, len(x) + 1)
    return float((x[0] - 1) ** 2 + (i * (2 * x[1:] ** 2 - x[:-1]) ** 2).sum())


def schwefel(x: np.ndarray) -> float:
    """Deep holes far from one another, the deepest at 420.97."""
    return _SCHWEFEL_LOWEST * len(x) - float((x * np.sin(np.sqrt(np.abs(x)))).sum())


def rastrigin(x: np.ndarray) -> float:
    """A grid of holes over a bowl, the deepest at 0."""
    return float((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum())


def _network(rate: float, width: float, depth: float, decay: float, drop: float) -> float:
    """Loss above the best by learning rate, width, depth, weight decay and dropout, in [0, 1]: the
    best rate falls with the width, too high a rate diverges, decay and dropout hardly matter."""
    best = 0.65 - 0.25 * width - 0.1 * depth
    loss = 1.5 * (rate - best) ** 2 + 0.06 * (1 - width) ** 2 + 0.05 * abs(depth - 0.5)
    loss += 0.02 * (decay - 0.3) ** 2 + 0.01 * drop
    return loss + 0.5 * max(0.0, rate - best - 0.25)


def _mlp() -> Problem:
    def loss(at: Sequence[float]) -> float:
        rate, width, depth, decay, drop = at
        noise = np.random.default_rng(np.array(at).view(np.uint32)).normal()
        found = _network(rate, (width + 0.5) / 32, depth / 3, decay, drop)
        return found + 0.003 * abs(float(noise))

    # The best is at rate 0.35 and all but noise away from 0.
    return Problem("mlp5", (0, 32, 4, 0, 0), loss, 0.0)


def _mlp_grid() -> Problem:
    sizes = (10, 10, 3, 10, 10)
    frozen = np.random.default_rng(7).normal(size=sizes)
    table = np.empty(sizes)
    for at in np.ndindex(sizes):
        units = [i / (n - 1) for i, n in zip(at, sizes, strict=True)]
        table[at] = _network(*units) + 0.006 * frozen[at]

    return Problem(
        "mlpgrid5", sizes, lambda at: float(table[tuple(int(i) for i in at)]), float(table.min())
    )


FUNCTIONS: dict[str, Callable[[], Problem]] = {
    "styblinski4": lambda: scaled("styblinski", 4, -5.0, 5.0, styblinski),
    "styblinski20": lambda: scaled("styblinski", 20, -5.0, 5.0, styblinski),
    "michalewicz5": lambda: scaled("michalewicz", 5, 0.0, float(np.pi), michalewicz),
    "dixonprice6": lambda: scaled("dixonprice", 6, -10.0, 10.0, dixon_price),
    "schwefel3": lambda: scaled("schwefel", 3, -500.0, 500.0, schwefel),
    "rastrigin4": lambda: scaled("rastrigin", 4, -4.0, 5.5, rastrigin),
    "mlp5": _mlp,
    "mlpgrid5": _mlp_grid,
}
