"""A study that evaluates points which somebody else has chosen, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hpc_hpo.model import Point
from hpc_hpo.space import Space
from hpc_hpo.study import Study, parse_study
from hpc_hpo.study.segment_set import Segment
from hpc_hpo.yamlio import Document

#: Points by the name of their segment; None where the study has none.
Points = Mapping[str | None, Sequence[Point]]


def with_points(study: Study, points: Points) -> Study:
    """The study with these points in place of its search.

    Args:
        points: valid in their segment's space; segments without any are left out.

    Raises:
        InputError: a point is not valid; the text has its index.
    """
    data = study.to_dict()
    data["budget"] = {"parallel": study.budget.parallel} if study.budget.parallel else {}
    if not study.segments.named:
        data |= {"optimizer": _listed(points[None])}
        data["budget"]["trials"] = _count(study.space, points[None])
    else:
        data |= {"optimizer": "random"}
        data["budget"]["trials"] = max(len(own) for own in points.values())
        data["inputs"] = [
            item.model_dump(exclude_none=True) for item in study.segments.shared_inputs()
        ]
        data["segments"] = {
            "list": [_entry(study, study.segments[name], own) for name, own in points.items()]
        }
    # As JSON, because values of numpy and tuples have no place in a study file.
    data = json.loads(json.dumps(data))
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    doc = Document(data, study.document.file, text, study.document.lines)
    return parse_study(doc, path=study.path, folder=study.folder)


def _listed(points: Sequence[Point]) -> dict[str, Any]:
    return {"name": "points", "points": [dict(point) for point in points]}


def _count(space: Space, points: Sequence[Point]) -> int:
    """How many different ones there are."""
    return len({space.key(space.validate(point)) for point in points})


def _entry(study: Study, segment: Segment, points: Sequence[Point]) -> dict[str, Any]:
    """A segment as an entry of ``segments.list``."""
    return {
        "name": segment.name,
        # Its number among all segments stays what it was.
        "values": {**segment.values, "model_id": study.segments.number(segment.name or "")},
        # A parameter that the study has and the segment has not is taken out by null.
        "space": {**dict.fromkeys(study.space.names), **segment.space.describe()},
        "constraint": list(segment.space.constraints),
        "optimizer": _listed(points),
        "budget": {"trials": _count(segment.space, points)},
        "inputs": [
            item.model_dump(exclude_none=True, exclude={"segment"}) for item in segment.inputs
        ],
    }
