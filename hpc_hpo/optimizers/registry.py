"""Optimisers by name: the built-in ones, and those that other packages declare.

Another package adds one through the entry-point group ``hpc_hpo.optimizers``; see
``base.Optimizer`` for what its class must offer.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.optimizers.base import BaseOptimizer, Optimizer, Option
from hpc_hpo.optimizers.scalarise import Scalarised
from hpc_hpo.space import Space
from hpc_hpo.space.reading import LineOf, Problems, Section, nearest

GROUP = "hpc_hpo.optimizers"
BUILT_IN = {
    "random": "hpc_hpo.optimizers.random:RandomSearch",
    "grid": "hpc_hpo.optimizers.grid:GridSearch",
    "sobol": "hpc_hpo.optimizers.sobol:SobolSearch",
    "skopt": "hpc_hpo.optimizers.skopt:SkoptSearch",
    "idds": "hpc_hpo.optimizers.idds:IddsSearch",
    "bayes": "hpc_hpo.optimizers.bayes:BayesSearch",
    "points": "hpc_hpo.optimizers.points:PointsSearch",
    "tpe": "hpc_hpo.optimizers.tpe:TpeSearch",
    "evolution": "hpc_hpo.optimizers.evolution:EvolutionSearch",
    "optuna": "hpc_hpo.optimizers.optuna:OptunaSearch",
    "nsga2": "hpc_hpo.optimizers.nsga2:Nsga2Search",
    "cmaes": "hpc_hpo.optimizers.cmaes:CmaEsSearch",
    "nevergrad": "hpc_hpo.optimizers.nevergrad:NevergradSearch",
}
#: What `auto` stands for; it chooses its model by the space and the number of losses.
AUTO, DEFAULT = "auto", "bayes"
#: What a class of another package must have to be worth calling; see base.Optimizer.
_MEMBERS = ("OPTIONS", "ask", "adopt", "tell", "exhausted")
#: Those that take several objectives.
SEVERAL = ("bayes", "skopt", "tpe", "evolution", "nsga2", "random", "sobol", "grid", "points")


def names() -> list[str]:
    """Every name that create() knows."""
    declared = {e.name for e in entry_points(group=GROUP)}
    return [AUTO, *BUILT_IN, *sorted(declared - BUILT_IN.keys())]


def _declared(name: str) -> list[EntryPoint]:
    return [e for e in entry_points(group=GROUP) if e.name == name]


def _load(name: str) -> Any:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    declared = _declared(name)
    if len({e.value for e in declared}) > 1:
        several = ", ".join(map(_whose, declared))
        raise InputError(f"more than one package has an optimizer of that name: {several}")
    try:
        found = declared[0].load()
    except Exception as error:  # another's module may raise anything
        raise _broken(declared[0], "loaded", error) from error
    lacks = [member for member in _MEMBERS if not hasattr(found, member)]
    if lacks:
        raise InputError(f"{_whose(declared[0])} is no optimizer: it lacks {', '.join(lacks)}")
    return found


def _whose(declared: EntryPoint) -> str:
    """An optimiser of another package, and which one that is."""
    # Entry points that no installed distribution declares exist only by hand.
    of = f" of {declared.dist.name} {declared.dist.version}" if declared.dist else ""
    return f"the optimizer {declared.name!r}{of} ({declared.value})"


def _broken(declared: EntryPoint, what: str, error: Exception) -> InputError:
    return InputError(f"{_whose(declared)} cannot be {what}: {type(error).__name__}: {error}")


def learns(spec: Mapping[str, Any]) -> bool:
    """Whether an optimiser heeds losses."""
    name = spec["name"]
    return bool(getattr(_load(DEFAULT if name == AUTO else name), "LEARNS", True))


def _read_options(section: Section, valid: Mapping[str, Option]) -> dict[str, Any]:
    section.only((), ["name", "seed", *valid])
    options: dict[str, Any] = {}
    for name, value in section.content.items():
        option = Option() if name == "seed" else valid.get(name)
        if option is not None:
            options[name] = _read_option(section, name, value, option)
    return options


def _read_option(section: Section, name: str, value: Any, option: Option) -> Any:
    """The option's value; what is wrong with it is noted."""
    add, path = section.problems.add, section.path(name)
    if option.choices is not None:
        if value not in option.choices:
            problem = f"unknown value{nearest(value, option.choices)}"
            add(path, problem, found=value, valid=option.choices)
        return value
    if option.kind == "any":
        return value
    if option.kind == "flag":
        return section.flag(name)
    if option.kind == "text":
        if not isinstance(value, str) or not value.strip():
            add(path, "not a text", found=value, valid="a text, in quotes where it is a number")
        return value
    whole = option.kind == "integer"
    number = section.integer(name) if whole else section.number(name)
    if number is not None and number < option.low:
        kind = "an integer" if whole else "a number"
        add(path, "too small", found=number, valid=f"{kind} of at least {option.low}")
    return number


def create(
    spec: str | Mapping[str, Any],
    space: Space,
    seed: int,
    *,
    budget: int | None = None,
    file: str | None = None,
    key: str = "optimizer",
    line_of: LineOf | None = None,
    signs: Sequence[int] = (),
) -> Optimizer:
    """The optimiser that a study asks for.

    Args:
        spec: a name, or a mapping with `name`, the optimiser's options, and `seed`, which
            goes before the argument.
        seed: at least 0; equal seeds give equal points.
        budget: trials the study may run; None when only time limits it.
        file, key, line_of: say in errors where the text stands.
        signs: for several objectives, +1 for each that is minimised and -1 for one that is
            maximised. Those that know one loss only get theirs by random scalarisation.

    Raises:
        InputErrors: an unknown name or option, or a bad value of one.
    """
    problems = Problems(file, line_of)
    content = spec if isinstance(spec, Mapping) else {"name": spec}
    name = content.get("name")
    # Looking for what other packages declare takes milliseconds: not for every segment.
    if name != AUTO and name not in BUILT_IN and name not in names():
        at = f"{key}.name" if content is spec else key
        problems.add(at, f"unknown optimizer{nearest(name, names())}", found=name, valid=names())
        problems.raise_any()
    try:
        cls = _load(DEFAULT if name == AUTO else str(name))
        several = getattr(cls, "SEVERAL", False)
        at = f"{key}.name" if content is spec else key
        if several and not signs:
            problems.add(
                at, "it is for several objectives", found=name, valid="`objectives` in the study"
            )
        if signs and not (several or getattr(cls, "RETELLS", False)):
            problems.add(at, "it takes one loss alone", found=name, valid=[AUTO, *SEVERAL])
        options = _read_options(Section(content, key, problems), cls.OPTIONS)
        problems.raise_any()
        seed = int(options.pop("seed", seed))
        if several:
            options["signs"] = signs
        try:
            made: Optimizer = cls(space, seed=seed, budget=budget, **options)
        except InputError:
            raise
        except Exception as error:  # another's class may raise anything
            if name == AUTO or name in BUILT_IN:
                raise
            raise _broken(_declared(str(name))[0], "made", error) from error
        if signs and not several:
            made = Scalarised(cast(BaseOptimizer, made), signs)
    except InputErrors:
        raise
    except InputError as error:
        # What a class says of its own options lacks the place in the file.
        at = f"{key}.{error.key}" if error.key else key
        problems.add(at, error.problem, found=error.found, valid=error.valid)
        raise InputErrors(problems.errors) from error
    return made
