"""The trials that are to go on, or to begin, as soon as a worker is free."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from hpc_hpo.model import Trial


class Waiting:
    """A queue of trials, with those put aside that may not go on now.

    Args:
        runs: whether a trial's segment may run now.
    """

    def __init__(self, runs: Callable[[Trial], bool]) -> None:
        self._runs = runs
        self._queue: list[tuple[float, int, Trial]] = []  #: (not before, order, trial)
        #: Of segments that were stopped, have no inputs, or have reached their target.
        self._parked: list[Trial] = []
        self._order = 0

    def __len__(self) -> int:
        """Those that may go on, now or after a moment."""
        return len(self._queue)

    def add(self, trial: Trial, not_before: float = 0.0) -> None:
        """Queue a trial.

        Args:
            not_before: seconds since the epoch.
        """
        if not self._runs(trial):
            self._parked.append(trial)
            return
        self._order += 1
        heapq.heappush(self._queue, (not_before, self._order, trial))

    def sort(self) -> None:
        """Put aside the trials that may not go on, and take back those that may."""
        found = [(at, trial) for at, _, trial in self._queue] + [(0.0, t) for t in self._parked]
        self._queue, self._parked = [], []
        for not_before, trial in found:
            self.add(trial, not_before)

    def due(self, now: float) -> bool:
        """Whether one may go on at `now`."""
        return bool(self._queue) and self._queue[0][0] <= now

    def pop(self) -> Trial:
        """The one whose turn it is."""
        return heapq.heappop(self._queue)[2]
