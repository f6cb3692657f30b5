"""One job with a command of our own, submitted in the way that blocks are."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from parsl.jobs.states import JobState, JobStatus

from hpc_hpo.pilot.launchers import JobScript, launch_line
from hpc_hpo.pilot.scheduler import Caller, call
from hpc_hpo.pilot.sources import batch_jobs, prepare_lines
from hpc_hpo.site import Site
from hpc_hpo.study import Study


class OneJob:
    """A job whose command runs once on each of its nodes.

    Args:
        study: gives account, queue, nodes and walltime.
        site: a batch site.
        folder: for the job's script and output; shared with the nodes.
        command: its words.
        caller: runs the scheduler's commands.
    """

    def __init__(
        self, study: Study, site: Site, folder: Path, command: Sequence[str], caller: Caller = call
    ) -> None:
        nodes = study.blocks.nodes
        self._provider = batch_jobs(study, site)
        self._provider.call = caller
        self._provider.script_dir = str(folder)
        self._provider.compose = lambda block, directives, words: JobScript(
            directives=directives,
            prepare=prepare_lines(site),
            time_left="",
            launch=launch_line(site.launcher, nodes, site.node.cores, site.node.gpus),
            command=words,
            starts=f"{folder}/start-",
            signals=f"{folder}/signal",
        )
        self._command = shlex.join(command)
        self.id = ""

    def submit(self) -> str:
        """Hand it to the scheduler; its job id.

        Raises:
            SubmissionRefused: with the command and what it said.
            StorageError: the script cannot be written.
        """
        self.id = self._provider.submit(self._command, 1, "block-0")
        return self.id

    def state(self) -> Literal["waiting", "running", "gone", "unknown"]:
        """As the scheduler says it now."""
        state = self._provider.poll([self.id]).states.get(self.id)
        if state is None:
            return "unknown"
        if JobStatus(state).terminal:
            return "gone"
        return "running" if state == JobState.RUNNING else "waiting"

    def cancel(self) -> None:
        """Ask the scheduler to end it."""
        self._provider.cancel([self.id])

    def output(self) -> str:
        """The end of what it has printed."""
        return self._provider.output_of(self.id)
