"""The order in which inputs are staged, so that workers have something to do soon.

Shared inputs come first, because no trial can do without them. Then segments, whole ones: one that
is complete keeps workers busy while the next is on its way, two halves do not. Of those that have
been looked at, the one with the fewest bytes is next (Johnson's rule for two stations in a row,
where all segments compute alike). Looking at a remote source costs a request, so it is done a
window ahead and not for all of ten thousand at once.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

#: Segments that are looked at before they are staged.
WINDOW = 64


class Carousel(Generic[T]):
    """Gives out units: to look at, then to stage.

    Args:
        units: in the study's order; the first is what all share.
    """

    def __init__(self, units: Sequence[T], window: int = WINDOW) -> None:
        self._unseen = deque(units)
        self._first: T | None = units[0] if units else None
        self._known: list[tuple[int, int, T]] = []
        self._order = 0
        self._window = window
        self._ahead = 0

    def next_to_look_at(self) -> T | None:
        """A unit whose size is wanted now; None: none yet."""
        if not self._unseen or self._ahead >= self._window:
            return None
        self._ahead += 1
        return self._unseen.popleft()

    def looked_at(self, unit: T, size: int) -> None:
        """What is missing of the unit has so many bytes."""
        heapq.heappush(self._known, (-1 if unit == self._first else size, self._order, unit))
        self._order += 1

    def next_to_stage(self) -> T | None:
        """The unit to stage next, of those that were looked at; None: none now."""
        # The first of all is what the others cannot do without.
        if not self._known or self._first not in (None, self._known[0][2]):
            return None
        self._first = None
        self._ahead -= 1
        return heapq.heappop(self._known)[2]
