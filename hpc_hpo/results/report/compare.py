"""Studies over each other: settings side by side, and their histories in one plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpc_hpo.results.report.content import best
from hpc_hpo.results.report.history import history
from hpc_hpo.results.report.material import MOST_GROUPS, Material
from hpc_hpo.results.report.timeline import timeline
from hpc_hpo.study.changes import same_setting, settings_of, shown

#: A setting longer than this is shown by its beginning.
LONGEST = 200


def comparison(materials: Sequence[Material]) -> dict[str, Any]:
    """All that the page of a comparison shows.

    Returns:
        studies: label, dir, direction, facts, node_hours, worker_hours (see timeline's load) and
        groups: each segment's best and history without its dots; settings: rows of
        settings_rows.
    """
    return {
        "kind": "compare",
        "made": max(material.now for material in materials),
        "studies": [
            _study(m, label) for m, label in zip(materials, labels(materials), strict=True)
        ],
        "settings": settings_rows([m.study for m in materials]),
    }


def labels(materials: Sequence[Material]) -> list[str]:
    """A name for each: the study's, or the folder's where names are the same, or its number too."""
    for found in (
        [m.name for m in materials],
        [m.folder.path.name for m in materials],
    ):
        if len(set(found)) == len(found):
            return found
    return [f"{m.name} ({number})" for number, m in enumerate(materials, start=1)]


def _study(material: Material, label: str) -> dict[str, Any]:
    groups = sorted(material.groups, key=lambda g: -len(g.done))[:MOST_GROUPS]
    return {
        "label": label,
        "dir": str(material.folder.path),
        "direction": material.study.get("direction", "minimize"),
        "facts": material.facts,
        "node_hours": float(material.node_hours_at(np.array([material.until]))[0]),
        "worker_hours": timeline(material, most_lanes=0)["load"]["worker_hours"],
        "groups": [
            {
                "name": group.name,
                "best": best(material, group),
                "history": history(material, group) | {"dots": None, "bands": None},
            }
            for group in groups
        ],
    }


def settings_rows(studies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every setting: its key, its text in each study (None: it is not there) and whether they
    differ; those that differ first."""
    rows: list[dict[str, Any]] = []
    for key, values in settings_of(studies):
        told = [shown(value, values) for value in values]
        texts = [None if value is None else _text(value) for value in told]
        differs = not all(same_setting(values[0], value) for value in values[1:])
        rows.append({"key": key, "values": texts, "differs": differs})
    return sorted(rows, key=lambda row: not row["differs"])


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
