"""Calls of a scheduler's commands, and what all batch providers here do in the same way.

Parsl's own providers (2026.10.26) call the scheduler through a shell with unquoted paths, leave a
command that hangs running, take a job that is not listed for completed, and drop a whole poll
when the command's exit status is not 0. ``SteadyJobs`` stands before them among the base classes
and replaces those calls; slurm.py, lsf.py and pbs.py say how each scheduler is asked.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from parsl.jobs.states import JobState, JobStatus

from hpc_hpo.errors import PilotError
from hpc_hpo.fsio import storage_error, tail_of
from hpc_hpo.pilot.launchers import JobScript

#: A scheduler command that takes longer than this is killed, in seconds.
CALL_S = 60.0
#: A job is gone once this many replies in a row have not listed it.
MISSES = 2
#: What schedulers say when a submission may be taken later: they are down, or a limit is reached.
PASSING = (
    "is down", "please wait", "try again", "timed out", "time out", "temporarily",
    "unable to contact", "connection refused", "communication", "not responding",
    "submit limit", "job limit", "job threshold", "limit is reached", "reached the limit",
)  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """What a command answered; `status` is None when it was killed for taking too long."""

    command: str
    status: int | None
    out: str
    err: str

    def __str__(self) -> str:
        status = f"no answer within {CALL_S:g} s" if self.status is None else self.status
        parts = [f"command: {self.command}", f"exit status: {status}"]
        parts += [f"{k}: {v.strip()}" for k, v in (("stdout", self.out), ("stderr", self.err)) if v]
        return "\n".join(f"  {part}" for part in parts)


#: Runs a command, its stdin from the file when one is given.
Caller = Callable[[Sequence[str], "Path | None"], Reply]


def call(argv: Sequence[str], stdin: Path | None = None) -> Reply:
    """Run a scheduler command; whatever goes wrong is in the reply."""
    command = shlex.join(argv) + (f" < {shlex.quote(str(stdin))}" if stdin else "")
    with open(stdin or os.devnull, "rb") as source:
        try:
            process = subprocess.Popen(
                argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            what = "not found on PATH" if missing else (error.strerror or str(error))
            return Reply(command, 127, "", f"{argv[0]}: {what}")
    try:
        out, err = process.communicate(timeout=CALL_S)
        status: int | None = process.returncode
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        status = None
    return Reply(command, status, out.decode(errors="replace"), err.decode(errors="replace"))


class SubmissionRefused(PilotError):
    """The scheduler took no job. `transient` says whether it may take the same one later."""

    def __init__(self, reply: Reply) -> None:
        text = f"{reply.out} {reply.err}".lower()
        self.transient = reply.status is None or any(word in text for word in PASSING)
        super().__init__(f"the scheduler took no block:\n{reply}")


#: Composes a block's script: (block, directive lines, command) -> script.
Composer = Callable[[str, Sequence[str], str], JobScript]


class Poll(NamedTuple):
    """What a poll brought.

    Attributes:
        states: of the jobs asked about. A job that the reply does not list for the first time
            is left out: nothing is known of it.
        failed: the reply says nothing of any job.
    """

    states: dict[str, JobState]
    reply: Reply
    failed: bool


class SteadyJobs:
    """Submits, watches and cancels jobs; a mixin that goes before a Parsl ClusterProvider.

    Its attributes are set by sources.py and batch.py once the provider is made; subclasses give
    the methods that raise NotImplementedError here.
    """

    #: how a line for the scheduler begins
    directive = "#"
    #: a shell command inside a job that prints its remaining time; "" = none
    time_left = ""

    compose: Composer
    #: as the scheduler's lists show it
    job_name = "hpc-hpo"
    #: signal name without SIG, and seconds ahead of the end; None = no warning is asked for
    warning: tuple[str, float] | None = None
    #: the walltime as the scheduler writes it; None = no limit is asked for
    walltime_text: str | None = None
    call: Caller = staticmethod(call)

    # Parsl's provider makes these.
    resources: dict[str, dict[str, Any]]
    scheduler_options: str
    script_dir: str | None

    def head(self) -> list[str]:
        """Directives besides those that Parsl's provider composes: walltime, name and the like."""
        raise NotImplementedError

    def submit_call(self, script: Path) -> tuple[list[str], Path | None]:
        """The command that submits a script, and the file for its stdin.

        The files for the job's output are named here, as arguments: in a directive they would
        need quotes by rules of the scheduler's own.
        """
        raise NotImplementedError

    def job_of(self, reply: Reply) -> str | None:
        """The id of the job that was submitted."""
        raise NotImplementedError

    def list_call(self, jobs: Sequence[str]) -> list[str]:
        """The command that lists jobs with their states."""
        raise NotImplementedError

    def states_of(self, reply: Reply, jobs: Sequence[str]) -> Mapping[str, JobState] | None:
        """The states of the jobs that are listed; None when the reply says nothing of any."""
        raise NotImplementedError

    def cancel_call(self, jobs: Sequence[str]) -> list[str]:
        """The command that cancels jobs."""
        raise NotImplementedError

    def submit(self, command: str, tasks_per_node: int, job_name: str = "block-0") -> str:
        """Submit one block; its job id.

        Raises:
            SubmissionRefused: with the command, its exit status and what it printed.
            StorageError: the script cannot be written.
        """
        assert self.script_dir is not None, "the executor was not prepared"
        script = Path(self.script_dir, f"{job_name.rpartition('.')[2]}.sh")
        options = [line for line in self.scheduler_options.splitlines() if line.strip()]
        text = self.compose(
            job_name.rpartition("block-")[2], [*self.head(), *options], command
        ).text()
        try:
            script.write_text(text)
        except OSError as error:
            raise storage_error(script, error) from error
        reply = self.call(*self.submit_call(script))
        job = self.job_of(reply) if reply.status == 0 else None
        if job is None:
            raise SubmissionRefused(reply)
        self.resources[job] = {
            "job_id": job, "status": JobStatus(JobState.PENDING), "script": script, "misses": 0,
        }  # fmt: skip
        return job

    def poll(self, jobs: Sequence[str]) -> Poll:
        """Ask the scheduler about jobs."""
        reply = self.call(self.list_call(jobs), None)
        listed = self.states_of(reply, jobs)
        if listed is None:
            return Poll({}, reply, failed=True)
        states: dict[str, JobState] = {}
        for job in jobs:
            entry = self.resources.setdefault(job, {"job_id": job, "misses": 0})
            entry["misses"] = 0 if job in listed else entry["misses"] + 1
            if job in listed:
                states[job] = listed[job]
            elif entry["misses"] >= MISSES:
                states[job] = JobState.COMPLETED
            if job in states:
                entry["status"] = JobStatus(states[job])
        return Poll(states, reply, failed=False)

    def _status(self) -> None:
        """Parsl's entry to a poll of all jobs; used by its executor's own reports only."""
        jobs = [job for job, entry in self.resources.items() if not entry["status"].terminal]
        if jobs:
            self.poll(jobs)

    def cancel(self, job_ids: Sequence[str]) -> list[bool]:
        """Cancel jobs; whether the scheduler took it.

        Parsl's providers then count them as cancelled. Here they end when they have ended.
        """
        if not job_ids:
            return []
        reply = self.call(self.cancel_call(job_ids), None)
        return [reply.status == 0] * len(job_ids)

    @property
    def status_polling_interval(self) -> int:
        """0: Parsl does not poll; the block source does, at the site's own pace."""
        return 0

    def output_of(self, job: str) -> str:
        """The end of what a job has printed, stderr before stdout."""
        script = self.resources[job]["script"]
        texts = [tail_of(Path(f"{script}.{end}")).strip() for end in ("err", "out")]
        return "\n".join(text for text in texts if text) or "(nothing)"
