"""What values one parameter may take, and how they map to the unit interval and to features.

Every domain maps the unit cube of its `dims` dimensions onto its values such that uniform
numbers give its distribution. A quantised or integer value owns the cell of unit numbers
around it and maps back to that cell's middle. Values are plain Python types.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from hpc_hpo.space.reading import is_number
from hpc_hpo.space.scales import LogNormalScale, Scale

#: A value this much (of the range, or of one step) outside its domain is rounding, not error.
SLACK = 1e-6


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, floats by repr. Equal text means an equal value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Domain(ABC):
    """The values of one parameter.

    Attributes:
        dims: number of unit dimensions (0 for a fixed value).
        size: number of values; None when there is no end of them.
        features: length of encode()'s result.
        step: distance of neighbouring values in the unit interval, about; 0 for floats, 1 for
            values without an order.
    """

    dims: int = 1
    size: int | None = None
    features: int = 1
    step: float = 0.0

    @abstractmethod
    def from_unit(self, u: Sequence[float]) -> Any:
        """The value at `u`, dims numbers in [0, 1]."""

    @abstractmethod
    def to_unit(self, value: Any) -> list[float]:
        """The unit coordinates of a valid value."""

    @abstractmethod
    def check(self, value: Any) -> Any:
        """`value` in its canonical plain type.

        Raises:
            ValueError: it is not of the domain; the message says what is valid.
        """

    def scaled(self, value: Any, factor: float) -> Any:
        """`value` times `factor`, as near as the domain has it; itself where that has no meaning.

        An integer moves by at least one step.
        """
        return value

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The parameter in the dialect it is parsed from (unified where there is a method)."""

    def encode(self, value: Any) -> list[float]:
        """Features for a surrogate, each in [0, 1]."""
        return self.to_unit(value)

    def encode_absent(self) -> list[float]:
        """Features of a parameter that is not part of the point."""
        return [0.5] * self.features

    def grid_size(self, resolution: int | None) -> int:
        """Number of values of grid()."""
        if self.size is not None and (resolution is None or self.size <= resolution):
            return self.size
        if resolution is None:
            raise ValueError("a continuous parameter has no complete grid")
        return int(resolution)

    def grid(self, resolution: int | None) -> list[Any]:
        """Values spread evenly over the unit interval: all of them when they are few enough,
        or when `resolution` is None.

        Raises:
            ValueError: `resolution` is None and there is no end of values.
        """
        count = self.grid_size(resolution)
        if count == self.size:
            return [self.from_unit([(i + 0.5) / count]) for i in range(count)]
        return [self.from_unit([i / (count - 1)]) for i in range(count)]


class Real(Domain):
    """A float. Without ends (normal) any finite value is valid."""

    def __init__(
        self,
        scale: Scale,
        method: str,
        dimension: Mapping[str, Any],
        ends: tuple[float, float] | None,
        positive: bool = False,
    ) -> None:
        self._scale, self._method, self._dimension = scale, method, dict(dimension)
        self._ends, self._positive = ends, positive

    def from_unit(self, u: Sequence[float]) -> float:
        if self._ends is None:
            return self._scale.ppf(u[0]) + 0.0
        low, high = self._ends
        if u[0] <= 0.0:
            return low
        if u[0] >= 1.0:
            return high
        return min(max(self._scale.ppf(u[0]), low), high) + 0.0

    def to_unit(self, value: Any) -> list[float]:
        return [self._scale.cdf(value)]

    def check(self, value: Any) -> float:
        low, high = self._ends or (0.0 if self._positive else -math.inf, math.inf)
        if is_number(value) and math.isfinite(value):
            slack = SLACK * (high - low) if self._ends else 0.0
            if low - slack <= value <= high + slack and not (self._positive and value <= 0):
                return float(min(max(value, low), high)) + 0.0
        bounds = f"{low!r} to {high!r}" if self._ends else "any"
        raise ValueError(f"a float, {'above 0' if self._positive else bounds}")

    def scaled(self, value: Any, factor: float) -> float:
        low, high = self._ends or (-math.inf, math.inf)
        found = float(min(max(value * factor, low), high)) + 0.0
        return found if math.isfinite(found) and (found > 0 or not self._positive) else value

    def describe(self) -> dict[str, Any]:
        return {"method": self._method, "dimension": dict(self._dimension)}

    def grid(self, resolution: int | None) -> list[Any]:
        if self._ends is not None:
            return super().grid(resolution)
        # A normal's ends lie six sigma out; the middles of equally likely parts say more.
        count = self.grid_size(resolution)
        return [self.from_unit([(i + 0.5) / count]) for i in range(count)]


class Lattice(Domain):
    """Multiples of q: ints when q is an int, floats otherwise.

    Args:
        scale: distribution before rounding; with `ends` it must span half a step more on
            both sides, so that the ends are as likely as the others.
        q: the step.
        ends: smallest and largest multiple, both included; None for a normal.
    """

    def __init__(
        self,
        scale: Scale,
        q: int | float,
        method: str,
        dimension: Mapping[str, Any],
        ends: tuple[int, int] | None,
    ) -> None:
        self._scale, self._q, self._ends = scale, q, ends
        self._method, self._dimension = method, dict(dimension)
        self._exact = Fraction(repr(q))
        if ends is not None:
            self.size = ends[1] - ends[0] + 1
        below, above = self._cell(self._multiple(scale.ppf(0.5)))
        self.step = above - below

    def _value(self, multiple: int) -> int | float:
        if isinstance(self._q, int):
            return multiple * self._q
        # In floats 3 * 0.1 is 0.30000000000000004; a user wants 0.3.
        return float(self._exact * multiple)

    def _multiple(self, value: float) -> int:
        return math.floor(value / self._q + 0.5)

    def _cell(self, multiple: int) -> tuple[float, float]:
        """The unit interval's part that rounds to this multiple."""
        return (
            self._scale.cdf((multiple - 0.5) * self._q),
            self._scale.cdf((multiple + 0.5) * self._q),
        )

    def from_unit(self, u: Sequence[float]) -> int | float:
        multiple = self._multiple(self._scale.ppf(u[0]))
        if self._ends is not None:
            multiple = min(max(multiple, self._ends[0]), self._ends[1])
        return self._value(multiple)

    def to_unit(self, value: Any) -> list[float]:
        return [sum(self._cell(self._multiple(value))) / 2]

    def check(self, value: Any) -> int | float:
        low, high = self._ends or (-math.inf, math.inf)
        if is_number(value) and math.isfinite(value):
            multiple = self._multiple(value)
            near = abs(value / self._q - multiple) <= SLACK
            if near and low <= multiple <= high and self._reachable(multiple):
                return self._value(multiple)
        kind = "an int" if isinstance(self._q, int) else "a float"
        ends = f", {self._value(int(low))!r} to {self._value(int(high))!r}" if self._ends else ""
        raise ValueError(f"{kind}, a multiple of {self._q!r}{ends}")

    def scaled(self, value: Any, factor: float) -> int | float:
        low, high = self._ends or (-math.inf, math.inf)
        now, new = self._multiple(value), self._multiple(value * factor)
        if new == now:
            new += 1 if value * factor > value or (value == 0 and factor > 1) else -1
        new = int(min(max(new, low), high))
        return self._value(new) if self._reachable(new) else value

    def _reachable(self, multiple: int) -> bool:
        """False for negative multiples of a log-normal, whose cells hold nothing."""
        return self._ends is not None or not (
            isinstance(self._scale, LogNormalScale) and multiple < 0
        )

    def grid(self, resolution: int | None) -> list[Any]:
        if self._ends is not None and self.grid_size(resolution) == self.size:
            return [self._value(k) for k in range(self._ends[0], self._ends[1] + 1)]
        if self._ends is not None:
            # Coarser than the lattice on a log scale, neighbours may round to one value.
            return list(dict.fromkeys(super().grid(resolution)))
        count = self.grid_size(resolution)
        return list(dict.fromkeys(self.from_unit([(i + 0.5) / count]) for i in range(count)))

    def describe(self) -> dict[str, Any]:
        return {"method": self._method, "dimension": dict(self._dimension)}


class Choice(Domain):
    """One of a list of JSON values, in no order; at least two."""

    step = 1.0

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(values)
        self.size = self.features = len(self.values)
        self._index = {canonical(v): i for i, v in enumerate(self.values)}

    def _take(self, index: int) -> Any:
        value = self.values[index]
        # A list handed out must not let its receiver change the space.
        return copy.deepcopy(value) if isinstance(value, (list, dict)) else value

    def _find(self, value: Any) -> int:
        index = self._index.get(canonical(value))
        if index is None and is_number(value):
            equal = (i for i, v in enumerate(self.values) if is_number(v) and v == value)
            index = next(equal, None)
        if index is None:
            raise ValueError(f"one of {', '.join(map(canonical, self.values))}")
        return index

    def from_unit(self, u: Sequence[float]) -> Any:
        count = len(self.values)
        return self._take(min(int(u[0] * count), count - 1))

    def to_unit(self, value: Any) -> list[float]:
        return [(self._find(value) + 0.5) / len(self.values)]

    def check(self, value: Any) -> Any:
        return self._take(self._find(value))

    def encode(self, value: Any) -> list[float]:
        hot = self._find(value)
        return [1.0 if i == hot else 0.0 for i in range(self.features)]

    def encode_absent(self) -> list[float]:
        return [0.0] * self.features

    def grid_size(self, resolution: int | None) -> int:
        return len(self.values)  # values without an order cannot be thinned out

    def describe(self) -> dict[str, Any]:
        return {"method": "categorical", "dimension": {"categories": copy.deepcopy(self.values)}}


class Fixed(Domain):
    """One value, passed on to every trial."""

    dims, size, features = 0, 1, 0

    def __init__(self, value: Any) -> None:
        self.value = value

    def from_unit(self, u: Sequence[float]) -> Any:
        return copy.deepcopy(self.value)

    def to_unit(self, value: Any) -> list[float]:
        return []

    def check(self, value: Any) -> Any:
        both_numbers = is_number(value) and is_number(self.value)
        same = value == self.value if both_numbers else canonical(value) == canonical(self.value)
        if not same:
            raise ValueError(f"{canonical(self.value)}, which is fixed")
        return copy.deepcopy(self.value)

    def describe(self) -> dict[str, Any]:
        return {"method": "fixed", "dimension": {"value": copy.deepcopy(self.value)}}


class Array(Domain):
    """A (nested) list of floats that share one distribution: iDDS's Array.

    Args:
        element: the domain of each number.
        shape: lengths of the nested lists, outermost first.
        spec: the entry in iDDS's dialect; the unified one has no arrays.
    """

    def __init__(self, element: Real, shape: Sequence[int], spec: Mapping[str, Any]) -> None:
        self._element, self._shape, self._spec = element, tuple(shape), spec
        self.dims = self.features = math.prod(shape)

    def _nest(self, flat: list[Any]) -> list[Any]:
        for length in self._shape[:0:-1]:
            flat = [flat[i : i + length] for i in range(0, len(flat), length)]
        return flat

    def _flatten(self, value: Any, shape: tuple[int, ...]) -> list[Any]:
        if not shape:
            return [value]
        if not isinstance(value, list) or len(value) != shape[0]:
            raise ValueError(f"a list of shape {list(self._shape)}")
        return [x for item in value for x in self._flatten(item, shape[1:])]

    def from_unit(self, u: Sequence[float]) -> list[Any]:
        return self._nest([self._element.from_unit([x]) for x in u])

    def to_unit(self, value: Any) -> list[float]:
        return [self._element.to_unit(x)[0] for x in self._flatten(value, self._shape)]

    def check(self, value: Any) -> list[Any]:
        return self._nest([self._element.check(x) for x in self._flatten(value, self._shape)])

    def scaled(self, value: Any, factor: float) -> list[Any]:
        return self._nest(
            [self._element.scaled(x, factor) for x in self._flatten(value, self._shape)]
        )

    def grid_size(self, resolution: int | None) -> int:
        return math.prod([self._element.grid_size(resolution)] * self.dims)

    def grid(self, resolution: int | None) -> list[Any]:
        each = self._element.grid(resolution)
        return [self._nest(list(flat)) for flat in itertools.product(each, repeat=self.dims)]

    def describe(self) -> dict[str, Any]:
        return copy.deepcopy(dict(self._spec))
