"""What an optimiser is told of a trial: its loss, and before that those of rungs where it waits.

An optimiser takes one loss for each number. A trial that waits at a rung is told at once, with the
loss there, or a model would learn nothing of most trials until the study ends. What it reaches
later is told as a further observation of the same point, under a number of its own. A loss of
little training is mostly worse than one of more, so that such points are thought worse than
those that went on: they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hpc_hpo.model import Trial, TrialState
from hpc_hpo.optimizers.base import Optimizer

#: What optimisers hear of, as the search log calls it.
TOLD_OF = ("asked", "heard", "told")
#: Numbers from here on, beyond all others (`FIRST_GIVEN`), stand for further observations.
_FURTHER = 1 << 41
#: Rungs of one trial that have numbers of their own.
_MOST = 1000


def _tell(
    optimizer: Optimizer, trial: Trial, loss: float | list[float] | None, before: int
) -> None:
    if before == 0:
        optimizer.tell(trial.id, loss)
        return
    number = _FURTHER + trial.id * _MOST + before
    optimizer.adopt(number, trial.point)
    optimizer.tell(number, loss)


def tell_rung(optimizer: Optimizer, trial: Trial, sign: int, index: int) -> None:
    """Tell the loss of the rung trial.heard[index]."""
    _tell(optimizer, trial, sign * trial.heard[index], index)


def tell_end(optimizer: Optimizer, trial: Trial, sign: int) -> None:
    """Tell how a trial ended, where that is news."""
    heard = trial.heard
    if trial.state is TrialState.STOPPED and heard and heard[-1] == trial.loss:
        return
    loss = None if trial.loss is None else sign * trial.loss
    # Several objectives are told as they are: their optimiser knows the direction of each.
    _tell(optimizer, trial, loss if trial.values is None else trial.values, len(heard))


def replay_into(optimizer: Optimizer, log: Iterable[tuple[str, Trial]], sign: int) -> None:
    """Bring a new optimiser to the journal's state.

    Args:
        log: ("asked" | "heard" | "told", trial) in order.
    """
    told: Counter[int] = Counter()
    for kind, trial in log:
        if kind == "asked":
            optimizer.adopt(trial.id, trial.point)
        elif kind == "heard":
            tell_rung(optimizer, trial, sign, told[trial.id])
            told[trial.id] += 1
        else:
            tell_end(optimizer, trial, sign)
