"""What the pilot knows of its blocks, and how it gets them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from hpc_hpo.folder import StudyFolder
from hpc_hpo.pilot.executor import BlockExecutor

#: Reason of a block that was cancelled because it was not needed any more.
RELEASED = "released"
#: ... of one cancelled with slices on it, and of one whose worker pool failed.
STOPPED, POOL_FAILED = "stopped", "pool-failed"
#: A block whose nodes ended this long before its end may have been requeued, in seconds.
EARLY_S = 10.0


class JobSeen(NamedTuple):
    """What the scheduler last said of a job."""

    state: str  #: waiting, running or gone
    at: float  #: when it was asked


class BlockSource(Protocol):
    """How one kind of site gets blocks; one file a kind (local.py, batch.py)."""

    #: nodes of a block, workers on a node, blocks at one time
    nodes: int
    workers_per_node: int
    max_blocks: int
    #: seconds a block lasts; None = without end
    walltime_s: float | None
    #: seconds between two looks at what workers wrote and at which are connected
    look_s: float

    def executor(self, folder: StudyFolder, run: int) -> BlockExecutor:
        """The executor with its provider, not started."""

    def states(
        self, executor: BlockExecutor, jobs: list[str], hurry: bool
    ) -> Mapping[str, JobSeen]:
        """What is known of jobs; those that nothing is known of are left out.

        Args:
            hurry: something has happened; ask as soon as the site's manners allow.
        """

    def room(self, wanted: int, waiting: int, running: int) -> int:
        """How many of the wanted blocks the queue's limits leave room for."""

    def script_folder(self, folder: Path) -> Path:
        """`folder`, or another name of it that the provider can handle."""

    def complaint(self, executor: BlockExecutor, job: str) -> str:
        """What a job that never came up has printed, for the error message."""


@dataclass
class Block:
    """What the pilot remembers of a block; times in seconds since the epoch."""

    id: str
    job: str
    requested: float
    state: str = "requested"
    started: float | None = None
    noticed: float = math.inf  #: when the pilot learned of its last change of state
    deadline: float = math.inf
    ended: float | None = None
    workers: int = 0
    nodes: int = 0  #: that have begun
    nodes_ended: int = 0
    managers: int = 0  #: registered and alive at the last look
    reason: str | None = None
    connected: bool = False  #: a manager of it has registered
    leaving: bool = False  #: its nodes have ended; the scheduler has not said so yet

    def next_start(self) -> str:
        """The id of the block that its job is after a requeue."""
        base, _, count = self.id.partition(".")
        return f"{base}.{int(count or 0) + 1}"

    @property
    def ended_early(self) -> bool:
        """Ended, not by release and not by its walltime: its job may have been requeued."""
        early = self.ended is not None and self.ended < self.deadline - EARLY_S
        return self.leaving and early and self.reason not in (RELEASED, STOPPED, POOL_FAILED)
