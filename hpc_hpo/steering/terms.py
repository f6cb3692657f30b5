"""What a study asks of the steering loop, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpc_hpo.model import Point, Shape


@dataclass(frozen=True, slots=True)
class Terms:
    """Limits and policies of one study; times in seconds.

    Attributes:
        parallel: trials at one time; None = as many as there are workers for.
        sign: +1 to minimise the loss, -1 to maximise it.
        task: name of the task file that workers read.
        wall_time_s: steering time after which the study is done; None = no limit.
        block_s: walltime of a block; None = without end.
        floor_s: smallest margin before a block's end.
        shape_of: the shape of a point's trial.
        width_of: how many workers' worth of nodes such a trial takes.
        mixed: whether trials differ in size.
    """

    sign: int
    task: str
    parallel: int | None = None
    seed: int = 0
    max_attempts: int = 3
    max_losses: int = 5
    wall_time_s: float | None = None
    expected_s: float | None = None
    block_s: float | None = None
    floor_s: float = 1.0
    shape_of: Callable[[Point], Shape] = lambda point: Shape()
    width_of: Callable[[Shape], int] = lambda shape: 1
    mixed: bool = False
