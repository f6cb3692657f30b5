"""The whole content of a study's page, as JSON values."""

from __future__ import annotations

from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.model import SliceRecord, Trial
from hpc_hpo.prestage.manifest import load_manifest
from hpc_hpo.results.report.curves import LEAST_CURVES, MOST_CURVES, curves, metrics
from hpc_hpo.results.report.failures import failures
from hpc_hpo.results.report.front import front, goal_data, histories
from hpc_hpo.results.report.history import history
from hpc_hpo.results.report.importance import (
    METHOD,
    contours,
    importance,
    pairs_within,
    pooled,
)
from hpc_hpo.results.report.material import MOST_GROUPS, Group, Material
from hpc_hpo.results.report.points import (
    LEAST_POINTS,
    MOST_POINTS,
    Axis,
    axes,
    axis_data,
    columns,
)
from hpc_hpo.results.report.segments import segments
from hpc_hpo.results.report.timeline import timeline
from hpc_hpo.results.table import versions_of

#: Improvements and files that are listed.
MOST_STEPS, MOST_FILES = 8, 200


def content(material: Material) -> dict[str, Any]:
    """All that the page of one study shows; see the modules of its parts."""
    known = axes(material)
    names = metrics(material)
    # Those with most losses have plots of their own; they keep the study's order.
    ranked = sorted(material.groups, key=lambda g: -len(g.done))[:MOST_GROUPS]
    groups = [group for group in material.groups if group in ranked]
    return {
        "kind": "study",
        "name": material.name,
        "made": material.now,
        "begin": material.begin,
        "direction": material.study.get("direction", "minimize"),
        "facts": material.facts,
        "node_hours": float(material.node_hours_at(_times(material.until))[0]),
        "axes": axis_data(known),
        "metrics": names,
        "goals": goal_data(material),
        "method": METHOD,
        "groups": [_group(material, group, known, names, len(groups)) for group in groups],
        "group_count": len(material.groups),
        "pooled": _pooled(material, known),
        "timeline": timeline(material),
        "failures": failures(material),
        "segments": segments(material),
        "reproduce": reproduce(material),
    }


def _times(at: float) -> Any:
    import numpy as np

    return np.array([at])


def _group(
    material: Material, group: Group, known: list[Axis], names: list[str], of: int
) -> dict[str, Any]:
    found = importance(group, known, material.sign)
    important = found.get("axis", [])
    return {
        "name": group.name,
        "best": best(material, group),
        "front": front(material, group, of),
        "history": history(material, group, max(LEAST_POINTS, MOST_POINTS // of)),
        "histories": histories(material, group, max(LEAST_POINTS, MOST_POINTS // of)),
        "points": columns(group, known, material.sign, max(LEAST_POINTS, MOST_POINTS // of)),
        "importance": found,
        "contours": contours(group, known, material.sign, important, pairs_within(of)),
        "curves": curves(material, group, names, max(LEAST_CURVES, MOST_CURVES // of)),
    }


def _pooled(material: Material, known: list[Axis]) -> dict[str, Any] | None:
    group = pooled(material)
    return None if group is None else importance(group, known, material.sign)


def best(material: Material, group: Group) -> dict[str, Any] | None:
    """The best trial of a segment: its point, the last improvements that led to it with what each
    changed, and its slices; None while no trial has a loss."""
    steps: list[Trial] = []
    for trial in group.done:
        assert trial.loss is not None
        if not steps or material.sign * trial.loss < material.sign * (steps[-1].loss or 0.0):
            steps.append(trial)
    if not steps:
        return None
    last = steps[-1]
    return {
        "trial": last.id,
        "loss": last.loss,
        "point": last.point,
        "seed": last.seed,
        "like": last.like,
        "line": _line(material, last),
        "improvements": len(steps),
        "steps": [_step(steps, at) for at in range(max(0, len(steps) - MOST_STEPS), len(steps))],
        "slices": [_slice(material, record) for record in last.slices],
    }


def _line(material: Material, trial: Trial) -> list[dict[str, Any]]:
    """Whose checkpoints a copy goes on from, the first of them at the top: up to which step each
    was trained with which values, where those are not the ones before."""
    line = [trial]
    while (parent := line[-1].parent) is not None:
        line.append(material.state.trials[parent["trial"]])
    if len(line) == 1:
        return []
    line.reverse()
    ends = [*(t.base for t in line[1:]), trial.gone]
    return [
        {"trial": t.id, "from": t.base, "to": end, "changed": _changed(line[at - 1], t, at)}
        for at, (t, end) in enumerate(zip(line, ends, strict=True))
    ]


def _changed(before: Trial, trial: Trial, at: int) -> dict[str, Any]:
    old = before.point if at else {}
    return {name: value for name, value in trial.point.items() if old.get(name, ...) != value}


def _step(steps: list[Trial], at: int) -> dict[str, Any]:
    trial = steps[at]
    return {"trial": trial.id, "loss": trial.loss, "changed": _changed(steps[at - 1], trial, at)}


def _slice(material: Material, record: SliceRecord) -> dict[str, Any]:
    def hours(at: float | None) -> float | None:
        return None if at is None else (at - material.begin) / 3600

    return {
        "number": record.number,
        "start": hours(record.started),
        "end": hours(record.ended),
        "how": record.end and record.end.value,
        "reason": record.reason,
        "block": record.block,
        "host": record.host,
        "step": record.step,
        "from": record.restored,
    }


def reproduce(material: Material) -> dict[str, Any]:
    """What it takes to run the study again: its file, site, versions, inputs and seed."""
    folder, study = material.folder, material.study
    site = study.get("site", "local")
    return {
        "study": folder.study.read_text(errors="replace") if folder.exists else None,
        "site": site if isinstance(site, str) else str(site.get("name", "")),
        "seed": study.get("seed"),
        "optimizer": study.get("optimizer"),
        "versions": versions_of(material.state),
        "host": material.state.run_info.get("host"),
        "runs": material.state.runs,
        "manifest": _manifest(material),
    }


def _manifest(material: Material) -> dict[str, Any] | None:
    try:
        manifest = load_manifest(material.folder)
    except InputError as error:
        return {"problem": str(error)}
    if manifest is None:
        return None
    files = manifest.files
    return {
        "count": len(files),
        "bytes": sum(file.size for file in files),
        "files": [
            {"input": f.input, "segment": f.segment, "target": f.target, "source": f.source,
             "size": f.size, "sha256": f.sha256}
            for f in files[:MOST_FILES]
        ],
    }  # fmt: skip
