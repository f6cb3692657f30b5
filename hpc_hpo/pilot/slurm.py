"""Slurm: Parsl's SlurmProvider, asked and read in another way.

Besides what scheduler.py mends, in Parsl 2026.10.26:

- ``--time`` drops seconds, so that 00:00:30 becomes 0, which is no limit at all. Here it is
  queues.slurm_walltime, never below a minute.
- The state comes from sacct where sacct works; it does not list a job for some seconds after its
  submission, and can hang with the accounting daemon. Here squeue is asked, with finished jobs
  (``--states=all``, until MinJobAge); it alone knows of a requeued job at once.
- A job that is configuring, suspended or being requeued is waiting, whatever Parsl's table says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from parsl.jobs.states import JobState
from parsl.providers import SlurmProvider

from hpc_hpo.pilot.scheduler import Reply, SteadyJobs

#: Compact codes of squeue's manual page. Those not named here are of jobs that have ended.
STATES = {
    **dict.fromkeys(("PD", "CF", "RQ", "RH", "RF", "RS", "S", "ST", "SE", "RD"), JobState.PENDING),
    **dict.fromkeys(("R", "CG", "SI", "SO"), JobState.RUNNING),
}
_SUBMITTED = re.compile(r"Submitted batch job (\d+)")
_UNKNOWN = "Invalid job id"


class SlurmJobs(SteadyJobs, SlurmProvider):  # type: ignore[misc]
    """See SteadyJobs. The warning is the ``--signal`` of the job's shell."""

    directive = "#SBATCH"
    time_left = 'squeue -h -j "$SLURM_JOB_ID" -o %L 2>/dev/null'

    def execute_wait(self, cmd: str, timeout: float | None = None) -> tuple[int, str, str]:
        """Nothing: Parsl's constructor tries sacct, whose answer is not used here."""
        return 1, "", ""

    def head(self) -> list[str]:
        """Requeued, so that a preempted block comes back; a lost node does not end the others."""
        lines = [
            f"--job-name={self.job_name}", f"--nodes={self.nodes_per_block}",
            "--ntasks-per-node=1", "--requeue", "--no-kill", "--open-mode=append",
        ]  # fmt: skip
        if self.walltime_text is not None:
            lines.append(f"--time={self.walltime_text}")
        if self.warning is not None:
            name, ahead = self.warning
            lines.append(f"--signal=B:{name}@{round(ahead)}")
        return [f"#SBATCH {line}" for line in lines]

    def submit_call(self, script: Path) -> tuple[list[str], Path | None]:
        plain = str(script).replace("%", "%%")
        return ["sbatch", f"--output={plain}.out", f"--error={plain}.err", str(script)], None

    def job_of(self, reply: Reply) -> str | None:
        match = _SUBMITTED.search(reply.out)
        return match[1] if match else None

    def list_call(self, jobs: Sequence[str]) -> list[str]:
        return ["squeue", "--noheader", "--states=all", "--format=%i %t", "--jobs", ",".join(jobs)]

    def states_of(self, reply: Reply, jobs: Sequence[str]) -> Mapping[str, JobState] | None:
        if reply.status != 0:
            # A single job that is forgotten is an error to squeue; several are just left out.
            return {} if _UNKNOWN in reply.err else None
        words = [line.split() for line in reply.out.splitlines()]
        listed = {w[0]: STATES.get(w[1], JobState.COMPLETED) for w in words if len(w) == 2}
        if words and not any(job in listed for job in jobs):
            return None
        return {job: listed[job] for job in jobs if job in listed}

    def cancel_call(self, jobs: Sequence[str]) -> list[str]:
        return ["scancel", *jobs]
