"""Points as columns, for the parallel coordinates and the slice plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_hpo.errors import HpoError
from hpc_hpo.results.report.material import Group, Material, rounded
from hpc_hpo.results.segments import spaces
from hpc_hpo.results.table import strict_json
from hpc_hpo.space import Space

#: Points that the whole page holds; each segment has its part, the best half of it first.
MOST_POINTS = 3000
LEAST_POINTS = 60
#: A parameter with more different texts than this has no axis.
MOST_CATEGORIES = 30


@dataclass(frozen=True)
class Axis:
    """How one parameter is drawn.

    Attributes:
        kind: number, category, or none where it has no axis (lists, free texts).
        log: its logarithm is what matters.
        categories: the values of a category as texts, in the order in which they are drawn.
    """

    name: str
    kind: str
    log: bool
    categories: tuple[str, ...]

    def code(self, value: Any) -> float:
        """A number for a value; NaN for an absent one."""
        if value is None and self.kind == "number":
            return float("nan")
        if self.kind == "number":
            return float(value)
        text = category_text(value)
        return float(self.categories.index(text)) if text in self.categories else float("nan")

    def column(self, points: list[dict[str, Any]]) -> np.ndarray:
        """Shape (len(points),): codes; NaN where a condition leaves the parameter out."""
        name = self.name
        return np.array([self.code(p[name]) if name in p else float("nan") for p in points])


def category_text(value: Any) -> str:
    """A value that is no number, for people."""
    return value if isinstance(value, str) else strict_json(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _methods(material: Material) -> dict[str, set[str]]:
    """Of each parameter, how its values are drawn in the segments that have it."""
    found: dict[str, set[str]] = {}
    some = spaces(material.state, material.study).values()
    # Hundreds of segments may share a few spaces.
    for spec in {strict_json(spec): spec for spec in some}.values():
        try:
            described = Space.parse(spec).describe()
        except HpoError:
            continue
        for name, entry in described.items():
            found.setdefault(name, set()).add(entry.get("method", ""))
    return found


def axes(material: Material) -> list[Axis]:
    """An axis for each parameter, by the values it had."""
    methods = _methods(material)
    found = []
    for name in material.names:
        numbers, texts = True, dict[str, float]()
        positive = True
        for trial in material.state.trials.values():
            if name not in trial.point:
                continue
            value = trial.point[name]
            if not _is_number(value):
                numbers = False
            positive = positive and numbers and value > 0
            if len(texts) <= MOST_CATEGORIES:
                texts.setdefault(category_text(value), value if numbers else 0.0)
        drawn = methods.get(name, set())
        if numbers and "categorical" not in drawn:
            logarithmic = any("log" in method for method in drawn)
            found.append(Axis(name, "number", logarithmic and positive, ()))
        elif len(texts) > MOST_CATEGORIES:
            found.append(Axis(name, "none", False, ()))
        else:
            ordered = sorted(texts, key=lambda t: texts[t]) if numbers else list(texts)
            found.append(Axis(name, "category", False, tuple(ordered)))
    return found


def axis_data(some: list[Axis]) -> list[dict[str, Any]]:
    """The axes as JSON values."""
    return [
        {"name": a.name, "kind": a.kind, "log": a.log, "categories": list(a.categories)}
        for a in some
    ]


def chosen(group: Group, sign: int, most: int, seed: int = 0) -> np.ndarray:
    """Indices into `group.done`, ascending: the best half of `most`, and others by chance."""
    count = len(group.done)
    if count <= most:
        return np.arange(count)
    order = np.argsort(sign * group.losses, kind="stable")
    half = most // 2
    others = np.random.default_rng(seed).choice(order[half:], most - half, replace=False)
    return np.sort(np.concatenate([order[:half], others]))


def columns(group: Group, some: list[Axis], sign: int, most: int) -> dict[str, Any]:
    """The points of one segment.

    Returns:
        trial, loss, place (0 the best of the segment, 1 the worst) and, for each axis, a column of
        codes (None where absent); of: how many trials have a loss.
    """
    at = chosen(group, sign, most)
    points = [group.done[i].point for i in at]
    return {
        "of": len(group.done),
        "trial": [group.done[i].id for i in at],
        "loss": rounded(group.losses[at]),
        "place": rounded(group.places(sign)[at], 4),
        "columns": [rounded(a.column(points), 5) for a in some],
    }
