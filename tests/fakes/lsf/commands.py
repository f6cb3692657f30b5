"""What ``bjobs``, ``bhist``, ``bkill`` and ``bslots`` print.

Sources: LSF's command reference (``bjobs -o`` with its fields, ``-noheader``, ``-hms``; a
``time_left`` of ``hours:minutes L``; ``is not found`` and exit code 255 when one of the jobs asked
for is unknown, the others being printed all the same) and the Summit user guide (``bslots``).
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.fakes.lsf.cluster import Cluster
from tests.fakes.lsf.schedule import UNLIMITED
from tests.fakes.lsf.state import (
    FINISHED,
    PEND,
    PSUSP,
    STARTED,
    Clock,
    Job,
    reason_words,
)

NO_UNFINISHED = "No unfinished job found\n"


class Usage(Exception):
    """A call that the command refuses, exit code 255."""


@dataclass(frozen=True)
class Answer:
    """What a command prints, and its exit code."""

    out: str = ""
    err: str = ""
    rc: int = 0


def stamp(moment: float) -> str:
    """A moment as ``bjobs`` prints it, to the minute: ``Feb  2 00:46``."""
    local = time.localtime(moment)
    return f"{time.strftime('%b', local)} {local.tm_mday:2d} {time.strftime('%H:%M', local)}"


def long_stamp(moment: float) -> str:
    """A moment as ``bhist -l`` prints it, to the second."""
    local = time.localtime(moment)
    day = f"{time.strftime('%a %b', local)} {local.tm_mday:2d}"
    return f"{day} {time.strftime('%H:%M:%S', local)}"


class Times:
    """Moments and durations as the cluster tells them: in its own time, or in real time."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._clock, self._real = clock, cluster.real_times

    def now(self) -> float:
        """The cluster's time."""
        return self._clock.now()

    def moment(self, moment: float) -> float:
        """The moment to print."""
        return self._clock.real(moment) if self._real else moment

    def duration(self, seconds: float) -> float:
        """The seconds to print."""
        return seconds / self._clock.speed if self._real else seconds


class Jobs:
    """``bjobs`` and ``bhist``."""

    def __init__(self, cluster: Cluster, clock: Clock, jobs: dict[int, Job]) -> None:
        self._times = Times(cluster, clock)
        self._jobs, self._clean = jobs, cluster.clean_period
        self._hms = False

    def known(self, job: Job) -> bool:
        """Whether ``bjobs`` still shows the job."""
        return job.finished is None or self._times.now() - job.finished < self._clean

    def _length(self, seconds: float) -> str:
        whole = int(seconds)
        if self._hms:
            return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
        return f"{whole} second(s)"

    def _run_time(self, job: Job) -> str:
        if job.started is None:
            return self._length(0)
        until = self._times.now() if job.finished is None else job.finished
        return self._length(self._times.duration(until - job.started))

    def _time_left(self, job: Job) -> str:
        if job.state not in STARTED or job.end is None:
            return "-"
        left = int(max(0.0, self._times.duration(job.end - self._times.now())))
        return self._length(left) if self._hms else f"{left // 3600}:{left // 60 % 60} L"

    def _finish_time(self, job: Job) -> str:
        if job.finished is not None:
            return f"{stamp(self._times.moment(job.finished))} L"
        if job.state in STARTED and job.end is not None:
            return f"{stamp(self._times.moment(job.end))} L"
        return "-"

    def _fields(self) -> dict[str, Callable[[Job], str]]:
        def when(moment: float | None) -> str:
            return "-" if moment is None else stamp(self._times.moment(moment))

        def hosts(job: Job) -> str:
            slots = job.allocation.slots if job.allocation else {}
            return ":".join(f"{n}*{host}" for host, n in slots.items()) or "-"

        return {
            "jobid": lambda job: str(job.id),
            "stat": lambda job: job.state,
            "user": lambda job: "user",
            "queue": lambda job: job.request.queue,
            "job_name": lambda job: job.request.name or "-",
            "proj_name": lambda job: job.request.project,
            "submit_time": lambda job: when(job.submitted),
            "start_time": lambda job: when(job.started),
            "finish_time": self._finish_time,
            "run_time": self._run_time,
            "time_left": self._time_left,
            "exec_host": hosts,
            "exit_code": lambda job: str(job.exit_code) if job.exit_code else "-",
            "exit_reason": reason_words,
            "pend_reason": lambda job: job.pend_reason if job.state in (PEND, PSUSP) else "-",
        }

    def _choose(self, ids: Sequence[str], finished: bool) -> tuple[list[Job], str]:
        """The jobs asked for, and what is said about those that are not known."""
        if not ids:
            found = [j for j in self._jobs.values() if self.known(j)]
            return [j for j in found if finished or j.state not in FINISHED], ""
        chosen, errors = [], ""
        for text in ids:
            if not text.isdigit():
                raise Usage(f"{text}: Illegal job ID.\n")
            job = self._jobs.get(int(text))
            if job is not None and self.known(job):
                chosen.append(job)
            else:
                errors += f"Job <{text}> is not found\n"
        return chosen, errors

    def bjobs(self, argv: Sequence[str]) -> Answer:
        """List jobs."""
        rest = list(argv)
        wanted = "jobid user stat queue exec_host job_name submit_time"
        header, finished, self._hms = True, False, False
        while rest and rest[0].startswith("-"):
            option = rest.pop(0)
            if option == "-noheader":
                header = False
            elif option in ("-a", "-d"):
                finished = True
            elif option == "-hms":
                self._hms = True
            elif option in ("-o", "-u") and rest:
                value = rest.pop(0)
                wanted = value if option == "-o" else wanted
            elif option not in ("-w", "-X"):
                raise Usage(f"bjobs: Illegal option: {option}\n")
        chosen, errors = self._choose(rest, finished)
        if not chosen:
            return Answer(err=errors or NO_UNFINISHED, rc=255)
        out = self._table(wanted, chosen, header)
        return Answer(out, errors, 255 if errors else 0)

    def _table(self, wanted: str, jobs: Iterable[Job], header: bool) -> str:
        between = " "
        names = []
        fields = self._fields()
        for word in shlex.split(wanted):
            if word.startswith("delimiter="):
                between = word.partition("=")[2]
                continue
            name = word.split(":")[0].lower()
            if name not in fields:
                raise Usage(f"{name}: unknown field name\n")
            names.append(name)
        lines = [between.join(name.upper() for name in names)] if header else []
        lines += [between.join(fields[name](job) for name in names) for job in jobs]
        return "".join(f"{line}\n" for line in lines)

    def bhist(self, argv: Sequence[str]) -> Answer:
        """A job's history, also when ``bjobs`` has forgotten it."""
        ids = [word for word in argv if not word.startswith("-")]
        options = set(argv) - set(ids)
        if options - {"-l", "-a"}:
            raise Usage(f"bhist: Illegal option: {min(options)}\n")
        found = [self._jobs[int(i)] for i in ids if i.isdigit() and int(i) in self._jobs]
        if not ids:
            everything = self._jobs.values()
            found = [j for j in everything if "-a" in options or j.state not in FINISHED]
        if not found:
            return Answer(err="No matching job found\n", rc=255)
        if "-l" in options:
            return Answer("\n".join(self._history(job) for job in found))
        lines = ["Summary of time in seconds spent in various states:"]
        lines.append("JOBID   USER    JOB_NAME  PEND    RUN     TOTAL")
        for job in found:
            times = "".join(f"{n:<8}" for n in self._spent(job))
            lines.append(f"{job.id:<8}{'user':<8}{job.request.name[:9] or '-':<10}{times}")
        return Answer("".join(f"{line}\n" for line in lines))

    def _spent(self, job: Job) -> tuple[int, int, int]:
        until = self._times.now() if job.finished is None else job.finished
        started = until if job.started is None else job.started
        pend, run = started - job.submitted, until - started
        return (
            int(self._times.duration(pend)),
            int(self._times.duration(run)),
            int(self._times.duration(pend + run)),
        )

    def _history(self, job: Job) -> str:
        request = job.request
        lines = [
            f"Job <{job.id}>, Job Name <{request.name}>, User <user>, Project <{request.project}>"
        ]
        for moment, text in job.events:
            lines.append(f"{long_stamp(self._times.moment(moment))}: {text};")
        if job.finished is not None:
            end = f"Completed <{job.state.lower()}>"
            end += f"; {reason_words(job)}" if job.reason else ""
            lines.append(f"{long_stamp(self._times.moment(job.finished))}: {end};")
        pend, run, total = self._spent(job)
        lines += ["", "  PEND     RUN      TOTAL", f"  {pend:<8} {run:<8} {total}"]
        return "".join(f"{line}\n" for line in lines)


def bslots(argv: Sequence[str], times: Times, windows: Sequence[tuple[int, float]]) -> Answer:
    """The backfill windows, ``-n`` slots and ``-W`` minutes being the least that is of use."""
    rest, least, minutes = list(argv), 0, 0
    while rest:
        word = rest.pop(0)
        option, value = word[:2], word[2:]
        if option not in ("-R", "-n", "-W"):
            raise Usage(f"bslots: Illegal option: {word}\n")
        value = value or (rest.pop(0) if rest else "")
        if option == "-n":
            least = int(value)
        elif option == "-W":
            minutes = int(value)
    found = [(slots, t) for slots, t in windows if slots >= least and t >= 60 * minutes]
    if not found:
        return Answer("No backfill window exists at this time\n")
    lines = [f"{'SLOTS':<15}RUNTIME"]
    for slots, seconds in found:
        text = "UNLIMITED"
        if seconds != UNLIMITED:
            whole = math.floor(times.duration(seconds))
            hours = f"{whole // 3600} hours " if whole >= 3600 else ""
            text = f"{hours}{whole // 60 % 60} minutes {whole % 60} seconds"
        lines.append(f"{slots:<15}{text}")
    return Answer("".join(f"{line}\n" for line in lines))
