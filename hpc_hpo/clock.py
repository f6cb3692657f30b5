"""Time as an argument, so that the steering loop can run under a virtual clock."""

from __future__ import annotations

import queue
import time
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Clock(Protocol):
    """What the steering loop may know about time."""

    def now(self) -> float:
        """Seconds since the epoch; comparable between hosts up to their clock difference."""

    def cpu(self) -> float:
        """CPU seconds used by this process so far, for the login node's limits."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""

    def next_of(self, items: queue.SimpleQueue[Item], seconds: float) -> Item:
        """The next item of a queue, once it is there.

        Args:
            seconds: how long to wait for it; 0 takes only what is there.

        Raises:
            queue.Empty: none has come.
        """


class SystemClock:
    """The real clock."""

    def now(self) -> float:
        return time.time()

    def cpu(self) -> float:
        return time.process_time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def next_of(self, items: queue.SimpleQueue[Item], seconds: float) -> Item:
        return items.get(timeout=seconds) if seconds > 0 else items.get_nowait()
