"""Which segment is asked next, and by which optimiser: the searches of one study.

A study without segments has one search, without a name. Each search has an optimiser of its own,
made when its first point is asked and dropped with its last one; it is brought to the journal's
state by the adopt and tell calls of its own segment alone.

Who is asked follows from stride scheduling (Waldspurger and Weihl, 1995): each search has a pass,
the one with the least is asked, and its pass grows by one over its share. So an ask costs
O(log n) of n segments, whatever the shares are, and nothing is looked at but the search's own.

Under ``fair`` all shares are 1 and every search has its own budget. Under ``best-gain`` a search
that has not improved for a while gets less, down to a floor, and the budgets are one pool: what
such a search does not use goes to those that improve.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hpc_hpo.journal import Event, StudyState
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.optimizers.base import Optimizer
from hpc_hpo.search_log import SearchLog
from hpc_hpo.space import canonical
from hpc_hpo.steering.requests import NO_REQUESTS, Requests
from hpc_hpo.steering.search import (
    BEST_GAIN,
    FAIR,
    FIRST_GIVEN,
    Gains,
    Gate,
    OpenGate,
    Proposal,
    Search,
    Status,
)
from hpc_hpo.steering.seat import Seat
from hpc_hpo.steering.telling import TOLD_OF, replay_into, tell_end, tell_rung
from hpc_hpo.steering.transfer import Neighbours, pioneers


class Portfolio:
    """All searches of a study.

    Args:
        searches: in the order in which they are first asked.
        state: the replayed journal. It is changed by the steering loop alone, which calls
            `asked`, `told` and `changed` after it has.
        sign: +1 when losses are minimised, -1 when they are maximised.
        policy: FAIR or BEST_GAIN; `floor` is the least share under the latter.
        gate: which segments have their inputs.
        requests: what people ask for segments while the study runs.
        points, neighbours: a search begins with so many points of so many similar ones.
    """

    def __init__(
        self,
        searches: Iterable[Search],
        state: StudyState,
        *,
        sign: int = 1,
        policy: str = FAIR,
        floor: float = 0.1,
        gate: Gate | None = None,
        requests: Requests = NO_REQUESTS,
        points: int = 0,
        neighbours: int = 3,
    ) -> None:
        self._state, self._sign = state, sign
        self._pooled, self._floor = policy == BEST_GAIN, floor
        self._gate: Gate = gate or OpenGate()
        self._requests = requests
        self._seats: dict[str | None, Seat] = {}
        self._queue: list[tuple[float, int, Seat]] = []
        self._entries = itertools.count()
        self._time = 0.0  #: the pass of whoever was asked last
        self._credit = 0
        self.unended = 0  #: trials that were asked, have not ended, and are to
        self._statuses: Counter[Status] = Counter()
        #: segments whose inputs will not come, to be told to the journal: name -> why
        self._failures: dict[str | None, str] = {}
        #: whether trials that may not go on now may have become others since this was reset
        self.moved = False
        self._points, self._near = points, neighbours
        self._alike: Neighbours | None = None
        for search in searches:
            self._seat(search)
        if points:
            self._begin_transfer()
        self._replay()
        for name in self._seats:
            self.changed(name)
        if self._queue:
            self._time = self._queue[0][0]

    # ---------------------------------------------------------------- the journal

    def _seat(self, search: Search) -> Seat:
        seat = Seat(search, self._state, self._time)
        self._seats[search.name] = seat
        self._statuses[seat.status] += 1
        return seat

    def _replay(self) -> None:
        """Hand each search its own part of the journal."""
        for kind, number in self._state.search_log:
            trial = self._state.trials[number]
            seat = self._seats.get(trial.segment)
            if seat is None or trial.superseded or seat.log is None:
                continue
            if kind in TOLD_OF:
                seat.log.append(kind, number)
            if kind == "asked":
                self._advance(seat)
                self._note(seat, trial)
            elif kind == "told":
                seat.gains.learn(self._result(trial))
                self._tell_others(seat)

    def _result(self, trial: Trial) -> float | None:
        """Of a trial that was trained to its end."""
        good = trial.loss is not None and trial.state is TrialState.COMPLETED
        return self._sign * (trial.loss or 0.0) if good else None

    def heard(self, trial: Trial) -> None:
        """Take in the loss of a trial that waits at a rung, which the journal has."""
        seat = self._seats.get(trial.segment)
        if seat is None or trial.superseded:
            return
        if seat.optimizer is not None:
            tell_rung(seat.optimizer, trial, self._sign, len(trial.heard) - 1)
        elif seat.log is not None:
            seat.log.append("heard", trial.id)

    def _signed(self, loss: float | list[float] | None) -> float | list[float] | None:
        return self._sign * loss if isinstance(loss, (int, float)) else loss

    def told(self, trial: Trial) -> None:
        """Take in the end of a trial, which the journal has."""
        seat = self._seats.get(trial.segment)
        if seat is None or trial.superseded:
            return
        seat.gains.learn(self._result(trial))
        self._tell_others(seat)
        if seat.optimizer is not None:
            tell_end(seat.optimizer, trial, self._sign)
        elif seat.log is not None:
            seat.log.append("told", trial.id)
        self.changed(trial.segment)

    def runs(self, trial: Trial) -> bool:
        """Whether a trial that was begun is to go on now."""
        seat = self._seats.get(trial.segment)
        return seat is not None and seat.status.runs and not trial.superseded

    # ---------------------------------------------------------------- standing

    def changed(self, name: str | None, *, begun_again: bool = False) -> None:
        """Look anew at a search whose record has changed."""
        seat = self._seats[name]
        if begun_again:
            seat.optimizer, seat.log, seat.gains = None, SearchLog(), Gains()
            seat.copied, seat.own = 0, set()
            if self._alike is not None:
                self._alike.forgotten(name)
            self._move(seat, Status.STOPPED)
            self.moved = True
        self._move(seat, self._status_of(seat))
        self._account(seat)
        if seat.status is Status.READY and seat.entry < 0 and self._may_ask(seat):
            # It does not catch up on what the others were asked while it waited.
            seat.pass_ = max(seat.pass_, self._time)
            self._enqueue(seat)

    def _move(self, seat: Seat, status: Status) -> None:
        if status is not seat.status:
            self._statuses[seat.status] -= 1
            self._statuses[status] += 1
            seat.status, self.moved = status, True

    def _status_of(self, seat: Seat) -> Status:
        record, search = seat.record, seat.search
        if record.stopped:
            return Status.STOPPED
        if record.problem is not None:
            return Status.FAILED
        best = seat.gains.best
        if search.target is not None and best is not None and best <= search.target:
            return Status.REACHED
        if seat.status in (Status.READY, Status.DRY):
            # What was staged once is not asked about again.
            return seat.status
        problem = self._gate.look(search.name)
        if problem:
            self._failures[search.name] = problem
        return Status.READY if problem is None else Status.WAITING

    def _account(self, seat: Seat) -> None:
        """Bring the sums over all searches up to date."""
        record, status = seat.record, seat.status
        left = seat.left
        if self._shares(seat):
            giving = status in (Status.READY, Status.DRY, Status.REACHED)
            credit = left if giving else min(left, 0)
        else:
            credit = max(left, 0) if status is Status.READY else 0
        unended = record.asked - record.ended if status.open else 0
        self._credit += credit - seat.credit
        self.unended += unended - seat.unended
        seat.credit, seat.unended = credit, unended
        if not self._pooled and left <= 0 and status is not Status.WAITING:
            # Nothing more is asked of it; with more budget it is made anew.
            seat.optimizer = seat.log = None

    def _shares(self, seat: Seat) -> bool:
        """Whether what it does not use may go to others: a population's size is its own."""
        return self._pooled and seat.search.population is None

    def _may_ask(self, seat: Seat, planned: int = 0) -> bool:
        return self._shares(seat) or seat.credit > planned

    @property
    def left(self) -> int:
        """New trials that may be asked now."""
        return max(0, self._credit) if self._statuses[Status.READY] else 0

    def events(self) -> Iterator[Event]:
        """What is to happen to segments now: requests of people, and inputs that are missing.

        The journal and the state are to have each event before the next one is taken.
        """
        asked = self._requests.events(self._state, self._seats)
        # Inputs of what is added or resumed were staged just now.
        news = bool(asked) and self._gate.changed(at_once=True)
        for event in asked:
            yield event
            name, op = event["segment"], event["op"]
            if op == "add":
                self._seat(self._requests.search(name))
                self._compare()
            if op != "refused":
                self.changed(name, begun_again=op == "rerun")
        if self._statuses[Status.WAITING] and (self._gate.changed() or news):
            for name, seat in self._seats.items():
                if seat.status is Status.WAITING:
                    self.changed(name)
        while self._failures:
            name, problem = self._failures.popitem()
            yield {"e": "segment", "op": "fail", "segment": name, "problem": problem}
            self.changed(name)

    def heeded(self) -> None:
        """What `events` gave is in the journal for good."""
        self._requests.heeded()

    def finished(self) -> str:
        """Why nothing is left to do, or "" while something is."""
        if self._statuses[Status.WAITING] or self.unended or self.left:
            return ""
        count = len(self._seats)
        if self._statuses[Status.FAILED] or self._statuses[Status.STOPPED]:
            return "segments"
        if self._statuses[Status.REACHED] == count:
            return "target"
        trained = all(seat.trained for seat in self._seats.values())
        return "population" if trained else "exhausted" if self._statuses[Status.DRY] else "budget"

    def without_result(self) -> dict[str | None, str]:
        """Segments that were to have a best point and have none -> why."""
        return {name: why for name, s in self._seats.items() if (why := s.lacking) is not None}

    def seat(self, name: str | None) -> Seat:
        """One search as it stands."""
        return self._seats[name]

    # ---------------------------------------------------------------- asking

    def _enqueue(self, seat: Seat) -> None:
        seat.entry = next(self._entries)
        heapq.heappush(self._queue, (seat.pass_, seat.entry, seat))

    def _advance(self, seat: Seat) -> None:
        seat.pass_ += 1.0 / seat.gains.share(self._floor) if self._pooled else 1.0

    def _next(self, planned: Mapping[str | None, int]) -> Seat | None:
        """Whose turn it is."""
        while self._queue:
            pass_, entry, seat = self._queue[0]
            good = entry == seat.entry and seat.status is Status.READY
            if not good or not self._may_ask(seat, planned.get(seat.search.name, 0)):
                heapq.heappop(self._queue)
                if entry == seat.entry:
                    seat.entry = -1
                continue
            self._time = pass_
            self._advance(seat)
            seat.entry = next(self._entries)
            heapq.heapreplace(self._queue, (seat.pass_, seat.entry, seat))
            return seat
        return None

    def ask(self, ids: Sequence[int]) -> list[Proposal]:
        """Points for the trials `ids`, in their order; fewer when no more are left.

        Each is to be journalled as asked, and `asked` to be called for its trial, before anything
        else is asked of the portfolio.
        """
        planned: dict[str | None, int] = {}
        for _ in range(min(len(ids), self.left)):
            seat = self._next(planned)
            if seat is None:
                break
            planned[seat.search.name] = planned.get(seat.search.name, 0) + 1
        found: list[Proposal] = []
        for name, count in planned.items():
            found += self._ask_one(self._seats[name], ids[len(found) : len(found) + count])
        return found

    def _ask_one(self, seat: Seat, ids: Sequence[int]) -> list[Proposal]:
        name, optimizer = seat.search.name, self._optimizer(seat)
        found = seat.given(len(ids))
        found += self._from_others(seat, len(ids) - len(found))
        for number, proposal in zip(ids, found, strict=False):
            optimizer.adopt(number, proposal.point)
        if len(found) < len(ids):
            points = optimizer.ask(ids[len(found) :])
            found += [Proposal(name, point) for point in points]
        if len(found) < len(ids):
            if optimizer.exhausted:
                self._move(seat, Status.DRY)
                self._account(seat)
            elif seat.entry < 0:
                # It has none for the moment.
                self._enqueue(seat)
        return found

    def asked(self, trial: Trial) -> None:
        """The journal has one trial more."""
        seat = self._seats[trial.segment]
        seat.adopt(trial)
        self._note(seat, trial)
        self._account(seat)

    # ---------------------------------------------------------------- transfer

    def _begin_transfer(self) -> None:
        """Who is like whom; and a few go ahead, so that the others have somebody to learn from."""
        self._compare()
        first = pioneers(list(self._seats))
        for name, seat in self._seats.items():
            if name not in first:
                seat.pass_ += seat.half

    def _compare(self) -> None:
        if self._points:
            values = {name: seat.search.values for name, seat in self._seats.items()}
            self._alike = Neighbours(values, self._near)
            for seat in self._seats.values():
                self._tell_others(seat)

    def _tell_others(self, seat: Seat) -> None:
        if self._alike is not None and seat.gains.count >= max(3, seat.half):
            self._alike.learned(seat.search.name)

    def _note(self, seat: Seat, trial: Trial) -> None:
        if self._alike is not None and seat.copied < self._points:
            seat.copied += trial.like is not None
            seat.own.add(canonical(trial.point))

    def _from_others(self, seat: Seat, count: int) -> list[Proposal]:
        """Best points of similar segments that it has not tried."""
        found: list[Proposal] = []
        wanted = min(count, self._points - seat.copied)
        if self._alike is None or wanted <= 0:
            return found
        taken = set(seat.own)
        for name in self._alike.nearest(seat.search.name):
            best = self._state.best_of(name, self._sign)
            point = None if best is None else seat.search.fit(best.point)
            if best is None or point is None or canonical(point) in taken:
                continue
            taken.add(canonical(point))
            found.append(Proposal(seat.search.name, point, {"like": best.id}))
        return found[:wanted]

    # ---------------------------------------------------------------- optimisers

    def _optimizer(self, seat: Seat) -> Optimizer:
        if seat.optimizer is None:
            made = seat.search.make(seat.record.round)
            for number, given in enumerate(seat.record.told, FIRST_GIVEN):
                made.adopt(number, given.point)
                made.tell(number, self._signed(given.loss))
            replay_into(made, seat.history(), self._sign)
            seat.optimizer, seat.log = made, None
        return seat.optimizer
