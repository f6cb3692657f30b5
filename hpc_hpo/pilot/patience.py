"""When to try a scheduler again after it failed: a pure policy."""

from __future__ import annotations

import math


class Patience:
    """Waits twice as long after each failure, up to a limit; a success forgets them.

    Args:
        first_s: wait after the first failure.
        longest_s: no wait is longer.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self.failures = 0
        self.since: float | None = None  #: time of the first failure in a row
        self._next = -math.inf

    def ready(self, now: float) -> bool:
        """Whether the wait is over."""
        return now >= self._next

    def failed(self, now: float) -> None:
        """Count a failure."""
        self.failures += 1
        self.since = now if self.since is None else self.since
        wait = self._first_s * 2.0 ** min(self.failures - 1, 30)
        self._next = now + min(wait, self._longest_s)

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures, self.since, self._next = 0, None, -math.inf
