"""Who takes the place of a bad member of a population: a copy of a good one, changed a little."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hpc_hpo.journal import Event, StudyState
from hpc_hpo.model import CheckpointInfo, Parent, Trial
from hpc_hpo.space import canonical
from hpc_hpo.steering.fidelity.explore import explore
from hpc_hpo.steering.fidelity.pbt import Pbt
from hpc_hpo.steering.fidelity.rungs import Rungs
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.terms import Terms

#: Gives a new trial, by its number, the checkpoint of another; None: it cannot be had.
Inherit = Callable[[Trial, int], CheckpointInfo | None]
#: Purpose of random numbers, beside the study's seed and the number of the trial that is replaced.
COPY = 7


class Breeding:
    """Proposes copies.

    Args:
        inherit: called before a copy is announced in the journal.
    """

    def __init__(
        self, terms: Terms, state: StudyState, searches: Portfolio, rungs: Rungs, inherit: Inherit
    ) -> None:
        self._terms, self._state, self._inherit = terms, state, inherit
        self._searches, self._rungs = searches, rungs

    def next(self, number: int) -> Event | None:
        """The event `asked` of a copy, without its seed and time; None: nobody is to be replaced.

        Args:
            number: of the new trial.
        """
        for policy, bad in self._poor():
            # Drawn by the trial that is replaced: a restart comes to the same.
            rng = np.random.default_rng([self._terms.seed, COPY, bad.id])
            event = self._copy(policy, bad, number, rng) if self._may_add(bad) else None
            if event is not None:
                return event
            policy.spared(bad.id)
            self._rungs.wakes(bad.segment)
        return None

    @property
    def pending(self) -> bool:
        """Whether somebody is still to be replaced, if that can be."""
        return next(self._poor(), None) is not None

    def _poor(self) -> Iterator[tuple[Pbt, Trial]]:
        for policy in self._rungs.populations():
            for number in policy.poor():
                trial = self._state.trials[number]
                if self._searches.runs(trial):
                    yield policy, trial

    def _may_add(self, bad: Trial) -> bool:
        return self._searches.seat(bad.segment).may_add

    def _copy(self, policy: Pbt, bad: Trial, number: int, rng: np.random.Generator) -> Event | None:
        models = [self._state.trials[n] for n in policy.models(bad.id)]
        for place in rng.permutation(len(models)):
            model = models[place]
            if model.checkpoint is None or not model.checkpoint["step"]:
                continue
            taken = self._inherit(model, number)
            if taken is None or not taken["step"]:
                continue
            assert self._terms.fidelity is not None, "populations are of a policy"
            space = self._searches.seat(bad.segment).search.space
            assert space is not None, "searches of a study have one"
            parent = Parent(
                trial=model.id, checkpoint=taken["name"], step=taken["step"], replaces=bad.id
            )
            point = explore(space, model.point, self._terms.fidelity, rng, self._siblings(parent))
            event: Event = {"e": "asked", "trial": number, "point": point, "parent": parent}
            if bad.segment is not None:
                event["segment"] = bad.segment
            return event
        return None

    def _siblings(self, parent: Parent) -> set[str]:
        """The points of other copies of the same checkpoint."""
        source = parent["trial"], parent["step"]
        copies = ((t.parent, t.point) for t in self._state.trials.values() if t.parent is not None)
        return {canonical(point) for p, point in copies if (p["trial"], p["step"]) == source}
