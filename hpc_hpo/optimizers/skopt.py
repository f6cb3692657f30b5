"""Bayesian optimisation with scikit-optimize's regressors and an asking of our own.

scikit-optimize's own Optimizer fits again for each point of a batch, forgets points in
flight, and repeats suggestions; only its models are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.optimizers.base import Option
from hpc_hpo.optimizers.model_search import ModelSearch
from hpc_hpo.optimizers.surrogates import (
    Boosting,
    Forest,
    SkoptProcess,
    Surrogate,
    rows_to_learn_from,
    standardise,
)
from hpc_hpo.space import Space

_PURPOSE_FIT = 2


class SkoptSearch(ModelSearch):
    """A surrogate of the loss chooses where to look next.

    Args:
        surrogate: GP (Gaussian process), ET (extra trees), RF (random forest) or GBRT (boosted
            trees, three quantiles).
        n_initial, acq, ready: see ModelSearch.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "surrogate": Option(choices=("GP", "ET", "RF", "GBRT")),
        **ModelSearch.SHARED,
    }

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        surrogate: str = "GP",
        n_initial: int | None = None,
        acq: str = "EI",
        ready: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget, n_initial=n_initial, acq=acq, ready=ready)
        self.surrogate = surrogate
        self._learned: tuple[int, Any] = (0, None)

    def retell(self, losses: Sequence[float | None]) -> None:
        super().retell(losses)
        self._learned = (0, None)

    def _model(self, x: np.ndarray, losses: np.ndarray) -> Surrogate:
        y = standardise(losses)
        seed = int(self._rng(len(losses), _PURPOSE_FIT).integers(2**31))
        if self.surrogate == "GBRT":
            return Boosting(x, y, seed)
        if self.surrogate != "GP":
            return Forest(x, y, self.surrogate, seed)
        rows = rows_to_learn_from(len(losses))
        if self._learned[0] != rows:
            first = SkoptProcess.learn(x[:rows], standardise(losses[:rows]), self.seed)
            self._learned = rows, first
        return SkoptProcess(x, y, self._learned[1])
