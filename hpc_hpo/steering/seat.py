"""A search at work: its optimiser, its turn, and its part of the sums over all searches."""

from __future__ import annotations

from collections.abc import Iterator

from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial
from hpc_hpo.optimizers.base import Optimizer
from hpc_hpo.search_log import SearchLog
from hpc_hpo.segment_record import SegmentRecord
from hpc_hpo.steering.search import ENOUGH, UNLIMITED, Gains, Proposal, Search, Status
from hpc_hpo.steering.telling import TOLD_OF

_NOT_BEGUN = SegmentRecord()


class Seat:
    """A search at work."""

    __slots__ = (
        "copied", "credit", "entry", "gains", "log", "optimizer", "own", "pass_", "search",
        "state", "status", "unended",
    )  # fmt: skip

    def __init__(self, search: Search, state: StudyState, pass_: float) -> None:
        self.search, self.state, self.pass_ = search, state, pass_
        self.status = Status.STOPPED
        self.gains = Gains()
        self.optimizer: Optimizer | None = None
        #: "asked", "heard" and "told" before the optimiser was made; None: look them up
        self.log: SearchLog | None = SearchLog()
        self.credit = 0  #: its part of what is left of the budget
        self.unended = 0  #: its part of the trials that are to end
        self.copied = 0  #: points taken from others
        self.own: set[str] = set()  #: its points, while it takes others
        self.entry = -1  #: number of its entry in the queue; -1: it has none

    @property
    def record(self) -> SegmentRecord:
        """What the journal says of it."""
        return self.state.segments.get(self.search.name, _NOT_BEGUN)

    def history(self) -> Iterator[tuple[str, Trial]]:
        """What its optimiser has to hear of, in order."""
        name = self.search.name
        for kind, number in self.state.search_log if self.log is None else self.log:
            trial = self.state.trials[number]
            if kind in TOLD_OF and trial.segment == name and not trial.superseded:
                yield kind, trial

    def given(self, count: int) -> list[Proposal]:
        """What is left of its points of `start_from`, at most `count`."""
        begun = self.record.begun
        some = self.record.queued[begun : begun + count]
        return [
            Proposal(self.search.name, one.point, {"given": place})
            for place, one in enumerate(some, begun)
        ]

    @property
    def trials(self) -> int:
        """Its budget; UNLIMITED where it has none."""
        own = self.search.trials if self.record.trials is None else self.record.trials
        return UNLIMITED if own is None else own

    @property
    def left(self) -> int:
        """New points that it may still be asked for; below 0 where it has had too many."""
        record, most = self.record, self.search.population
        left = self.trials - record.asked
        return left if most is None else min(left, most - (record.asked - record.children))

    @property
    def may_add(self) -> bool:
        """Whether a copy of one of its trials may be asked."""
        return self.status.runs and self.record.asked < self.trials

    @property
    def trained(self) -> bool:
        """Whether all of its population was asked, and it could still have further copies."""
        return self.search.population is not None and self.may_add and self.left <= 0

    def adopt(self, trial: Trial) -> None:
        """A trial was asked whose point its optimiser has not proposed: a copy of another."""
        if trial.parent is None:
            return
        if self.optimizer is not None:
            self.optimizer.adopt(trial.id, trial.point)
        elif self.log is not None:
            self.log.append("asked", trial.id)

    @property
    def lacking(self) -> str | None:
        """Why it has no best point although it was to have one."""
        record = self.record
        if record.completed or record.stopped:
            return None
        failed = f"all its {record.failed} trials have failed" if record.failed else ""
        return record.problem or failed or "no trial has ended"

    @property
    def half(self) -> float:
        """Results after which others may learn from it: half of its budget."""
        return self.trials / 2 if self.trials < UNLIMITED else ENOUGH
