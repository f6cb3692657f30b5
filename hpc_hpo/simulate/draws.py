"""Random times as people write them: lognormal(600, 0.5), constant(10m), uniform(5m, 20m)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.units import format_duration, parse_duration

FORMS = (
    "a duration, or constant(T), uniform(T, T), exponential(MEAN), lognormal(MEDIAN, SIGMA), "
    "weibull(SCALE, SHAPE), with times as 600 (seconds) or 10m"
)
_CALL = re.compile(r"\s*([a-z]+)\s*\(([^()]*)\)\s*\Z")
#: name -> for each argument, whether it is a time
_KINDS = {
    "constant": (True,), "uniform": (True, True), "exponential": (True,),
    "lognormal": (True, False), "weibull": (True, False),
}  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """A distribution of times, in seconds."""

    kind: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Its mean, in seconds."""
        first, *rest = self.values
        if self.kind == "uniform":
            return (first + rest[0]) / 2
        if self.kind == "lognormal":
            return first * math.exp(rest[0] ** 2 / 2)
        if self.kind == "weibull":
            return first * math.gamma(1 + 1 / rest[0])
        return first

    def words(self) -> str:
        """As people write it."""
        kinds = _KINDS[self.kind]
        values = [format_duration(v) if time else f"{v:g}"
                  for v, time in zip(self.values, kinds, strict=True)]  # fmt: skip
        return values[0] if self.kind == "constant" else f"{self.kind}({', '.join(values)})"

    def __call__(self, rng: np.random.Generator) -> float:
        first, *rest = self.values
        made: dict[str, Callable[[], float]] = {
            "constant": lambda: first,
            "uniform": lambda: rng.uniform(first, rest[0]),
            "exponential": lambda: rng.exponential(first),
            "lognormal": lambda: first * math.exp(rest[0] * rng.standard_normal()),
            "weibull": lambda: first * rng.weibull(rest[0]),
        }
        return float(made[self.kind]())


def _number(text: str, is_time: bool) -> float:
    try:
        return float(text)
    except ValueError:
        if not is_time:
            raise ValueError(f"{text!r} is not a number") from None
        return parse_duration(text)


#: The longest mean, about thirty years in seconds.
_LONGEST_S = 1e9


def _checked(draw: Draw) -> Draw:
    if not all(math.isfinite(v) and v >= 0 for v in draw.values):
        raise ValueError("a value is negative or not finite")
    if draw.kind == "weibull" and draw.values[1] == 0:
        raise ValueError("a weibull's shape is above 0")
    if draw.kind == "uniform" and draw.values[0] > draw.values[1]:
        raise ValueError("the first value is above the second")
    try:
        mean = draw.mean
    except OverflowError:
        mean = math.inf
    if mean > _LONGEST_S:
        raise ValueError("its mean is longer than thirty years")
    return draw


def parse_draw(text: str, key: str, *, positive: bool = False) -> Draw:
    """A distribution as written.

    Args:
        positive: refuse one whose times are all 0.

    Raises:
        InputError: it is none.
    """
    call = _CALL.match(text)
    try:
        if call is None:
            found = _checked(Draw("constant", (_number(text.strip(), True),)))
        else:
            kind, parts = call[1], [part.strip() for part in call[2].split(",")]
            if kind not in _KINDS:
                raise ValueError(f"no distribution {kind!r}")
            if len(parts) != len(_KINDS[kind]):
                raise ValueError(f"{kind} takes {len(_KINDS[kind])} values")
            values = tuple(_number(p, t) for p, t in zip(parts, _KINDS[kind], strict=True))
            found = _checked(Draw(kind, values))
        if positive and found.mean == 0:
            raise ValueError("it is no time at all")
        return found
    except ValueError as error:
        raise InputError(str(error), key=key, found=text, valid=FORMS) from None
