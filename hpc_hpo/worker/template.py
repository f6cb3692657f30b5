"""Placeholders in a command's arguments, replaced without a shell."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point, SegmentInfo

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|%SEGMENT_NAME")


def _text(value: Any) -> str:
    """A parameter as an argument: floats by repr, lists and objects as JSON."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def fill(
    argv: Sequence[str],
    point: Point,
    inputs: dict[str, str],
    trial: int,
    seed: int,
    segment: SegmentInfo | None = None,
) -> list[str]:
    """The arguments with ``{name}``, ``{inputs.NAME}``, ``{trial}`` and ``{seed}`` replaced, and
    for a trial of a segment ``{segment.name}``, ``{segment.VALUE}`` and ``%SEGMENT_NAME``.

    ``{{`` and ``}}`` stand for single braces. A parameter that the point does not have is
    inactive (its condition is false): it is replaced by nothing, and an argument of which
    nothing is left is dropped.

    Raises:
        InputError: an input or a value that the trial does not have.
    """
    arguments = []
    own = {} if segment is None else {**segment.get("values", {}), "name": segment["name"]}
    for template in argv:
        inactive = False

        def replace(match: re.Match[str]) -> str:
            nonlocal inactive
            name = match[1]
            if match[0] == "%SEGMENT_NAME":
                return str(own.get("name", match[0]))
            if name is None:
                return match[0][0]
            if name in point:
                return _text(point[name])
            if name.startswith("inputs."):
                known = name.removeprefix("inputs.")
                if known not in inputs:
                    raise InputError("no such input", key="command", found=name, valid=list(inputs))
                return inputs[known]
            if name.startswith("segment."):
                known = name.removeprefix("segment.")
                if known not in own:
                    raise InputError("no such value", key="command", found=name, valid=list(own))
                return _text(own[known])
            if name in ("trial", "seed"):
                return str(trial if name == "trial" else seed)
            inactive = True
            return ""

        argument = _PLACEHOLDER.sub(replace, template)
        if argument or not inactive:
            arguments.append(argument)
    return arguments


def locate(argv: Sequence[str], folders: Sequence[str]) -> list[str]:
    """The templates, where one that names a file of the study's source becomes absolute.

    A command runs in a folder of its own; ``[python, train.py]`` means the train.py beside the
    study file. Only whole arguments that name a regular file in one of `folders` are changed.
    """
    return [
        next((str(Path(f, a)) for f in folders if a and "\0" not in a and Path(f, a).is_file()), a)
        for a in argv
    ]
