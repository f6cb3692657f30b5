"""Studies that were never run: folders whose journals read as if they had been, of any size.

Blocks with a walltime, workers, slices that pause for the walltime, at rungs, fail or are lost, in
the order in which a steering process would have written them down. Used by benchmarks of what
reads a journal, and by the tests of the report.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Event, Journal
from hpc_hpo.steering.fidelity.asha import Asha
from hpc_hpo.steering.fidelity.base import Standing

START = 1_760_000_000.0
SPACE = {
    "lr": {"float": [1e-5, 1e-1], "log": True},
    "layers": {"int": [1, 4]},
    "width": {"int": [8, 256], "log": True},
    "width2": {"int": [8, 128], "condition": "layers >= 2"},
    "dropout": {"float": [0.0, 0.6]},
    "activation": {"choice": ["relu", "tanh", "gelu"]},
}
#: One of so many goes on from a rung.
ETA = 3
#: What payloads say when they fail: kind, message, end of the log.
ERRORS = (
    ("exception", "CUDA out of memory: tried to allocate {n} MiB", "step {n}\nRuntimeError: CUDA"),
    ("loss", "the loss is nan, not a finite number", "epoch 3 loss nan"),
    ("exit", "exit status 137", "Killed"),
)


@dataclass
class Shape:
    """What the study looks like.

    Attributes:
        trials: of each segment.
        segments: names with their values; the one of None is a study without segments.
        steps: reports of a whole trial.
        rung: ASHA's first; 0: no trial is stopped early.
        blocks: that run at one time, each of `nodes` nodes with `per_node` workers.
        walltime: of a block, in seconds.
        step_s: seconds of a step.
        lost_share: of slices that are lost; failed_share of trials whose payload fails.
    """

    trials: int = 200
    segments: dict[str | None, dict[str, Any]] = field(default_factory=lambda: {None: {}})
    steps: int = 30
    rung: int = 0
    blocks: int = 2
    nodes: int = 2
    per_node: int = 4
    walltime: float = 7200.0
    step_s: float = 60.0
    lost_share: float = 0.02
    failed_share: float = 0.06
    seed: int = 1


def fifteen_segments(trials: int) -> Shape:
    """Three particles in five slices of the detector."""
    names: dict[str | None, dict[str, Any]] = {
        f"pid{pid}_eta{eta}": {"pid": pid, "eta": eta}
        for pid in (22, 11, 211)
        for eta in range(0, 100, 20)
    }
    return Shape(trials, names)


def early_stopping(trials: int) -> Shape:
    """ASHA with rungs at 3 and 9 of 27 steps: most trials are stopped early."""
    return Shape(trials, steps=27, rung=3)


def study_spec(shape: Shape) -> dict[str, Any]:
    """The study file, as plain data."""
    spec: dict[str, Any] = {
        "name": "simulated",
        "objective": "objective.py:train",
        "direction": "minimize",
        "seed": shape.seed,
        "space": SPACE,
        "optimizer": "random",
        "budget": {"trials": shape.trials},
        "trial": {"expected_time": "30m", "max_time": "4h"},
        "blocks": {"nodes": shape.nodes, "workers_per_node": shape.per_node, "max": shape.blocks},
    }
    if shape.rung:
        spec["fidelity"] = {"policy": "asha", "min": shape.rung, "max": shape.steps, "eta": ETA}
    if None not in shape.segments:
        spec["segments"] = {"list": [{"name": n, "values": v} for n, v in shape.segments.items()]}
    return spec


def write_study(folder: Path, shape: Shape | None = None) -> StudyFolder:
    """Make a study's folder with its study.yaml, objective and journal."""
    shape = shape or Shape()
    home = StudyFolder(folder)
    home.make()
    (folder / "objective.py").write_text("def train(config):\n    return config['lr']\n")
    home.study.write_text(yaml.safe_dump(study_spec(shape), sort_keys=False))
    journal = Journal(home.journal, sync_every=1e9)
    for number, event in enumerate(events(shape)):
        journal.append(event)
        if number % 10_000 == 0:
            journal.flush()
    journal.close()
    return home


def events(shape: Shape) -> Iterator[Event]:
    """The journal's events in order of time."""
    return _Machine(shape).run()


@dataclass
class _Job:
    """A trial under way."""

    number: int
    segment: str | None
    point: dict[str, Any]
    floor: float
    slices: int = 0
    step: int = 0
    attempts: int = 0
    fails: bool = False
    until: int | None = None  #: the step of its next rung


class _Machine:
    """Workers in blocks; each free one takes the next trial or goes on with one that paused."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(shape.seed)
        self.waiting: list[_Job] = []
        self.resting: dict[int, _Job] = {}
        steps = (shape.rung or shape.steps, shape.steps, ETA)
        self.policies = {name: Asha(*steps) for name in shape.segments}
        self.best: dict[str | None, tuple[float, dict[str, Any]]] = {}
        names = list(shape.segments)
        self.turns = (n for _ in range(shape.trials) for n in names)
        self.asked = 0
        self.open = 0
        #: (time, tie, what)
        self.agenda: list[tuple[float, int, tuple[Any, ...]]] = []
        self.ties = 0

    def plan(self, at: float, *what: Any) -> None:
        self.ties += 1
        heapq.heappush(self.agenda, (at, self.ties, what))

    def run(self) -> Iterator[Event]:
        yield {"e": "run", "run": 1, "at": START, "host": "login1", "pid": 4242,
               "versions": {"hpc_hpo": "0.1.0", "python": "3.11.4"}}  # fmt: skip
        self.blocks = 0
        for number in range(self.shape.blocks):
            yield from self.request(START + 30.0 * number)
        at = START
        while self.agenda:
            at, _, what = heapq.heappop(self.agenda)
            yield from getattr(self, what[0])(at, *what[1:])
        for job in self.resting.values():
            loss = self.report(job, job.step)["loss"]
            yield {"e": "early", "trial": job.number, "loss": loss, "at": at}
        yield {"e": "stop", "run": 1, "at": at + 1, "reason": "budget", "cpu": at / 1e7}

    def request(self, at: float) -> Iterator[Event]:
        name = f"1.{self.blocks}"
        self.blocks += 1
        yield {"e": "block", "block": name, "state": "requested", "at": at, "requested": at,
               "job": str(700_000 + self.blocks)}  # fmt: skip
        self.plan(at + 60 + 600 * self.rng.random(), "begin", name)

    def begin(self, at: float, name: str) -> Iterator[Event]:
        shape = self.shape
        deadline = at + shape.walltime
        yield {"e": "block", "block": name, "state": "running", "at": at, "started": at,
               "deadline": deadline, "workers": shape.nodes * shape.per_node,
               "nodes": shape.nodes}  # fmt: skip
        for node in range(shape.nodes):
            for worker in range(shape.per_node):
                self.plan(at + 5 + self.rng.random(), "free", (name, deadline, node, worker))
        self.plan(deadline, "finish", name)

    def finish(self, at: float, name: str) -> Iterator[Event]:
        yield {"e": "block", "block": name, "state": "ended", "at": at, "ended": at,
               "reason": "walltime"}  # fmt: skip
        if self.waiting or self.open or self.asked < self.shape.trials * len(self.shape.segments):
            yield from self.request(at)

    def free(self, at: float, place: tuple[str, float, int, int]) -> Iterator[Event]:
        _, deadline, _, _ = place
        if deadline - at < 3 * self.shape.step_s:
            return
        if self.waiting:
            job = self.waiting.pop(0)
        elif (ripe := self.ripe()) is not None:
            job = ripe
        else:
            segment = next(self.turns, ...)
            if segment is ...:
                # Work may come back from another worker.
                if self.open:
                    self.plan(at + self.shape.step_s, "free", place)
                return
            job = self.ask(segment)
            yield {"e": "asked", "trial": job.number, "point": job.point, "seed": job.number,
                   "at": at, **({} if segment is None else {"segment": segment})}  # fmt: skip
        job.slices += 1
        self.open += 1
        yield {"e": "submit", "run": 1, "trial": job.number, "slice": job.slices, "at": at}
        yield from self.start(at, job, place)

    def start(self, at: float, job: _Job, place: tuple[str, float, int, int]) -> Iterator[Event]:
        shape = self.shape
        pace = shape.step_s * (0.6 + 0.2 * job.point["layers"]) * (0.9 + 0.2 * self.rng.random())
        fits = int((place[1] - at - 20) / pace)
        rung = job.until or shape.steps
        goal = min(rung, shape.steps, job.step + max(fits, 0))
        facts: dict[str, Any] = {}
        if self.rng.random() < shape.lost_share:
            goal = job.step + max(1, (goal - job.step) // 2)
            end, facts = "lost", {
                "reason": "died", "wasted_s": round((goal - job.step) * pace, 3),
            }  # fmt: skip
        elif job.fails and (failing := max(job.step + 1, 4)) < goal:
            # Before its rung: at it, it would have nothing left to do and never pause there.
            goal = failing
            kind, message, tail = ERRORS[job.number % len(ERRORS)]
            n = 100 + job.number % 900
            error = {"kind": kind, "message": message.format(n=n), "log_tail": tail.format(n=n)}
            end, facts = "failed", {"error": error}
        elif goal >= shape.steps:
            end = "completed"
        elif goal == rung and goal > job.step:
            end = "paused"
            facts = {"reason": "rung"}
        else:
            end, facts = "paused", {"reason": "walltime"}
        ended = at + max(1, goal - job.step) * pace + 2 * self.rng.random()
        self.plan(min(ended, place[1]), "end", job, place, at, end, goal, facts)
        return iter(())

    def end(
        self, at: float, job: _Job, place: tuple[str, float, int, int], started: float, end: str,
        goal: int, facts: dict[str, Any],
    ) -> Iterator[Event]:  # fmt: skip
        block, _, node, worker = place
        self.open -= 1
        event: Event = {
            "e": "end", "run": 1, "trial": job.number, "slice": job.slices, "end": end,
            "state": end, "loss": None, "started": round(started, 3), "ended": round(at, 3),
            "host": f"{block.replace('.', 'b')}n{node:02d}", "block": block,
            "worker": str(worker), "at": round(at, 3), **facts,
        }  # fmt: skip
        if end == "lost":
            event["state"] = "paused"
            self.waiting.append(job)
        else:
            event["reports"] = [[s, self.report(job, s)] for s in range(job.step + 1, goal + 1)]
            job.step = goal
        if end == "completed":
            event["loss"] = self.report(job, goal)["loss"]
            best = self.best.get(job.segment)
            if best is None or event["loss"] < best[0]:
                self.best[job.segment] = (event["loss"], job.point)
        elif end == "paused" and facts["reason"] == "walltime":
            self.waiting.append(job)
        elif end == "paused":
            losses = [self.report(job, step)["loss"] for step in range(1, goal + 1)]
            mean = sum(losses) / goal
            standing = Standing(job.number, goal, losses[-1], min(losses), mean)
            self.policies[job.segment].reached(standing)
            self.resting[job.number] = job
        elif end == "failed":
            job.attempts += 1
            if job.attempts < 2:
                event["state"] = "paused"
                job.fails = self.rng.random() < 0.5
                self.waiting.append(job)
        if event["state"] in ("completed", "failed"):
            self.policies[job.segment].ended(job.number)
        yield event
        self.plan(at + 0.2, "free", place)

    def ripe(self) -> _Job | None:
        """A trial that goes on from its rung."""
        for policy in self.policies.values():
            if (found := policy.ripe()) is not None:
                policy.went_on(found[0])
                job = self.resting.pop(found[0])
                job.until = found[1]
                return job
        return None

    def ask(self, segment: str | None) -> _Job:
        point = self.draw(segment)
        hard = 0.02 * (1 + list(self.shape.segments).index(segment) % 7)
        floor = (
            hard
            + 0.05 * (math.log10(point["lr"]) + 2.5) ** 2
            + 0.08 * (point["layers"] - 3) ** 2
            + 0.15 * abs(point["dropout"] - 0.15)
            + (0.06 if point["activation"] == "tanh" else 0.0)
            + 0.02 * float(self.rng.exponential())
        )
        fails = bool(self.rng.random() < self.shape.failed_share)
        until = self.policies[segment].begun(self.asked)
        job = _Job(self.asked, segment, point, floor, fails=fails, until=until)
        self.asked += 1
        return job

    def draw(self, segment: str | None) -> dict[str, Any]:
        """A random point, or a neighbour of the best."""
        rng = self.rng
        best = self.best.get(segment)
        near = best[1] if best is not None and rng.random() < 0.6 else None

        def number(name: str, low: float, high: float, log: bool = False) -> float:
            a, b = (math.log(low), math.log(high)) if log else (low, high)
            u = rng.random() * (b - a) + a
            if near is not None and name in near:
                old = math.log(near[name]) if log else near[name]
                u = min(b, max(a, old + rng.normal() * (b - a) / 8))
            return math.exp(u) if log else u

        layers = round(number("layers", 1, 4))
        point: dict[str, Any] = {
            "lr": number("lr", 1e-5, 1e-1, True),
            "layers": layers,
            "width": round(number("width", 8, 256, True)),
        }
        if layers >= 2:
            point["width2"] = round(number("width2", 8, 128))
        point["dropout"] = number("dropout", 0.0, 0.6)
        choices = SPACE["activation"]["choice"]
        point["activation"] = (
            near["activation"] if near and rng.random() < 0.7 else choices[int(rng.integers(3))]
        )
        return point

    def report(self, job: _Job, step: int) -> dict[str, float]:
        """A loss that falls with the steps; the same for the same step."""
        wobble = 0.01 * math.sin(12.9898 * (job.number + 7.0 * step))
        loss = job.floor + 1.2 * math.exp(-step * 4.0 / self.shape.steps) + wobble
        return {"loss": round(loss, 6), "accuracy": round(1 / (1 + loss), 6)}
