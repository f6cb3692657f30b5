"""The ways to write one parameter, read into a Domain.

Three dialects may be mixed in one space:

- unified: ``{method: loguniform, dimension: {low: 1.0e-5, high: 1.0e-1, base: 10}}``
- shorthand: ``{int: [1, 4]}``, ``{float: [0, 1]}``, ``{choice: [a, b]}``; ``log: true`` beside
  int and float
- the one of iDDS's built-in optimiser: ``{type: Scalar, bounds: [0, 5]}``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_hpo.space import domains as d
from hpc_hpo.space.idds import read_idds
from hpc_hpo.space.methods import METHODS, check_ends, ranged, read_choices, read_pair, stepped
from hpc_hpo.space.reading import Problems, Section, nearest

_SHORTHANDS = ("int", "float", "choice")


def _unified(section: Section) -> d.Domain | None:
    if not section.only(["method", "dimension"], ["condition"]):
        return None
    method, dimension = section.content["method"], section.content["dimension"]
    if not isinstance(method, str) or method not in METHODS:
        section.problems.add(
            section.path("method"),
            f"unknown method{nearest(method, METHODS)}",
            found=method,
            valid=list(METHODS),
        )
        return None
    if not isinstance(dimension, Mapping):
        section.problems.add(
            section.path("dimension"),
            "not a mapping",
            found=dimension,
            valid="a mapping such as {low: 0, high: 1}",
        )
        return None
    inner = Section(dimension, section.path("dimension"), section.problems)
    return METHODS[method](inner, method)


def _shorthand(section: Section, kind: str) -> d.Domain | None:
    optional = ["condition"] if kind == "choice" else ["log", "condition"]
    if not section.only([kind], optional):
        return None
    key, problems = section.path(kind), section.problems
    if kind == "choice":
        return read_choices(section.content[kind], key, problems)
    pair = read_pair(section.content[kind], kind == "int", key, problems)
    log = section.flag("log")
    if pair is None or log is None or not check_ends(*pair, log, key, problems):
        return None
    if kind == "float":
        low, high = float(pair[0]), float(pair[1])
        method = "loguniform" if log else "uniform"
        return ranged(low, high, log, method, {"low": low, "high": high})
    low, high = int(pair[0]), int(pair[1])
    dimension: dict[str, Any] = {"low": low, "high": high}
    if log:
        dimension["q"] = 1
    method = "qloguniform" if log else "uniformint"
    return stepped(low, high, 1, log, method, dimension, key, problems)


def read_domain(spec: Any, key: str, problems: Problems) -> d.Domain | None:
    """One parameter's entry as a domain; None when problems were noted at `key`."""
    if not isinstance(spec, Mapping):
        problems.add(
            key,
            "not a mapping",
            found=spec,
            valid="{method: ..., dimension: {...}}, {int: [lo, hi]}, {float: [lo, hi]} or "
            "{choice: [...]}",
        )
        return None
    section = Section(spec, key, problems)
    if "method" in spec or "dimension" in spec:
        return _unified(section)
    if "type" in spec:
        return read_idds(section)
    kinds = [kind for kind in _SHORTHANDS if kind in spec]
    if len(kinds) == 1:
        return _shorthand(section, kinds[0])
    if kinds:
        problems.add(key, "more than one kind", found=kinds, valid="one of int, float, choice")
        return None
    words = ("method", *_SHORTHANDS, "type")
    hint = next((h for h in (nearest(name, words) for name in spec) if h), "")
    problems.add(key, f"no kind of parameter{hint}", found=dict(spec), valid=words)
    return None
