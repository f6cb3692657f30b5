"""The fidelity policies of all segments, kept in step with the journal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

from hpc_hpo.journal import StudyState
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.steering.fidelity.asha import Asha, Hyperband
from hpc_hpo.steering.fidelity.base import Policy, Standing
from hpc_hpo.steering.fidelity.median import Median
from hpc_hpo.steering.fidelity.pbt import Pbt
from hpc_hpo.study.fidelity import QUANTILE, Fidelity

POLICIES: dict[str, Callable[[int, int, int], Policy]] = {
    "asha": Asha,
    "hyperband": Hyperband,
    "median": Median,
}


def make_policy(spec: Fidelity) -> Policy:
    """The policy of one segment, new."""
    if spec.policy != "pbt":
        return POLICIES[spec.policy](spec.min, spec.max, spec.eta)
    assert spec.population is not None, "refused without"
    quantile = QUANTILE if spec.quantile is None else spec.quantile
    return Pbt(spec.population, spec.first, spec.max, quantile)


class Rungs:
    """Who goes on from a rung, waits there, or is stopped, in each segment by itself.

    Args:
        spec: the study's section; None: every trial runs to its end.
        state: the replayed journal, which the steering loop changes.
        sign: +1 when losses are minimised, -1 when they are maximised.
    """

    def __init__(self, spec: Fidelity | None, state: StudyState, sign: int) -> None:
        self._spec, self._state, self._sign = spec, state, sign
        self._policies: dict[str | None, Policy] = {}
        self._first: dict[int, int | None] = {}
        self._live: dict[str | None, None] = {}  #: segments where somebody may be ripe
        self._forced: dict[int, int | None] = {}
        if spec is not None:
            self._replay()

    def _replay(self) -> None:
        paused: Counter[int] = Counter()
        for kind, number in self._state.search_log:
            trial = self._state.trials[number]
            if trial.superseded:
                continue
            if kind == "asked":
                self.begun(trial)
            elif kind == "rung":
                paused[number] += 1
                self.reached(trial, paused[number] - 1)
            elif kind == "on":
                self.went_on(trial)
            elif kind == "told":
                self.ended(trial)

    def _policy(self, trial: Trial) -> Policy:
        if trial.segment not in self._policies:
            assert self._spec is not None, "trials pause at rungs of a policy"
            self._policies[trial.segment] = make_policy(self._spec)
        return self._policies[trial.segment]

    def begun(self, trial: Trial) -> None:
        """A trial was asked."""
        if self._spec is None:
            return
        policy = self._policy(trial)
        self._first[trial.id] = policy.begun(trial.id, trial.base)
        if trial.parent is not None and isinstance(policy, Pbt):
            policy.replaced(trial.parent["replaces"])
            self._live[trial.segment] = None

    def stop_step(self, trial: Trial) -> int | None:
        """Where the next slice of a trial that does not wait pauses."""
        return trial.stop_step if trial.slices else self._first.get(trial.id)

    def reached(self, trial: Trial, index: int = -1) -> float | None:
        """A trial has paused at a rung.

        Args:
            index: of the trial's rungs.

        Returns:
            Its loss there, where it is left waiting and the loss is a finite number.
        """
        if self._spec is None or trial.superseded:
            return None
        step = trial.rungs[index]
        losses = [
            self._sign * value
            for at in sorted(trial.reports)
            if at <= step
            and math.isfinite(value := trial.reports[at].get(self._spec.metric, math.nan))
        ]
        at_step = self._sign * trial.reports.get(step, {}).get(self._spec.metric, math.nan)
        here = at_step if math.isfinite(at_step) else math.inf
        best, mean = (min(losses), sum(losses) / len(losses)) if losses else (math.inf, math.inf)
        good = self._policy(trial).reached(Standing(trial.id, step, here, best, mean))
        self._live[trial.segment] = None
        return None if good or not math.isfinite(here) else self._sign * here

    def went_on(self, trial: Trial) -> None:
        """A trial that waited has a further slice."""
        self._forced.pop(trial.id, None)
        if self._spec is not None:
            self._policy(trial).went_on(trial.id)

    def ended(self, trial: Trial) -> None:
        """A trial is final."""
        self._first.pop(trial.id, None)
        self._forced.pop(trial.id, None)
        if self._spec is not None and not trial.superseded:
            policy = self._policy(trial)
            policy.ended(trial.id)
            if isinstance(policy, Pbt) and trial.state is TrialState.FAILED:
                policy.failed(trial.id, trial.rungs[-1] if trial.rungs else 0)
            self._live[trial.segment] = None

    def forget(self, segment: str | None) -> None:
        """A segment is begun again: its trials so far are superseded, and count no more."""
        self._policies.pop(segment, None)
        self._live.pop(segment, None)
        trials = self._state.trials
        self._forced = {n: s for n, s in self._forced.items() if not trials[n].superseded}

    def next(
        self, runs: Callable[[Trial], bool], forced: bool = False
    ) -> tuple[Trial, int | None] | None:
        """A trial that is to go on from its rung, and the step of its next one.

        Args:
            runs: whether a trial's segment may run now.
            forced: only those that `settle` sends on.
        """
        for number, step in self._forced.items():
            return self._state.trials[number], step
        if forced:
            return None
        for name in list(self._live):
            found = self._policies[name].ripe() if name in self._policies else None
            if found is None:
                del self._live[name]
            elif runs(self._state.trials[found[0]]):
                return self._state.trials[found[0]], found[1]
        return None

    def populations(self) -> Iterator[Pbt]:
        """The policies that replace trials by copies of others."""
        return (policy for policy in self._policies.values() if isinstance(policy, Pbt))

    def wakes(self, segment: str | None) -> None:
        """Somebody may be ripe there who was not."""
        self._live[segment] = None

    def condemned(self) -> Trial | None:
        """A trial that is to be stopped for good."""
        for name in self._live:
            number = self._policies[name].condemned() if name in self._policies else None
            if number is not None:
                return self._state.trials[number]
        return None

    def hopes(self, runs: Callable[[Trial], bool]) -> dict[int, int | None]:
        """The best trial of each segment of which none has completed -> its next rung."""
        found = {}
        for waiting, policy in self._idle(runs):
            segment = self._state.trials[waiting[0]].segment
            last = None if self._state.segment(segment).completed else policy.last_resort()
            if last is not None:
                found[last[0]] = last[1]
        return found

    def _idle(self, runs: Callable[[Trial], bool]) -> Iterator[tuple[list[int], Policy]]:
        for policy in self._policies.values():
            waiting = policy.waiting
            if waiting and runs(self._state.trials[waiting[0]]):
                yield waiting, policy

    def settle(self, runs: Callable[[Trial], bool], keep: bool = False) -> list[Trial]:
        """What is to be stopped where nothing runs, is ripe, or is left to be asked.

        A segment of which no trial has completed sends its best one on instead.

        Args:
            keep: stop none.
        """
        self._forced.update(self.hopes(runs))
        stopped: list[Trial] = []
        for waiting, _ in self._idle(runs):
            if not (keep or self._forced.keys() & set(waiting)):
                stopped += [self._state.trials[number] for number in waiting]
        return stopped

    def loss(self, trial: Trial) -> float | None:
        """A trial's loss at its last rung; None: not a finite number."""
        assert self._spec is not None
        value = trial.reports[trial.rungs[-1]].get(self._spec.metric, math.nan)
        return value if math.isfinite(value) else None
