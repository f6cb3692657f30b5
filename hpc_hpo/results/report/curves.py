"""Learning curves: what trials reported, step by step, and where rungs stopped them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from hpc_hpo.model import SliceEnd, Trial, TrialState
from hpc_hpo.results.report.material import Group, Material, rounded, thinned

#: Metrics that are shown, those of most reports first.
MOST_METRICS = 6
#: Curves that the whole page draws one by one, and points of each; beyond, a segment shows its
#: best ones over quantiles of all.
MOST_CURVES, LEAST_CURVES = 400, 20
MOST_STEPS = 120
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def metrics(material: Material) -> list[str]:
    """The names of metrics, by how many trials report them; of equals, the loss first."""
    counts: Counter[str] = Counter()
    for trial in material.state.trials.values():
        names = {name for report in trial.reports.values() for name in report}
        counts.update(names)
    ranked = sorted(counts, key=lambda name: (-counts[name], name != "loss", name))
    return ranked[:MOST_METRICS]


def rung_steps(group: Group) -> list[dict[str, int]]:
    """Steps at which slices paused for a rung: reached by how many trials, and how many of them
    have gone on since."""
    reached: Counter[int] = Counter()
    gone: Counter[int] = Counter()
    for trial in group.trials:
        for record in trial.slices:
            if record.end is SliceEnd.PAUSED and record.reason == "rung" and record.step:
                reached[record.step] += 1
                gone[record.step] += record is not trial.slices[-1]
    return [{"step": s, "reached": reached[s], "gone_on": gone[s]} for s in sorted(reached)]


def curves(
    material: Material, group: Group, names: list[str], most: int = MOST_CURVES
) -> dict[str, Any]:
    """The curves of one segment.

    Returns:
        rungs: see rung_steps; of: how many trials reported; metrics: by name, lines (trial, state,
        x, y) and bands (steps, the QUANTILES of all trials at each, how many trials there) where
        not every trial has a line.
    """
    reporting = [trial for trial in group.trials if trial.reports]
    return {
        "of": len(reporting),
        "rungs": rung_steps(group),
        "metrics": {name: _metric(reporting, name, material.sign, most) for name in names},
    }


def _metric(trials: list[Trial], name: str, sign: int, most: int) -> dict[str, Any]:
    own = [trial for trial in trials if any(name in r for r in trial.reports.values())]
    shown = own
    if len(own) > most:
        best = sorted(
            (t for t in own if t.state is TrialState.COMPLETED),
            key=lambda t: sign * (t.loss or 0.0),
        )
        shown = best[:most] or own[:most]
    return {
        "lines": [_line(trial, name) for trial in shown],
        "bands": None if shown is own else _bands(own, name),
    }


def _line(trial: Trial, name: str) -> dict[str, Any]:
    steps = [step for step in sorted(trial.reports) if name in trial.reports[step]]
    kept = [steps[i] for i in thinned(len(steps), MOST_STEPS)]
    values = [trial.reports[step][name] for step in kept]
    return {
        "trial": trial.id,
        "state": trial.state.value,
        "loss": trial.loss if trial.state is TrialState.COMPLETED else None,
        "x": kept,
        "y": rounded(values, 5),
    }


def _bands(trials: list[Trial], name: str) -> dict[str, Any] | None:
    values: dict[int, list[float]] = {}
    for trial in trials:
        for step, report in trial.reports.items():
            value = report.get(name)
            if value is not None and np.isfinite(value):
                values.setdefault(step, []).append(value)
    steps = sorted(values)
    kept = [steps[i] for i in thinned(len(steps), MOST_STEPS)]
    if not kept:
        return None
    found = np.array([np.quantile(values[step], QUANTILES) for step in kept])
    return {
        "steps": kept,
        "quantiles": [rounded(column, 5) for column in found.T],
        "trials": [len(values[step]) for step in kept],
    }
