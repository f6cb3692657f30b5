"""The figures of a running study, kept up without looking at every trial each time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hpc_hpo.block_record import BlockRecord
from hpc_hpo.cli.common import value_text
from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.results.fronts import Front, goals_of, named
from hpc_hpo.results.limits import Limit, limits
from hpc_hpo.results.table import direction_sign
from hpc_hpo.study.segments import plain_segments
from hpc_hpo.units import parse_duration

#: (trials with a loss, loss) of each trial that was better than all before it.
Improvements = list[tuple[int, float]]


class Tally:
    """What is shown of a study while it runs, from its state, the time and nothing else.

    Args:
        study: the frozen study as a plain dict; before a first run perhaps only its name.
        now: seconds since the epoch.
    """

    def __init__(self, study: Mapping[str, Any], now: Callable[[], float] = time.time) -> None:
        self.study, self.now = study, now
        self.sign = direction_sign(dict(study))
        self.goals = goals_of(study)
        self.best: Trial | None = None
        #: the trial that was last to be best: of several objectives, to come onto the front
        self.newest: Trial | None = None
        self.fronts: dict[str | None, Front] = {}
        self.improvements: dict[str | None, Improvements] = {}
        self.with_loss: Counter[str | None] = Counter()
        #: the segments of the trials that ended last, the newest last
        self.recent: dict[str | None, None] = {}
        self._rounds: dict[str | None, int] = {}
        self._seen = 0
        self._network_told = False

    def renew(self, study: Mapping[str, Any]) -> None:
        """Take a study file that has changed harmlessly: another budget, more segments."""
        self.study = study
        self.__dict__.pop("_segments", None)

    @cached_property
    def _segments(self) -> dict[str | None, dict[str, Any]]:
        """The segments of the study file; one without a name where it has none."""
        section = self.study.get("segments")
        found: dict[str | None, dict[str, Any]] = {}
        if not isinstance(section, Mapping):
            return {None: {}}
        found.update(plain_segments(section))
        return found

    def known_segments(self, state: StudyState) -> list[str | None]:
        """The names of all segments, those that were added while the study ran included."""
        added = [n for n, r in state.segments.items() if r.spec and n not in self._segments]
        return [*self._segments, *added]

    def budget_of(self, state: StudyState, name: str | None) -> int:
        """Trials that a segment may run; 0 where that is not known."""
        record = state.segments.get(name)
        if record is not None and record.trials is not None:
            return record.trials
        content = self._segments.get(name) or (record and record.spec) or {}
        own = (content.get("budget") or {}).get("trials")
        return int(own or (self.study.get("budget") or {}).get("trials") or 0)

    def budget(self, state: StudyState) -> int:
        """Trials of all segments; it may change while the study runs. 0: not limited, or not
        known."""
        each = [self.budget_of(state, name) for name in self.known_segments(state)]
        return sum(each) if all(each) else 0

    def limits(self, state: StudyState) -> list[Limit]:
        """The limits of the budget, the nearest first."""
        return limits(state, self.study, self.budget(state), self.now(), True)

    def done(self, state: StudyState) -> str:
        """How many trials have ended, of how many where that is limited."""
        budget = self.budget(state)
        return f"{state.final_trials} of {budget}" if budget else f"{state.final_trials} trials"

    def update(self, state: StudyState) -> list[Trial]:
        """Trials of this run that became final since the last call."""
        log, begun = state.search_log, state.run_base[1]
        new = []
        for place, (kind, number) in enumerate(log.since(self._seen), self._seen):
            if kind == "told":
                trial = state.trials[number]
                self._count(trial, state.segment(trial.segment).round)
                if place >= begun:
                    new.append(trial)
        self._seen = len(log)
        return new

    def _count(self, trial: Trial, round_: int) -> None:
        if self._rounds.setdefault(trial.segment, round_) != round_:
            # Begun again: what was reached before counts no more.
            self._rounds[trial.segment] = round_
            self.improvements.pop(trial.segment, None)
            self.fronts.pop(trial.segment, None)
            self.with_loss.pop(trial.segment, None)
        self.recent.pop(trial.segment, None)
        self.recent[trial.segment] = None
        if trial.loss is None or trial.superseded or trial.state is TrialState.STOPPED:
            return
        self.with_loss[trial.segment] += 1
        better = self.improvements.setdefault(trial.segment, [])
        if not better or self.sign * trial.loss < self.sign * better[-1][1]:
            better.append((self.with_loss[trial.segment], trial.loss))
        if (
            self.best is None
            or self.best.loss is None
            or self.sign * trial.loss < self.sign * self.best.loss
        ):
            self.best = trial
        if self.goals:
            front = self.fronts.setdefault(trial.segment, Front(self.goals))
            self.newest = trial if front.add(trial) else self.newest
        else:
            self.newest = self.best

    def loss_words(self, trial: Trial) -> str:
        """A trial's loss for people, or its objectives and the front that it is on."""
        if not self.goals:
            return value_text(trial.loss)
        values = [f"{name} {value_text(value)}" for name, value in named(trial, self.goals).items()]
        front = self.fronts.get(trial.segment)
        of = "" if front is None else f", on a front of {len(front.trials)}"
        return ", ".join(values) + of

    def asked_network(self, trial: Trial) -> str:
        """A word on the first completed trial that was refused the network; "" for all others."""
        found = [text for record in trial.slices for text in record.network or ()]
        if not found or trial.loss is None or self._network_told:
            return ""
        self._network_told = True
        return (
            f"trial {trial.id} completed, but asked for a network that it has not: {found[0]} "
            "(said once; hpc-hpo show tells of each trial)"
        )

    def running_s(self, state: StudyState) -> float:
        """Seconds since this run began."""
        return max(0.0, self.now() - float(state.run_info.get("at", self.now())))

    def remaining_s(self, state: StudyState) -> float | None:
        """Expected seconds to the first limit of the budget by this run's pace, or to that of wall
        time; None: not known, or done.

        The pace is that since the run's first block began, so that a first wait in a queue does
        not count.
        """
        found, now = self.limits(state), self.now()
        if any(limit.used >= limit.most for limit in found):
            return None
        ends = []
        before = {"trials": state.run_base[0], "steps": state.run_base[2]}
        mark = f"{state.runs}."
        own = [b for b in state.blocks.values() if b.id.startswith(mark) and b.started]
        since = min((b.started for b in own if b.started), default=state.run_info.get("at"))
        for limit in found:
            fresh = limit.used - before.get(limit.kind, limit.used)
            if fresh > 0 and since is not None:
                ends.append(max(0.0, now - since) / fresh * (limit.most - limit.used))
            nodes = sum(b.nodes for b in own if b.state == "running")
            if limit.kind == "node-hours" and nodes:
                ends.append((limit.most - limit.used) * 3600 / nodes)
        wall_time = (self.study.get("budget") or {}).get("wall_time")
        if wall_time is not None:
            passed = max(0.0, now - (state.last_at if state.last_at is not None else now))
            ends.append(max(0.0, parse_duration(wall_time) - state.elapsed_s - passed))
        return min(ends, default=None)


@dataclass
class Scene:
    """What is to be drawn.

    Attributes:
        title: of the frame.
        steered: whether a steering process is at work; without one, no block is believed.
        note: a line above all others, such as why nothing moves; "" for none.
    """

    title: str
    tally: Tally
    state: StudyState
    capacity: Capacity
    steered: bool = True
    note: str = ""


def live_blocks(state: StudyState) -> list[BlockRecord]:
    """The blocks of the present run that have not ended, those that end first in front."""
    mark = f"{state.runs}."
    live = [b for b in state.blocks.values() if b.state != "ended" and b.id.startswith(mark)]
    order = {"running": 0, "requested": 1}
    return sorted(live, key=lambda b: (order.get(b.state, 2), b.deadline or float("inf"), b.id))


def journal_capacity(state: StudyState, now: float) -> Capacity:
    """The workers as far as the journal knows them, for one who is not the steering process."""
    running = [b for b in live_blocks(state) if b.state == "running"]
    running = [b for b in running if b.deadline is None or b.deadline > now]
    ends = [b.deadline - now for b in running if b.deadline is not None]
    return Capacity(sum(b.workers for b in running), max(ends, default=None), 0)


def sampled(improvements: Improvements, count: int, width: int) -> Iterator[float]:
    """The best loss so far at `width` equal steps of `count` trials, for a sparkline."""
    place = 0
    steps = min(width, count)
    for step in range(1, steps + 1):
        upto = step * count / steps
        while place + 1 < len(improvements) and improvements[place + 1][0] <= upto:
            place += 1
        yield improvements[place][1]


def loss_of(trial: Trial | None) -> float:
    """A trial's loss, for sorting."""
    return math.inf if trial is None or trial.loss is None else trial.loss


def chosen_segments(tally: Tally, state: StudyState, room: int) -> list[tuple[str | None, str]]:
    """At most `room` segments worth a look: (name, why), why is "failing", "active" or "best".

    In turn from each group: failing are those that cannot run, or of which trials fail and none
    has a loss; active those in which a trial ended last.
    """
    records = state.segments
    failing = [
        n for n, r in records.items() if r.problem is not None or (r.failed and not r.completed)
    ]
    failing.sort(key=lambda n: -records[n].failed)
    best = [n for n, r in records.items() if r.completed]
    best.sort(key=lambda n: tally.sign * loss_of(state.best_of(n, tally.sign)))
    active = [n for n in reversed(tally.recent) if records[n].ended < records[n].asked]
    chosen: dict[str | None, str] = {}
    groups: Mapping[str, list[Any]] = {"failing": failing, "active": active, "best": best}
    for place in range(room):
        for why, names in groups.items():
            if place < len(names) and len(chosen) < room:
                chosen.setdefault(names[place], why)
    return sorted(chosen.items(), key=lambda pair: list(groups).index(pair[1]))
