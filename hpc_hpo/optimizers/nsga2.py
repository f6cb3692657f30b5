"""Optuna's NSGA-II: a population whose best fronts have children (Deb et al., IEEE TEC 2002).

A generation is a trial's own from the moment it is asked: it follows from the trials that had ended
by then. So no worker waits for a generation to end, and a replay gives each trial the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hpc_hpo.errors import InputError
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.optimizers.optuna import OptunaSearch
from hpc_hpo.optimizers.scalarise import vector
from hpc_hpo.space import Space

_MOST, _LEAST = 50, 6


class Nsga2Search(OptunaSearch):
    """Needs the extra `optuna`, and several objectives. It is told a list of them.

    Args:
        signs: +1 for each objective that is minimised, -1 for one that is maximised.
        population: trials of a generation; the first one is a Sobol design. Default: 50, and at
            most an eighth of the budget.

    Raises:
        InputError: the package is missing, or too old.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {"population": Option(low=2)}
    SEVERAL: ClassVar[bool] = True

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        signs: Sequence[int],
        budget: int | None = None,
        population: int | None = None,
    ) -> None:
        self.signs = tuple(signs)
        default = _MOST if budget is None else max(_LEAST, min(_MOST, budget // 8))
        self.population = population or default
        super().__init__(
            space, seed=seed, budget=budget, sampler="NSGA-II", n_initial=self.population
        )
        with self._hushed():
            self._generations = self._sampler(0)
        if not hasattr(self._generations, "get_trial_generation"):
            raise InputError(
                "this version of optuna does not tell the generation of a trial",
                found=self._optuna.__version__, valid="a newer one: pip install -U optuna",
            )  # fmt: skip

    def _directions(self) -> list[str]:
        return ["minimize"] * len(self.signs)

    def _facts(self) -> dict[str, Any]:
        with self._hushed():
            generation = self._generations.get_trial_generation(self._study, self._probe())
            # Its parents are chosen, and kept, when the first of it is asked.
            self._generations.get_parent_population(self._study, generation)
        return {self._generations._get_generation_key(): generation}

    def tell(self, id: int, loss: Any) -> None:
        found = vector(loss, self.signs)
        BaseOptimizer.tell(self, id, None if found is None else found[0])
        number = self._numbers[id]
        if found is None:
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, found)

    def _params_of(self, sampler: Any, probe: Any) -> dict[str, Any]:
        found = super()._params_of(sampler, probe)
        if found:
            # What a child does not have of its parents is a mutation.
            for name, kind in self._distributions.items():
                if name not in found:
                    found[name] = sampler.sample_independent(self._study, probe, name, kind)
        return found

    def _sampler(self, seed: int) -> Any:
        return self._optuna.samplers.NSGAIISampler(seed=seed, population_size=self.population)
