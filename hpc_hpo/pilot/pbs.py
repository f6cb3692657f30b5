"""PBS Professional: Parsl's PBSProProvider, asked and read as scheduler.py says.

In Parsl 2026.10.26 a reply of qstat that is not JSON ends the study, and every job of the run is
asked about for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from parsl.jobs.states import JobState
from parsl.providers import PBSProProvider

from hpc_hpo.pilot.scheduler import Reply, SteadyJobs

#: Letters of qstat's manual page; F, X and E (exiting) have ended or are about to.
STATES = {
    **dict.fromkeys("QHWTSUM", JobState.PENDING),
    **dict.fromkeys("RBE", JobState.RUNNING),
    **dict.fromkeys("FX", JobState.COMPLETED),
}


class PbsJobs(SteadyJobs, PBSProProvider):  # type: ignore[misc]
    """See SteadyJobs. PBS sends no warning; its TERM comes ``kill_delay`` before the KILL."""

    directive = "#PBS"

    def head(self) -> list[str]:
        select = f"select={self.nodes_per_block}:ncpus={self.cpus_per_node}{self.select_options}"
        lines = [f"-N {self.job_name}", "-V", "-r y", f"-l {select}"]
        if self.walltime_text is not None:
            lines.append(f"-l walltime={self.walltime_text}")
        if self.queue:
            lines.append(f"-q {self.queue}")
        if self.account:
            lines.append(f"-A {self.account}")
        return [f"#PBS {line}" for line in lines]

    def submit_call(self, script: Path) -> tuple[list[str], Path | None]:
        return ["qsub", "-o", f"{script}.out", "-e", f"{script}.err", str(script)], None

    def job_of(self, reply: Reply) -> str | None:
        words = reply.out.split()
        return words[-1] if words and words[-1][0].isdigit() else None

    def list_call(self, jobs: Sequence[str]) -> list[str]:
        return ["qstat", "-x", "-f", "-F", "json", *jobs]

    def states_of(self, reply: Reply, jobs: Sequence[str]) -> Mapping[str, JobState] | None:
        try:
            listed = json.loads(reply.out).get("Jobs", {})
            letters = {job: str(facts["job_state"]) for job, facts in listed.items()}
        except (ValueError, AttributeError, KeyError, TypeError):
            return {} if "Unknown Job Id" in reply.err else None
        # qstat may print the id without the server's domain.
        found = {
            job: STATES[letter]
            for job in jobs
            for name, letter in letters.items()
            if (job == name or job.startswith(f"{name}.")) and letter in STATES
        }
        return found or ({} if reply.status == 0 or "Unknown Job Id" in reply.err else None)

    def cancel_call(self, jobs: Sequence[str]) -> list[str]:
        return ["qdel", *jobs]
