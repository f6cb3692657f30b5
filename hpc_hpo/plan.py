"""Which blocks to ask for: choices side by side, and one of them recommended. Pure.

The numbers come from the study's budget and expected time, and from the site's bins; the wait
in the queue is an assumption that the caller states. All trials are taken to last the expected
time, and a trial without checkpoints to start only in a block that it can finish in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hpc_hpo.pilot.free import Window
from hpc_hpo.pilot.queues import (
    bins,
    check_queue,
    check_request,
    longest_walltime,
    most_at_once,
    queue_of,
)
from hpc_hpo.pilot.shapes import Shapes
from hpc_hpo.site import Queue, Site
from hpc_hpo.study import Study
from hpc_hpo.study.sections import Blocks
from hpc_hpo.units import format_duration
from hpc_hpo.workload import Work, work_of

#: Assumed wait of a job in the queue of a batch site, in seconds.
QUEUE_WAIT_S = 3600.0
#: Assumed time from a job's start to its first trial, in seconds.
START_UP_S = 60.0
#: Blocks are not planned longer than this where the site states no limit, in seconds.
LONGEST_S = 86400.0
#: A single block is asked for this much longer than the work should take.
SLACK = 1.2
#: An optimiser that learns is given at least this many rounds of trials.
ROUNDS = 4
LEARNS_NOTHING = ("random", "grid", "sobol", "points")
#: Choices that take this much longer than the fastest are not shown.
TOO_SLOW = 10.0
#: The cheapest choice may finish this much later than the fastest one.
PATIENCE = 1.25


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run the study; times in seconds.

    Attributes:
        nodes: of each block.
        walltime_s: of each block; None = without end.
        at_once: blocks at one time.
        chain: blocks one after another.
        workers: trials at one time.
        node_hours: used by all blocks.
        lost: share of the workers' time that computes no trial: start-up, margins, idle tails.
        finish_s: from the first submission to the last loss, the wait in the queue included.
        asked: the blocks that the study itself asks for.
        free_now: the scheduler could start the first of these blocks at once.
    """

    nodes: int
    walltime_s: float | None
    at_once: int
    chain: int
    workers: int
    node_hours: float
    lost: float
    finish_s: float
    asked: bool = False
    free_now: bool = False

    @property
    def jobs(self) -> int:
        """Jobs submitted in all."""
        return self.at_once * self.chain


@dataclass(frozen=True)
class Plan:
    """Choices, and one of them recommended.

    Attributes:
        choices: from few node-hours to many; none is worse than another in every respect, but
            for the one that the study asks for.
        recommended: one of them.
        reason: why.
        assumptions: what the numbers rest on.
        refused: why the queue would not take the blocks that the study asks for; None = it would.
    """

    choices: tuple[Choice, ...]
    recommended: Choice
    reason: str
    assumptions: tuple[str, ...]
    refused: str | None


def evaluate(
    work: Work,
    nodes: int,
    per_node: float,
    at_once: int,
    walltime_s: float | None,
    wait_s: float,
    free: Sequence[Window] = (),
) -> Choice | None:
    """What one shape of blocks would cost; None where no trial would ever finish.

    Args:
        work: what is to be computed.
        nodes: of each block.
        per_node: trials at one time on a node; below 1 where one takes several.
        at_once: blocks at one time.
        walltime_s: of each block, seconds; None = without end.
        wait_s: of each job in the queue, seconds; the next block waits while one runs.
        free: what the scheduler could start now; the first blocks wait for nothing if they fit.
    """
    free_now = any(
        nodes * at_once <= window.nodes and (walltime_s or math.inf) <= window.seconds
        for window in free
    )
    slots = max(1, int(nodes * per_node + 1e-9))
    workers = slots * at_once
    rounds = math.ceil(work.trials / workers)
    if walltime_s is None:
        chain, last_s = 1, work.start_up_s + rounds * work.trial_s
    else:
        usable = walltime_s - work.start_up_s - work.margin_s
        if work.resumable:
            if usable <= 0:
                return None
            # The small number forgives rounding where the work fills its blocks exactly.
            chain = max(1, math.ceil(rounds * work.trial_s / usable - 1e-9))
            last_s = work.start_up_s + rounds * work.trial_s - (chain - 1) * usable
        else:
            each = int(usable / work.trial_s + 1e-9)
            if each < 1:
                return None
            chain = math.ceil(rounds / each)
            last_s = work.start_up_s + (rounds - (chain - 1) * each) * work.trial_s
    held_s = (chain - 1) * (full_s := walltime_s or 0.0) + last_s
    # The last round may leave blocks without work; those are released.
    left = work.trials - (rounds - 1) * workers
    released = at_once - math.ceil(left / slots)
    block_s = at_once * held_s - released * min(work.trial_s, last_s)
    return Choice(
        nodes=nodes,
        walltime_s=walltime_s,
        at_once=at_once,
        chain=chain,
        workers=workers,
        node_hours=nodes * block_s / 3600,
        lost=1 - work.trials * work.trial_s / (nodes * per_node * block_s),
        finish_s=(0.0 if free_now else wait_s) + (chain - 1) * max(full_s, wait_s) + last_s,
        free_now=free_now,
    )


def _powers(most: int) -> set[int]:
    return {2**i for i in range(most.bit_length())}


def _sizes(study: Study, site: Site, shapes: Shapes, work: Work) -> list[int]:
    """Node counts to look at: those that finish in few, nearly full rounds of trials."""
    if not site.batch:
        return [1]
    per_node = shapes.trials_per_node
    enough = math.ceil(work.trials / per_node)
    rounds = _powers(enough) | {3 * n for n in _powers(enough)}
    sizes = {math.ceil(work.trials / (per_node * n)) for n in rounds}
    entries = bins(site, study.queue)
    if entries:
        sizes |= {b.nodes[0] for b in entries if b.nodes[0] <= max(enough, entries[0].nodes[0])}
        sizes = {n for n in sizes if any(b.nodes[0] <= n <= b.nodes[1] for b in entries)}
    return sorted({max(n, shapes.largest.nodes) for n in sizes})


def _widths(queue: Queue | None, site: Site) -> list[int]:
    """How many blocks to have at one time: powers of 2 up to what may wait in the queue."""
    if not site.batch:
        return [1]
    limits = [4, most_at_once(queue)]
    if queue is not None:
        limits.append(queue.max_eligible)
    return sorted(_powers(min(n for n in limits if n is not None)))


def _fitting_walltime(
    longest_s: float | None, work: Work, workers: int, batch: bool
) -> float | None:
    """The queue's longest, or less where a single block needs less: short jobs start sooner."""
    if longest_s is None and not batch:
        return None
    compute_s = math.ceil(work.trials / workers) * work.trial_s
    needed_s = work.start_up_s + work.margin_s + SLACK * compute_s
    needed_s = 300.0 * math.ceil(needed_s / 300.0)
    return min(needed_s, LONGEST_S if longest_s is None else longest_s)


def _choices(
    study: Study, site: Site, work: Work, wait_s: float, free: Sequence[Window]
) -> Iterator[Choice]:
    trials = Shapes(study, site)
    per_node = trials.trials_per_node
    queue = queue_of(site, study.queue)
    chaining = queue is None or queue.chaining
    room = queue.max_queued if queue is not None else None
    sizes = _sizes(study, site, trials, work)
    shapes = [(nodes, at_once, math.inf) for nodes in sizes for at_once in _widths(queue, site)]
    # Each window as it is, and the sizes that fit into it, no longer than it lasts.
    for window in free:
        fitting = {n for n in sizes if n <= window.nodes} | {min(window.nodes, max(sizes))}
        shapes += [(nodes, 1, window.seconds) for nodes in sorted(fitting)]
    for nodes, at_once, window_s in dict.fromkeys(shapes):
        if nodes >= trials.largest.nodes and not check_request(site, study.queue, nodes, 60.0):
            longest_s = longest_walltime(site, study.queue, nodes)
            workers = max(1, int(nodes * per_node)) * at_once
            if at_once > 1 and workers >= 2 * work.trials:
                continue
            walltime_s = _fitting_walltime(longest_s, work, workers, site.batch)
            if walltime_s is not None and walltime_s > window_s:
                walltime_s = 60.0 * (window_s // 60.0)
            if walltime_s == 0:
                continue
            found = evaluate(work, nodes, per_node, at_once, walltime_s, wait_s, free)
            if found is None or (found.chain > 1 and not chaining):
                continue
            # Successors wait while their predecessors run.
            if room is not None and at_once * min(2, found.chain) > room:
                continue
            yield found


def _asked(
    study: Study, site: Site, work: Work, wait_s: float, free: Sequence[Window]
) -> Choice | None:
    """What the study asks for itself, where it finishes."""
    blocks, per_node = study.blocks, Shapes(study, site).trials_per_node
    found = evaluate(work, blocks.nodes, per_node, blocks.max, blocks.walltime, wait_s, free)
    return None if found is None else replace(found, asked=True)


def _is_beaten(one: Choice, others: list[Choice]) -> bool:
    return any(_is_worse(one, other) for other in others)


def _is_worse(one: Choice, other: Choice) -> bool:
    """Whether `other` is at least as good in every respect, and better in one."""
    a, b = (
        (c.node_hours, c.finish_s, c.workers, c.jobs if _alike(one, other) else 0)
        for c in (one, other)
    )
    return a != b and all(y <= x for x, y in zip(a, b, strict=True))


def _alike(one: Choice, other: Choice) -> bool:
    """Whether only the number of jobs tells two choices apart."""
    return all(
        math.isclose(getattr(one, key), getattr(other, key))
        for key in ("node_hours", "finish_s", "workers")
    )


def make_plan(
    study: Study,
    site: Site,
    *,
    queue_wait_s: float = QUEUE_WAIT_S,
    start_up_s: float = START_UP_S,
    free: Sequence[Window] = (),
) -> Plan:
    """The choices for a study on a site.

    Args:
        study: with ``trial.expected_time``.
        site: where it would run.
        queue_wait_s: assumed wait of each job in the queue, seconds; site local has none.
        start_up_s: assumed time from a job's start to its first trial, seconds.
        free: what the scheduler could start now (pilot/free.py).

    Raises:
        InputError: the expected time is missing, the queue is unknown, or no block that the
            queue allows lasts long enough for a trial.
    """
    blockers = [e for e in check_queue(study, site) if e.key == "queue"]
    if blockers:
        raise blockers[0]
    work, words = work_of(study, site, start_up_s)
    wait_s = queue_wait_s if site.batch else 0.0
    found = list(_choices(study, site, work, wait_s, free))
    if not found:
        raise study.problem(
            "trial.expected_time", _why_nothing(study, site, work.resumable),
            found=study.document.scalars.get("trial.expected_time"),
        )  # fmt: skip
    best, reason = _recommend(study, found, work)
    slowest_s = TOO_SLOW * min(c.finish_s for c in found)
    worth = [c for c in found if c.finish_s <= slowest_s]
    shown = [c for c in found if c == best or (c in worth and not _is_beaten(c, worth))]
    refused = None
    if not study.blocks.auto:
        misfit = check_request(site, study.queue, study.blocks.nodes, study.blocks.walltime)
        asked = _asked(study, site, work, wait_s, free)
        if misfit is not None:
            refused = misfit.problem
        elif asked is None:
            refused = "no trial would ever finish in one"
        else:
            shown.append(asked)
    shown.sort(key=lambda c: (c.node_hours, c.finish_s))
    assumptions = (
        words,
        f"each job waits {format_duration(wait_s)} in the queue, and needs "
        f"{format_duration(start_up_s)} to start up",
        "trials go on in the next block from a checkpoint"
        if work.resumable
        else "trials have no checkpoints: one starts only where it can finish",
    )
    return Plan(tuple(shown), best, reason, assumptions, refused)


def _why_nothing(study: Study, site: Site, resumable: bool) -> str:
    queue = queue_of(site, study.queue)
    if queue is not None and not queue.chaining:
        return (
            f"the study does not fit one job, and its queue at {site.name} forbids chains of jobs"
        )
    cure = "" if resumable else "; with checkpoint.files a trial could go on in the next"
    return f"no block that {site.name} allows lasts long enough for a trial{cure}"


def _recommend(study: Study, choices: list[Choice], work: Work) -> tuple[Choice, str]:
    """The cheapest of those that finish about as soon as the fastest, and a sentence on it."""
    pool, notes = choices, []
    limit_s = study.budget.wall_time
    in_time = [c for c in pool if limit_s is None or c.finish_s <= limit_s]
    if in_time:
        pool = in_time
    else:
        notes.append("no choice finishes within budget.wall_time")
    hours = study.budget.node_hours
    affordable = [c for c in pool if hours is None or work.by_hours or c.node_hours <= hours]
    if affordable:
        pool = affordable
    elif hours is not None:
        least = min(c.node_hours for c in pool)
        notes.append(
            f"budget.node_hours ({hours:g}) ends every choice early: {least:.3g} are needed"
        )
    if study.optimizer.name not in LEARNS_NOTHING:
        most = max(1, work.trials // ROUNDS)
        fewest = min(c.workers for c in pool)
        pool = [c for c in pool if c.workers <= max(most, fewest)]
        notes.append(f"at most {max(most, fewest)} trials at one time let the optimiser learn")
    fastest_s = min(c.finish_s for c in pool)
    near = [c for c in pool if c.finish_s <= PATIENCE * fastest_s]
    best = min(near, key=lambda c: (c.node_hours, c.finish_s, c.at_once, c.nodes))
    reason = f"the fewest node-hours among those within {PATIENCE - 1:.0%} of the fastest"
    return best, "; ".join([reason, *notes])


def resolve_blocks(study: Study, site: Site, free: Sequence[Window] = ()) -> Blocks:
    """The study's blocks; for ``blocks: auto``, those that the plan recommends.

    Args:
        free: what the scheduler could start now (pilot/free.py).

    Raises:
        InputError: as make_plan, for ``blocks: auto``.
    """
    if not study.blocks.auto:
        return study.blocks
    best = make_plan(study, site, free=free).recommended
    # Not validated: the walltime is in seconds already, not a duration as people write it.
    shape = {"nodes": best.nodes, "walltime": best.walltime_s, "max": best.at_once}
    return Blocks().model_copy(update=shape)
