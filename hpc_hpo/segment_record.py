"""One segment as the journal knows it, and the points that it begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Given:
    """A point that a study begins with (`start_from`).

    Attributes:
        loss: its result elsewhere; None where it is to be evaluated.
        source: where it comes from, for people.
    """

    point: dict[str, Any]
    loss: float | list[float] | None
    source: str

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        found: dict[str, Any] = {"point": self.point, "from": self.source}
        return found if self.loss is None else {**found, "loss": self.loss}


@dataclass(slots=True)
class SegmentRecord:
    """One segment as the journal knows it. Trials that a rerun has set aside do not count.

    Attributes:
        asked, completed, failed, stopped_early: trials.
        least, most: numbers of the trials with the least and the greatest loss, the earliest of
            equals.
        stopped: a person has stopped it.
        problem: why its trials cannot run (an input); forgotten when a run begins.
        trials: its budget, where a person has changed it.
        spec: what it is, where it stands in no study file.
        round: how often it was begun again.
        told: results of `start_from`; queued: its points that are evaluated first.
        begun: how many of these were asked.
        children: of the trials asked, those that go on from another's checkpoint.
    """

    asked: int = 0
    completed: int = 0
    failed: int = 0
    stopped_early: int = 0
    least: int | None = None
    most: int | None = None
    stopped: bool = False
    problem: str | None = None
    trials: int | None = None
    spec: dict[str, Any] | None = None
    round: int = 0
    told: list[Given] = field(default_factory=list)
    queued: list[Given] = field(default_factory=list)
    begun: int = 0
    children: int = 0

    def give(self, one: dict[str, Any]) -> None:
        """Begin with one point more: one of the event `start`."""
        given = Given(one["point"], one.get("loss"), one["from"])
        (self.queued if given.loss is None else self.told).append(given)

    @property
    def ended(self) -> int:
        """Trials that are final."""
        return self.completed + self.failed + self.stopped_early
