"""A ready queue before an optimiser, so that a free worker does not wait for a fit.

The optimiser itself lives in a helper process and learns of every ask and tell; here is a queue
of its latest proposals. What the queue lacks, or holds from too long ago, is drawn here at once:
points of the Sobol design while there is no model, then neighbours of the best.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Optimizer, Option
from hpc_hpo.optimizers.helper import Helper, shared
from hpc_hpo.optimizers.leaders import Leaders
from hpc_hpo.optimizers.model_search import ModelSearch
from hpc_hpo.optimizers.pools import around
from hpc_hpo.optimizers.scalarise import Scalarised, vector
from hpc_hpo.optimizers.sobol import SobolSequence
from hpc_hpo.space import Space

#: Losses a proposal may be behind: one for so many points in flight ...
_BEHIND = 4
#: ... and at any rate this share of those it was made from.
_SHARE_BEHIND = 0.25
#: A worker waits for a fresh point for this share of the time a trial takes, at most so long;
#: only where so few are in flight that each loss matters.
_PATIENCE, _MOST_PATIENCE_S, _FEW = 0.01, 2.0, 8
#: Share of random points among those drawn here.
_RANDOM = 0.1
#: After a restart the first points wait so long for the helper to start and fit, in seconds.
_START_S = 10.0
#: Points asked for at once that the helper is told of beforehand.
_BURST = 8
#: Trials of the history in one message; they go as columns, as a tuple for each would take more
#: memory than their points do.
_FRAME = 20_000
#: Deaths of the helper until the search goes on without it.
_MOST_DEATHS = 3
_PURPOSE = 10


class ReadyOptimizer(BaseOptimizer):
    """An optimiser with a queue of points that are ready.

    Points depend on when the helper's answers come, and never repeat. A replay of asks and tells
    brings both sides to the same state.

    Args:
        spec, space, seed, budget, signs: as of registry.create; `spec` must make a ModelSearch.
        n_initial: points of the initial design.
        helper: shared by all optimisers of the process.
        now: a clock, in seconds.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(
        self,
        spec: Mapping[str, Any],
        space: Space,
        *,
        seed: int,
        budget: int | None,
        n_initial: int,
        helper: Helper,
        now: Callable[[], float] = time.monotonic,
        signs: Sequence[int] = (),
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self.n_initial = n_initial
        self._design = SobolSequence(space, seed)
        self._helper, self._now = helper, now
        self._what = {
            "spec": dict(spec), "space": space.describe(), "constraints": list(space.constraints),
            "seed": seed, "budget": budget, "signs": tuple(signs),
        }  # fmt: skip
        self._number = helper.register(self._receive)
        weakref.finalize(self, helper.forget, self._number)
        self._generation, self._deaths = 0, 0
        self._events: list[tuple[Any, ...]] = []
        self._lock = threading.Condition()
        self._queue: deque[Point] = deque()
        self._queue_told = 0
        self._signs = signs
        #: of several objectives, what the helper is told for each loss
        self._lists: dict[int, Sequence[float] | None] = {}
        self._leaders = Leaders()
        self._asked_at: dict[int, float] = {}
        self._duration = 0.0
        #: where points came from
        self.served = {"queue": 0, "drawn": 0}

    # ---------------------------------------------------------------- the history

    def adopt(self, id: int, point: Point) -> None:
        super().adopt(id, point)
        if self._generation:
            self._events.append(("adopt", id, point))

    def tell(self, id: int, loss: Any) -> None:
        found = vector(loss, self._signs) if self._signs else None
        super().tell(id, (None if found is None else found[0]) if self._signs else loss)
        known = self.losses[id]
        if self._signs:
            self._lists[id] = None if known is None else loss
        if self._generation:
            self._events.append(("tell", id, self._lists[id] if self._signs else known))
        if known is not None:
            self._leaders.add(found or [known], id)
        begun = self._asked_at.pop(id, None)
        if begun is not None:
            took = self._now() - begun
            self._duration = took if not self._duration else 0.9 * self._duration + 0.1 * took
        if begun is not None and self._modelled():
            self._synchronise()  # not in a replay: that comes with the first ask

    def _modelled(self) -> bool:
        return len(self.points) >= self.n_initial and self.space.dims > 0

    def _synchronise(self) -> None:
        """Bring the helper to the present state; start it when it is needed first or has died."""
        helper = self._helper
        if self._deaths >= _MOST_DEATHS:
            self._events.clear()
            return
        if not helper.alive:
            if helper.generation == self._generation and self._generation:
                self._deaths += 1
                if self._deaths >= _MOST_DEATHS:
                    warnings.warn(
                        f"the process that fits models died {_MOST_DEATHS} times; the search goes "
                        "on with neighbours of its best points",
                        stacklevel=2,
                    )
                    return
            helper.start()
        if helper.generation != self._generation:
            self._generation = helper.generation
            helper.send(("new", self._number, self._what))
            self._events = []
            told: Mapping[int, Any] = self._lists if self._signs else self.losses
            for kind, known in (("adopted", self.points), ("told", told)):
                numbers = list(known)
                for begin in range(0, len(numbers), _FRAME):
                    part = numbers[begin : begin + _FRAME]
                    helper.send((kind, self._number, (part, [known[n] for n in part])))
            with self._lock:
                self._queue.clear()
        if self._events:
            helper.send(("events", self._number, self._events))
            self._events = []

    def _receive(self, content: dict[str, Any]) -> None:
        """In the helper's thread: a new batch replaces what is left of the last."""
        with self._lock:
            self._queue = deque(content["points"])
            self._queue_told = content["told"]
            self._lock.notify_all()

    # ---------------------------------------------------------------- asking

    def ask(self, ids: Sequence[int]) -> list[Point]:
        points = super().ask(ids)
        now = self._now()
        for id in ids[: len(points)]:
            self._asked_at[id] = now
        if self._modelled():
            self._synchronise()
        return points

    def _propose(self, count: int) -> list[Point]:
        points: list[Point] = []
        waits = True
        for number, taken in self._one_by_one(count):
            point = None
            if number < self.n_initial or not self.losses or self.space.dims == 0:
                point = self._design.next(number, taken)
            else:
                if waits:
                    self._wait(count)
                    waits = False
                point = self._from_queue(taken) or self._neighbour(number, taken)
            point = point or self._draw(number, taken)
            if point is None:
                break
            points.append(point)
            taken.add(self.space.key(point))
        return points

    def _behind(self, told: int) -> bool:
        """Whether proposals made from `told` losses are too old."""
        in_flight = len(self.points) - len(self.losses)
        allowed = max(in_flight // _BEHIND, math.floor(_SHARE_BEHIND * told))
        return len(self.losses) - told > allowed

    def _wait(self, count: int) -> None:
        """Give the helper a moment: after a restart, and where so few points are in flight that
        each loss counts."""
        if self._deaths >= _MOST_DEATHS:
            return
        resumed = self._generation == 0 and len(self.losses) >= self.n_initial
        in_flight = len(self.points) - len(self.losses)
        patience = min(_PATIENCE * self._duration, _MOST_PATIENCE_S) if in_flight < _FEW else 0.0
        if resumed:
            patience = _START_S
        self._synchronise()
        if count >= _BURST:
            self._helper.send(("want", self._number, count))
        if patience <= 0.0:
            return
        told = len(self.losses) - in_flight // _BEHIND
        self._helper.wait(
            self._lock,
            lambda: (self._queue and self._queue_told >= told) or not self._helper.alive,
            patience,
        )

    def _from_queue(self, taken: Collection[str]) -> Point | None:
        with self._lock:
            if self._behind(self._queue_told):
                self._queue.clear()
            while self._queue:
                point = self._queue.popleft()
                if self.space.key(point) not in taken:
                    self.served["queue"] += 1
                    return point
        return None

    def _neighbour(self, number: int, taken: Collection[str]) -> Point | None:
        """A point near one of the best, at once."""
        rng = self._rng(number, _PURPOSE)
        self.served["drawn"] += 1
        if not self._leaders or rng.random() < _RANDOM:
            return None
        base = self.space.to_unit(self.points[self._leaders.pick(rng)], absent=np.nan)
        for u in around(base[None], 8, self.space.steps, rng, (0.5, 2.0)):
            point = self.space.from_unit(u)
            if self.space.key(point) not in taken and self.space.allows(point):
                return point
        return None


def with_queue(
    made: Optimizer,
    spec: str | Mapping[str, Any],
    helper: Helper | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Optimizer:
    """An optimiser with a queue before it, if it fits models and its option `ready` is not false.

    Args:
        made: by registry.create from `spec`; it is not used any more where there is a queue.
        helper: makes its proposals; None: the helper process of this process.
        now: a clock, in seconds.
    """
    search, signs = (made.inner, made.signs) if isinstance(made, Scalarised) else (made, ())
    if not isinstance(search, ModelSearch) or not search.ready:
        return made
    return ReadyOptimizer(
        spec if isinstance(spec, Mapping) else {"name": spec}, search.space, seed=search.seed,
        budget=search.budget, n_initial=search.n_initial, helper=helper or shared(), now=now,
        signs=signs,
    )  # fmt: skip
