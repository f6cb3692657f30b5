"""Blocks that are jobs of a batch system."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parsl.jobs.states import JobState

from hpc_hpo.folder import StudyFolder
from hpc_hpo.pilot.blocks import JobSeen
from hpc_hpo.pilot.executor import BlockExecutor
from hpc_hpo.pilot.launchers import JobScript, launch_line
from hpc_hpo.pilot.lsf import LsfJobs
from hpc_hpo.pilot.patience import Patience
from hpc_hpo.pilot.pbs import PbsJobs
from hpc_hpo.pilot.policy import SLICES_SHARE
from hpc_hpo.pilot.queues import jobs_to_submit
from hpc_hpo.pilot.scheduler import Caller, Reply, call
from hpc_hpo.pilot.slurm import SlurmJobs
from hpc_hpo.site import Queue

log = logging.getLogger(__name__)

BatchJobs = SlurmJobs | LsfJobs | PbsJobs

#: A poll that brings nothing new makes the next one this much later, ...
QUIET_GROWTH = 1.5
#: ... up to this many times the site's shortest interval.
QUIET_LIMIT = 10.0
#: The longest wait between two tries to reach a scheduler that is down, in seconds.
LONGEST_WAIT_S = 600.0
#: How often a node looks for requests in the study folder: at least so many seconds apart, and
#: all nodes of a block together not more than so many times a second.
NODE_LOOK_S, LOOKS_PER_S = 2.0, 100


def in_thread(work: Callable[[], None]) -> None:
    """Run `work` beside the steering loop."""
    threading.Thread(target=work, name="scheduler-poll", daemon=True).start()


@dataclass
class BatchBlocks:
    """A BlockSource for Slurm, LSF and PBS; times in seconds.

    Attributes:
        jobs: makes the provider, for blocks of a study called `name`.
        python: the workers' interpreter.
        launcher, cores, gpus: see launchers.launch_line.
        prepare: shell lines before the workers start.
        queue: the limits of the queue; None = none are known.
        ahead_s: how long before the end the scheduler's warning comes; 0 = it sends none.
        poll_s: shortest time between two polls of the scheduler.
        look_s: time between looks at what the workers wrote, and at which are connected.
    """

    jobs: Callable[[], BatchJobs]
    nodes: int
    workers_per_node: int
    max_blocks: int
    walltime_s: float | None
    python: str
    address: str
    launcher: str = "none"
    cores: int = 1
    gpus: int = 0
    #: trials of several ranks at one time, and what the placer knows of the site
    leads: int = 0
    places: Mapping[str, Any] = field(default_factory=dict)
    prepare: Sequence[str] = ()
    queue: Queue | None = None
    ahead_s: float = 0.0
    kill_grace_s: float = 10.0
    heartbeat_period_s: int = 10
    heartbeat_threshold_s: int = 30
    poll_s: float = 30.0
    look_s: float = 2.0
    caller: Caller = call
    now: Callable[[], float] = time.time
    beside: Callable[[Callable[[], None]], None] = in_thread
    _states: dict[str, JobSeen] = field(default_factory=dict)
    _asking: bool = False
    _next_poll: float = 0.0
    _soonest_poll: float = 0.0
    _interval: float = 0.0

    def __post_init__(self) -> None:
        self._interval = self.poll_s
        self._trouble = Patience(self.poll_s, LONGEST_WAIT_S)

    def executor(self, folder: StudyFolder, run: int) -> BlockExecutor:
        """See BlockSource."""
        provider = self.jobs()
        provider.call = self.caller
        self._provider = provider
        node_look = min(self.poll_s, max(NODE_LOOK_S, self.nodes / LOOKS_PER_S))
        grace = self.kill_grace_s

        def supervise(block: str) -> list[str]:
            walltime = ["--walltime", repr(self.walltime_s), "--enforce"] if self.walltime_s else []
            return [
                self.python, "-m", "hpc_hpo.worker.block",
                "--dir", str(folder.path), "--run", str(run), "--block", block,
                "--workers", str(self.workers_per_node), *walltime,
                "--kill-grace", repr(grace * (1 - SLICES_SHARE)),
                "--term-grace", repr(grace * SLICES_SHARE),
                "--warn-grace", repr(self.ahead_s or grace),
                "--poll", repr(node_look), "--",
            ]  # fmt: skip

        def compose(block: str, directives: Sequence[str], command: str) -> JobScript:
            return JobScript(
                lead=executor.lead_command(block),
                directives=directives,
                prepare=self.prepare,
                time_left=provider.time_left,
                launch=launch_line(
                    self.launcher, self.nodes, self.cores, self.gpus, self.leads > 0
                ),
                command=command,
                starts=f"{provider.script_dir}/block-{block}.start",
                signals=str(folder.signal_file(run, block)),
            )

        provider.compose = compose
        executor = BlockExecutor(
            supervise, self.python, label="pool", provider=provider, address=self.address,
            max_workers_per_node=self.workers_per_node, cores_per_worker=1e-3,
            leads=self.leads, places=self.places,
            heartbeat_period=self.heartbeat_period_s,
            heartbeat_threshold=self.heartbeat_threshold_s, encrypted=True,
        )  # fmt: skip
        # The job script starts the lead beside the launch line, not under it.
        executor.lead_beside = False
        return executor

    def states(
        self, executor: BlockExecutor, jobs: list[str], hurry: bool
    ) -> Mapping[str, JobSeen]:
        """See BlockSource. The scheduler is asked beside the loop, at the site's pace.

        The pace slows down while nothing changes, and more so while the scheduler fails; a
        failed poll is said once and ends no block.
        """
        now = self.now()
        due = self._soonest_poll if hurry else self._next_poll
        if jobs and not self._asking and now >= due and self._trouble.ready(now):
            self._asking = True
            self.beside(lambda: self._ask(list(jobs)))
        return self._states

    def _ask(self, jobs: list[str]) -> None:
        asked = self.now()
        try:
            poll = self._provider.poll(jobs)
            if poll.failed:
                self._fail(poll.reply)
            else:
                self._take({job: JobSeen(_word(s), asked) for job, s in poll.states.items()})
        finally:
            self._asking = False

    def _fail(self, reply: Reply) -> None:
        self._trouble.failed(self.now())
        if self._trouble.failures == 1:
            log.warning("the scheduler does not answer; it is asked again later:\n%s", reply)

    def _take(self, states: dict[str, JobSeen]) -> None:
        now = self.now()
        if self._trouble.failures:
            log.warning("the scheduler answers again")
        self._trouble.succeeded()
        before = {job: seen.state for job, seen in self._states.items()}
        changed = any(before.get(job) != seen.state for job, seen in states.items())
        self._interval = (
            self.poll_s
            if changed
            else min(QUIET_GROWTH * self._interval, QUIET_LIMIT * self.poll_s)
        )
        self._soonest_poll, self._next_poll = now + self.poll_s, now + self._interval
        # One assignment: the loop reads it from its own thread.
        self._states = {**self._states, **states}

    def room(self, wanted: int, waiting: int, running: int) -> int:
        """See BlockSource."""
        return jobs_to_submit(self.queue, wanted, waiting, running)

    def complaint(self, executor: BlockExecutor, job: str) -> str:
        """See BlockSource."""
        return self._provider.output_of(job)

    def script_folder(self, folder: Path) -> Path:
        """See BlockSource: any path will do, the shell sees none unquoted."""
        return folder


def _word(state: JobState) -> str:
    if state in (JobState.PENDING, JobState.HELD):
        return "waiting"
    return "running" if state in (JobState.RUNNING, JobState.UNKNOWN) else "gone"
