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
from collections.abc import Callable, Mapping
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

    def seconds(self, point: Point) -> float | None:
        return None


class Stepwise:
    """A function of a point and a step."""

    def __init__(self, function: Callable[[Point, int], float]) -> None:
        self._function = function

    def loss(self, point: Point, step: int, steps: int) -> float:
        return self._function(point, step)

    def seconds(self, point: Point) -> float | None:
        return None


def smooth(study: Study, seed: int) -> Maker:
    """A smooth function of a space's points with several minima: a bowl with random waves."""

    def make(name: str | None, space: Space) -> Objective:
        rng = np.random.default_rng([seed, 5])
        dims, sign = max(1, space.dims), study.direction_sign
        centre, waves = rng.uniform(0.2, 0.8, dims), rng.normal(0.0, 5.0, (8, dims))
        phases, heights = rng.uniform(0.0, 2 * np.pi, 8), rng.uniform(0.02, 0.08, 8)

        def loss(point: Point) -> float:
            unit = space.to_unit(point)
            if not len(unit):
                return 0.0
            bowl = float(((unit - centre) ** 2).mean())
            return sign * (bowl + float(heights @ (1 + np.cos(waves @ unit + phases))))

        return Curved(loss, space, sign, seed)

    return make


def known(name: str, study: Study, seed: int) -> Maker:
    """A test function by its name, over the unit coordinates of a space's points.

    Raises:
        InputError: there is none of this name, or not for so many parameters.
    """
    if name not in FUNCTIONS:
        listed = one_of(name, sorted(FUNCTIONS))
        raise InputError("no such function", key=KEY, found=name,
                         valid=f"{listed}; or module:function")  # fmt: skip
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

    def call(point: Point, **more: int) -> float:
        try:
            value = found(dict(point), **more)
        except Exception as error:
            raise InputError(
                f"{text} raised {type(error).__name__}: {error}", key=KEY, found=dict(point),
                valid="a loss for every point of the space",
            ) from None  # fmt: skip
        try:
            return _number(value)
        except TypeError:
            raise InputError(
                f"{text} returned no number", key=KEY, found=value, valid="a loss, one number"
            ) from None

    if _takes_step(found):
        return lambda segment, space: Stepwise(lambda point, step: call(point, step=step))
    return lambda segment, space: Curved(call, space, study.direction_sign, seed)


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)) or value is None:
        raise TypeError
    try:
        return float(value)
    except ValueError:
        raise TypeError from None


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
