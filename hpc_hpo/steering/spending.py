"""What of the budget's epochs is used, and what running trials will still use of it.

Steps are known when a slice has ended, and thousands of trials may run then. So a trial that is
begun, or sent on from a rung, is charged at once with the steps that it is expected to go: up to
its rung, to ``fidelity.max``, or as far as completed trials went. Once all is spoken for, nothing
is begun or sent on any more; what runs goes on to its end or to its rung, so that no work is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.steering.fidelity.rungs import Rungs
from hpc_hpo.steering.search import UNLIMITED
from hpc_hpo.steering.terms import Terms


class Spending:
    """See the module.

    Args:
        state: the journal's, which the steering loop changes.
    """

    def __init__(self, terms: Terms, state: StudyState) -> None:
        self._limit, self._state, self._fidelity = terms.epochs, state, terms.fidelity
        #: of each trial with a slice in flight, its steps to go; None: as completed trials went
        self._charges: dict[int, int | None] = {}
        self._charged = 0  #: the sum of those that are known
        #: of those that are not: how many, and the steps that they had gone before
        self._unknown, self._gone = 0, 0
        self._completed, self._length = 0, 0  #: trials, and the sum of their steps
        if self._limit is not None:
            for trial in state.trials.values():
                self.learn(trial)

    def learn(self, trial: Trial) -> None:
        """A trial is final."""
        if trial.state is TrialState.COMPLETED:
            self._completed += 1
            self._length += trial.gone - trial.base

    @property
    def _mean(self) -> float:
        """Steps of a completed trial; 1, the least, where it is not known."""
        return max(1.0, self._length / self._completed) if self._completed else 1.0

    def opened(self, trial: Trial, stop_step: int | None) -> None:
        """A slice of a trial begins, and pauses at `stop_step`."""
        if self._limit is None:
            return
        end = stop_step
        if end is None and self._fidelity is not None:
            end = self._fidelity.max
        charge = self._charges[trial.id] = None if end is None else max(0, end - trial.gone)
        if charge is None:
            self._unknown += 1
            self._gone += trial.gone
        else:
            self._charged += charge

    def ended(self, trial: Trial) -> None:
        """The slice of a trial has ended; the trial does not have its reports yet."""
        if trial.id not in self._charges:
            return
        charge = self._charges.pop(trial.id)
        if charge is None:
            self._unknown -= 1
            self._gone -= trial.gone
        else:
            self._charged -= charge

    def _left(self) -> float:
        """Steps that are neither used nor spoken for."""
        if self._limit is None:
            return math.inf
        running = self._charged + max(0.0, self._unknown * self._mean - self._gone)
        return self._limit - self._state.epochs - running

    @property
    def spent(self) -> bool:
        """Whether nothing is to be begun or sent on."""
        return self._left() <= 0

    @property
    def trials(self) -> int:
        """New trials that may be begun now."""
        left = self._left()
        if math.isinf(left):
            return UNLIMITED
        each = self._mean if self._fidelity is None else self._fidelity.first
        return max(0, math.ceil(left / each))


def used_up(terms: Terms, state: StudyState, runs: Callable[[Trial], bool]) -> bool:
    """Whether the journal shows all epochs used and no trial that is still to go on.

    Args:
        runs: whether a trial's segment may run now.
    """
    if terms.epochs is None or state.epochs < terms.epochs:
        return False
    if any(runs(trial) for trial in state.trials.values() if not (trial.final or trial.waits)):
        return False
    return not Rungs(terms.fidelity, state, terms.sign).hopes(runs)
