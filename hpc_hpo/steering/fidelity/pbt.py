"""Population based training (Jaderberg et al., arXiv 1711.09846), as pauses and resumes.

A population is trained together. Every so many steps a member pauses and is compared. One in the
bottom quantile is stopped, and a new trial takes its place: it goes on from the checkpoint of one
of the top quantile, with changed values (truncation selection, section 4.1.1 of the paper). Nobody
is waited for.

One thing differs from the paper, where all members train at the same speed: losses are compared at
equal steps, not the latest ones. Blocks come and go, so that members are far apart, and the younger
ones would be given up only for being young. A member is judged by the last of its rungs that enough
others have passed; one that is ahead is so judged later, by what it was. And whoever is furthest
behind goes on first.
"""

from __future__ import annotations

import bisect
import math

from hpc_hpo.steering.fidelity.base import Standing


class Pbt:
    """See base.Policy; besides, it says which trials are to be replaced, and by copies of whom.

    Args:
        population: members that are trained together.
        every: steps between two comparisons.
        most: the step at which a member is at its end.
        quantile: the share that is replaced, and that is copied.
    """

    def __init__(self, population: int, every: int, most: int, quantile: float) -> None:
        self._every, self._most, self._quantile = every, most, quantile
        #: so many make a comparison
        self._enough = max(2, min(population, math.ceil(1 / quantile)))
        #: by rung, (loss, trial) of all that have paused there, the best first
        self._scores: dict[int, list[tuple[float, int]]] = {}
        self._losses: dict[tuple[int, int], float] = {}  #: (trial, rung) -> loss
        self._at: dict[int, int] = {}  #: of trials that wait, their step
        self._ripe: dict[int, int] = {}  #: those that go on -> step
        self._poor: dict[int, int] = {}  #: to be replaced: trial -> rung of the comparison
        self._replaced: dict[int, None] = {}  #: those whose successor was asked; to be stopped
        self._out: set[int] = set()  #: stopped or failed: nobody copies these

    def begun(self, trial: int, step: int = 0) -> int | None:
        return self._next(step)

    def _next(self, step: int) -> int | None:
        after = (step // self._every + 1) * self._every
        return after if after < self._most else None

    def reached(self, standing: Standing) -> bool:
        trial, rung = standing.trial, standing.step // self._every
        self._losses[trial, rung] = standing.loss
        bisect.insort(self._scores.setdefault(rung, []), (standing.loss, trial))
        self._at[trial] = self._ripe[trial] = standing.step
        # One more to compare with: that may decide on others who wait, too.
        for number in list(self._ripe):
            found = self._worst_at(number)
            if found is not None:
                self._poor[number] = found
                del self._ripe[number]
        return trial in self._ripe

    def _worst_at(self, trial: int) -> int | None:
        """The rung at which a trial is in the bottom quantile; None: it is not."""
        for rung in range(self._at[trial] // self._every, 0, -1):
            loss, scores = self._losses.get((trial, rung)), self._scores.get(rung, [])
            if loss is None:
                return None  # it began beyond
            if len(scores) >= self._enough or (len(scores) > 1 and not math.isfinite(loss)):
                place = bisect.bisect_left(scores, (loss, trial))
                return rung if place >= len(scores) - self._count(scores) else None
        return None

    def _count(self, scores: list[tuple[float, int]]) -> int:
        """How many the quantile is."""
        return max(1, math.floor(self._quantile * len(scores)))

    def poor(self) -> list[int]:
        """Trials to be replaced: those in the bottom quantile, and members that have failed."""
        return list(self._poor)

    def models(self, trial: int) -> list[int]:
        """Whom a copy in place of `trial` may be of: so many of those that were better where it
        was compared as the quantile has, the best first; one at least, and none that has itself
        been given up."""
        scores = self._scores.get(self._poor[trial], [])
        count = self._count(scores)
        found: list[int] = []
        for loss, number in scores:
            own = number == trial and trial in self._at  # one that has failed is no model either
            if own or not math.isfinite(loss) or len(found) == count:
                break
            if number not in self._out and number not in self._poor:
                found.append(number)
        return found

    def replaced(self, trial: int) -> None:
        """A copy was asked in place of `trial`."""
        self._poor.pop(trial, None)
        if trial in self._at:
            self._replaced[trial] = None
            self._out.add(trial)

    def spared(self, trial: int) -> None:
        """There is nobody to copy in its place: it goes on, if it has not failed."""
        if trial in self._at:
            del self._poor[trial]
            self._ripe[trial] = self._at[trial]

    def ripe(self) -> tuple[int, int | None] | None:
        if not self._ripe:
            return None
        trial = min(self._ripe, key=self._ripe.__getitem__)  # the first of equals
        return trial, self._next(self._ripe[trial])

    def went_on(self, trial: int) -> None:
        for book in (self._poor, self._replaced, self._at, self._ripe):
            book.pop(trial, None)

    def condemned(self) -> int | None:
        return next(iter(self._replaced), None)

    def ended(self, trial: int) -> None:
        self.went_on(trial)

    def failed(self, trial: int, step: int) -> None:
        """A trial is final without a loss; `step` is its last rung's, 0 where it had none."""
        self._out.add(trial)
        # Without a rung of its own it is held against the first.
        self._poor[trial] = max(1, step // self._every)

    def last_resort(self) -> tuple[int, int | None] | None:
        found = [
            (-step, self._losses[trial, step // self._every], trial)
            for trial, step in self._at.items()
        ]
        best = min(found, default=None)
        return None if best is None else (best[2], self._next(-best[0]))

    @property
    def waiting(self) -> list[int]:
        return list(self._at)
