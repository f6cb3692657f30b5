"""What modelled trials do: how long they take, where they pause, what their loss is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hpc_hpo.model import CheckpointInfo, Pace, SliceEnd, SliceOutcome, SliceRequest
from hpc_hpo.simulate.draws import Draw
from hpc_hpo.simulate.objectives import Objective
from hpc_hpo.worker.margin import ENOUGH, Steps, margin

#: Purposes of random numbers, so that none depends on another's.
TIME, FAILURE, WAIT, NODE, PREEMPTION = 1, 2, 3, 4, 8


@dataclass
class Trials:
    """The trials of a simulated study; times in seconds.

    Attributes:
        time: of a whole trial on one worker, without checkpoints, where its objective does not say.
        steps: between which a trial can pause.
        resumable: it goes on from a checkpoint.
        checkpoint_s: to write one.
        every_s: between two that it writes without being asked.
        fails: probability that a slice ends with the payload's own error.
        objective: of the segment with this name.
        metric: the name under which trials report a loss at every step; None = they do not.
    """

    time: Draw
    steps: int
    resumable: bool
    checkpoint_s: float
    every_s: float
    fails: float
    seed: int
    objective: Callable[[str | None], Objective]
    metric: str | None = None
    #: steps that are safe, of each trial that has a checkpoint
    saved: dict[int, int] = field(default_factory=dict)

    def step_s(self, request: SliceRequest) -> float:
        """Length of a step, with its part of the periodic checkpoints."""
        whole = self.of(request).seconds(request["point"])
        if whole is None:
            whole = self.time(np.random.default_rng([self.seed, TIME, request["trial"]]))
        slower = 1 + self.checkpoint_s / self.every_s if self.resumable else 1.0
        return max(whole, 1e-6) / self.steps * slower

    def of(self, request: SliceRequest) -> Objective:
        """The objective of a slice's trial."""
        return self.objective(request["segment"]["name"] if "segment" in request else None)


@dataclass
class Course:
    """One slice from its start to where it would end by itself.

    Attributes:
        ends: seconds since the epoch.
        overhead_s: of its time, what checkpoints take.
    """

    trials: Trials
    request: SliceRequest
    started: float
    ends: float = 0.0
    outcome: SliceOutcome = field(default_factory=SliceOutcome)
    useful_s: float = 0.0
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        begins = self.request["parent"]["step"] if "parent" in self.request else 0
        self.first = self.trials.saved.get(self.request["trial"], begins)
        self.step_s = self.trials.step_s(self.request)
        self.step = self.first

    def follow(self, deadline: float, reason: str, margin_s: float | None = None) -> None:
        """Find out how it ends in a block that is over at `deadline`.

        Args:
            reason: of the pause that this may bring.
            margin_s: how long before it stops; None = as the worker's rule has it.
        """
        t, request = self.trials, self.request
        last, why = t.steps, ""
        rung = request.get("stop_step")
        if rung is not None and self.first < rung < last:
            last, why = rung, "rung"
        if t.resumable and math.isfinite(deadline):
            pause = self.first + self._steps_until(deadline, margin_s)
            if pause < last:
                last, why = pause, reason
        self.ends = self.started + (last - self.first) * self.step_s
        if t.fails:
            rng = np.random.default_rng([t.seed, FAILURE, request["trial"], request["slice"]])
            if rng.random() < t.fails:
                self.cut(self.started + rng.random() * (self.ends - self.started), SliceEnd.FAILED)
                self.outcome["error"] = {"kind": "exception", "message": "a modelled failure"}
        if not self.outcome:
            self.ends += t.checkpoint_s if why else 0.0
            end = SliceEnd.PAUSED if why else SliceEnd.COMPLETED
            self._close(end, last, bool(why) and t.resumable)
            if why:
                self.outcome["reason"] = why
        if self.ends > deadline:
            self.cut(deadline, SliceEnd.LOST, reason)

    def _steps_until(self, deadline: float, margin_s: float | None) -> int:
        """How many steps it makes before it stops ahead of `deadline`; by the worker's rule."""
        t, request = self.trials, self.request

        def steps(room: float) -> int:
            return max(1, math.ceil((deadline - room - self.started) / self.step_s - 1e-9))

        if margin_s is not None:
            return steps(margin_s)
        told = request.get("margin_s", 0.0)
        blind, usual = steps(told), request.get("usual")
        if usual is None or blind < ENOUGH:
            return blind
        own = Steps(self.step_s, ENOUGH * self.step_s, ENOUGH)
        return max(ENOUGH, steps(margin(told, usual, own, t.checkpoint_s)))

    def cut(self, at: float, end: SliceEnd, reason: str = "") -> None:
        """It ends at `at` with what its last periodic checkpoint has."""
        self.ends = max(at, self.started)
        periods = math.floor((self.ends - self.started) / self.trials.every_s)
        steps = math.floor(periods * self.trials.every_s / self.step_s)
        keeps = self.trials.resumable and steps > 0
        self._close(end, self.first + steps if keeps else self.first, keeps)
        if reason:
            self.outcome["reason"] = reason

    def _close(self, end: SliceEnd, step: int, commits: bool) -> None:
        t, request, self.step = self.trials, self.request, step
        length = self.ends - self.started
        self.outcome = SliceOutcome(
            run=request["run"], trial=request["trial"], slice=request["slice"], end=end.value,
            started=self.started, ended=self.ends,
        )  # fmt: skip
        if request.get("width", 1) != 1:
            self.outcome["width"] = request["width"]
        done = (step - self.first) * self.step_s
        kept = done if commits or end is SliceEnd.COMPLETED else 0.0
        slower = 1 + t.checkpoint_s / t.every_s if t.resumable else 1.0
        self.useful_s = min(kept, length) / slower
        self.overhead_s = min(kept, length) - self.useful_s
        if t.resumable:
            pace = Pace(step_s=self.step_s)
            if length >= ENOUGH * self.step_s:
                pace["mean_step_s"] = self.step_s
            if commits or length >= t.every_s:
                pace["checkpoint_s"] = t.checkpoint_s
                pace["first_checkpoint_s"] = min(t.every_s, length)
            self.outcome["pace"] = pace
        if end is SliceEnd.PAUSED:
            self.overhead_s += t.checkpoint_s
        if commits:
            name = f"ckpt-{request['slice']}-1"
            at = self.started + done if end is not SliceEnd.PAUSED else self.ends
            self.outcome["checkpoint"] = CheckpointInfo(
                name=name, slice=request["slice"], at=at, step=step
            )

    def settle(self) -> None:
        """It has ended: what it committed is safe, and what it found is told."""
        if self.outcome["end"] in (SliceEnd.COMPLETED.value, SliceEnd.PAUSED.value):
            self._tell()
        checkpoint = self.outcome.get("checkpoint")
        if checkpoint is not None and checkpoint["step"] is not None:
            self.trials.saved[self.request["trial"]] = checkpoint["step"]
        if self.outcome["end"] == SliceEnd.COMPLETED.value:
            self.trials.saved.pop(self.request["trial"], None)

    def _tell(self) -> None:
        t, point = self.trials, self.request["point"]
        objective = t.of(self.request)
        if t.metric is not None:
            begin = max(self.first, self.request.get("known_step", -1))
            found = [[step, {t.metric: objective.loss(point, step, t.steps)}]
                     for step in range(begin + 1, self.step + 1)]  # fmt: skip
            if found:
                self.outcome["reports"] = found
        if self.outcome["end"] == SliceEnd.COMPLETED.value:
            values = objective.values(point)
            losses = [objective.loss(point, t.steps, t.steps)] if values is None else values
            wrong = [loss for loss in losses if not math.isfinite(loss)]
            if wrong:
                self.outcome["end"] = SliceEnd.FAILED.value
                message = f"the loss is {wrong[0]}, not a finite number"
                self.outcome["error"] = {"kind": "loss", "message": message}
                self.useful_s = self.overhead_s = 0.0
                return
            self.outcome["loss"] = losses[0]
            if values is not None:
                self.outcome["values"] = values
