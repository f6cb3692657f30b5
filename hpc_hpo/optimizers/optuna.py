"""Optuna's samplers: multivariate TPE, and its own Gaussian process.

A sampler here works on the unit cube, so that every method of a search space looks to it like
a plain float or a plain choice. Points in flight are Optuna's running trials; what it does
with them (the constant liar of TPE, qLogEI of GP) is its own. It is made anew for each point
with a seed from the number of points asked: nothing of it has to outlive a restart.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from hpc_hpo.model import Point
from hpc_hpo.optimizers.base import BaseOptimizer, Option
from hpc_hpo.optimizers.extras import fill_absent, require
from hpc_hpo.optimizers.sobol import SobolSequence
from hpc_hpo.space import Space
from hpc_hpo.space.domains import Choice

#: Optuna's own default of points before its model.
_DEFAULT_INITIAL = 10
#: Losses needed before a model is worth more than the initial design.
_MIN_TOLD = 3
#: Draws of a sampler until one is new; GP fits again for each, to come to the same place.
_TRIES = {"TPE": 20, "GP": 2, "NSGA-II": 20}
#: A sampler that comes back to points that are known has settled: the next is drawn this near to
#: its last, in units of the cube; farther, where none is new.
_BESIDE = (0.01, 0.03, 0.1)
_DRAWS_BESIDE = 20
#: Number of the trial that stands for the point being drawn; it is in no storage.
_PROBE = -1
_PURPOSE, _PURPOSE_BESIDE = 6, 11


class OptunaSearch(BaseOptimizer):
    """Needs the extra `optuna`; its GP needs the extra `torch` besides.

    Args:
        sampler: TPE (multivariate, with a constant liar) or GP.
        n_initial: points of the initial Sobol design. Default: 10, and at most a third of the
            budget.

    Raises:
        InputError: a package is missing.
    """

    RETELLS: ClassVar[bool] = False
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "sampler": Option(choices=("TPE", "GP")),
        "n_initial": Option(low=1),
    }

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        budget: int | None = None,
        sampler: str = "TPE",
        n_initial: int | None = None,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        self._optuna = require("optuna", "optuna")
        if sampler == "GP":
            require("torch", "torch")
        self.sampler = sampler
        limit = math.inf if budget is None else max(2, budget // 3)
        self.n_initial = n_initial or int(min(_DEFAULT_INITIAL, limit))
        self._design = SobolSequence(space, seed)
        self._names: list[str] = []
        self._distributions: dict[str, Any] = {}
        for name in space.names:
            self._add_axes(name)
        self._numbers: dict[int, int] = {}
        self._study = self._new_study()
        self._best, self._worst = math.inf, -math.inf
        self._held: list[int] = []  #: failures of which the GP is not told yet

    def _add_axes(self, name: str) -> None:
        distributions = self._optuna.distributions
        domain = self.space.domain(name)
        for i in range(domain.dims):
            axis = f"{name}[{i}]"
            self._names.append(axis)
            if isinstance(domain, Choice):
                choices = tuple(range(len(domain.values)))
                self._distributions[axis] = distributions.CategoricalDistribution(choices)
            else:
                self._distributions[axis] = distributions.FloatDistribution(0.0, 1.0)

    def _new_study(self) -> Any:
        class Storage(self._optuna.storages.InMemoryStorage):  # type: ignore[misc, name-defined]
            """Takes what a sampler notes of the probe, and forgets it."""

            def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
                if trial_id != _PROBE:
                    super().set_trial_system_attr(trial_id, key, value)

        optuna = self._optuna
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=Storage(), study_name="hpc_hpo", directions=self._directions()
        )
        optuna.logging.set_verbosity(before)
        return study

    def _directions(self) -> list[str]:
        """Of each objective."""
        return ["minimize"]

    def _facts(self) -> dict[str, Any]:
        """What Optuna is to know of the trial that is asked now."""
        return {}

    # ---------------------------------------------------------------- coordinates

    def _params(self, trial: int, point: Point) -> dict[str, Any]:
        units = fill_absent(self.space.to_unit(point, absent=np.nan), self.seed, trial)
        params: dict[str, Any] = {}
        for axis, u in zip(self._names, units.tolist(), strict=True):
            choices = getattr(self._distributions[axis], "choices", None)
            params[axis] = u if choices is None else min(int(u * len(choices)), len(choices) - 1)
        return params

    def _point(self, params: Mapping[str, Any]) -> Point:
        units = []
        for axis in self._names:
            choices = getattr(self._distributions[axis], "choices", None)
            value = params[axis]
            units.append(value if choices is None else (value + 0.5) / len(choices))
        return self.space.from_unit(np.array(units))

    # ---------------------------------------------------------------- the protocol

    def adopt(self, id: int, point: Point) -> None:
        super().adopt(id, point)
        trial = self._optuna.trial
        self._numbers[id] = len(self._numbers)
        self._study.add_trial(
            trial.create_trial(
                state=trial.TrialState.RUNNING,
                params=self._params(id, point),
                distributions=self._distributions,
                system_attrs=self._facts(),
            )
        )

    def tell(self, id: int, loss: float | None) -> None:
        super().tell(id, loss)
        known = self.losses[id]
        number = self._numbers[id]
        if known is not None:
            self._best, self._worst = min(self._best, known), max(self._worst, known)
            self._study.tell(number, known)
        elif self.sampler == "TPE":
            # Optuna leaves failed trials out; pruned ones without a value count as the worst.
            self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)
        else:
            self._held.append(number)
        # The GP leaves failed trials out, and would come back to them. So they have the worst loss,
        # as soon as that is not the best one, too.
        if self._differ:
            for failure in self._held:
                self._study.tell(failure, self._worst)
            self._held.clear()

    @property
    def _differ(self) -> bool:
        """Two losses, of those told so far, are not equal."""
        return self._best < self._worst

    def ask(self, ids: Sequence[int]) -> list[Point]:
        # One by one: each point is a running trial before the next one is drawn.
        points: list[Point] = []
        for id in ids:
            new = super().ask([id])
            if not new:
                break
            points += new
        return points

    def _propose(self, count: int) -> list[Point]:
        number, taken = len(self.points), self._keys
        enough = number >= self.n_initial and len(self.losses) >= _MIN_TOLD
        if self.sampler == "GP":
            enough = enough and self._differ  # equal losses and failures say nothing to it
        if enough and self.space.dims > 0:
            point = self._sample(number, taken)
        else:
            point = self._design.next(number, taken)
        point = point or self._draw(number, taken)
        return [] if point is None else [point]

    def _sample(self, number: int, taken: Collection[str]) -> Point | None:
        """A new point by the sampler, or beside what it comes up with; None when there is none."""
        point: Point | None = None
        probe = self._probe()
        with self._hushed(), self._one_thread():
            sampler = self._sampler(int(self._rng(number, _PURPOSE).integers(2**31)))
            for _ in range(_TRIES[self.sampler]):
                params = self._params_of(sampler, probe)
                if not params:
                    return None
                point = self._point(params)
                if self.space.allows(point) and self.space.key(point) not in taken:
                    return point
        return None if point is None else self._beside(point, number, taken)

    def _params_of(self, sampler: Any, probe: Any) -> dict[str, Any]:
        """What the sampler says; empty where it has nothing to go by."""
        found: dict[str, Any] = sampler.sample_relative(
            self._study, probe, dict(self._distributions)
        )
        return found

    def _probe(self) -> Any:
        """The point being drawn, as a trial."""
        kinds = self._optuna.trial
        return kinds.FrozenTrial(
            number=_PROBE, trial_id=_PROBE, state=kinds.TrialState.RUNNING, value=None,
            datetime_start=None, datetime_complete=None, params={}, distributions={},
            user_attrs={}, system_attrs={}, intermediate_values={},
        )  # fmt: skip

    def _beside(self, point: Point, number: int, taken: Collection[str]) -> Point | None:
        """A new point near another one."""
        rng = self._rng(number, _PURPOSE_BESIDE)
        units = fill_absent(self.space.to_unit(point, absent=np.nan), self.seed, number)
        for far in _BESIDE:
            for _ in range(_DRAWS_BESIDE):
                moved = np.clip(units + far * rng.normal(size=len(units)), 0.0, 1.0)
                near = self.space.from_unit(moved)
                if self.space.allows(near) and self.space.key(near) not in taken:
                    return near
        return None

    def _sampler(self, seed: int) -> Any:
        samplers = self._optuna.samplers
        if self.sampler == "GP":
            return samplers.GPSampler(seed=seed, n_startup_trials=0)
        return samplers.TPESampler(
            seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True
        )

    @contextlib.contextmanager
    def _hushed(self) -> Iterator[None]:
        """Its hints are for those who call it themselves, and would come with every point."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what it calls experimental
                yield
        finally:
            logging.set_verbosity(before)

    @contextlib.contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Its matrices are small: threads cost more than they bring, on a node that is shared."""
        if self.sampler != "GP":
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
