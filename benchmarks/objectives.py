"""How good the fronts of several objectives are, by their hypervolume. Needs the extra `optuna`.

    python benchmarks/objectives.py --trials 60 --workers 4 --seeds 5 [--json FILE]

Workers are asynchronous in virtual time and trials last differently. Every optimiser has the same
budget and seeds; hypervolumes are divided by the mean of those of random points on the problem.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import machine, write_result

from hpc_hpo.optimizers.registry import create
from hpc_hpo.pareto import hypervolume
from hpc_hpo.space import Space


@dataclass(frozen=True)
class Problem:
    """One with known objectives, all minimised, over the unit cube.

    Attributes:
        reference: the worst values that count.
    """

    name: str
    dims: int
    reference: tuple[float, ...]
    values: Callable[[Sequence[float]], list[float]]


def binh_korn(x: Sequence[float]) -> list[float]:
    a, b = 5 * x[0], 3 * x[1]
    return [4 * a * a + 4 * b * b, (a - 5) ** 2 + (b - 5) ** 2]


def zdt1(x: Sequence[float]) -> list[float]:
    g = 1 + 9 * sum(x[1:]) / (len(x) - 1)
    return [x[0], g * (1 - math.sqrt(x[0] / g))]


def zdt3(x: Sequence[float]) -> list[float]:
    g = 1 + 9 * sum(x[1:]) / (len(x) - 1)
    f = x[0]
    return [f, g * (1 - math.sqrt(f / g) - f / g * math.sin(10 * math.pi * f))]


def fonseca(x: Sequence[float]) -> list[float]:
    y, shift = [8 * v - 4 for v in x], 1 / math.sqrt(len(x))
    return [1 - math.exp(-sum((v + sign * shift) ** 2 for v in y)) for sign in (-1, 1)]


def dtlz2(x: Sequence[float]) -> list[float]:
    a, b = x[0] * math.pi / 2, x[1] * math.pi / 2
    g = 1 + sum((v - 0.5) ** 2 for v in x[2:])
    return [g * math.cos(a) * math.cos(b), g * math.cos(a) * math.sin(b), g * math.sin(a)]


PROBLEMS = (
    Problem("Binh-Korn", 2, (140.0, 50.0), binh_korn),
    Problem("ZDT1", 6, (1.1, 6.0), zdt1),
    Problem("ZDT3", 6, (1.1, 6.0), zdt3),
    Problem("Fonseca-Fleming", 3, (1.01, 1.01), fonseca),
    Problem("DTLZ2, 3 objectives", 6, (1.5, 1.5, 1.5), dtlz2),
)
OURS: dict[str, Any] = {
    "random": "random",
    "auto": {"name": "auto", "ready": False},
    "skopt ET": {"name": "skopt", "surrogate": "ET", "ready": False},
    "tpe": "tpe",
    "evolution": "evolution",
    "nsga2": "nsga2",
}
PEERS = ("Optuna NSGA-II", "Optuna TPE")


class Ours:
    """An optimiser of this package."""

    def __init__(self, name: str, problem: Problem, seed: int, trials: int) -> None:
        space = Space.parse({f"x{i}": {"float": [0, 1]} for i in range(problem.dims)})
        signs = [1] * len(problem.reference)
        self._made = create(OURS[name], space, seed, budget=trials, signs=signs)

    def ask(self, trial: int) -> list[float]:
        (point,) = self._made.ask([trial])
        return [point[f"x{i}"] for i in range(len(point))]

    def tell(self, trial: int, values: list[float]) -> None:
        self._made.tell(trial, values)


class Peer:
    """A sampler of Optuna, by its own ask and tell."""

    def __init__(self, name: str, problem: Problem, seed: int, trials: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if name == "Optuna TPE":
            sampler: Any = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True
            )
        else:
            sampler = optuna.samplers.NSGAIISampler(
                seed=seed, population_size=max(6, min(50, trials // 8))
            )
        self._dims = problem.dims
        self._study = optuna.create_study(
            directions=["minimize"] * len(problem.reference), sampler=sampler
        )
        self._open: dict[int, Any] = {}

    def ask(self, trial: int) -> list[float]:
        self._open[trial] = made = self._study.ask()
        return [made.suggest_float(f"x{i}", 0, 1) for i in range(self._dims)]

    def tell(self, trial: int, values: list[float]) -> None:
        self._study.tell(self._open.pop(trial), values)


def run(name: str, problem: Problem, seed: int, trials: int, workers: int) -> float:
    """The hypervolume of all trials' front."""
    search = (Ours if name in OURS else Peer)(name, problem, seed, trials)
    rng = np.random.default_rng([seed, trials, workers])
    running: list[tuple[float, int, list[float]]] = []
    found: list[list[float]] = []
    asked, now = 0, 0.0
    while asked < trials or running:
        while asked < trials and len(running) < workers:
            heapq.heappush(running, (now + 0.5 + rng.exponential(), asked, search.ask(asked)))
            asked += 1
        now, trial, x = heapq.heappop(running)
        found.append(problem.values(x))
        search.tell(trial, found[-1])
    return hypervolume(np.array(found), np.array(problem.reference))


def main() -> None:
    """Print a table of hypervolumes relative to random points."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[*OURS, *PEERS])
    parser.add_argument("--json")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'optimiser':<16}", *(f"{p.name:>22}" for p in PROBLEMS), f"{'CPU s':>8}")
    base: dict[str, float] = {}
    for name in ["random", *(n for n in given.only if n != "random")]:
        cells, begun = [], time.process_time()
        for problem in PROBLEMS:
            volumes = [
                run(name, problem, s, given.trials, given.workers) for s in range(given.seeds)
            ]
            base.setdefault(problem.name, float(np.mean(volumes)))
            ratio = np.array(volumes) / base[problem.name]
            error = float(ratio.std(ddof=1) / math.sqrt(len(ratio))) if len(ratio) > 1 else 0.0
            cells.append(f"{ratio.mean():.3f} ± {error:.3f}")
            rows.append({"optimizer": name, "problem": problem.name, "volumes": volumes})
        cpu = (time.process_time() - begun) / given.seeds / len(PROBLEMS)
        print(f"{name:<16}", *(f"{cell:>22}" for cell in cells), f"{cpu:8.1f}", flush=True)
    facts = machine(("numpy", "optuna"))
    write_result(given.json, {"machine": facts, "arguments": vars(given), "rows": rows})


if __name__ == "__main__":
    main()
