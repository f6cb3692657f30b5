"""How benchmarks/fidelity.py trains: this package's real loop, and Optuna, over the same workers in
virtual time."""

from __future__ import annotations

import heapq
import itertools
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fidelity_problems import MOST, Curves, lengths

from hpc_hpo.journal import Journal, StudyState
from hpc_hpo.model import CheckpointInfo, SliceEnd, SliceOutcome, SliceRequest
from hpc_hpo.optimizers.ready import with_queue
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.simulate.clock import START, VirtualClock
from hpc_hpo.simulate.helper import VirtualHelper
from hpc_hpo.site import load_site
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.opening import make_optimizer, search_of
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.reporting import with_model
from hpc_hpo.steering.terms import terms_of
from hpc_hpo.study.load import load_study

#: Rungs of all policies.
LEAST, ETA = 1, 3
#: Seconds of an epoch in the mean.
EPOCH_S = 60.0
#: CPU seconds for the fits of one run.
FIT_S = 20.0


@dataclass
class Course:
    """What a run came to.

    Attributes:
        best: (epochs, worker-seconds, loss) at each improvement of a whole training's loss.
        epochs: trained in all; worker_s: how long all workers were there.
    """

    best: list[tuple[float, float, float]] = field(default_factory=list)
    epochs: float = 0.0
    worker_s: float = 0.0
    begun: int = 0
    whole: int = 0

    def completed(self, epochs: float, worker_s: float, loss: float) -> None:
        self.whole += 1
        if not self.best or loss < self.best[-1][2]:
            self.best.append((epochs, worker_s, loss))


@dataclass(frozen=True)
class Limits:
    """When a run is over.

    Attributes:
        trials: that may be begun.
        target: a whole training's loss.
        epochs: in all.
        cpu_s: it may compute for; it is given up then.
    """

    trials: int
    target: float = -math.inf
    epochs: float = math.inf
    cpu_s: float = math.inf


class TooSlow(Exception):
    """A run took longer than it may.

    Attributes:
        epochs: it came to.
    """

    def __init__(self, epochs: float) -> None:
        super().__init__(epochs)
        self.epochs = epochs


class CurvePilot:
    """Workers without walltimes that train by curves; see pilot.base.Pilot."""

    def __init__(self, curves: Curves, workers: int, clock: VirtualClock, seed: int) -> None:
        self._curves, self._workers, self._clock = curves, workers, clock
        self._spread = lengths(100_000 if curves.length is None else 0, seed)
        self._queue: list[tuple[int, int, SliceRequest, Future[SliceOutcome]]] = []
        self._order = itertools.count()
        self._running: dict[int, tuple[float, float]] = {}  #: start, seconds of an epoch
        self._saved: dict[int, int] = {}
        self._done = 0
        self.course = Course()

    def epochs(self, now: float) -> float:
        """Trained so far, those of running slices included."""
        return self._done + sum((now - at) / each for at, each in self._running.values())

    def start(self, run: int) -> None:
        pass

    def submit(self, request: SliceRequest, priority: int) -> Future[SliceOutcome]:
        future: Future[SliceOutcome] = Future()
        heapq.heappush(self._queue, (priority, next(self._order), request, future))
        self._assign(self._clock.now())
        return future

    def _assign(self, now: float) -> None:
        while self._queue and len(self._running) < self._workers:
            _, _, request, future = heapq.heappop(self._queue)
            self._begin(request, future, now)

    def _begin(self, request: SliceRequest, future: Future[SliceOutcome], now: float) -> None:
        trial, values = request["trial"], list(request["point"].values())
        length = self._curves.length
        each = EPOCH_S * (length(values) if length else float(self._spread[trial]))
        first, rung = self._saved.get(trial, 0), request.get("stop_step")
        last = MOST if rung is None else min(rung, MOST)
        losses = self._curves.losses(values)
        self._running[trial] = (now, each)
        self.course.begun += first == 0

        def end(at: float) -> None:
            del self._running[trial]
            self._done += last - first
            self._saved[trial] = last
            outcome = SliceOutcome(
                run=request["run"], trial=trial, slice=request["slice"], started=now, ended=at,
                end=(SliceEnd.COMPLETED if last == MOST else SliceEnd.PAUSED).value,
                reports=[[s, {"loss": float(losses[s - 1])}] for s in range(first + 1, last + 1)],
            )  # fmt: skip
            if last == MOST:
                outcome["loss"] = float(losses[-1])
                spent = self._workers * (at - START)
                self.course.completed(self.epochs(at), spent, float(losses[-1]))
            else:
                outcome["reason"] = "rung"
                name = f"ckpt-{request['slice']}-1"
                outcome["checkpoint"] = CheckpointInfo(
                    name=name, slice=request["slice"], at=at, step=last
                )
            self._assign(at)
            future.set_result(outcome)

        self._clock.at(now + (last - first) * each, end)

    def want(self, slices: int) -> None:
        pass

    def poll(self) -> list[dict[str, Any]]:
        return []

    def capacity(self) -> Capacity:
        return Capacity(self._workers, math.inf, 0)

    def pause_all(self) -> None:
        pass

    def stop(self) -> list[dict[str, Any]]:
        return []


def ours(
    curves: Curves, optimizer: str, policy: str, workers: int, seed: int, limits: Limits
) -> Course:
    """The real steering loop, optimiser, ready queue and policy.

    Args:
        policy: of study.yaml's `fidelity`, or "full".
    """
    sizes = enumerate(curves.sizes)
    spec: dict[str, Any] = {
        "name": "fidelity", "objective": "objective.py:train", "optimizer": optimizer, "seed": seed,
        "space": {f"x{i}": {"int": [0, n - 1]} if n else {"float": [0, 1]} for i, n in sizes},
        "budget": {"trials": limits.trials},
    }  # fmt: skip
    if policy != "full":
        spec["fidelity"] = {"policy": policy, "min": LEAST, "max": MOST, "eta": ETA}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "study.yaml")
        file.write_text(yaml.safe_dump(spec))
        study = load_study(file)
        clock = VirtualClock(scale=0.0)
        pilot = CurvePilot(curves, workers, clock, seed)
        helper, state = VirtualHelper(clock, FIT_S), StudyState()

        def search(segment: Any) -> Any:
            def make(begun_again: int) -> Any:
                made = make_optimizer(study, segment, begun_again)
                return with_queue(made, with_model(study, segment), helper, clock.now)

            return search_of(study, segment, make)

        over = time.process_time() + limits.cpu_s

        def stop() -> str:
            best = pilot.course.best
            if time.process_time() > over:
                raise TooSlow(pilot.epochs(clock.now()))
            reached = bool(best) and best[-1][2] <= limits.target
            return "now" if reached or pilot.epochs(clock.now()) > limits.epochs else ""

        journal = Journal(Path(scratch, "journal.jsonl"), sync_every=math.inf)
        event = {"e": "run", "run": 1, "at": START, "simulated": True}
        journal.append(event)
        state.apply(event)
        searches = Portfolio((search(s) for s in study.segments.values()), state, sign=1)
        Steering(
            terms_of(study, load_site("local"), "task"), scratch, state, journal, searches, pilot,
            clock, stop=stop,
        ).run()  # fmt: skip
        journal.close()
        now = clock.now()
    pilot.course.epochs, pilot.course.worker_s = pilot.epochs(now), workers * (now - START)
    return pilot.course


def optuna_runs(
    curves: Curves, sampler: str, pruner: str, workers: int, seed: int, limits: Limits
) -> Course:
    """Optuna: each worker trains a trial epoch by epoch and asks whether it is to be pruned.

    The pruners have the same first rung and the same share as this package's policies; samplers
    are set as in quality_peers.py.
    """
    import optuna

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruners: dict[str, Callable[[], Any]] = {
        "full": optuna.pruners.NopPruner,
        "SHA": lambda: optuna.pruners.SuccessiveHalvingPruner(LEAST, ETA),
        "Hyperband": lambda: optuna.pruners.HyperbandPruner(LEAST, MOST, ETA),
        "median": optuna.pruners.MedianPruner,
    }
    made: Any = optuna.samplers.RandomSampler(seed)
    if sampler == "TPE":
        made = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    study = optuna.create_study(sampler=made, pruner=pruners[pruner]())
    kinds = optuna.distributions
    axes: dict[str, Any] = {
        f"x{i}": kinds.IntDistribution(0, n - 1) if n else kinds.FloatDistribution(0.0, 1.0)
        for i, n in enumerate(curves.sizes)
    }
    spread = lengths(100_000 if curves.length is None else 0, seed)
    running: list[tuple[float, int, int, Any, np.ndarray, float]] = []
    order, course = itertools.count(), Course()

    def begin(now: float) -> None:
        if course.begun >= limits.trials:
            return
        trial = study.ask(axes)
        values = [trial.params[name] for name in axes]
        each = EPOCH_S * (curves.length(values) if curves.length else spread[trial.number])
        course.begun += 1
        heapq.heappush(running, (now + each, next(order), 1, trial, curves.losses(values), each))

    for _ in range(workers):
        begin(0.0)
    now, over = 0.0, time.process_time() + limits.cpu_s
    while running and course.epochs <= limits.epochs:
        now, _, step, trial, losses, each = heapq.heappop(running)
        course.epochs += 1
        if time.process_time() > over:
            raise TooSlow(course.epochs)
        loss = float(losses[step - 1])
        trial.report(loss, step)
        if step == MOST:
            study.tell(trial, loss)
            course.completed(course.epochs, workers * now, loss)
            if loss <= limits.target:
                break
            begin(now)
        elif trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            begin(now)
        else:
            heapq.heappush(running, (now + each, next(order), step + 1, trial, losses, each))
    course.worker_s = workers * now
    return course
