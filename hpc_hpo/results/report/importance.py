"""Which parameters mattered, and how the loss hangs together with pairs of them.

A random forest learns a trial's place among the losses of its segment (0 the best, 1 the worst)
from its point. Places, because losses have no scale of their own: one diverged trial would outweigh
all others. Importance is Breiman's (Random Forests, Machine Learning 45, 2001): by how much the
prediction of trials that the forest has not seen gets worse when a parameter's values are shuffled.
The contours are the forest's partial dependence (Friedman, Annals of Statistics 29, 2001).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_hpo.results.report.material import Group, Material, rounded
from hpc_hpo.results.report.points import Axis, chosen

METHOD = (
    "Permutation importance of a random forest (Breiman 2001): the share by which the error of "
    "predicting held-out trials' places grows when a parameter's values are shuffled"
)
#: Fewer losses than this say nothing of importance.
LEAST_TRIALS = 16
#: Rows that a forest learns from: the best half of them, others by chance.
MOST_ROWS = 3000
TREES, FOLDS, SHUFFLES = 64, 4, 3
#: Points of a contour's side; points of the study over which the other parameters are averaged.
GRID, BACKGROUND = 18, 32
#: Predictions that all contours of a page may take: a few seconds.
CONTOUR_ROWS = 400_000


@dataclass(frozen=True)
class Features:
    """Points as a matrix: a parameter's columns, and where they are.

    Attributes:
        x: shape (points, columns).
        spans: axis number -> its columns.
    """

    x: np.ndarray
    spans: dict[int, slice]


def features(points: list[dict[str, Any]], axes: list[Axis]) -> Features:
    """A number is one column, or two where a condition leaves it out of some points; a category
    has one column for each value. Absent numbers lie at the middle, with a flag beside them."""
    parts: list[np.ndarray] = []
    spans, at = {}, 0
    for number, axis in enumerate(axes):
        if axis.kind == "none":
            continue
        codes = axis.column(points)
        absent = np.isnan(codes)
        if absent.all():
            continue
        if axis.kind == "number":
            values = np.log10(codes) if axis.log else codes
            values = np.where(np.isfinite(values), values, np.nan)
            middle = np.nanmedian(values) if np.isfinite(values).any() else 0.0
            part = [np.where(np.isnan(values), middle, values)]
            part += [absent.astype(float)] if absent.any() else []
        else:
            part = [(codes == code).astype(float) for code in range(len(axis.categories))]
        parts.extend(part)
        spans[number] = slice(at, at + len(part))
        at += len(part)
    x = np.array(parts).T if parts else np.empty((len(points), 0))
    return Features(x, spans)


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    # One thread: a login node is shared.
    return RandomForestRegressor(
        TREES, min_samples_leaf=2, max_features=0.7, random_state=seed, n_jobs=1
    )


def importance(group: Group, axes: list[Axis], sign: int) -> dict[str, Any]:
    """The importances of one segment's parameters.

    Returns:
        either `why` there are none, or axis (numbers of the axes, the most important first),
        share (the growth of the squared error in units of the places' variance, mean over folds
        and shuffles), spread (its standard deviation over folds), explained (R^2 of held-out
        trials: near 0, the importances mean little) and trials (rows learned from).
    """
    at = chosen(group, sign, MOST_ROWS)
    if len(at) < LEAST_TRIALS:
        return {"why": f"needs {LEAST_TRIALS} trials with a loss; there are {len(at)}"}
    if np.ptp(group.losses[at]) == 0:
        return {"why": "all losses are the same"}
    found = features([group.done[i].point for i in at], axes)
    varied = {n: s for n, s in found.spans.items() if np.ptp(found.x[:, s], axis=0).any()}
    if not varied:
        return {"why": "no parameter has more than one value"}
    y = group.places(sign)[at]
    rng = np.random.default_rng(0)
    folds = np.array_split(rng.permutation(len(y)), FOLDS)
    growth = np.zeros((FOLDS, len(varied)))
    error = 0.0
    for fold, held in enumerate(folds):
        rest = np.setdiff1d(np.arange(len(y)), held)
        model = _forest(fold).fit(found.x[rest], y[rest])
        base = float(np.mean((model.predict(found.x[held]) - y[held]) ** 2))
        error += base * len(held) / len(y)
        for column, span in enumerate(varied.values()):
            for _ in range(SHUFFLES):
                shuffled = found.x[held].copy()
                shuffled[:, span] = shuffled[rng.permutation(len(held))][:, span]
                worse = float(np.mean((model.predict(shuffled) - y[held]) ** 2)) - base
                growth[fold, column] += worse / SHUFFLES / np.var(y)
    mean, spread = growth.mean(axis=0), growth.std(axis=0)
    order = np.argsort(-mean, kind="stable")
    numbers = list(varied)
    return {
        "axis": [numbers[i] for i in order],
        "share": rounded(np.maximum(mean[order], 0.0), 4),
        "spread": rounded(spread[order], 3),
        "explained": rounded([1 - error / np.var(y)], 3)[0],
        "trials": len(at),
    }


def pairs_within(groups: int) -> int:
    """How many pairs of parameters a segment's contours may be made for."""
    return CONTOUR_ROWS // (max(groups, 1) * GRID * GRID * BACKGROUND)


def contours(
    group: Group, axes: list[Axis], sign: int, important: list[int], pairs: int
) -> list[dict[str, Any]]:
    """The expected loss over pairs of the most important parameters that are numbers.

    Returns:
        for each pair: the axes x and y, where the grid lies on them (xs, ys) and the loss z,
        shape (len(ys), len(xs)): the one at the place that the forest expects.
    """
    numeric = [n for n in important if axes[n].kind == "number"]
    at = chosen(group, sign, MOST_ROWS)
    wanted = list(itertools.islice(_by_importance(numeric), pairs))
    if not wanted:
        return []
    found = features([group.done[i].point for i in at], axes)
    model = _forest(0).fit(found.x, group.places(sign)[at])
    picks = np.linspace(0, len(at) - 1, min(BACKGROUND, len(at))).round().astype(int)
    background = found.x[picks]
    ordered = np.sort(sign * group.losses)
    drawn = []
    for a, b in wanted:
        xs, ys = (_grid(found.x[:, found.spans[n].start]) for n in (a, b))
        rows = np.tile(background, (len(xs) * len(ys), 1))
        grid_y, grid_x = np.meshgrid(ys, xs, indexing="ij")
        for n, values in ((a, grid_x), (b, grid_y)):
            span = found.spans[n]
            rows[:, span] = 0.0  # present
            rows[:, span.start] = np.repeat(values.ravel(), len(background))
        places = model.predict(rows).reshape(len(ys), len(xs), -1).mean(axis=2)
        z = sign * np.interp(places, np.linspace(0, 1, len(ordered)), ordered)
        drawn.append(
            {
                "x": a, "y": b, "z": [rounded(row, 4) for row in z],
                "xs": rounded(10**xs if axes[a].log else xs, 5),
                "ys": rounded(10**ys if axes[b].log else ys, 5),
            }
        )  # fmt: skip
    return drawn


def _by_importance(numbers: list[int]) -> Any:
    """Pairs, those of more important parameters first."""
    ranked = itertools.combinations(range(len(numbers)), 2)
    return ((numbers[a], numbers[b]) for a, b in sorted(ranked, key=lambda p: (p[1], p[0])))


def _grid(values: np.ndarray) -> np.ndarray:
    return np.linspace(values.min(), values.max(), GRID)


def pooled(material: Material) -> Group | None:
    """All segments as one group whose losses are the places within their segment."""
    groups = [g for g in material.groups if g.done]
    if len(groups) < 2:
        return None
    done = [trial for g in groups for trial in g.done]
    places = np.concatenate([g.places(material.sign) for g in groups])
    ends = np.concatenate([g.ends for g in groups])
    return Group(None, done, ends, material.sign * places, [])
