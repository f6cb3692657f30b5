"""The median rule of Google Vizier (Golovin et al., KDD 2017, section 3.2.2).

A trial is stopped at a step when its best loss so far is worse than the median, over the others
that have come as far, of the mean of their losses up to that step.
"""

from __future__ import annotations

import bisect
import itertools

from hpc_hpo.steering.fidelity.base import Standing

#: So many others must have come as far before one is stopped.
LEAST_OTHERS = 4


class Median:
    """See base.Policy.

    Args:
        least: the first step at which a trial may be stopped; the steps between two looks, too.
        most: the step at which a trial is at its end.
    """

    def __init__(self, least: int, most: int, eta: int = 0) -> None:
        self._every, self._most = least, most
        self._means: dict[int, list[float]] = {}
        self._ripe: dict[int, int | None] = {}
        self._condemned: dict[int, None] = {}

    def begun(self, trial: int, step: int = 0) -> int | None:
        return self._next(0)

    def _next(self, step: int) -> int | None:
        after = (step // self._every + 1) * self._every
        return after if after < self._most else None

    def reached(self, standing: Standing) -> bool:
        means = self._means.setdefault(standing.step // self._every, [])
        good = len(means) < LEAST_OTHERS or standing.best <= _median(means)
        bisect.insort(means, standing.mean)
        if good:
            self._ripe[standing.trial] = self._next(standing.step)
        else:
            self._condemned[standing.trial] = None
        return good

    def ripe(self) -> tuple[int, int | None] | None:
        return next(iter(self._ripe.items()), None)

    def went_on(self, trial: int) -> None:
        self._ripe.pop(trial, None)
        self._condemned.pop(trial, None)

    def condemned(self) -> int | None:
        return next(iter(self._condemned), None)

    def ended(self, trial: int) -> None:
        self.went_on(trial)

    def last_resort(self) -> tuple[int, int | None] | None:
        return None

    @property
    def waiting(self) -> list[int]:
        return list(itertools.chain(self._ripe, self._condemned))


def _median(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
