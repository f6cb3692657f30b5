"""What a study asks of the steering loop, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpc_hpo.model import Point, Shape
from hpc_hpo.pilot.shapes import Shapes
from hpc_hpo.site import Site
from hpc_hpo.study import Study
from hpc_hpo.study.fidelity import Fidelity


@dataclass(frozen=True, slots=True)
class Terms:
    """Limits and policies of one study; times in seconds.

    Attributes:
        parallel: trials at one time; None = as many as there are workers for.
        sign: +1 to minimise the loss, -1 to maximise it.
        task: name of the task file that workers read.
        wall_time_s: steering time after which the study is done; None = no limit.
        epochs: steps of all trials together, after which the study is done; None = no limit.
        node_s: node-seconds of all blocks, after which it is; None = no limit.
        nodes: of a block.
        endless: the number of trials is not limited.
        block_s: walltime of a block; None = without end.
        floor_s: smallest margin before a block's end.
        shape_of: the shape of a point's trial.
        width_of: how many workers' worth of nodes such a trial takes.
        mixed: whether trials differ in size.
        fidelity: which trials are stopped early; None: none.
    """

    sign: int
    task: str
    parallel: int | None = None
    seed: int = 0
    max_attempts: int = 3
    max_losses: int = 5
    wall_time_s: float | None = None
    epochs: int | None = None
    node_s: float | None = None
    nodes: int = 1
    endless: bool = False
    expected_s: float | None = None
    block_s: float | None = None
    floor_s: float = 1.0
    shape_of: Callable[[Point], Shape] = lambda point: Shape()
    width_of: Callable[[Shape], int] = lambda shape: 1
    mixed: bool = False
    fidelity: Fidelity | None = None

    @property
    def population(self) -> int | None:
        """Trials that are trained together, in each segment; None: they are on their own."""
        return None if self.fidelity is None else self.fidelity.population


def terms_of(study: Study, site: Site, task: str) -> Terms:
    """The study's limits and policies as numbers.

    Args:
        task: name of the task file.
    """
    shapes, hours = Shapes(study, site), study.budget.node_hours
    return Terms(
        shape_of=shapes.of,
        width_of=shapes.width,
        mixed=shapes.mixed,
        parallel=study.budget.parallel,
        sign=study.direction_sign,
        task=task,
        seed=study.seed,
        max_attempts=study.trial.max_attempts,
        max_losses=study.trial.max_losses,
        wall_time_s=study.budget.wall_time,
        epochs=study.budget.epochs,
        node_s=None if hours is None else hours * 3600,
        nodes=study.blocks.nodes,
        endless=study.segments.total_trials is None,
        expected_s=study.trial.expected_time,
        block_s=study.blocks.walltime,
        floor_s=site.checkpoint_floor,
        fidelity=study.fidelity,
    )
