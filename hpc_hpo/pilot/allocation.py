"""Blocks inside the job that steering runs in: its nodes, for the time that it lasts."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_hpo.folder import StudyFolder
from hpc_hpo.pilot.executor import BlockExecutor
from hpc_hpo.pilot.launchers import JOB_START, launch_line
from hpc_hpo.pilot.local import LocalBlocks
from hpc_hpo.pilot.shapes import Shapes, place_settings
from hpc_hpo.pilot.sources import address_of
from hpc_hpo.site import Site
from hpc_hpo.study import Study

#: How often what workers wrote is looked at, at most, in seconds.
LOOK_S = 2.0
#: A block that is lost is replaced only if more is left of the job than this, in seconds, or
#: than this share of it.
LAST_START_S, LAST_START_SHARE = 30.0, 0.2


@dataclass
class AllocationBlocks(LocalBlocks):
    """Local blocks, each of which is one step over all nodes of the job.

    Attributes:
        launch: what starts a command on every node, as an argument list.
        ends: when the job's time for blocks is over, seconds since the epoch.
    """

    launch: Sequence[str] = ()
    ends: float = math.inf

    def executor(self, folder: StudyFolder, run: int) -> BlockExecutor:
        """See BlockSource. The provider starts a process here, on the job's first node."""
        executor = super().executor(folder, run)
        prefix = shlex.join(self.launch)

        executor.on_nodes = lambda command: f"{prefix} {command}"
        return executor

    def room(self, wanted: int, waiting: int, running: int) -> int:
        """See BlockSource: the nodes hold one block, and in the end no other is worth its start."""
        last = min(LAST_START_S, LAST_START_SHARE * (self.walltime_s or math.inf))
        return 0 if waiting or running or time.time() > self.ends - last else wanted


def allocation_blocks(study: Study, site: Site, start: float, end: float) -> AllocationBlocks:
    """The source of the one block that this job is; should it die, the next one takes what is
    left of the job's time.

    Args:
        study: with its blocks resolved.
        start, end: of the block, seconds since the epoch, on this job's clock.

    Raises:
        PilotError: this node has no such network interface as the site names.
    """
    node, nodes, shapes = site.node, study.blocks.nodes, Shapes(study, site)
    return AllocationBlocks(
        workers_per_node=shapes.per_node,
        leads=shapes.steps(nodes),
        places=place_settings(shapes, site),
        max_blocks=1,
        walltime_s=end - start,
        kill_grace_s=site.kill_grace,
        address=address_of(site),
        heartbeat_period_s=max(1, round(site.heartbeat.period)),
        heartbeat_threshold_s=max(2, round(site.heartbeat.threshold)),
        look_s=min(LOOK_S, site.poll),
        nodes=nodes,
        ends=end,
        # Whole seconds, as workers read it; the block ends up to one second earlier for it.
        launch=[
            *launch_line(site.launcher, nodes, node.cores, node.gpus, shapes.several_ranks),
            "env", f"{JOB_START}={int(start)}",
        ],
    )  # fmt: skip
