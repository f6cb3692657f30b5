"""The default search: a Gaussian process while it pays, with trees beside it or instead.

A Gaussian process says most from few losses of smooth functions of a few numbers. Its cost grows
with the cube of the losses, so beyond some hundreds it looks at a part of them: the best, the most
recent, and those around the best. Trees take any number of losses, categories and conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from hpc_hpo.optimizers import gp
from hpc_hpo.optimizers.base import Option
from hpc_hpo.optimizers.model_search import ModelSearch
from hpc_hpo.optimizers.surrogates import (
    LEARN_ROWS,
    Forest,
    Surrogate,
    rows_to_learn_from,
    select_rows,
    standardise,
    straighten,
    thin,
)
from hpc_hpo.space import Space

#: Losses a process is conditioned on.
_ROWS = 800
#: Losses among which those are chosen.
_LOOKED_AT = 6000
_PURPOSE_FIT = 2
#: `auto`: parameters (each choice's values count) up to which a process is taken.
_MOST_FEATURES = 40


class BayesSearch(ModelSearch):
    """Takes any number of losses and workers.

    Args:
        model: gp, forest, or auto, which takes the Gaussian process up to 40 features and trees
            beyond.
        n_initial, acq, ready: see ModelSearch.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "model": Option(choices=("auto", "gp", "forest")),
        **ModelSearch.SHARED,
    }

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        model: str = "auto",
        n_initial: int | None = None,
        acq: str = "EI",
        ready: bool = True,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget, n_initial=n_initial, acq=acq, ready=ready)
        self.model = model
        self._learned: tuple[int, gp.Hyperparameters | None] = (0, None)

    def retell(self, losses: Sequence[float | None]) -> None:
        super().retell(losses)
        self._learned = (0, None)

    def kind(self, told: int) -> str:
        """The model for so many losses: gp or forest."""
        if self.model != "auto":
            return self.model
        return "gp" if self.space.features <= _MOST_FEATURES else "forest"

    def _model(self, x: np.ndarray, losses: np.ndarray) -> Surrogate:
        told = len(losses)
        hyper = self._hyperparameters(x, losses) if self.kind(len(losses)) == "gp" else None
        some = thin(losses, _LOOKED_AT)
        x, losses = x[some], losses[some]
        y = straighten(standardise(losses))
        if hyper is None:
            return Forest(x, y, "ET", int(self._rng(told, _PURPOSE_FIT).integers(2**31)))
        rows = self._rows(x, y)
        return gp.Process(x[rows], y[rows], hyper)

    def _hyperparameters(self, x: np.ndarray, losses: np.ndarray) -> gp.Hyperparameters:
        count = rows_to_learn_from(len(losses))
        if self._learned[0] != count or self._learned[1] is None:
            some = thin(losses[:count], _LOOKED_AT)
            x, y = x[some], straighten(standardise(losses[some]))
            rows = select_rows(y, LEARN_ROWS)
            self._learned = count, gp.learn(x[rows], y[rows], self.codec.groups)
        found = self._learned[1]
        assert found is not None
        return found

    @staticmethod
    def _rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The losses that a process looks at, at most _ROWS."""
        if len(y) <= _ROWS:
            return np.arange(len(y))
        best = np.argsort(y, kind="stable")[: _ROWS // 4]
        chosen = set(best.tolist())
        chosen.update(range(len(y) - _ROWS // 8, len(y)))
        # Around the best, so that it knows well where it is going to look.
        gaps = gp.distances(x, x[best[:8]]).min(1)
        for row in np.argsort(gaps, kind="stable").tolist():
            if len(chosen) >= _ROWS:
                break
            chosen.add(row)
        return np.array(sorted(chosen))
