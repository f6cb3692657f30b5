"""Which model `auto` should take: by losses, dimensions and kinds of parameters.

    python benchmarks/model_choice.py [--seeds 3] [--sizes 16:96,64:320] [--models gp,forest,tpe]
        [--functions styblinski60,...] [--json FILE]

Runs as of search_quality.py, on functions that it does not compare optimisers with: those of
dev_functions.py, two of them in more dimensions, and sums of effects of choices and of neighbouring
pairs of them. Sizes are workers and trials. Mean regret: 0 at the optimum, or if it is unknown,
at the best of 2,000 random points; 1 at the median of random points.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # matrices are small: threads only spin

import numpy as np  # noqa: E402
from common import machine, write_result  # noqa: E402
from dev_functions import FUNCTIONS, styblinski  # noqa: E402
from quality_peers import ASKERS, Ours  # noqa: E402
from quality_problems import Problem, scaled  # noqa: E402
from search_quality import Case, run  # noqa: E402

from hpc_hpo.optimizers.registry import create  # noqa: E402
from hpc_hpo.space import Space  # noqa: E402

MODELS: dict[str, Any] = {
    "gp": {"name": "bayes", "model": "gp"},
    "forest": {"name": "bayes", "model": "forest"},
    "tpe": "tpe",
}
_RANDOM = 2000


class Choices:
    """Effects of `count` choices of `values` each, and of pairs, beside some numbers."""

    def __init__(self, count: int, values: int, numbers: int) -> None:
        rng = np.random.default_rng(5)
        self._alone = rng.normal(size=(count, values))
        self._pairs = 0.5 * rng.normal(size=(count, values, values))
        axes: dict[str, Any] = {
            f"c{i}": {"choice": [f"v{j}" for j in range(values)]} for i in range(count)
        }
        axes.update({f"x{i}": {"float": [0, 1]} for i in range(numbers)})
        self.space = Space.parse(axes)
        rng = np.random.default_rng(1)
        drawn = [self.loss(list(self.space.sample(rng).values())) for _ in range(_RANDOM)]
        self.problem = Problem("choices", (0,), self.loss, min(drawn))
        self._median = float(np.median(drawn))

    def loss(self, at: Sequence[Any]) -> float:
        """Of a point's values."""
        count = len(self._alone)
        chosen = np.array([int(value[1:]) for value in at[:count]])
        each = np.arange(count)
        total = float(self._alone[each, chosen].sum())
        total += float(self._pairs[each, chosen, np.roll(chosen, -1)].sum())
        x = np.array(at[count:], dtype=float)
        return total + 5.0 * float(((x - 0.3 - 0.05 * chosen[0]) ** 2).sum())

    def regret(self, loss: float) -> float:
        """See the module."""
        return (loss - self.problem.optimum) / (self._median - self.problem.optimum)

    def asker(self, spec: Any, seed: int, budget: int) -> Ours:
        """One of this package's optimisers in this space."""
        made = Ours("random", (0,), seed, budget)
        made._optimizer = create(spec, self.space, seed, budget=budget)
        return made


WIDE: dict[str, Callable[[], Problem]] = {
    f"styblinski{n}": lambda n=n: scaled("styblinski", n, -5.0, 5.0, styblinski)  # type: ignore[misc]
    for n in (60, 200)
}
CHOICES = {"choices4": (4, 5, 2), "choices6": (6, 5, 2), "choices12": (12, 4, 0),
           "choices40": (40, 5, 0)}  # fmt: skip
ALL = (*FUNCTIONS, *WIDE, *CHOICES)


def regret(name: str, model: str, workers: int, budget: int, seed: int) -> float:
    """The lowest of one run."""
    spec = MODELS[model]
    if name in CHOICES:
        made = Choices(*CHOICES[name])
        ASKERS[model] = lambda sizes, seed, budget: made.asker(spec, seed, budget)
        problem, judge = made.problem, made.regret
    else:
        problem = {**FUNCTIONS, **WIDE}[name]()
        ASKERS[model] = lambda sizes, seed, budget: Ours(spec, sizes, seed, budget)
        judge = problem.regret
    return judge(run(Case(model, name, workers, budget, seed), problem, 3600.0))


def main() -> None:
    """Run all, print a line for each function and size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", default="16:96,64:320")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--functions", default=",".join(ALL))
    parser.add_argument("--json")
    options = parser.parse_args()
    models, functions = options.models.split(","), options.functions.split(",")
    for key, values, known in (("models", models, MODELS), ("functions", functions, ALL)):
        if unknown := set(values) - set(known):
            parser.error(f"--{key}: {sorted(unknown)} are none of {', '.join(known)}")
    try:
        sizes = [tuple(map(int, size.split(":"))) for size in options.sizes.split(",")]
    except ValueError:
        parser.error(f"--sizes: {options.sizes!r} is no list of WORKERS:TRIALS")
    facts, rows = machine(("numpy", "scipy", "scikit-learn")), []
    print(f"{'function':16s} workers trials" + "".join(f"{m:>26s}" for m in models))
    for name, (workers, budget) in itertools.product(functions, sizes):
        line = f"{name:16s} {workers:7d} {budget:6d}"
        for model in models:
            begun = time.process_time()
            found = [regret(name, model, workers, budget, s) for s in range(options.seeds)]
            cpu = (time.process_time() - begun) / options.seeds
            error = np.std(found, ddof=1) / len(found) ** 0.5 if len(found) > 1 else np.nan
            rows.append({"function": name, "workers": workers, "trials": budget, "model": model,
                         "regrets": found, "cpu_s": cpu})  # fmt: skip
            line += f"{np.mean(found):9.3f} +- {error:5.3f} {cpu:5.1f}s"
        print(line, flush=True)
        write_result(options.json, {"machine": facts, "rows": rows})


if __name__ == "__main__":
    main()
