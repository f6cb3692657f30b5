"""Optimisers as benchmarks/search_quality.py asks them: points for the workers that are free.

Each peer is set as its documentation says for parallel use, and is at its defaults otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hpc_hpo.optimizers.registry import create
from hpc_hpo.space import Space

#: Something that tell is to be given, and values as of quality_problems.Problem.
Asked = tuple[Any, list[float]]


class Asker(Protocol):
    """Minimises."""

    def ask(self, count: int) -> list[Asked]:
        """So many points, at once."""

    def tell(self, ended: Sequence[tuple[Any, float]]) -> None:
        """The losses of points asked for, in the order in which they ended."""


class Ours:
    """One of this package's optimisers, fitting in place."""

    def __init__(self, spec: Any, sizes: Sequence[int], seed: int, budget: int) -> None:
        space = Space.parse(
            {f"x{i}": {"int": [0, n - 1]} if n else {"float": [0, 1]} for i, n in enumerate(sizes)}
        )
        self._optimizer = create(spec, space, seed, budget=budget)
        self._next = 0

    def ask(self, count: int) -> list[Asked]:
        ids = range(self._next, self._next + count)
        self._next += count
        points = self._optimizer.ask(ids)
        return [(trial, list(p.values())) for trial, p in zip(ids, points, strict=False)]

    def tell(self, ended: Sequence[tuple[int, float]]) -> None:
        for trial, loss in ended:
            self._optimizer.tell(trial, loss)


class Skopt:
    """scikit-optimize's own Optimizer; several points by its constant liar. It has no way to be
    told of points in flight."""

    def __init__(self, surrogate: str, sizes: Sequence[int], seed: int, budget: int) -> None:
        from skopt import Optimizer

        warnings.simplefilter("ignore")
        self._optimizer = Optimizer(
            [(0, n - 1) if n else (0.0, 1.0) for n in sizes],
            base_estimator=surrogate, n_initial_points=10, random_state=seed,
        )  # fmt: skip

    def ask(self, count: int) -> list[Asked]:
        # ask() and ask(n_points=1) differ: the latter copies the optimizer first.
        points = [self._optimizer.ask()] if count == 1 else self._optimizer.ask(n_points=count)
        return [(x, [float(v) for v in x]) for x in points]

    def tell(self, ended: Sequence[tuple[Any, float]]) -> None:
        self._optimizer.tell([x for x, _ in ended], [loss for _, loss in ended])


class Optuna:
    """Optuna's multivariate TPE with its constant liar, or its Gaussian process."""

    def __init__(self, sampler: str, sizes: Sequence[int], seed: int, budget: int) -> None:
        import optuna

        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        made: Any
        if sampler == "GP":
            import torch

            torch.set_num_threads(1)
            made = optuna.samplers.GPSampler(seed=seed)
        else:
            made = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        self._study = optuna.create_study(sampler=made)
        kinds = optuna.distributions
        self._axes: dict[str, Any] = {
            f"x{i}": kinds.IntDistribution(0, n - 1) if n else kinds.FloatDistribution(0.0, 1.0)
            for i, n in enumerate(sizes)
        }

    def ask(self, count: int) -> list[Asked]:
        trials = [self._study.ask(self._axes) for _ in range(count)]
        return [(trial, [trial.params[name] for name in self._axes]) for trial in trials]

    def tell(self, ended: Sequence[tuple[Any, float]]) -> None:
        for trial, loss in ended:
            self._study.tell(trial, loss)


class DeepHyper:
    """DeepHyper's centralised Bayesian optimisation. Several points come by qUCBd, which its
    documentation recommends where they are many."""

    def __init__(self, sizes: Sequence[int], seed: int, budget: int) -> None:
        from deephyper.hpo import CBO, HpProblem

        warnings.simplefilter("ignore")
        problem = HpProblem()
        self._names = [f"x{i}" for i in range(len(sizes))]
        for name, n in zip(self._names, sizes, strict=True):
            problem.add_hyperparameter((0, n - 1) if n else (0.0, 1.0), name)
        self._search = CBO(problem, random_state=seed, verbose=0, multi_point_strategy="qUCBd")

    def ask(self, count: int) -> list[Asked]:
        tickets = [{name: point[name] for name in self._names} for point in self._search.ask(count)]
        return [(ticket, [float(v) for v in ticket.values()]) for ticket in tickets]

    def tell(self, ended: Sequence[tuple[Any, float]]) -> None:
        self._search.tell([(ticket, -loss) for ticket, loss in ended])


Maker = Callable[[Sequence[int], int, int], Asker]
ASKERS: dict[str, Maker] = {
    "random": lambda sizes, seed, budget: Ours("random", sizes, seed, budget),
    "auto": lambda sizes, seed, budget: Ours("auto", sizes, seed, budget),
    "tpe": lambda sizes, seed, budget: Ours("tpe", sizes, seed, budget),
    "Optuna TPE": lambda sizes, seed, budget: Optuna("TPE", sizes, seed, budget),
    "Optuna GP": lambda sizes, seed, budget: Optuna("GP", sizes, seed, budget),
    "skopt ET": lambda sizes, seed, budget: Skopt("ET", sizes, seed, budget),
    "skopt GP": lambda sizes, seed, budget: Skopt("GP", sizes, seed, budget),
    "DeepHyper": DeepHyper,
}
