"""The default search: a Gaussian process while it pays, with trees beside it or instead.

A Gaussian process says most from few losses. Its cost grows with the cube of the losses, so beyond
some hundreds it becomes a local one, which looks at a part of them: the best, the most recent, and
those around the best. Trees take any number of losses and features.
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
#: `auto`: features (a number is one, a choice one for each of its values) up to which a process was
#: measured to be at least as good as trees.
_MOST_FEATURES = 200


class BayesSearch(ModelSearch):
    """Takes any number of losses and workers.

    Args:
        model: gp, forest, or auto, which takes the Gaussian process, and trees where both losses
            and features are many; see `kind`.
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
        """The model for so many losses; these and the space alone decide, so a replay does as well.

        Returns:
            gp, a process that looks at all of them; local, one that looks at a part; forest.
        """
        if self.model == "forest":
            return "forest"
        if self.model == "auto" and told > _ROWS and self.space.features > _MOST_FEATURES:
            return "forest"
        return "gp" if told <= _ROWS else "local"

    def _model(self, x: np.ndarray, losses: np.ndarray) -> Surrogate:
        kind = self.kind(len(losses))
        if kind == "forest":
            seed = int(self._rng(len(losses), _PURPOSE_FIT).integers(2**31))
            some = thin(losses, _LOOKED_AT)
            return Forest(x[some], straighten(standardise(losses[some])), "ET", seed)
        hyper = self._hyperparameters(x, losses)
        some = thin(losses, _LOOKED_AT)
        x, y = x[some], straighten(standardise(losses[some]))
        rows = self._near_the_best(x, y) if kind == "local" else np.arange(len(y))
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
    def _near_the_best(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The losses that a local process looks at: _ROWS of more."""
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
