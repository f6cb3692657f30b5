"""A clock that jumps to the next event, and to which the CPU time of what is real is charged."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import queue
import time
from collections.abc import Callable, Iterator

from hpc_hpo.clock import Item

#: When every simulation begins, seconds since the epoch: 1 January 2020, UTC.
START = 1_577_836_800.0
#: The real pilot looks no more often at its blocks, in seconds.
NAP_S = 2.0


class VirtualClock:
    """See clock.Clock.

    Args:
        scale: virtual seconds that a second of this thread's CPU time takes; 0 = none.
        cpu: CPU seconds of this thread; replaced in tests.
        nap_s: a wait for an event lasts at least so long, in seconds.
    """

    def __init__(
        self, scale: float = 1.0, cpu: Callable[[], float] = time.thread_time, nap_s: float = NAP_S
    ) -> None:
        self._nap_s = nap_s
        self.scale = scale
        self._cpu_now = cpu
        self._mark = cpu()
        self._now = START
        self._charged = 0.0
        self._aside = 0
        self._agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()

    def _charge(self) -> None:
        if self._aside or not self.scale:
            return
        cpu = self._cpu_now()
        self.spend((cpu - self._mark) * self.scale)
        self._mark = cpu

    def spend(self, seconds: float) -> None:
        """Count `seconds` of CPU time that steering would have used here."""
        self._charged += seconds
        self._now += seconds

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What happens within is of the model, not of steering: its CPU time counts nowhere."""
        self._charge()
        self._aside += 1
        try:
            yield
        finally:
            self._aside -= 1
            if not self._aside:
                self._mark = self._cpu_now()

    def now(self) -> float:
        self._charge()
        return self._now

    def cpu(self) -> float:
        self._charge()
        return self._charged

    def at(self, when: float, action: Callable[[float], None]) -> None:
        """Put an action on the agenda; it is given `when`, though steering may be late for it."""
        heapq.heappush(self._agenda, (when, next(self._order), action))

    def advance(self, until: float, good: Callable[[], object]) -> None:
        """Go from event to event until something is `good`, or to the time `until`."""
        with self.aside():
            while not good():
                if not self._agenda or self._agenda[0][0] > until:
                    self._now = max(self._now, until)
                    return
                when, _, action = heapq.heappop(self._agenda)
                self._now = max(self._now, when)
                action(when)

    def sleep(self, seconds: float) -> None:
        self.advance(self.now() + seconds, lambda: False)

    def next_of(self, items: queue.SimpleQueue[Item], seconds: float) -> Item:
        wait = max(seconds, self._nap_s) if seconds > 0 else 0.0
        self.advance(self.now() + wait, lambda: not items.empty())
        return items.get_nowait()
