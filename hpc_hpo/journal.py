"""The journal: an append-only record of what happened, and its pure replay.

The journal is the only truth about a study. It has one writer, the steering process. Each line
is JSON whose first key is a checksum of the rest (fsio.seal). ``StudyState.apply`` is the one
place where an event changes the picture of a study: the running loop and the replay after a
restart go through it alike, so they cannot disagree.

Events (key ``e``):

==========  =====================================================================
run         a steering process began: run, at, host, pid, versions
asked       the optimiser proposed a point: trial, segment (where it has a name), point,
            seed, at; like (the trial it was taken from), given (its place in start_from),
            parent (whose checkpoint it goes on from, and the trial that it replaces)
start       points of `start_from`: segment, point, from, and loss (told) or none (evaluated);
            the `parts` of it count with the last, which has the report
submit      a slice was handed to the pilot: trial, slice, at; stop_step (the rung to pause at)
end         a slice ended: a SliceOutcome, plus the trial's new `state`, `wasted_s`
            (worker-seconds to be done again) and `futile` (ended without progress);
            `values` of several objectives, of which `loss` is the first
heard       the optimiser was told the loss of a trial that waits at a rung: trial, loss
early       a trial was stopped for good at its last rung: trial, loss (null: not finite)
refused     an outcome came from a slice that is not the trial's open one
block       a block changed: block, state (requested, running, ended), at, ...
segment     something was done to a segment: segment, op, request (of a person), and
            for op `add` its spec, `budget` its trials, `fail` the problem; others are
            `stop`, `resume`, `rerun`
changed     the frozen study was replaced by one with harmless differences
tick        the steering process is alive: cpu seconds since the last such record
stop        the steering process ended in order: run, at, reason, cpu
==========  =====================================================================
"""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hpc_hpo.block_record import BlockRecord
from hpc_hpo.journal_file import RESERVE_BYTES as RESERVE_BYTES
from hpc_hpo.journal_file import Journal as Journal
from hpc_hpo.journal_file import one_of_each, one_text
from hpc_hpo.journal_file import read_events as read_events
from hpc_hpo.journal_file import salvage as salvage
from hpc_hpo.model import (
    FINAL,
    SliceEnd,
    SliceRecord,
    Trial,
    TrialState,
)
from hpc_hpo.search_log import SearchLog
from hpc_hpo.segment_record import SegmentRecord

Event = dict[str, Any]

#: Failed and lost slices that a state remembers apart from their trials.
TROUBLES = 10


@dataclass
class StudyState:
    """What the journal says about a study. Changed by `apply` alone."""

    trials: dict[int, Trial] = field(default_factory=dict)
    segments: dict[str | None, SegmentRecord] = field(default_factory=dict)
    #: of the requests about segments that were heeded
    requests: set[str] = field(default_factory=set)
    blocks: dict[str, BlockRecord] = field(default_factory=dict)
    slice_ends: Counter[str] = field(default_factory=Counter)
    trial_states: Counter[str] = field(default_factory=Counter)
    refused: list[Event] = field(default_factory=list)
    orphans: int = 0  #: events about trials whose `asked` record is gone (after --salvage)
    #: of any event, so that no number is used twice after --salvage lost an `asked` record
    highest_trial: int = -1
    runs: int = 0
    network_refused: int = 0  #: slices that asked for a network which they have not
    busy_s: float = 0.0
    wasted_s: float = 0.0
    steering_cpu_s: float = 0.0
    elapsed_s: float = 0.0  #: while a steering process was at work
    began: float | None = None  #: when the first steering process did; no two studies share it
    last_at: float | None = None
    stop_reason: str | None = None
    run_info: Event = field(default_factory=dict)
    #: when the last run began: trials that were final, length of the search log, and `epochs`
    run_base: tuple[int, int, int] = (0, 0, 0)
    #: the last slices that failed or were lost: (trial, slice)
    troubles: deque[tuple[int, SliceRecord]] = field(default_factory=lambda: deque(maxlen=TROUBLES))
    #: of all trials, the steps they have gone; one that is done again counts once
    steps: int = 0
    stepless: int = 0  #: trials that ended for good without any step
    overran: list[int] = field(default_factory=list)  #: trials that passed a rung without pausing
    #: (what, trial) in journal order: what the states of optimisers ("asked", "heard", "told") and
    #: of fidelity policies ("asked", "rung", "on", "told") are functions of
    search_log: SearchLog = field(default_factory=SearchLog)
    start: list[str] | None = None  #: what became of `start_from`, by source; None: not begun
    _starting: list[Event] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        """Take in one event, in journal order."""
        at = event.get("at")
        if at is not None:
            if self.last_at is not None and event["e"] != "run":
                self.elapsed_s += max(0.0, at - self.last_at)
            # A block's own clock may run behind; time counts forwards only.
            self.last_at = at if event["e"] == "run" else max(self.last_at or at, at)
        self.highest_trial = max(self.highest_trial, event.get("trial", -1))
        if "cpu" in event:
            self.steering_cpu_s += event["cpu"]
        handler = _HANDLERS.get(event["e"])
        if handler is not None:
            handler(self, event)

    def _move(self, trial: Trial, state: TrialState) -> None:
        self.trial_states[trial.state.value] -= 1
        trial.move(state)
        self.trial_states[state.value] += 1

    def _on_run(self, event: Event) -> None:
        self.runs = max(self.runs, event["run"])
        self.began = event.get("at") if self.began is None else self.began
        self.run_info = event
        self.stop_reason = None
        self.run_base = (self.final_trials, len(self.search_log), self.epochs)
        for record in self.segments.values():
            record.problem = None

    def segment(self, name: str | None) -> SegmentRecord:
        """The record of one segment, made when it is first asked for."""
        record = self.segments.get(name)
        if record is None:
            record = self.segments[name] = SegmentRecord()
        return record

    def _on_asked(self, event: Event) -> None:
        trial = Trial(
            event["trial"], event["point"], event.get("segment"), seed=event.get("seed", 0),
            like=event.get("like"), given=event.get("given"), parent=event.get("parent"),
        )  # fmt: skip
        self.trials[trial.id] = trial
        record = self.segment(trial.segment)
        record.asked += 1
        record.begun += trial.given is not None
        record.children += trial.parent is not None
        self.trial_states[trial.state.value] += 1
        self.search_log.append("asked", trial.id)

    def _on_start(self, event: Event) -> None:
        self._starting = (self._starting if event["part"] else []) + event["points"]
        if "report" in event:  # the last part
            for one in self._starting:
                self.segment(one["segment"]).give(one)
            self.start, self._starting = event["report"], []

    def _on_submit(self, event: Event) -> None:
        trial = self.trials.get(event["trial"])
        if trial is None or trial.final:
            self.orphans += 1
            return
        trial.slices += (SliceRecord(event["slice"], event["run"], event["at"]),)
        trial.stop_step = event.get("stop_step")
        if trial.waits:
            trial.waits = False
            self.search_log.append("on", trial.id)
        if trial.state is not TrialState.RUNNING:
            self._move(trial, TrialState.RUNNING)

    def _on_end(self, event: Event) -> None:
        trial = self.trials.get(event["trial"])
        record = trial.open_slice if trial else None
        if trial is None or record is None or record.number != event["slice"]:
            self.orphans += 1
            return
        end = SliceEnd(event["end"])
        record.end = end
        record.started, record.ended = event.get("started"), event.get("ended")
        record.block, record.worker = one_text(event.get("block")), one_text(event.get("worker"))
        record.host, record.reason = one_text(event.get("host")), one_text(event.get("reason"))
        log = event.get("log")
        record.log = None if log is None else (one_text(log[0]), *log[1:])
        record.error, record.restored = event.get("error"), event.get("restored")
        record.network = event.get("network")
        self.network_refused += bool(record.network)
        record.wasted_s = event.get("wasted_s", 0.0)
        record.width = event.get("width", 1)
        self.slice_ends[end.value] += 1
        if record.started is not None and record.ended is not None:
            busy = max(0.0, record.ended - record.started)
            self.busy_s += record.width * busy
            self.wasted_s += record.width * record.wasted_s
            if end not in (SliceEnd.FENCED, SliceEnd.DECLINED):
                trial.spent_s += busy - record.wasted_s
        reports = event.get("reports", ())
        record.step = max((step for step, _ in reports), default=None)
        self._take_reports(trial, reports)
        checkpoint = event.get("checkpoint")
        if checkpoint is not None:
            if trial.checkpoint is None or checkpoint["name"] != trial.checkpoint["name"]:
                trial.losses = 0
            trial.checkpoint = checkpoint
        if event.get("futile"):
            trial.losses += 1
        if end is SliceEnd.FAILED and not (event.get("error") or {}).get("transient"):
            trial.failures += 1
        if event.get("error"):
            trial.error = event["error"]
        if end in (SliceEnd.FAILED, SliceEnd.LOST):
            self.troubles.append((trial.id, record))
        self._move(trial, TrialState(event["state"]))
        if trial.state is TrialState.COMPLETED:
            trial.loss, trial.values = event["loss"], event.get("values")
            if trial.stop_step is not None and max(trial.reports, default=0) > trial.stop_step:
                self.overran.append(trial.id)
        elif trial.state is TrialState.PAUSED and record.reason == "rung" and trial.reports:
            trial.waits = True
            trial.rungs += (max(trial.reports),)
            self.search_log.append("rung", trial.id)
        if trial.final:
            self._told(trial)

    def _take_reports(self, trial: Trial, reports: Iterable[Any]) -> None:
        before = trial.gone
        new = {step: one_of_each(metrics) for step, metrics in reports}
        if new:
            trial.reports = {**trial.reports, **new}
        self.steps += max(trial.gone - before, 0)

    def _on_heard(self, event: Event) -> None:
        self.trials[event["trial"]].heard += (event["loss"],)
        self.search_log.append("heard", event["trial"])

    def _on_early(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        self._move(trial, TrialState.STOPPED)
        trial.waits, trial.loss = False, event["loss"]
        self._told(trial)

    def _told(self, trial: Trial) -> None:
        self.search_log.append("told", trial.id)
        self.stepless += not trial.reports
        if not trial.superseded:
            self._count_end(trial)

    def _count_end(self, trial: Trial) -> None:
        record = self.segment(trial.segment)
        if trial.state is TrialState.STOPPED:
            record.stopped_early += 1
            return
        if trial.loss is None:
            record.failed += 1
            return
        record.completed += 1
        if record.least is None or self._order(trial.id) < self._order(record.least):
            record.least = trial.id
        if record.most is None or self._order(trial.id, -1) < self._order(record.most, -1):
            record.most = trial.id

    def _order(self, number: int, sign: int = 1) -> tuple[float, int]:
        return sign * (self.trials[number].loss or 0.0), number

    def _on_segment(self, event: Event) -> None:
        if "request" in event:
            self.requests.add(event["request"])
        op = event["op"]
        if op == "refused":
            return
        record = self.segment(event["segment"])
        if op == "add":
            record.spec = event["spec"]
        elif op == "budget":
            record.trials = event["trials"]
        elif op == "fail":
            record.problem = event["problem"]
        elif op in ("stop", "resume"):
            record.stopped, record.problem = op == "stop", None
        elif op == "rerun":
            for trial in self.trials.values():
                trial.superseded = trial.superseded or trial.segment == event["segment"]
            record.asked = record.completed = record.failed = 0
            record.stopped_early = record.begun = record.children = 0
            record.least = record.most = record.problem = None
            record.stopped = False
            record.round += 1

    def _on_refused(self, event: Event) -> None:
        self.refused.append(event)

    def _on_block(self, event: Event) -> None:
        block = self.blocks.setdefault(event["block"], BlockRecord(event["block"]))
        block.state = event["state"]
        for key in (
            "job",
            "requested",
            "started",
            "ended",
            "deadline",
            "workers",
            "nodes",
            "reason",
        ):
            if event.get(key) is not None:
                setattr(block, key, event[key])

    def _on_stop(self, event: Event) -> None:
        self.stop_reason = event["reason"]

    @property
    def final_trials(self) -> int:
        """How many trials get no further slice."""
        return sum(self.trial_states[state.value] for state in FINAL)

    def allocated_s(self, now: float) -> float:
        """Worker-seconds held by all blocks until `now`."""
        return sum(block.allocated_s(now) for block in self.blocks.values())

    def node_s(self, now: float, usual: int = 1) -> float:
        """Node-seconds held by all blocks until `now`; no block outlives its deadline.

        Args:
            usual: nodes of a block in journals that do not tell.
        """
        return sum(
            block.held_s(now if block.deadline is None else min(now, block.deadline))
            * (block.nodes or usual)
            for block in self.blocks.values()
        )

    @property
    def epochs(self) -> int:
        """What counts against ``budget.epochs``: the steps of all trials; a trial that ended
        without any counts as one, or a study whose trials all fail would have no end."""
        return self.steps + self.stepless

    def best(self, sign: int = 1) -> Trial | None:
        """The completed trial with the least `sign` * loss, the earliest of equals."""
        best = (self.best_of(name, sign) for name in self.segments)
        found = (trial for trial in best if trial is not None)
        return min(found, key=lambda t: self._order(t.id, sign), default=None)

    def best_of(self, segment: str | None, sign: int = 1) -> Trial | None:
        """The same among the trials of one segment."""
        record = self.segments.get(segment)
        number = None if record is None else record.least if sign > 0 else record.most
        return None if number is None else self.trials[number]


_HANDLERS = {
    "run": StudyState._on_run,
    "asked": StudyState._on_asked,
    "start": StudyState._on_start,
    "submit": StudyState._on_submit,
    "end": StudyState._on_end,
    "heard": StudyState._on_heard,
    "early": StudyState._on_early,
    "refused": StudyState._on_refused,
    "segment": StudyState._on_segment,
    "block": StudyState._on_block,
    "stop": StudyState._on_stop,
}


def replay(events: Iterable[Event]) -> StudyState:
    """The state of a study after `events`; a pure function of them."""
    state = StudyState()
    # Millions of objects that stay: looking through them for cycles takes a fifth of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for event in events:
            state.apply(event)
    finally:
        if collecting:
            gc.enable()
    return state
