"""A trial's next slice as workers get it."""

from __future__ import annotations

from hpc_hpo.model import Shape, SliceRequest, Trial
from hpc_hpo.steering.pace import Pace


def slice_request(
    trial: Trial, directory: str, task: str, shape: Shape, width: int, pace: Pace
) -> SliceRequest:
    """The request for the slice that the journal has just opened; without its segment.

    Args:
        directory: the study folder.
        task: name of the task file in it.
        width: how many workers' worth of nodes it takes.
    """
    record = trial.slices[-1]
    request = SliceRequest(
        shape=shape.spec(),
        width=width,
        dir=directory,
        task=task,
        run=record.run,
        trial=trial.id,
        slice=record.number,
        point=trial.point,
        seed=trial.seed,
        attempt=trial.failures + 1,
        known_step=max(trial.reports, default=-1),
        spent_s=round(trial.spent_s, 3),
        margin_s=round(pace.margin_s(), 3),
        needs_s=round(pace.needs_s(trial), 3),
        stop_step=trial.stop_step,
    )
    if trial.parent is not None:
        request["parent"] = trial.parent
        request["known_step"] = trial.gone
    if (usual := pace.usual()) is not None:
        request["usual"] = usual
    return request
