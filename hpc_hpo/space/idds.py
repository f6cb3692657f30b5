"""The dialect of iDDS's built-in optimiser: ``{type: Scalar, bounds: [0, 5]}``.

Its types are nevergrad's parameter classes and `params` their arguments. What only steers
nevergrad's own mutations is accepted and has no effect. Without bounds, Scalar is the normal
nevergrad draws from (around init, standard deviation 1) and Log the same in powers of its
exponent. A repeated Choice is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpc_hpo.space import domains as d
from hpc_hpo.space.methods import check_ends, normal_method, ranged, read_choices, read_pair
from hpc_hpo.space.reading import Section, nearest, parse_number

#: The arguments of each type that are read or have no effect here.
_IDDS_PARAMS: dict[str, tuple[str, ...]] = {
    "Choice": ("choices", "deterministic"),
    "TransitionChoice": ("choices", "transitions", "ordered"),
    "Scalar": ("init", "lower", "upper", "mutable_sigma"),
    "Log": ("init", "exponent", "lower", "upper", "mutable_sigma"),
    "Array": ("init", "shape", "lower", "upper", "mutable_sigma"),
}


def read_idds(section: Section) -> d.Domain | None:
    if not section.only(["type"], ["params", "bounds", "condition"]):
        return None
    kind, problems = section.content["type"], section.problems
    if not isinstance(kind, str) or kind not in _IDDS_PARAMS:
        problems.add(
            section.path("type"),
            f"unknown type{nearest(kind, _IDDS_PARAMS)}",
            found=kind,
            valid=list(_IDDS_PARAMS),
        )
        return None
    content = section.content.get("params") or {}
    if not isinstance(content, Mapping):
        problems.add(section.path("params"), "not a mapping", found=content, valid="a mapping")
        return None
    params = Section(content, section.path("params"), problems)
    if not params.only((), _IDDS_PARAMS[kind]):
        return None
    if "Choice" in kind:
        choices = content.get("choices")
        if isinstance(choices, int) and not isinstance(choices, bool):
            choices = list(range(choices))
        return read_choices(choices, params.path("choices"), problems)
    return _idds_numbers(section, params, kind)


def _idds_numbers(section: Section, params: Section, kind: str) -> d.Domain | None:
    """Scalar, Log, Array."""
    problems, content = section.problems, params.content
    ends, key = section.content.get("bounds"), section.path("bounds")
    if ends is None and (content.get("lower") is not None or content.get("upper") is not None):
        ends, key = [content.get("lower"), content.get("upper")], params.key
    log = kind == "Log"
    if ends is not None:
        pair = read_pair(ends, False, key, problems)
        if pair is None or not check_ends(*pair, log, key, problems):
            return None
        low, high = float(pair[0]), float(pair[1])
        method = "loguniform" if log else "uniform"
        element = ranged(low, high, log, method, {"low": low, "high": high})
        return _array(section, params, element) if kind == "Array" else element
    if kind == "Array":
        problems.add(key, "an Array needs bounds", valid="bounds: [low, high]")
        return None
    normal = _log_init(params) if log else {"mu": content.get("init", 0.0), "sigma": 1.0}
    if normal is None:
        return None
    inner = Section(normal, params.key, problems)
    return normal_method(inner, "lognormal" if log else "normal")


def _log_init(params: Section) -> dict[str, Any] | None:
    """mu, sigma, base of nevergrad's unbounded Log; None when init or exponent is bad."""
    init, exponent = params.content.get("init", 1.0), params.content.get("exponent", 2.0)
    start, base = parse_number(init), parse_number(exponent)
    if start is None or start <= 0:
        params.problems.add(params.path("init"), "not a number above 0", found=init, valid="> 0")
    elif base is None or base <= 1:
        params.problems.add(
            params.path("exponent"), "not a number above 1", found=exponent, valid="> 1"
        )
    else:
        return {"mu": math.log(start) / math.log(base), "sigma": 1.0, "base": base}
    return None


def _array(section: Section, params: Section, element: d.Real) -> d.Domain | None:
    shape = params.content.get("shape")
    if shape is None and isinstance(params.content.get("init"), (list, tuple)):
        shape, level = [], params.content["init"]
        while isinstance(level, (list, tuple)) and level:
            shape.append(len(level))
            level = level[0]
    if (
        not isinstance(shape, (list, tuple))
        or not shape
        or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
    ):
        section.problems.add(
            params.path("shape"),
            "not the shape of an array",
            found=shape,
            valid="a list of positive integers such as [3], or a list as init",
        )
        return None
    spec = {k: v for k, v in section.content.items() if k != "condition"}
    return d.Array(element, shape, spec)
