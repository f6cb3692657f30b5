"""What trials of a simulation have for a loss: a smooth function, a known one, anybody's, a table.

Where trials may be stopped early, they report a loss at every step. A function of a point alone
says the last one only; the way to it is then a power law, as of learning curves (pow3 of Domhan,
Springenberg and Hutter, IJCAI 2015): loss(step) = last + a (step**-c - steps**-c), c = RATE and
an `a` of the point's own, so that the order at a rung is like the last one but not the same.
"""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.schema import one_of
from hpc_hpo.simulate.functions import FUNCTIONS
from hpc_hpo.space import Space, canonical
from hpc_hpo.study import Study

#: The exponent of learning curves, and the spread of their heights (of a lognormal).
RATE, HEIGHTS = 0.5, 0.5
#: A curve's usual height is the losses' standard deviation over so many random points.
SAMPLE = 64
KEY = "--objective"


class Objective(Protocol):
    """What one segment's trials have for a loss."""

    def loss(self, point: Point, step: int, steps: int) -> float:
        """At a step, of 1 to `steps`; NaN or infinite where the trial is to fail.

        Raises:
            InputError: the user's function or table has none.
        """

    def values(self, point: Point) -> list[float] | None:
        """Of several objectives, at the last step; None where there is one loss.

        Raises:
            InputError: as loss.
        """

    def seconds(self, point: Point) -> float | None:
        """How long the whole trial takes; None where this has nothing to say on that."""


#: (segment's name or None, its space) -> its objective
Maker = Callable[[str | None, Space], Objective]


class Curved:
    """Losses of whole trials, with power laws before them.

    Args:
        last: of a point.
        sign: +1 when losses are minimised, -1 when they are maximised.
    """

    def __init__(self, last: Callable[[Point], float], space: Space, sign: int, seed: int) -> None:
        self._last, self._space, self._sign, self._seed = last, space, sign, seed
        self._height: float | None = None

    def loss(self, point: Point, step: int, steps: int) -> float:
        last = self._last(point)
        return last if step >= steps else last + self._sign * self._above(point, step, steps)

    def _above(self, point: Point, step: int, steps: int) -> float:
        if self._height is None:
            rng = np.random.default_rng([self._seed, 6])
            losses = [self._last(self._space.sample(rng)) for _ in range(SAMPLE)]
            self._height = float(np.std([x for x in losses if math.isfinite(x)] or [0.0]))
        rng = np.random.default_rng([self._seed, 7, zlib.crc32(canonical(point).encode())])
        own = self._height * math.exp(HEIGHTS * rng.standard_normal())
        return float(own * (step**-RATE - steps**-RATE))

    def values(self, point: Point) -> list[float] | None:
        return None

    def seconds(self, point: Point) -> float | None:
        return None


class Stepwise:
    """A function of a point and a step."""

    def __init__(self, function: Callable[[Point, int], float]) -> None:
        self._function = function

    def loss(self, point: Point, step: int, steps: int) -> float:
        return self._function(point, step)

    def values(self, point: Point) -> list[float] | None:
        return None

    def seconds(self, point: Point) -> float | None:
        return None


class Several:
    """Several objectives, the first of which is the loss."""

    def __init__(self, function: Callable[[Point], list[float]]) -> None:
        self._function = function

    def loss(self, point: Point, step: int, steps: int) -> float:
        return self._function(point)[0]

    def values(self, point: Point) -> list[float] | None:
        return self._function(point)

    def seconds(self, point: Point) -> float | None:
        return None


def smooth(study: Study, seed: int) -> Maker:
    """Smooth functions of a space's points, one for each objective."""

    def make(name: str | None, space: Space) -> Objective:
        if not study.signs:
            return Curved(
                _bowl(space, study.direction_sign, seed), space, study.direction_sign, seed
            )
        bowls = [_bowl(space, sign, seed + i) for i, sign in enumerate(study.signs)]
        return Several(lambda point: [bowl(point) for bowl in bowls])

    return make


def _bowl(space: Space, sign: int, seed: int) -> Callable[[Point], float]:
    """A function with several minima: a bowl with random waves."""
    rng = np.random.default_rng([seed, 5])
    dims = max(1, space.dims)
    centre, waves = rng.uniform(0.2, 0.8, dims), rng.normal(0.0, 5.0, (8, dims))
    phases, heights = rng.uniform(0.0, 2 * np.pi, 8), rng.uniform(0.02, 0.08, 8)

    def loss(point: Point) -> float:
        unit = space.to_unit(point)
        if not len(unit):
            return 0.0
        bowl = float(((unit - centre) ** 2).mean())
        return sign * (bowl + float(heights @ (1 + np.cos(waves @ unit + phases))))

    return loss


def refuse_several(study: Study, key: str, found: str) -> None:
    """Refuse a study of several objectives.

    Raises:
        InputError: it is one.
    """
    if study.signs:
        raise InputError("has one loss, and the study several objectives", key=key, found=found,
                         valid="--objective module:function that returns them all")  # fmt: skip


def known(name: str, study: Study, seed: int) -> Maker:
    """A test function by its name, over the unit coordinates of a space's points.

    Raises:
        InputError: there is none of this name, or not for so many parameters.
    """
    if name not in FUNCTIONS:
        listed = one_of(name, sorted(FUNCTIONS))
        raise InputError("no such function", key=KEY, found=name,
                         valid=f"{listed}; or module:function")  # fmt: skip
    refuse_several(study, KEY, name)
    function = FUNCTIONS[name]

    def make(segment: str | None, space: Space) -> Objective:
        of = "the space" if segment is None else f"the space of segment {segment}"
        if space.dims != (function.dims or max(space.dims, function.least)):
            needs = function.dims or f"at least {function.least}"
            raise InputError(f"{name} takes {needs} numbers, and {of} has {space.dims}", key=KEY,
                             found=name, valid="a function of as many")  # fmt: skip
        sign = study.direction_sign
        return Curved(lambda point: sign * function.at(space.to_unit(point)), space, sign, seed)

    return make


def imported(text: str, study: Study, seed: int) -> Maker:
    """A function that `module:function` names: of a point (a dict), or of a point and a `step`.

    Raises:
        InputError: there is none.
    """
    module, _, name = text.partition(":")
    try:
        found = getattr(import_module(module), name)
        if not callable(found):
            raise TypeError(f"{name} is no function")
    except Exception as error:
        raise InputError(
            f"cannot be imported: {type(error).__name__}: {error}", key=KEY, found=text,
            valid="module:function, importable from here, of a point (a dict)",
        ) from None  # fmt: skip

    names = [one.name for one in study.objectives] or ["loss"]

    def ask(point: Point, **more: int) -> list[float]:
        try:
            value = found(dict(point), **more)
        except Exception as error:
            raise InputError(
                f"{text} raised {type(error).__name__}: {error}", key=KEY, found=dict(point),
                valid="a loss for every point of the space",
            ) from None  # fmt: skip
        try:
            return _numbers(value, names)
        except (TypeError, ValueError, KeyError):
            valid = "a loss, one number" if names == ["loss"] else f"a dict with {', '.join(names)}"
            raise InputError(
                f"{text} returned something else", key=KEY, found=value, valid=valid
            ) from None

    def call(point: Point, **more: int) -> float:
        return ask(point, **more)[0]

    if study.signs:
        return lambda segment, space: Several(ask)
    if _takes_step(found):
        return lambda segment, space: Stepwise(lambda point, step: call(point, step=step))
    return lambda segment, space: Curved(call, space, study.direction_sign, seed)


def _numbers(value: Any, names: Sequence[str]) -> list[float]:
    """What an objective returned, as a worker would take it."""
    if isinstance(value, Mapping):
        value = [value[name] for name in names]
    elif len(names) == 1:
        value = [value]
    if len(value) != len(names) or any(isinstance(one, (str, bytes)) for one in value):
        raise TypeError
    return [float(one) for one in value]


def _takes_step(function: Callable[..., Any]) -> bool:
    try:
        parameters: Mapping[str, Any] = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions do not tell
        return False
    return "step" in parameters


def objective_named(text: str, study: Study, seed: int) -> Maker:
    """What `--objective` names.

    Raises:
        InputError: it names nothing.
    """
    return (imported if ":" in text else known)(text, study, seed)
