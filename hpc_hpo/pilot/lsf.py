"""LSF: Parsl's LSFProvider, asked and read in another way.

Besides what scheduler.py mends, in Parsl 2026.10.26:

- PSUSP, USUSP and SSUSP count as cancelled. A PSUSP job is held, waits for another, or failed to
  start and is tried again; the others are suspended while they run. All of them are waiting.
- One job that bjobs has forgotten makes its exit status 255, and the states of all others are
  dropped with it. Here every line is read. A job that bjobs does not know is asked of bhist,
  which still does; only when that, too, says no more is it counted as missing.
- ``-W`` is in [hours:]minutes; a walltime as HH:MM:SS would be refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from parsl.jobs.states import JobState
from parsl.providers import LSFProvider

from hpc_hpo.pilot.scheduler import Reply, SteadyJobs

STATES = {
    **dict.fromkeys(("PEND", "PSUSP", "USUSP", "SSUSP", "WAIT", "PROV"), JobState.PENDING),
    # Nobody can say; the workers do.
    **dict.fromkeys(("RUN", "UNKWN"), JobState.RUNNING),
    **dict.fromkeys(("DONE", "EXIT", "ZOMBI"), JobState.COMPLETED),
}
_SUBMITTED = re.compile(r"Job <(\d+)> is submitted to ")
_FORGOTTEN = re.compile(r"Job <(\d+)> is not found")


class LsfJobs(SteadyJobs, LSFProvider):  # type: ignore[misc]
    """See SteadyJobs."""

    directive = "#BSUB"
    time_left = 'bjobs -noheader -o time_left "$LSB_JOBID" 2>/dev/null'

    def head(self) -> list[str]:
        lines = [f"-J {self.job_name}"]
        if self.walltime_text is not None:
            lines.append(f"-W {self.walltime_text}")
        if self.warning is not None:
            name, ahead = self.warning
            lines += [f"-wt '{max(1, round(ahead / 60))}'", f"-wa '{name}'"]
        return [f"#BSUB {line}" for line in lines]

    def submit_call(self, script: Path) -> tuple[list[str], Path | None]:
        argv = ["bsub", "-o", f"{script}.out", "-e", f"{script}.err"]
        return (argv, script) if self.bsub_redirection else ([*argv, str(script)], None)

    def job_of(self, reply: Reply) -> str | None:
        match = _SUBMITTED.search(reply.out)
        return match[1] if match else None

    def list_call(self, jobs: Sequence[str]) -> list[str]:
        return ["bjobs", "-noheader", "-o", "jobid stat", *jobs]

    def states_of(self, reply: Reply, jobs: Sequence[str]) -> Mapping[str, JobState] | None:
        words = [line.split() for line in reply.out.splitlines()]
        states = {
            w[0]: STATES[w[1]] for w in words if len(w) == 2 and w[0] in jobs and w[1] in STATES
        }
        forgotten = [job for job in _FORGOTTEN.findall(reply.err) if job in jobs]
        for job in forgotten:
            history = self.call(["bhist", "-l", job], None)
            if history.status == 0 and "Completed <" in history.out:
                states[job] = JobState.COMPLETED
        return states if states or forgotten else None

    def cancel_call(self, jobs: Sequence[str]) -> list[str]:
        return ["bkill", *jobs]
