"""Results as an Optuna storage: one SQLite file, with a study for each segment.

It is written by Optuna itself, and opened by `optuna-dashboard sqlite:///FILE`, by
`optuna.load_study` and so by all of `optuna.visualization`. Trials keep their order, their states
(asked: WAITING; running and paused: RUNNING; failed: FAIL), distributions, reports and times; the
user attributes are what this package knows besides.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import write_atomic
from hpc_hpo.journal import StudyState
from hpc_hpo.model import SliceEnd, Trial
from hpc_hpo.optimizers.extras import require
from hpc_hpo.results.fronts import goals_of
from hpc_hpo.results.segments import spaces
from hpc_hpo.results.table import printable, strict_json
from hpc_hpo.space import Space
from hpc_hpo.space.domains import Choice, Fixed

_STATES = {
    "asked": "WAITING",
    "running": "RUNNING",
    "paused": "RUNNING",
    "completed": "COMPLETE",
    "failed": "FAIL",
    "stopped": "PRUNED",
}
#: Optuna looks for each report in its database before it writes it: of longer curves so many are
#: taken, spread evenly, the first and the last among them.
MOST_REPORTS = 32
#: Choices of other types are JSON text.
_PLAIN = (type(None), bool, int, float, str)


def write_optuna(state: StudyState, study: dict[str, Any], path: Path) -> None:
    """Write the storage.

    Raises:
        InputError: Optuna is not installed.
        StorageError: it cannot be written; an older file is left as it was.
    """
    optuna = require("optuna", "optuna")
    # SQLite is at home on a local disk; the study's folder is often none.
    with tempfile.TemporaryDirectory(prefix="hpc-hpo-") as room:
        file = Path(room) / "study.db"
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
        try:
            for name, space, trials in _parts(state, study):
                _fill(optuna, storage, name, space, trials, study)
        finally:
            storage.engine.dispose()
            optuna.logging.set_verbosity(before)
        write_atomic(path, file.read_bytes())


def _parts(
    state: StudyState, study: Mapping[str, Any]
) -> Iterator[tuple[str, Space | None, list[Trial]]]:
    """(name, space, trials) of each Optuna study; trials of segments begun again are apart."""
    title = str(study.get("name", "study"))
    specs = spaces(state, study)
    groups: dict[tuple[str | None, bool], list[Trial]] = {(name, False): [] for name in specs}
    for _, trial in sorted(state.trials.items()):
        groups.setdefault((trial.segment, trial.superseded), []).append(trial)
    for (segment, superseded), trials in groups.items():
        name = title if segment is None else f"{title}/{segment}"
        spec = specs.get(segment)
        space = Space.parse(spec) if spec else None
        yield name + (" (begun again)" if superseded else ""), space, trials


def _fill(
    optuna: Any, storage: Any, name: str, space: Space | None, trials: list[Trial],
    study: Mapping[str, Any],
) -> None:  # fmt: skip
    goals = goals_of(study)
    directions = ["maximize" if goal.sign < 0 else "minimize" for goal in goals]
    made = optuna.create_study(
        storage=storage, study_name=printable(name),
        directions=directions or [str(study.get("direction", "minimize"))],
    )  # fmt: skip
    if goals:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is called experimental
            made.set_metric_names([printable(goal.name) for goal in goals])
    made.set_user_attr("study", str(study.get("name", "")))
    distributions = _distributions(optuna, space, trials)
    made.add_trials([_trial(optuna, trial, distributions, bool(goals)) for trial in trials])


def _distributions(optuna: Any, space: Space | None, trials: Sequence[Trial]) -> dict[str, Any]:
    """A distribution for each parameter that a trial has."""
    names = dict.fromkeys(name for trial in trials for name in trial.point)
    return {
        name: _distribution(
            optuna.distributions,
            space.domain(name) if space is not None and name in space.names else None,
            [trial.point[name] for trial in trials if name in trial.point],
        )
        for name in names
    }


def _distribution(kinds: Any, domain: Any, values: Sequence[Any]) -> Any:
    """As the space has it, and wide enough for all values: other searches may have brought some.

    A normal distribution, which Optuna does not know, is a range of the values that were drawn.
    """
    if isinstance(domain, Choice):
        choices: list[Any] = [*domain.values]
    elif isinstance(domain, Fixed) or not all(_is_number(value) for value in values):
        choices = []
    else:
        dimension = {} if domain is None else domain.describe().get("dimension", {})
        method = "" if domain is None else domain.describe().get("method", "")
        low = min([*values, dimension.get("low", values[0])])
        high = max([*values, dimension.get("high", values[0])])
        log, step = "log" in method and low > 0, dimension.get("q")
        if all(isinstance(value, int) for value in [*values, low, high]):
            step = step if isinstance(step, int) and not log else 1
            high += -(high - low) % step
            return kinds.IntDistribution(low, high, log=log, step=step)
        return kinds.FloatDistribution(float(low), float(high), log=log)
    found = {strict_json(value): _choice(value) for value in [*choices, *values]}
    return kinds.CategoricalDistribution(tuple(found.values()))


def _is_number(value: Any) -> bool:
    finite = isinstance(value, (int, float)) and value - value == 0
    return finite and not isinstance(value, bool)


def _choice(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return value if isinstance(value, _PLAIN) and value == value else strict_json(value)


def _trial(optuna: Any, trial: Trial, distributions: Mapping[str, Any], several: bool) -> Any:
    state = optuna.trial.TrialState[_STATES[trial.state.value]]
    own = {name: distributions[name] for name in trial.point}
    is_choice = optuna.distributions.CategoricalDistribution
    starts = [s.started for s in trial.slices if s.started is not None]
    starts += [s.submitted for s in trial.slices]
    ends = [s.ended for s in trial.slices if s.ended is not None]
    began = min(starts, default=None)
    return optuna.trial.FrozenTrial(
        number=trial.id, trial_id=trial.id, state=state,
        value=None if several else trial.loss, values=trial.values if several else None,
        datetime_start=_moment(None if state.name == "WAITING" else began or 0.0),
        datetime_complete=_moment(max(ends, default=began or 0.0) if trial.final else None),
        params={n: _choice(v) if isinstance(own[n], is_choice) else v
                for n, v in trial.point.items()},
        distributions=own, user_attrs=_attributes(trial), system_attrs={},
        # Optuna knows none of several objectives.
        intermediate_values={} if several else _curve(trial),
    )  # fmt: skip


def _moment(seconds: float | None) -> datetime | None:
    """Local time without a zone, as Optuna's own are."""
    return None if seconds is None else datetime.fromtimestamp(seconds)


def _attributes(trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = {
        "trial": trial.id,
        "segment": trial.segment,
        "slices": len(trial.slices),
        "failures": trial.failures,
        "lost": sum(record.end is SliceEnd.LOST for record in trial.slices),
        "like": trial.like,
        "parent": trial.parent and trial.parent["trial"],
        "parent_step": trial.parent and trial.parent["step"],
        "checkpoint": trial.checkpoint and trial.checkpoint["name"],
        "error": trial.error and printable(trial.error.get("message", "")),
    }
    return {name: value for name, value in found.items() if value is not None}


def _curve(trial: Trial) -> dict[int, float]:
    """The reports of one metric: `loss` where there is one, else the first."""
    names = dict.fromkeys(name for report in trial.reports.values() for name in report)
    if not names:
        return {}
    metric = "loss" if "loss" in names else next(iter(names))
    curve = [(step, r[metric]) for step, r in sorted(trial.reports.items()) if metric in r]
    if len(curve) > MOST_REPORTS:
        last = len(curve) - 1
        places = [round(i * last / (MOST_REPORTS - 1)) for i in range(MOST_REPORTS)]
        curve = [curve[place] for place in places]
    return {step: float(value) for step, value in curve}
