"""The distributions by name, built from checked numbers; what all dialects share.

Quantised methods take multiples of q within [low, high]; the values are ints when q is written
as an integer. The base of a log-normal is e unless told; that of a log-uniform changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from hpc_hpo.space import domains as d
from hpc_hpo.space.reading import (
    Problems,
    Section,
    is_number,
    looks_like_exponent,
    parse_number,
    plain,
)
from hpc_hpo.space.scales import LinearScale, LogNormalScale, LogScale, NormalScale, Scale

#: Steps a quantised range may have; beyond it neighbours are no longer told apart in floats.
MAX_STEPS = 2**40
SIX_SIGMA = 6.0

Builder = Callable[[Section, str], "d.Domain | None"]


def _use_fixed(value: Any) -> str:
    return f"use {{method: fixed, dimension: {{value: {d.canonical(value)}}}}}"


def check_ends(low: float, high: float, log: bool, key: str, problems: Problems) -> bool:
    """Note an empty, single-valued, infinite or (for log) non-positive range."""
    found = [low, high]
    if low > high:
        problems.add(key, f"low {low!r} is above high {high!r}", found=found, valid="low < high")
    elif low == high:
        problems.add(
            key,
            f"low and high are both {low!r}",
            found=found,
            valid=f"low < high, or {_use_fixed(low)}",
        )
    elif log and low <= 0:
        problems.add(
            key, f"a log scale needs low above 0, not {low!r}", found=found, valid="0 < low < high"
        )
    elif not math.isfinite(float(high) - float(low)):
        problems.add(key, "the range is too wide for floats", found=found, valid="a smaller range")
    else:
        return True
    return False


def ranged(low: float, high: float, log: bool, method: str, dimension: Mapping[str, Any]) -> d.Real:
    """A float between two ends that check_ends has passed."""
    low, high = float(low), float(high)
    scale: Scale = LogScale(low, high) if log else LinearScale(low, high)
    return d.Real(scale, method, dimension, (low, high))


def stepped(
    low: float,
    high: float,
    q: int | float,
    log: bool,
    method: str,
    dimension: Mapping[str, Any],
    key: str,
    problems: Problems,
) -> d.Domain | None:
    """The multiples of q between two such ends; None when they are too few or too many."""
    step = Fraction(repr(q))
    first = math.ceil(Fraction(repr(low)) / step)
    last = math.floor(Fraction(repr(high)) / step)
    if last <= first:
        problems.add(
            key,
            f"fewer than two multiples of {q!r} from {low!r} to {high!r}",
            found=[low, high],
            valid="a wider range or a smaller q",
        )
        return None
    if max(abs(first), abs(last)) > MAX_STEPS:
        problems.add(
            key, "the range has too many steps", found=[low, high], valid=f"at most {MAX_STEPS}"
        )
        return None
    # Half a step more on both sides makes the two ends as likely as the values between.
    below, above = (first - 0.5) * q, (last + 0.5) * q
    scale: Scale = LogScale(below, above) if log else LinearScale(below, above)
    return d.Lattice(scale, q, method, dimension, (first, last))


def _read_q(section: Section) -> int | float | None:
    q = section.number("q")
    if q is not None and q <= 0:
        section.problems.add(section.path("q"), "q must be above 0", found=q, valid="q > 0")
        return None
    return q


def _read_base(section: Section) -> float | None:
    if "base" not in section.content:
        return math.e
    base = section.real("base")
    if base is not None and base <= 1:
        section.problems.add(
            section.path("base"), "not a base of logarithms", found=base, valid="base > 1"
        )
        return None
    return base


def _range_method(section: Section, method: str) -> d.Domain | None:
    """uniform, uniformint, quniform, loguniform, qloguniform."""
    log, quantised = "log" in method, method.startswith("q")
    if not section.only(["low", "high", *(["q"] if quantised else [])], ["base"] if log else []):
        return None
    read = section.integer if method == "uniformint" else section.number
    low, high = read("low"), read("high")
    q = _read_q(section) if quantised else 1
    base = _read_base(section)
    if low is None or high is None or q is None or base is None:
        return None
    if not check_ends(low, high, log, section.key, section.problems):
        return None
    dimension: dict[str, Any] = {"low": low, "high": high}
    if quantised:
        dimension["q"] = q
    if "base" in section.content:
        dimension["base"] = base
    if quantised or method == "uniformint":
        return stepped(low, high, q, log, method, dimension, section.key, section.problems)
    return ranged(low, high, log, method, dimension)


def normal_method(section: Section, method: str) -> d.Domain | None:
    """normal, qnormal, lognormal, qlognormal."""
    log, quantised = "log" in method, method.startswith("q")
    if not section.only(["mu", "sigma", *(["q"] if quantised else [])], ["base"] if log else []):
        return None
    mu, sigma, base = section.real("mu"), section.real("sigma"), _read_base(section)
    q = _read_q(section) if quantised else 1
    if sigma is not None and sigma <= 0:
        section.problems.add(
            section.path("sigma"), "sigma must be above 0", found=sigma, valid="sigma > 0"
        )
        return None
    if mu is None or sigma is None or base is None or q is None:
        return None
    dimension = {"mu": mu, "sigma": sigma}
    if quantised:
        dimension["q"] = q
    if "base" in section.content:
        dimension["base"] = base
    largest = abs(mu) + SIX_SIGMA * sigma
    steps = largest
    if log:
        # Both 1 / value and value / q must stay finite.
        steps = math.inf if largest * math.log(base) > 300 else base**largest
    if not math.isfinite(steps) or (quantised and steps / q > MAX_STEPS):
        section.problems.add(
            section.key,
            "values six sigma from mu are too large",
            found=[mu, sigma],
            valid="a smaller mu, sigma or base, or a larger q",
        )
        return None
    scale: Scale = LogNormalScale(mu, sigma, base) if log else NormalScale(mu, sigma)
    if quantised:
        return d.Lattice(scale, q, method, dimension, None)
    return d.Real(scale, method, dimension, None, positive=log)


def _read_value(value: Any, key: str, problems: Problems) -> tuple[bool, Any]:
    """(whether it is usable, the plain value) of a category or a fixed value."""
    try:
        value = plain(value)
    except ValueError as error:
        problems.add(key, str(error), valid="numbers, text (in quotes), true, false, null, lists")
        return False, None
    if isinstance(value, str) and looks_like_exponent(value):
        problems.add(
            key,
            "YAML reads this as text although it looks like a number",
            found=value,
            valid="a number with a dot and a signed exponent, such as 1.0e-5",
        )
        return False, None
    return True, value


def read_choices(values: Any, key: str, problems: Problems) -> d.Domain | None:
    """A list of at least two different JSON values."""
    if not isinstance(values, (list, tuple)):
        problems.add(key, "not a list", found=values, valid="a list of at least two values")
        return None
    read = [_read_value(v, f"{key}[{i}]", problems) for i, v in enumerate(values)]
    if not all(usable for usable, _ in read):
        return None
    plain_values = [value for _, value in read]
    if len(plain_values) < 2:
        what = "no value" if not plain_values else "a single value"
        hint = f", or {_use_fixed(plain_values[0])}" if plain_values else ""
        problems.add(key, f"a choice of {what}", found=values, valid=f"two or more{hint}")
        return None
    seen: dict[Any, int] = {}
    good = True
    for i, value in enumerate(plain_values):
        identity = float(value) if is_number(value) and abs(value) < 1e300 else d.canonical(value)
        if identity in seen:
            problems.add(
                f"{key}[{i}]",
                f"the same as value {seen[identity]}",
                found=value,
                valid="every value once",
            )
            good = False
        seen.setdefault(identity, i)
    return d.Choice(plain_values) if good else None


def _categorical(section: Section, method: str) -> d.Domain | None:
    # grid_search asks hpogrid to try every category; our optimisers treat all alike, and
    # `optimizer: grid` tries them all. It is checked and has no effect.
    if not section.only(["categories"], ["grid_search"]) or section.flag("grid_search") is None:
        return None
    return read_choices(section.content["categories"], section.path("categories"), section.problems)


def _fixed(section: Section, method: str) -> d.Domain | None:
    if not section.only(["value"]):
        return None
    usable, value = _read_value(section.content["value"], section.path("value"), section.problems)
    return d.Fixed(value) if usable else None


def read_pair(value: Any, whole: bool, key: str, problems: Problems) -> tuple[Any, Any] | None:
    """The two numbers of ``[low, high]``."""
    kind = "whole numbers" if whole else "numbers"
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        problems.add(key, f"not a list of two {kind}", found=value, valid="[low, high]")
        return None
    numbers = [parse_number(v) for v in value]
    for i, number in enumerate(numbers):
        if number is None or (whole and number != int(number)):
            problems.add(
                f"{key}[{i}]",
                f"not one of two {kind}",
                found=value[i],
                valid="an integer such as 4" if whole else "a number such as 1.0e-5",
            )
            return None
    return numbers[0], numbers[1]


METHODS: dict[str, Builder] = {
    "categorical": _categorical,
    **dict.fromkeys(
        ("uniform", "uniformint", "quniform", "loguniform", "qloguniform"), _range_method
    ),
    **dict.fromkeys(("normal", "qnormal", "lognormal", "qlognormal"), normal_method),
    "fixed": _fixed,
}
