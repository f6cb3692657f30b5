"""One search among several: what it is, where it stands, and how well it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import Optimizer
from hpc_hpo.space import Space

#: Under best-gain, trials without improvement that halve a search's share.
HALF_LIFE = 5
#: What counts as an improvement: this much of the standard deviation of its losses so far.
LEAST_GAIN = 0.01

#: More trials than any study has: the budget of a search that has none. A number that sums with
#: others and comes back exactly, as infinity would not.
UNLIMITED = 1 << 40
#: So many results of a search without a budget are worth learning from for others.
ENOUGH = 10

#: Numbers from here on, beyond any trial's, stand for results of `start_from` in optimisers.
FIRST_GIVEN = 1 << 40

FAIR, BEST_GAIN = "fair", "best-gain"


@dataclass(frozen=True)
class Search:
    """What the portfolio needs to know of one segment.

    Attributes:
        name: None for the only one of a study without segments.
        trials: its budget; None: only limits of the whole study end it.
        target: a loss (times the study's sign) that ends it; None: no target.
        make: its optimiser, new; the argument is how often it was begun again.
        values: of its segment.
        population: of a policy that replaces trials by copies of others: so many points are asked
            of the optimiser; None: no such policy.
        space: of its points; needed with a population.
        fit: a point of another segment as one of its own space, or None where it is none.
    """

    name: str | None
    trials: int | None
    make: Callable[[int], Optimizer]
    target: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    fit: Callable[[Point], Point | None] = lambda point: point
    population: int | None = None
    space: Space | None = None


class Proposal(NamedTuple):
    """A point to be asked."""

    segment: str | None
    point: Point
    #: what the journal says of it besides: `like`, the trial of another segment that it is taken
    #: from, or `given`, its place among the points of `start_from`
    facts: Mapping[str, int] = MappingProxyType({})


class Status(Enum):
    """Where a search stands."""

    WAITING = "waiting"  #: for its inputs
    READY = "ready"  #: may be asked while its budget lasts
    DRY = "dry"  #: its space holds no other point
    REACHED = "reached"  #: its target
    STOPPED = "stopped"  #: by a person
    FAILED = "failed"  #: its inputs are missing

    @property
    def runs(self) -> bool:
        """Whether trials that were begun go on now."""
        return self in (Status.READY, Status.DRY)

    @property
    def open(self) -> bool:
        """Whether they go on now or later."""
        return self.runs or self is Status.WAITING


class Gate(Protocol):
    """Says which segments have their inputs."""

    def changed(self, *, at_once: bool = False) -> bool:
        """Whether to look again at those that wait.

        Args:
            at_once: look now, however short ago that was done.
        """

    def look(self, name: str | None) -> str | None:
        """None: it has them; "": they may still come; else why they will not."""


class OpenGate:
    """Everything is there."""

    def changed(self, *, at_once: bool = False) -> bool:
        return False

    def look(self, name: str | None) -> str | None:
        return None


class Gains:
    """How well a search does: decides its share under best-gain."""

    __slots__ = ("best", "count", "mean", "since", "squares")

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        self.best: float | None = None
        self.since = 0

    def learn(self, loss: float | None) -> None:
        """Take in a loss (to be minimised); None: the trial failed."""
        self.since += 1
        if loss is None:
            return
        deviation = math.sqrt(self.squares / self.count) if self.count else 0.0
        if self.best is None or loss < self.best - LEAST_GAIN * deviation:
            self.since = 0
        self.best = loss if self.best is None else min(loss, self.best)
        self.count += 1
        step = loss - self.mean
        self.mean += step / self.count
        self.squares += step * (loss - self.mean)

    def share(self, floor: float) -> float:
        """Between `floor` and 1."""
        return max(floor, math.pow(0.5, self.since / HALF_LIFE))
