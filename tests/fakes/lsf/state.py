"""The records the daemon keeps: jobs, what they hold, and a clock that can run fast."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

PEND, RUN, DONE, EXIT = "PEND", "RUN", "DONE", "EXIT"
PSUSP, USUSP, SSUSP = "PSUSP", "USUSP", "SSUSP"
FINISHED = (DONE, EXIT)
STARTED = (RUN, USUSP, SSUSP)

#: The words after the exit reason in ``bhist`` and ``bjobs -o exit_reason``.
REASONS = {
    "TERM_RUNLIMIT": "job killed after reaching LSF run time limit",
    "TERM_OWNER": "job killed by owner",
    "TERM_PREEMPT": "job killed after preemption",
}


class Clock:
    """Cluster time: seconds since the epoch that pass `speed` times faster than real ones."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._epoch, self._start = time.time(), time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch on the cluster's clock."""
        return self._epoch + (time.monotonic() - self._start) * self.speed

    def real(self, moment: float) -> float:
        """The real moment, in seconds since the epoch, of one of the cluster's."""
        return self._epoch + (moment - self._epoch) / self.speed


@dataclass(frozen=True)
class Request:
    """What one ``bsub`` asks for, checked.

    Attributes:
        minutes: walltime; None where the site demands none and none was given.
        nodes: whole nodes, or 0 where slots are requested.
        slots, ptile: slots, and how many of them go on each host (None: as they fit).
        gpus_per_host: GPUs of each host, for slot jobs.
        after: the dependency expression; empty when there is none.
        warn_minutes, warn_signal: a signal sent that long before the walltime ends.
        rerun: a preempted job is requeued.
        report: the job report goes to the output file (not with ``-N``, which mails it).
    """

    queue: str
    explicit_queue: bool
    minutes: int | None = None
    nodes: int = 0
    slots: int = 1
    ptile: int | None = None
    gpus_per_host: int = 0
    project: str = "default"
    name: str = ""
    output: str | None = None
    errors: str | None = None
    after: str = ""
    warn_minutes: int | None = None
    warn_signal: str | None = None
    rerun: bool = True
    report: bool = True
    script: str = ""
    arguments: tuple[str, ...] = ()
    command: str = ""


@dataclass
class Allocation:
    """The hosts a job holds, in order: slots and GPU numbers of each."""

    slots: dict[str, int]
    gpus: dict[str, list[int]]


@dataclass
class Job:
    """One job through all its states. Moments are in cluster seconds since the epoch."""

    id: int
    request: Request
    cwd: str
    env: dict[str, str]
    submitted: float
    state: str = PEND
    started: float | None = None
    finished: float | None = None
    exit_code: int | None = None
    reason: str | None = None
    pend_reason: str = "New job is waiting for scheduling"
    allocation: Allocation | None = None
    runs: int = 0
    pid: int | None = None
    #: What the kill in progress leads to: an exit reason, or TERM_PREEMPT and perhaps a requeue.
    ending: str | None = None
    events: list[tuple[float, str]] = field(default_factory=list)

    @property
    def limit(self) -> float | None:
        """Walltime in cluster seconds."""
        return None if self.request.minutes is None else 60.0 * self.request.minutes

    @property
    def end(self) -> float | None:
        """When the walltime ends, for a job that has started."""
        if self.started is None or self.limit is None:
            return None
        return self.started + self.limit

    def note(self, moment: float, text: str) -> None:
        """Keep an event for ``bhist``."""
        self.events.append((moment, text))

    def summary(self) -> dict[str, Any]:
        """What tests look at, as plain data."""
        hosts = list(self.allocation.slots) if self.allocation else []
        return {
            "id": self.id,
            "state": self.state,
            "queue": self.request.queue,
            "name": self.request.name,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "pend_reason": self.pend_reason if self.state in (PEND, PSUSP) else None,
            "runs": self.runs,
            "hosts": hosts,
            "submitted": self.submitted,
            "started": self.started,
            "finished": self.finished,
        }


def reason_words(job: Job) -> str:
    """The exit reason as ``bjobs`` and ``bhist`` print it; a dash when there is none."""
    return f"{job.reason}: {REASONS[job.reason]}" if job.reason else "-"
