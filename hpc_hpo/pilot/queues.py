"""Queue policy: what a site's queues allow, and walltimes as schedulers write them. Pure."""

from __future__ import annotations

import math

from hpc_hpo.errors import InputError
from hpc_hpo.schema import one_of
from hpc_hpo.site import Bin, Queue, Site
from hpc_hpo.study import Study
from hpc_hpo.units import format_duration


def _minutes(seconds: float, longest_s: float | None) -> int:
    """Whole minutes, rounded up, but never past the longest; at least 1."""
    # The small number keeps 7200.0000001 s, a sum of floats, at 120 minutes.
    minutes = math.ceil(seconds / 60 - 1e-6)
    if longest_s is not None:
        minutes = min(minutes, int(longest_s // 60))
    return max(1, minutes)


def lsf_walltime(seconds: float, longest_s: float | None = None) -> str:
    """``-W`` as LSF takes it, [hours:]minutes without seconds: 2:00, 0:30.

    Args:
        seconds: the walltime; rounded up to a minute.
        longest_s: the queue's limit, which rounding up does not pass.
    """
    hours, minutes = divmod(_minutes(seconds, longest_s), 60)
    return f"{hours}:{minutes:02d}"


def slurm_walltime(seconds: float, longest_s: float | None = None) -> str:
    """``--time`` as HH:MM:00.

    Slurm counts whole minutes, and takes 0 for no limit at all; hence at least one minute.
    """
    hours, minutes = divmod(_minutes(seconds, longest_s), 60)
    return f"{hours:02d}:{minutes:02d}:00"


def pbs_walltime(seconds: float, longest_s: float | None = None) -> str:
    """``-l walltime`` as HH:MM:SS, of whole minutes like the others."""
    return slurm_walltime(seconds, longest_s)


def queue_name(site: Site, queue: str | None) -> str | None:
    """The queue that is meant: the one named, else the site's default; None = no -q option."""
    return queue or site.default_queue


def queue_of(site: Site, queue: str | None) -> Queue | None:
    """What is known of a queue (None = the site's default); None = nothing.

    Raises:
        InputError: the site lists its queues, and not this one.
    """
    name = queue_name(site, queue)
    if name is None or not site.queues:
        return None
    if name not in site.queues:
        raise InputError(
            f"unknown queue of site {site.name}", key="queue", found=name,
            valid=one_of(name, list(site.queues)),
        )  # fmt: skip
    return site.queues[name]


def slurm_queue(site: Site, queue: str | None) -> tuple[str | None, str | None]:
    """(partition, QOS) by which Slurm knows a queue; None = the option is not given.

    Raises:
        InputError: the site lists its queues, and not this one.
    """
    known = queue_of(site, queue)
    if known is None or (known.partition is None and known.qos is None):
        return queue_name(site, queue), None
    return known.partition, known.qos


def bins(site: Site, queue: str | None) -> tuple[Bin, ...]:
    """The queue's bins, from few nodes to many; none where no limit is known.

    Raises:
        InputError: the site lists its queues, and not this one.
    """
    known = queue_of(site, queue)
    return known.bins if known is not None else ()


def longest_walltime(site: Site, queue: str | None, nodes: int) -> float | None:
    """Seconds that a job of `nodes` nodes may ask for; None where no limit is known.

    Raises:
        InputError: the queue takes no jobs of this size, or is unknown.
    """
    entries = bins(site, queue)
    limits = [b.walltime for b in entries if b.nodes[0] <= nodes <= b.nodes[1]]
    if entries and not limits:
        raise _wrong_size(site, queue, nodes, entries)
    if site.max_walltime is not None:
        limits.append(site.max_walltime)
    return min(limits, default=None)


def preemptible_after(site: Site, queue: str | None, nodes: int) -> float | None:
    """Seconds that a job of `nodes` nodes runs before it may be preempted; None = it never is.

    Raises:
        InputError: the queue is unknown.
    """
    entries = (b for b in bins(site, queue) if b.nodes[0] <= nodes <= b.nodes[1])
    return next((b.preemptible_after for b in entries), None)


def _wrong_size(site: Site, queue: str | None, nodes: int, entries: tuple[Bin, ...]) -> InputError:
    ranges = " and ".join(f"{b.nodes[0]} to {b.nodes[1]}" for b in _joined(entries))
    return InputError(
        f"queue {queue_name(site, queue)} at {site.name} takes jobs of {ranges} nodes",
        key="blocks.nodes",
        found=nodes,
        valid=f"{ranges} nodes, or another queue",
    )


def _joined(entries: tuple[Bin, ...]) -> list[Bin]:
    """Bins whose ranges follow one another without a gap, as one."""
    joined: list[Bin] = []
    for entry in entries:
        if joined and entry.nodes[0] == joined[-1].nodes[1] + 1:
            span = (joined[-1].nodes[0], entry.nodes[1])
            joined[-1] = joined[-1].model_copy(update={"nodes": span})
        else:
            joined.append(entry)
    return joined


def check_request(
    site: Site, queue: str | None, nodes: int, walltime_s: float | None
) -> InputError | None:
    """What the queue has against a job, or None. The error's key is the study's.

    Args:
        site: where it would run.
        queue: a queue's name; None = the site's default.
        nodes: nodes of the job.
        walltime_s: seconds asked for; None = none.
    """
    try:
        longest = longest_walltime(site, queue, nodes)
    except InputError as error:
        return error
    if not site.batch and walltime_s is None:
        return None
    if walltime_s is None:
        valid = "a duration" if longest is None else f"at most {lsf_walltime(longest)}"
        return InputError(
            f"a job at {site.name} needs a walltime", key="blocks.walltime", valid=valid
        )
    if longest is None or walltime_s <= longest:
        return None
    asked = format_duration(walltime_s) if walltime_s % 60 else lsf_walltime(walltime_s)
    allowed = f"{nodes} nodes for {lsf_walltime(longest)}"
    larger = [b for b in bins(site, queue) if b.nodes[0] > nodes and b.walltime >= walltime_s]
    first = f"{larger[0].nodes[0]} nodes" if larger else ""
    # The site's own cap holds for all sizes: more nodes do not help against it.
    if larger and (site.max_walltime is None or walltime_s <= site.max_walltime):
        limits = f"{first} at {site.name} may ask for {lsf_walltime(larger[0].walltime)}, {allowed}"
    else:
        limits = f"{nodes} nodes at {site.name} may ask for {lsf_walltime(longest)}"
    return InputError(
        f"{limits}; you asked for {nodes} nodes and {asked}", key="blocks.walltime",
        valid=f"at most {lsf_walltime(longest)}",
    )  # fmt: skip


def check_queue(study: Study, site: Site) -> list[InputError]:
    """What the site's queues have against the study, before anything is submitted.

    Each error has the study's file and line. With ``blocks: auto`` nothing is said of the
    blocks: the plan chooses what the queue allows.
    """
    errors = []
    if "account" in site.requires and study.account is None:
        errors.append(
            study.problem(
                "account", f"site {site.name} requires it",
                valid="the project that pays, as in account: ABC123",
            )
        )  # fmt: skip
    if study.queue is not None and not site.batch:
        errors.append(study.problem("queue", f"site {site.name} has no queues", found=study.queue))
        return errors
    try:
        queue = queue_of(site, study.queue)
    except InputError:
        valid = one_of(study.queue, list(site.queues))
        problem = f"unknown queue of site {site.name}"
        errors.append(study.problem("queue", problem, found=study.queue, valid=valid))
        return errors
    if queue is None and site.queues:
        problem = f"site {site.name} has several queues and no default"
        errors.append(study.problem("queue", problem, valid=list(site.queues)))
        return errors
    if study.blocks.auto:
        return errors
    misfit = check_request(site, study.queue, study.blocks.nodes, study.blocks.walltime)
    if misfit is not None:
        errors.append(study.problem(misfit.key or "blocks", misfit.problem))
    limit = most_at_once(queue)
    if limit is not None and study.blocks.max > limit:
        errors.append(
            study.problem(
                "blocks.max", f"queue {queue_name(site, study.queue)} at {site.name} has room for "
                f"{limit} at one time", found=study.blocks.max, valid=f"at most {limit}",
            )
        )  # fmt: skip
    return errors


def most_at_once(queue: Queue | None) -> int | None:
    """Blocks of one study that a queue can hold at one time; None = no limit is known.

    Not `max_eligible`: it bounds how many wait, and those that run do not count there.
    """
    if queue is None:
        return None
    known = [n for n in (queue.max_running, queue.max_queued) if n is not None]
    return min(known, default=None)


def jobs_to_submit(queue: Queue | None, wanted: int, waiting: int, running: int) -> int:
    """How many of the wanted jobs may be submitted now.

    Args:
        queue: its limits; None = none are known.
        wanted: further jobs that the study could use.
        waiting: the user's jobs in the queue that have not started.
        running: the user's jobs that run.

    A job beyond `max_eligible` would be accepted by the scheduler and only age in vain.
    """
    room = [wanted]
    if queue is not None and queue.max_eligible is not None:
        room.append(queue.max_eligible - waiting)
    if queue is not None and queue.max_queued is not None:
        room.append(queue.max_queued - waiting - running)
    return max(0, min(room))
