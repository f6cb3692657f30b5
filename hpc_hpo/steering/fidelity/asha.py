"""Asynchronous successive halving (Li et al., MLSys 2020), and Hyperband over it.

Rungs are at min, min * eta, min * eta**2 ... below max. A trial goes on from a rung once it is in
the best 1/eta of all that have reached it. Nothing is waited for: a free worker takes the
highest trial that may go on, else a new point is begun.

Hyperband (Li et al., JMLR 2018) is several of these with a higher first rung each; trials are
dealt to them in the shares that its brackets have, so that none waits for another.
"""

from __future__ import annotations

import heapq
import math

from hpc_hpo.steering.fidelity.base import Standing


class Rung:
    """Who is in the best 1/eta of a growing set; each arrival costs O(log n)."""

    def __init__(self, step: int, eta: int) -> None:
        self.step, self._eta = step, eta
        self.losses: dict[int, float] = {}
        self._top: list[tuple[float, int]] = []  #: the worst of the best comes first
        self._rest: list[tuple[float, int]] = []
        self._best: set[int] = set()
        self.waiting: dict[int, None] = {}
        self._ripe: list[tuple[float, int]] = []

    def add(self, trial: int, loss: float) -> None:
        """A trial has reached it, and waits."""
        self.losses[trial] = loss
        self.waiting[trial] = None
        heapq.heappush(self._rest, (loss, trial))
        if self._top and (loss, trial) < (-self._top[0][0], -self._top[0][1]):
            self._demote()
            self._promote()
        if len(self._top) < len(self.losses) // self._eta:
            self._promote()

    def _promote(self) -> None:
        loss, trial = heapq.heappop(self._rest)
        heapq.heappush(self._top, (-loss, -trial))
        self._best.add(trial)
        if trial in self.waiting and math.isfinite(loss):
            heapq.heappush(self._ripe, (loss, trial))

    def _demote(self) -> None:
        loss, trial = heapq.heappop(self._top)
        self._best.discard(-trial)
        heapq.heappush(self._rest, (-loss, -trial))

    def ripe(self) -> int | None:
        """The best trial that waits and may go on."""
        while self._ripe:
            trial = self._ripe[0][1]
            if trial in self.waiting and trial in self._best:
                return trial
            heapq.heappop(self._ripe)
        return None


class Asha:
    """See base.Policy.

    Args:
        least: the first rung's step.
        most: the step at which a trial is at its end; no rung is there or beyond.
        eta: one of so many goes on.
    """

    def __init__(self, least: int, most: int, eta: int) -> None:
        steps = []
        while least < most:
            steps.append(least)
            least *= eta
        self._rungs = [Rung(step, eta) for step in steps]
        self._at: dict[int, int] = {}

    def begun(self, trial: int, step: int = 0) -> int | None:
        return self._rungs[0].step if self._rungs else None

    def reached(self, standing: Standing) -> bool:
        # One that skips steps is at the highest rung that it has passed.
        passed = [i for i, rung in enumerate(self._rungs) if rung.step <= standing.step]
        if not passed:
            return False
        self._at[standing.trial] = passed[-1]
        rung = self._rungs[passed[-1]]
        rung.add(standing.trial, standing.loss)
        return standing.trial in rung._best

    def _next(self, index: int) -> int | None:
        return self._rungs[index + 1].step if index + 1 < len(self._rungs) else None

    def ripe(self) -> tuple[int, int | None] | None:
        for index in range(len(self._rungs) - 1, -1, -1):
            trial = self._rungs[index].ripe()
            if trial is not None:
                return trial, self._next(index)
        return None

    def went_on(self, trial: int) -> None:
        index = self._at.pop(trial, None)
        if index is not None:
            self._rungs[index].waiting.pop(trial, None)

    def condemned(self) -> int | None:
        return None

    def ended(self, trial: int) -> None:
        self.went_on(trial)

    def last_resort(self) -> tuple[int, int | None] | None:
        for index in range(len(self._rungs) - 1, -1, -1):
            rung = self._rungs[index]
            found = [(rung.losses[t], t) for t in rung.waiting if math.isfinite(rung.losses[t])]
            if found:
                return min(found)[1], self._next(index)
        return None

    @property
    def waiting(self) -> list[int]:
        return [trial for rung in self._rungs for trial in rung.waiting]


class Hyperband:
    """See base.Policy; arguments as of Asha."""

    def __init__(self, least: int, most: int, eta: int) -> None:
        self._brackets: list[Asha] = []
        self._steps: list[float] = []
        highest = 0
        while least * eta ** (highest + 1) <= most:
            highest += 1
        for s in range(highest, -1, -1):
            self._brackets.append(Asha(least * eta ** (highest - s), most, eta))
            self._steps.append(1.0 / math.ceil((highest + 1) / (s + 1) * eta**s))
        self._passes = [0.0] * len(self._brackets)
        self._of: dict[int, Asha] = {}

    def begun(self, trial: int, step: int = 0) -> int | None:
        index = min(range(len(self._passes)), key=lambda i: (self._passes[i], i))
        self._passes[index] += self._steps[index]
        self._of[trial] = self._brackets[index]
        return self._brackets[index].begun(trial)

    def reached(self, standing: Standing) -> bool:
        return self._of[standing.trial].reached(standing)

    def ripe(self) -> tuple[int, int | None] | None:
        return next(filter(None, (b.ripe() for b in self._brackets)), None)

    def went_on(self, trial: int) -> None:
        self._of[trial].went_on(trial)

    def condemned(self) -> int | None:
        return None

    def ended(self, trial: int) -> None:
        self._of.pop(trial).ended(trial)

    def last_resort(self) -> tuple[int, int | None] | None:
        return next(filter(None, (b.last_resort() for b in reversed(self._brackets))), None)

    @property
    def waiting(self) -> list[int]:
        return [trial for bracket in self._brackets for trial in bracket.waiting]
