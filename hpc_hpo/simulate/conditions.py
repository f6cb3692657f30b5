"""What modelled blocks are and meet, and what becomes of their workers' time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpc_hpo.simulate.draws import Draw
from hpc_hpo.site import Queue

#: What becomes of allocated worker time; the parts add up to it.
PARTS = (
    "trials", "checkpoints", "start-up", "waiting for points", "ends of blocks", "work lost",
    "failed attempts", "dead nodes", "nothing left to do",
)  # fmt: skip
#: Those of them that are lost for good.
LOST = ("work lost", "failed attempts", "dead nodes")


@dataclass(frozen=True)
class Conditions:
    """What the blocks are and what they meet; times in seconds.

    Attributes:
        per_node: workers of a node.
        queue: its limits; None = none are known.
        wait: of a job in the queue.
        start_up: from a job's start to its first slice.
        mtbf_s: mean time between failures of one node; None = none fails.
        look_s: between two looks of the pilot at its blocks.
        notice_s: after which a lost node's slices are known to be lost.
        dispatch_s: the interchange's time for one slice.
        submit_cpu_s: steering's CPU time for a slice beyond the loop's own: Parsl's part.
        preempted: how long a job runs until others take its nodes; None = that never happens.
        grace_s: which its slices then get to checkpoint.
    """

    nodes: int
    per_node: int
    max_blocks: int
    walltime_s: float | None
    queue: Queue | None
    wait: Draw
    start_up: Draw
    mtbf_s: float | None
    look_s: float
    notice_s: float
    dispatch_s: float
    submit_cpu_s: float
    seed: int
    preempted: Callable[[np.random.Generator], float] | None = None
    grace_s: float = 0.0
