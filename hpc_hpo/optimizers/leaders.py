"""The best trials told so far, to draw neighbours of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpc_hpo.optimizers.scalarise import Scale
from hpc_hpo.pareto import fronts

#: So many are kept, at least.
_BEST = 32


class Leaders:
    """A few of the best, by one loss or by several objectives, all to be minimised."""

    def __init__(self) -> None:
        self._kept: list[tuple[Sequence[float], int]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, losses: Sequence[float], id: int) -> None:
        """Take a trial in; it is kept where it is among the best."""
        self._kept.append((losses, id))
        if len(self._kept) >= 2 * _BEST:
            self._kept = self._best()

    def _best(self) -> list[tuple[Sequence[float], int]]:
        values = np.array([losses for losses, _ in self._kept])
        if values.shape[1] == 1:
            return sorted(self._kept)[:_BEST]
        order = np.argsort(fronts(values, _BEST), kind="stable")[:_BEST]
        return [self._kept[i] for i in sorted(order.tolist())]

    def pick(self, rng: np.random.Generator) -> int:
        """One of them: the better, the likelier. Several objectives are weighed at random."""
        best = self._best() if len(self._kept) > _BEST else list(self._kept)
        values = np.array([losses for losses, _ in best])
        if values.shape[1] == 1:
            best.sort()
        else:
            order = np.argsort(Scale(values, rng).losses(values), kind="stable")
            best = [best[i] for i in order]
        return best[min(int(rng.exponential(len(best) / 4.0)), len(best) - 1)][1]
