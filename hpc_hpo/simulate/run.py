"""A whole study in virtual time: the real loop, optimisers and policies over a modelled site."""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Journal, StudyState
from hpc_hpo.launch import freeze
from hpc_hpo.model import TASK_FILE
from hpc_hpo.optimizers.ready import with_queue
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.pilot.policy import SLICES_SHARE
from hpc_hpo.pilot.queues import (
    check_queue,
    longest_walltime,
    preemptible_after,
    queue_name,
    queue_of,
)
from hpc_hpo.pilot.shapes import Shapes, check_shapes
from hpc_hpo.plan import resolve_blocks
from hpc_hpo.simulate.clock import NAP_S, START, VirtualClock
from hpc_hpo.simulate.conditions import LOST, PARTS, Conditions
from hpc_hpo.simulate.draws import Draw
from hpc_hpo.simulate.helper import VirtualHelper
from hpc_hpo.simulate.objectives import Maker, Objective, smooth
from hpc_hpo.simulate.progress import Progress
from hpc_hpo.simulate.site import ModelPilot
from hpc_hpo.simulate.trials import Trials
from hpc_hpo.site import Site
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.opening import make_optimizer, search_of
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.reporting import with_model
from hpc_hpo.steering.start import gather
from hpc_hpo.steering.terms import terms_of
from hpc_hpo.study import Study
from hpc_hpo.study.segment_set import Segment
from hpc_hpo.version import versions
from hpc_hpo.worker.margin import interval
from hpc_hpo.workload import is_resumable

#: To write a checkpoint, in seconds, and its largest share of the time between two and of a trial:
#: who checkpoints every other second has small ones.
CHECKPOINT_S, CHECKPOINT_SHARE = 5.0, 0.02
#: Of a trial, where nothing says how many it has.
STEPS = 20
HOUR, MINUTE = Draw("constant", (3600.0,)), Draw("constant", (60.0,))


@dataclass(frozen=True)
class Assumptions:
    """What a simulation assumes; times in seconds.

    Attributes:
        trial_time: of a trial; see trials.Trials for this and the next ones.
        steps: None = fidelity.max where trials may be stopped early, else STEPS.
        checkpoint_s: None = CHECKPOINT_S, or less: see checkpoint_time.
        resumable: None = as the study's kind of objective lets one expect.
        start_up, queue_wait, mtbf_s, dispatch_s, submit_cpu_s: see site.Conditions.
        preempted: how long a job runs from when it may be preempted until it is; None = for ever.
        stop_s: the simulation ends after so much virtual time; None = with the study.
        trials: in place of the study's budget; only without segments.
        share: of each segment's budget, where that is not all to be simulated.
        learns: whether the study's optimiser is used; else points are random.
        nap_s: between two looks at the blocks, where nothing ends.
        cpu: virtual seconds that a second of steering's CPU time takes; 0 = none.
        fit_s: CPU seconds that fits of models may really take.
        objective: makes that of a segment; None = a smooth function of its points.
    """

    trial_time: Draw
    steps: int | None = None
    resumable: bool | None = None
    checkpoint_s: float | None = None
    fails: float = 0.0
    queue_wait: Draw = HOUR
    start_up: Draw = MINUTE
    mtbf_s: float | None = None
    dispatch_s: float = 0.001
    submit_cpu_s: float = 0.0005
    preempted: Draw | None = None
    stop_s: float | None = None
    trials: int | None = None
    share: float = 1.0
    learns: bool = True
    nap_s: float = NAP_S
    cpu: float = 1.0
    fit_s: float = 60.0
    seed: int = 0
    objective: Maker | None = None


@dataclass(frozen=True)
class Simulated:
    """What came of it; times in seconds of virtual time.

    Attributes:
        parts: worker-seconds by what became of them; they add up to `allocated_s`.
        waits: p50 and p99 of a free worker's wait for its next slice.
        best: (seconds since the first submission, best loss) at each improvement.
    """

    study: Study
    state: StudyState
    reason: str
    parts: dict[str, float]
    node_hours: float
    finish_s: float
    jobs: int
    most_waiting: int
    most_jobs: int
    steering_cpu_s: float
    fits: int
    waits: tuple[float, float]
    best: tuple[tuple[float, float], ...]

    @property
    def allocated_s(self) -> float:
        """Worker-seconds of all blocks."""
        return sum(self.parts.values())

    @property
    def utilisation(self) -> float:
        """Share of allocated worker time in trials whose work counted."""
        return self.parts["trials"] / self.allocated_s if self.allocated_s else 0.0

    @property
    def lost_s(self) -> float:
        """Worker-seconds of work that was lost or failed, and of dead nodes."""
        return sum(self.parts[name] for name in LOST)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        total, blocks = self.allocated_s or 1.0, self.study.blocks
        states = self.state.trial_states
        return {
            "study": self.study.name, "reason": self.reason,
            "blocks": {"nodes": blocks.nodes, "walltime": blocks.walltime, "max": blocks.max},
            "utilisation": self.utilisation, "allocated_worker_seconds": self.allocated_s,
            "parts": {k: {"worker_seconds": v, "share": v / total} for k, v in self.parts.items()},
            "lost_worker_seconds": self.lost_s,
            "node_hours": self.node_hours, "finish_seconds": self.finish_s, "jobs": self.jobs,
            "trials": {"completed": states["completed"], "failed": states["failed"],
                       "stopped": states["stopped"],
                       "total": len(self.state.trials)},
            "slices": {k: v for k, v in self.state.slice_ends.items() if v},
            "steering_cpu_seconds": self.steering_cpu_s, "fits": self.fits,
            "wait_seconds": {"p50": self.waits[0], "p99": self.waits[1]},
            "best": [list(pair) for pair in self.best],
        }  # fmt: skip


def prepare(
    study: Study, site: Site, *, nodes: int | None = None, walltime_s: float | None = None,
    blocks: int | None = None,
) -> Study:  # fmt: skip
    """The study with its blocks as they are to be simulated.

    Args:
        nodes, walltime_s, blocks: in place of the study's own; with other nodes, the
            walltime is the longest that the queue allows for them.

    Raises:
        InputError: the site gives no such blocks, or trials do not fit on its nodes.
    """
    if study.blocks.auto and nodes is None:
        study = study.model_copy(update={"blocks": resolve_blocks(study, site)})
    change: dict[str, Any] = {}
    if nodes is not None:
        change["nodes"] = nodes
        if walltime_s is None and (site.batch or study.blocks.walltime is None):
            change["walltime"] = longest_walltime(site, study.queue, nodes)
    if walltime_s is not None:
        change["walltime"] = walltime_s
    if blocks is not None:
        change["max"] = blocks
    if change:
        made = study.blocks.model_copy(update=change)
        made._auto = False
        study = study.model_copy(update={"blocks": made})
    # Who pays does not matter: nothing is submitted.
    problems = [e for e in check_queue(study, site) if e.key != "account"]
    problems += check_shapes(study, site)
    if problems:
        raise problems[0]
    return study


@contextmanager
def _place(study: Study, keep: Path | None) -> Iterator[StudyFolder]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="hpc-hpo-simulate-") as scratch:
            yield StudyFolder(Path(scratch))
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        problem = "is not empty" if keep.is_dir() else "is no folder"
        raise InputError(problem, file=str(keep), key="--keep", valid="a new folder")
    folder = StudyFolder(keep.resolve())
    folder.make()
    freeze(study, folder)
    yield folder


def checkpoint_time(study: Study, given: Assumptions) -> float:
    """Seconds that a checkpoint takes."""
    if given.checkpoint_s is not None:
        return given.checkpoint_s
    known = [time for time in (study.checkpoint.every, given.trial_time.mean) if time is not None]
    return min(CHECKPOINT_S, CHECKPOINT_SHARE * min(known))


def steps_of(study: Study, given: int | None) -> int:
    """Steps of a trial.

    Raises:
        InputError: the study says another number.
    """
    fidelity = study.fidelity
    if fidelity is None:
        return given or STEPS
    if given not in (None, fidelity.max):
        raise InputError("the study's fidelity.max says how many steps a trial has", key="--steps",
                         found=given, valid=str(fidelity.max))  # fmt: skip
    return fidelity.max


def _reduced(segment: Segment, given: Assumptions) -> Segment:
    """A segment as it is simulated."""
    if given.share < 1.0 and segment.trials is not None:
        segment = replace(segment, trials=max(1, round(segment.trials * given.share)))
    return segment if given.learns else replace(segment, optimizer={"name": "random"})


def _objectives(study: Study, make: Maker) -> Callable[[str | None], Objective]:
    """Of a segment, made when its first trial needs it."""
    made: dict[str | None, Objective] = {}

    def of(name: str | None) -> Objective:
        if name not in made:
            made[name] = make(name, study.segments[name].space)
        return made[name]

    # What is wrong for all is said before anything is simulated.
    of(next(iter(study.segments)))
    return of


def _preempted(
    study: Study, site: Site, beyond: Draw | None
) -> Callable[[np.random.Generator], float] | None:
    """How long jobs run until they are preempted."""
    if beyond is None:
        return None
    after_s = preemptible_after(site, study.queue, study.blocks.nodes)
    if after_s is None:
        queue = queue_name(site, study.queue)
        where = site.name if queue is None else f"queue {queue} at {site.name}"
        raise InputError(
            f"{where} preempts no jobs of {study.blocks.nodes} nodes", key="--preempt",
            valid="a queue with preemptible_after in the site's file",
        )  # fmt: skip
    return lambda rng: after_s + beyond(rng)


def simulate(
    study: Study, site: Site, given: Assumptions, *, keep: Path | None = None,
    observe: Callable[[StudyState, float], None] = lambda state, seconds: None,
) -> Simulated:  # fmt: skip
    """Run a study in virtual time.

    Args:
        study: by `prepare`.
        keep: a new folder for the journal; None = one that is removed.
        observe: called now and then with the state and the virtual seconds so far.

    Raises:
        InputError: `keep` is not empty, the objective has no loss for a point, the steps are not
            those of the study, its queue preempts no jobs, a source of `start_from` cannot be
            taken, or no trial ever comes on.
    """
    if given.trials is not None and study.segments.named:
        raise InputError("the study's segments have budgets of their own", key="--trials")
    shapes, resumable = Shapes(study, site), given.resumable
    checkpoint_s = checkpoint_time(study, given)
    trials = Trials(
        given.trial_time, steps_of(study, given.steps),
        is_resumable(study) if resumable is None else resumable,
        checkpoint_s, interval(study.checkpoint.every, checkpoint_s),
        given.fails, given.seed,
        _objectives(study, given.objective or smooth(study, given.seed)),
        study.fidelity.metric if study.fidelity is not None
        else "loss" if study.budget.epochs is not None else None,
    )  # fmt: skip
    clock = VirtualClock(given.cpu, nap_s=given.nap_s)
    conditions = Conditions(
        study.blocks.nodes, shapes.per_node, study.blocks.max, study.blocks.walltime,
        queue_of(site, study.queue), given.queue_wait if site.batch else Draw("constant", (0.0,)),
        given.start_up, given.mtbf_s, min(given.nap_s, site.poll), site.heartbeat.threshold,
        given.dispatch_s, given.submit_cpu_s, given.seed, _preempted(study, site, given.preempted),
        site.kill_grace * SLICES_SHARE,
    )  # fmt: skip
    pilot, helper = ModelPilot(conditions, clock, trials), VirtualHelper(clock, given.fit_s)
    state, sign = StudyState(), study.direction_sign

    def searches() -> Iterator[Any]:
        for whole in study.segments.values():
            segment = _reduced(whole, given)

            def make(begun_again: int, segment: Any = segment) -> Any:
                made = make_optimizer(study, segment, begun_again)
                return with_queue(made, with_model(study, segment), helper, clock.now)

            yield search_of(study, segment, make)

    seen, best = 0, list[tuple[float, float]]()

    def watch(state: StudyState, capacity: Capacity) -> None:
        nonlocal seen
        with clock.aside():
            now = clock.now() - START
            for kind, number in state.search_log.since(seen):
                loss = state.trials[number].loss
                better = loss is not None and (not best or sign * loss < sign * best[-1][1])
                if kind == "told" and loss is not None and better:
                    best.append((now, loss))
            seen = len(state.search_log)
            observe(state, now)

    before = [given.start_up, *([given.queue_wait] if site.batch else [])]
    progress = Progress(study, given.trial_time, before)

    def stop() -> str:
        now = clock.now()
        progress.check(pilot.parts["trials"], pilot.jobs, now)
        return "now" if given.stop_s is not None and now >= START + given.stop_s else ""

    with _place(study, keep) as folder:
        # Synced once: nothing is lost with a simulation.
        journal = Journal(folder.journal, sync_every=math.inf)
        try:
            event = {"e": "run", "run": 1, "at": START, "versions": versions(),
                     "site": site.name, "simulated": True}  # fmt: skip
            happened = [event]
            if given.trials is not None:
                # As `segment budget` changes one.
                happened.append({"e": "segment", "op": "budget", "segment": None,
                                 "trials": given.trials, "at": START})  # fmt: skip
            if study.start_from and given.learns:
                happened += gather(study).events(START)
            for event in happened:
                journal.append(event)
                state.apply(event)
            segments = study.segments
            portfolio = Portfolio(
                searches(), state, sign=sign, policy=segments.policy, floor=segments.floor,
                points=segments.transfer.points, neighbours=segments.transfer.neighbours,
            )  # fmt: skip
            steering = Steering(
                replace(terms_of(study, site, TASK_FILE), expected_s=given.trial_time.mean),
                str(folder.path), state, journal, portfolio, pilot, clock, stop=stop,
                observe=watch,
            )  # fmt: skip
            pilot.start(1)
            gc.freeze()
            reason = steering.run()
        finally:
            gc.unfreeze()
            journal.close()
    waits = np.quantile(pilot.waits, [0.5, 0.99]) if pilot.waits else (0.0, 0.0)
    return Simulated(
        study, state, reason, {name: pilot.parts[name] for name in PARTS}, pilot.node_s / 3600,
        clock.now() - START, pilot.jobs, pilot.most_waiting, pilot.most_jobs, clock.cpu(),
        helper.fits, (float(waits[0]), float(waits[1])), tuple(best),
    )  # fmt: skip
