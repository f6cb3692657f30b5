"""One block as the journal knows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class BlockRecord:
    """One block as the journal knows it; times in seconds since the epoch."""

    id: str
    job: str | None = None
    state: str = "requested"
    requested: float | None = None
    started: float | None = None
    ended: float | None = None
    deadline: float | None = None
    workers: int = 0
    nodes: int = 0  #: those that have begun; 0 in journals that do not tell
    reason: str | None = None

    def held_s(self, now: float) -> float:
        """Seconds this block ran until `now`."""
        if self.started is None:
            return 0.0
        return max(0.0, (self.ended if self.ended is not None else now) - self.started)

    def allocated_s(self, now: float) -> float:
        """Worker-seconds this block held until `now`."""
        return self.held_s(now) * self.workers
