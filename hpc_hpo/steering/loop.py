"""The steering loop: ask, submit, take outcomes in, tell; until the study is done.

It takes the searches, the pilot, the journal and the clock as arguments and knows none of
their kinds. One thread, no busy waiting: it sleeps on the queue into which finished slices
fall. Every change of the study goes journal first: an event is written before what it
announces is done, and ``StudyState.apply`` is the only way it takes effect.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from hpc_hpo.clock import Clock
from hpc_hpo.errors import StorageError
from hpc_hpo.journal import Event, Journal, StudyState
from hpc_hpo.model import SegmentInfo, SliceEnd, SliceOutcome, SliceRequest, Trial
from hpc_hpo.pilot.base import Capacity, Pilot
from hpc_hpo.steering.breeding import Breeding, Inherit
from hpc_hpo.steering.dispatch import slice_request
from hpc_hpo.steering.fidelity.rungs import Rungs
from hpc_hpo.steering.pace import Pace
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.spending import Spending
from hpc_hpo.steering.terms import Terms
from hpc_hpo.steering.verdict import end_event, reached
from hpc_hpo.steering.waiting import Waiting

#: Longest sleep on the queue of outcomes, in seconds; the pilot's own poll period is longer
#: on batch sites.
TICK_S = 0.25
#: The steering process's CPU time is written to the journal this often.
CPU_RECORD_S = 30.0
#: A trial whose slice failed for a passing reason (disk full) is tried again after this.
RETRY_S = 10.0
#: ... and one that a worker declined, for want of time, after this.
DECLINED_S = 0.5
#: Where trials differ in size, so many workers' worth is queued beyond what runs: a share of the
#: workers, and this at least.
MIXED_AHEAD, MIXED_LEAST = 0.25, 2
#: After a stop request, slices get this long to checkpoint before their blocks are cancelled.
DRAIN_S = 120.0

#: Why a loop ended, and whether the study is then done.
DONE_REASONS = frozenset(
    ("budget", "epochs", "node_hours", "population", "exhausted", "target", "wall_time",
     "segments", "failing")
)  # fmt: skip


class Steering:
    """One run of the loop.

    Args:
        stop: called at every turn; "" to go on, "drain" to checkpoint and stop, "now" to stop
            without waiting.
        observe: called at every turn with the state and the pilot's capacity.
        inherited: outcomes of slices that the journal has open from an earlier run.
        newest_checkpoint: (trial, slice) -> the newest checkpoint that slice committed.
        inherit: see breeding.
        segment: what a slice is told of its segment; not asked for the one without a name.
    """

    def __init__(
        self,
        terms: Terms,
        directory: str,
        state: StudyState,
        journal: Journal,
        searches: Portfolio,
        pilot: Pilot,
        clock: Clock,
        *,
        inherited: Sequence[SliceOutcome] = (),
        stop: Callable[[], str] = lambda: "",
        observe: Callable[[StudyState, Capacity], None] = lambda state, capacity: None,
        newest_checkpoint: Callable[[int, int], Any] = lambda trial, slice_: None,
        inherit: Inherit = lambda parent, child: parent.checkpoint,
        segment: Callable[[str], SegmentInfo] = lambda name: SegmentInfo(name=name),
    ) -> None:
        self.terms = terms
        self.state = state
        self._directory = directory
        self._journal = journal
        self._searches = searches
        self._pilot = pilot
        self._clock = clock
        self._stop = stop
        self._observe = observe
        self._newest_checkpoint = newest_checkpoint
        self._segment = segment
        self._pace = Pace(terms.floor_s, terms.expected_s, terms.block_s)
        self._arrived: queue.SimpleQueue[SliceOutcome] = queue.SimpleQueue()
        self._in_flight = 0
        #: of each trial with a slice in flight, the workers' worth that it takes
        self._widths: dict[int, int] = {}
        self._width = 0  #: their sum
        self._waiting = Waiting(searches.runs)
        self._next_id = state.highest_trial + 1
        self._cpu_recorded = clock.cpu()
        self._cpu_due = clock.now() + CPU_RECORD_S
        self._storage_error: StorageError | None = None
        self._rungs = Rungs(terms.fidelity, state, terms.sign)
        self._spending = Spending(terms, state)
        self._breeding = Breeding(terms, state, searches, self._rungs, inherit)
        for trial in state.trials.values():
            if not (trial.final or trial.waits) and trial.open_slice is None:
                self._waiting.add(trial)
        self._look_after_segments()
        for outcome in inherited:
            self.take(outcome)

    # -- the journal ---------------------------------------------------------

    def _happen(self, event: Event) -> None:
        self._journal.append(event)
        self.state.apply(event)

    def _flush(self) -> None:
        """Write the journal. A full disk stops the study in order instead of losing outcomes."""
        try:
            self._journal.flush()
            self._journal.sync()
        except StorageError as error:
            self._storage_error = self._storage_error or error

    def _cpu_event(self, kind: str, **facts: Any) -> Event:
        now, cpu = self._clock.now(), self._clock.cpu()
        used, self._cpu_recorded = cpu - self._cpu_recorded, cpu
        self._cpu_due = now + CPU_RECORD_S
        return {"e": kind, "run": self.state.runs, "at": now, "cpu": round(used, 4), **facts}

    # -- segments --------------------------------------------------------------

    def _look_after_segments(self) -> None:
        """Heed requests of people, and see whose inputs have come or will not come."""
        happened = False
        for event in self._searches.events():
            self._happen({**event, "at": self._clock.now()})
            happened = True
            if event["op"] == "rerun":
                self._rungs.forget(event["segment"])
        if happened:
            self._flush()
            if self._storage_error is None:
                self._searches.heeded()
        if self._searches.moved:
            self._searches.moved = False
            self._waiting.sort()

    # -- outcomes ------------------------------------------------------------

    def take(self, outcome: SliceOutcome) -> None:
        """Take in a slice's end: journal it, tell the optimiser, queue what is to go on."""
        trial = self.state.trials.get(outcome["trial"])
        record = trial.open_slice if trial is not None else None
        if trial is None or record is None or record.number != outcome["slice"]:
            self.refuse(outcome)
            return
        if outcome["end"] == SliceEnd.LOST.value and not outcome.get("checkpoint"):
            outcome["checkpoint"] = self._newest_checkpoint(trial.id, record.number)
        event = end_event(trial, outcome, self.terms, self._clock.now())
        self._happen(event)
        self._pace.learn(outcome, trial.spent_s)
        if trial.final:
            self._end(trial)
        elif trial.waits:
            loss = self._rungs.reached(trial)
            if loss is not None:
                self._happen({"e": "heard", "trial": trial.id, "loss": loss})
                self._searches.heard(trial)
        else:
            transient = (outcome.get("error") or {}).get("transient", False)
            declined = outcome["end"] == SliceEnd.DECLINED.value
            delay = RETRY_S if transient else DECLINED_S if declined else 0.0
            self._waiting.add(trial, self._clock.now() + delay if delay else 0.0)

    def _end(self, trial: Trial) -> None:
        self._searches.told(trial)
        self._rungs.ended(trial)
        self._spending.learn(trial)

    def _stop_early(self) -> None:
        """Stop the trials whose rung was their last; copies of others take the place of some."""
        while self._spending.trials and (event := self._breeding.next(self._next_id)):
            self._waiting.add(self._begin(event))
        # Where only the epochs are spent, those that wait may go on with more of them.
        keep = self._spending.spent
        condemned = self._rungs.settle(self._searches.runs, keep) if self._settled() else []
        while trial := (condemned.pop() if condemned else self._rungs.condemned()):
            now, loss = self._clock.now(), self._rungs.loss(trial)
            self._happen({"e": "early", "trial": trial.id, "at": now, "loss": loss})
            self._end(trial)

    def _settled(self) -> bool:
        open_ = self._in_flight or self._waiting or self._left
        return not open_ and self._sent_on() is None

    @property
    def _left(self) -> int:
        """New trials that may be asked now."""
        return min(self._searches.left, self._spending.trials)

    def _sent_on(self) -> tuple[Trial, int | None] | None:
        """Who goes on from a rung, and to which."""
        if self.terms.population and self._left:
            return None  # it begins together: its members are compared with each other
        return self._rungs.next(self._searches.runs, self._spending.spent)

    def refuse(self, outcome: SliceOutcome) -> None:
        """Log an outcome that is not of the trial's open slice; it changes nothing else."""
        facts = {k: v for k, v in outcome.items() if k in ("run", "trial", "slice", "end")}
        self._happen({"e": "refused", "at": self._clock.now(), "outcome": facts})

    def _wait_for_outcomes(self, seconds: float) -> None:
        """Take in all outcomes that are there, waiting up to `seconds` for the first."""
        try:
            outcome = self._clock.next_of(self._arrived, seconds)
            while True:
                self._in_flight -= 1
                self._width -= self._widths.pop(outcome["trial"], 0)
                self._spending.ended(self.state.trials[outcome["trial"]])
                self.take(outcome)
                outcome = self._clock.next_of(self._arrived, 0.0)
        except queue.Empty:
            return

    # -- new slices ----------------------------------------------------------

    def demand(self) -> int:
        """Slices that run or could run now."""
        could = self._in_flight + len(self._waiting) + self._left
        could += self._sent_on() is not None
        return could if self.terms.parallel is None else min(could, self.terms.parallel)

    def _spare(self, room: int) -> int:
        """How many trials may be begun where there is room for so many."""
        parallel = self.terms.parallel
        return room if parallel is None else min(room, parallel - len(self._widths))

    def _fill(self, capacity: Capacity) -> None:
        """Hand slices to the pilot until every worker has one (and a few more, if short)."""
        workers = capacity.connected or capacity.expected
        room = workers * (1 + self._pace.lookahead()) - self._width
        if self.terms.mixed and workers:
            # A choice of sizes for what becomes free.
            room += max(MIXED_LEAST, round(MIXED_AHEAD * workers))
        requests: list[SliceRequest] = []
        now = self._clock.now()
        while self._spare(room) > 0 and self._waiting.due(now):
            trial = self._waiting.pop()
            requests.append(self._open_slice(trial, now, self._rungs.stop_step(trial)))
            room -= self._widths[trial.id]
        while self._spare(room) > 0 and (found := self._sent_on()):
            requests.append(self._open_slice(found[0], now, found[1]))
            room -= self._widths[found[0].id]
        while asked := self._ask(min(self._spare(room), self._left)):
            for trial in asked:
                requests.append(self._open_slice(trial, now, self._rungs.stop_step(trial)))
                room -= self._widths[trial.id]
        self._flush()
        if self._storage_error is not None:
            # Unwritten submissions are not made; the restart finds these trials open.
            return
        for request in requests:
            future = self._pilot.submit(request, priority=0 if request["slice"] > 1 else 1)
            self._in_flight += 1
            future.add_done_callback(self._land)

    def _land(self, future: Future[SliceOutcome]) -> None:
        """May be called in another thread."""
        self._arrived.put(future.result())

    def _ask(self, count: int) -> list[Trial]:
        if count <= 0:
            return []
        ids = range(self._next_id, self._next_id + count)
        found = self._searches.ask(ids)
        for number, (segment, point, facts) in zip(ids, found, strict=False):
            event: Event = {"e": "asked", "trial": number, "point": point, **facts}
            if segment is not None:
                event["segment"] = segment
            self._begin(event)
        return [self.state.trials[n] for n in ids[: len(found)]]

    def _begin(self, event: Event) -> Trial:
        """Announce a new trial."""
        number = event["trial"]
        # Distinct and reproducible; 31 bits, which every library's seed takes.
        event["seed"] = (self.terms.seed * 1_000_003 + number) & 0x7FFFFFFF
        event["at"] = self._clock.now()
        self._happen(event)
        trial = self.state.trials[number]
        self._searches.asked(trial)
        self._rungs.begun(trial)
        self._next_id = number + 1
        return trial

    def _open_slice(self, trial: Trial, now: float, stop_step: int | None) -> SliceRequest:
        number = trial.slices[-1].number + 1 if trial.slices else 1
        waited = trial.waits
        run = self.state.runs
        event: Event = {"e": "submit", "trial": trial.id, "slice": number, "run": run, "at": now}
        if stop_step is not None:
            event["stop_step"] = stop_step
        self._happen(event)
        self._spending.opened(trial, stop_step)
        if waited:
            self._rungs.went_on(trial)
        shape = self.terms.shape_of(trial.point)
        self._widths[trial.id] = width = self.terms.width_of(shape)
        self._width += width
        request = slice_request(trial, self._directory, self.terms.task, shape, width, self._pace)
        if trial.segment is not None:
            request["segment"] = self._segment(trial.segment)
        return request

    # -- the loop --------------------------------------------------------------

    def finished(self) -> str:
        """Why the study is done, or "" while it is not."""
        reason = reached(self.terms, self.state, self._clock.now())
        if not (reason or self._in_flight or self._waiting) and self._spending.spent:
            reason = "" if self._rungs.hopes(self._searches.runs) else "epochs"
        done = self._searches.finished()
        if done == "population" and self._spending.trials and self._breeding.pending:
            return reason
        return done or reason

    def run(self) -> str:
        """Steer until the study is done or is asked to stop; returns why.

        The pilot must have been started. It is stopped before this returns, whatever happens.

        Raises:
            StorageError: the journal cannot be written; running slices were paused first, and
                outcomes that did not fit are in the workers' spools.
            PilotError: blocks cannot be had.
        """
        reason = ""
        try:
            while not reason:
                reason = self._turn()
            if self._in_flight and reason != "now":
                self._drain()
        finally:
            for event in self._pilot.stop():
                self._happen(event)
            self._wait_for_outcomes(0)
            self._happen(self._cpu_event("stop", reason=reason or "error"))
            self._flush()
        if self._storage_error is not None:
            raise self._storage_error
        return reason

    def _turn(self) -> str:
        """One turn of the loop; why to leave it, or ""."""
        self._look_after_segments()
        self._stop_early()
        capacity = self._pilot.capacity()
        self._fill(capacity)
        self._pilot.want(self.demand())
        for event in self._pilot.poll():
            self._happen(event)
        if self._clock.now() >= self._cpu_due:
            self._happen(self._cpu_event("tick"))
        self._flush()
        self._observe(self.state, capacity)
        if self._storage_error is not None:
            return "storage"
        asked_to = self._stop()
        if asked_to:
            return "now" if asked_to == "now" else "stop"
        reason = self.finished()
        if not reason:
            self._wait_for_outcomes(TICK_S)
            reason = self.finished()
        return reason

    def _drain(self) -> None:
        """Let the running slices checkpoint; a second request to stop cuts it short."""
        self._pilot.want(0)
        self._pilot.pause_all()
        end = self._clock.now() + DRAIN_S
        while self._in_flight and self._clock.now() < end and self._stop() != "now":
            for event in self._pilot.poll():
                self._happen(event)
            capacity = self._pilot.capacity()
            if capacity.connected == 0:
                return
            self._wait_for_outcomes(TICK_S)
            self._flush()
            self._observe(self.state, capacity)
