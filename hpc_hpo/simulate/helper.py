"""The process that fits models, in virtual time: real fits, done here, whose CPU time says when
their proposals come."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

from hpc_hpo.optimizers.helper import Fitter, Helper
from hpc_hpo.simulate.clock import VirtualClock

#: A fit takes so long where CPU time is not charged, so that nothing depends on the machine, ...
FIT_S = 1.0
#: ... and counts as so much of the limit.
COST_S = 0.05
#: Beyond the real rest, the time between two fits grows so that they never use up the limit.
STRETCH = 3.0


class VirtualHelper(Helper):
    """See Helper.

    Args:
        most_s: CPU seconds that all fits may really take.
    """

    def __init__(self, clock: VirtualClock, most_s: float) -> None:
        super().__init__()
        self._clock, self._most_s = clock, most_s
        self._fitter = Fitter(self._take_batch)
        self._inbox: list[Any] = []
        self._batch: tuple[int, dict[str, Any]] | None = None
        self._busy = False
        self._begun = clock.now()
        self.fits, self.spent_s = 0, 0.0
        self._ids = itertools.count()
        self._heirs: dict[int, weakref.WeakMethod[Callable[[Any], None]]] = {}

    def register(self, receiver: Callable[[Any], None]) -> int:
        number = next(self._ids)
        self._heirs[number] = weakref.WeakMethod(receiver)
        return number

    def forget(self, number: int) -> None:
        self._heirs.pop(number, None)
        self._inbox.append(("drop", number, None))

    def start(self) -> None:
        self.alive, self.generation = True, self.generation + 1

    def stop(self) -> None:
        self.alive = False

    def send(self, content: Any) -> None:
        self._inbox.append(content)
        if not self._busy:
            self._busy = True
            self._clock.at(self._clock.now(), self._work)

    def wait(
        self, changed: threading.Condition, good: Callable[[], object], seconds: float
    ) -> None:
        self._clock.advance(self._clock.now() + seconds, good)

    def _take_batch(self, answer: tuple[int, dict[str, Any]]) -> None:
        self._batch = answer

    def _work(self, at: float) -> None:
        inbox, self._inbox = self._inbox, []
        for message in inbox:
            self._fitter.take(message)
        self._batch = None
        spent = self._fitter.work() if self.spent_s < self._most_s else 0.0
        if not spent:
            self._busy = False
            return
        scale = self._clock.scale
        cost, takes = (spent, spent * scale) if scale else (COST_S, FIT_S)
        self.fits, self.spent_s = self.fits + 1, self.spent_s + cost
        batch = self._batch
        self._clock.at(at + takes, lambda _: self._hand_over(batch))
        left = max(self._most_s - self.spent_s, 1e-6)
        limited = STRETCH * (at - self._begun) * cost / left
        rest = max(self._fitter.rest(takes), limited)
        self._clock.at(at + takes + rest, self._work)

    def _hand_over(self, batch: tuple[int, dict[str, Any]] | None) -> None:
        if batch is None:
            return
        reference = self._heirs.get(batch[0])
        receiver = reference and reference()
        if receiver:
            receiver(batch[1])
