"""The search space: named parameters with their conditions, and constraints over them.

A parameter whose condition is false is absent from the point. A condition that needs an
absent parameter is false; a constraint that needs one does not apply.
"""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point
from hpc_hpo.space.conditions import ExpressionReader, refuse_cycles, type_error
from hpc_hpo.space.dialects import read_domain
from hpc_hpo.space.domains import Choice, Domain, canonical
from hpc_hpo.space.expressions import Expression
from hpc_hpo.space.reading import LineOf, Problems, nearest, plain

#: Spaces of at most this many assignments are enumerated where that helps.
MAX_ENUMERATED = 100_000
#: Draws until a constraint counts as one that nothing satisfies.
MAX_DRAWS = 10_000
_PROBES = 64


@dataclass(frozen=True, slots=True)
class Parameter:
    """One entry of the space."""

    name: str
    domain: Domain
    condition: Expression | None = None


class Space:
    """What may be asked for.

    Use Space.parse; the constructor takes checked parts.

    Attributes:
        names: the parameters in the order of the file; a point's keys keep it.
        constraints: texts of the constraints.
        dims: number of unit dimensions: one for each parameter that is not fixed (an iDDS
            array has one for each of its numbers).
        features: columns of encode().
        steps: shape (dims,): how far apart neighbouring values lie in the unit interval: 0 for
            floats, 1 for choices, which have no neighbours.
    """

    def __init__(
        self, parameters: Sequence[Parameter], constraints: Sequence[Expression] = ()
    ) -> None:
        self._parameters = {p.name: p for p in parameters}
        self._constraints = list(constraints)
        self.names = [p.name for p in parameters]
        self.constraints = [c.text for c in constraints]
        self._order = _by_need(parameters)
        self._in_order = [p.name for p in self._order] == self.names
        self._offsets: dict[str, int] = {}
        offset = 0
        for p in parameters:
            self._offsets[p.name] = offset
            offset += p.domain.dims
        self.dims = offset
        self.features = sum(p.domain.features + self._flagged(p) for p in parameters)
        steps = [[p.domain.step] * p.domain.dims for p in parameters]
        self.steps = np.array([s for some in steps for s in some], dtype=float)
        self._cardinality: int | None = None

    def __len__(self) -> int:
        """Number of parameters, fixed ones included."""
        return len(self.names)

    # ---------------------------------------------------------------- parsing

    @classmethod
    def parse(
        cls,
        spec: Mapping[str, Any],
        *,
        constraints: str | Sequence[str] | None = None,
        file: str | None = None,
        key: str = "space",
        constraints_key: str = "constraint",
        line_of: LineOf | None = None,
    ) -> Space:
        """The space that `spec` describes, in any mixture of the dialects.

        Args:
            spec: parameter name to its entry (see dialects).
            constraints: expressions that every point must satisfy.
            file, key, constraints_key, line_of: say in errors where the text stands.

        Raises:
            InputErrors: every problem found.
        """
        problems = Problems(file, line_of)
        if not isinstance(spec, Mapping) or not spec:
            problems.add(
                key,
                "the search space is empty" if not spec else "not a mapping",
                found=spec or None,
                valid="at least one parameter, such as lr: {float: [0, 1]}",
            )
        problems.raise_any()
        found: dict[str, Domain] = {}
        for name, entry in spec.items():
            if not isinstance(name, str) or not name.strip():
                problems.add(
                    f"{key}.{name}",
                    "the name is not text",
                    found=name,
                    valid="text; put it in quotes",
                )
                continue
            domain = read_domain(entry, f"{key}.{name}", problems)
            if domain is not None:
                found[name] = domain
        texts = [constraints] if isinstance(constraints, str) else constraints or []
        reader = ExpressionReader(list(map(str, spec)), found, problems)
        conditions = {
            name: reader.read(entry["condition"], f"{key}.{name}.condition")
            for name, entry in spec.items()
            if isinstance(entry, Mapping) and "condition" in entry
        }
        where = [
            constraints_key if texts is not constraints else f"{constraints_key}[{i}]"
            for i in range(len(texts))
        ]
        limits = [reader.read(text, at) for text, at in zip(texts, where, strict=True)]
        refuse_cycles(conditions, key, problems)
        problems.raise_any()
        space = cls(
            [Parameter(name, domain, conditions.get(name)) for name, domain in found.items()],
            [limit for limit in limits if limit is not None],
        )
        space._probe(key, where, problems)
        problems.raise_any()
        return space

    def _probe(self, key: str, where: Sequence[str], problems: Problems) -> None:
        """Note expressions that compare what cannot be compared, or that nothing satisfies."""
        checks = [(c, at) for c, at in zip(self._constraints, where, strict=True)]
        checks += [(p.condition, f"{key}.{p.name}.condition") for p in self._order if p.condition]
        if not checks:
            return
        rng = np.random.default_rng(0)
        points = [self.from_unit(rng.random(self.dims)) for _ in range(_PROBES)]
        for expression, at in checks:
            error = next((e for e in (type_error(expression, p) for p in points) if e), None)
            if error:
                problems.add(
                    at,
                    f"cannot be evaluated: {error}",
                    found=expression.text,
                    valid="numbers with numbers, text with text",
                )
        problems.raise_any()
        if self._constraints:
            try:
                self.sample(rng)
            except InputError as error:
                problems.add(
                    where[0],
                    error.problem,
                    found=self.constraints,
                    valid="constraints that some points satisfy",
                )

    def describe(self) -> dict[str, Any]:
        """The space in the unified dialect; ``Space.parse(s.describe(),
        constraints=s.constraints)`` gives an equal space."""
        described = {}
        for name in self.names:
            p = self._parameters[name]
            described[name] = p.domain.describe()
            if p.condition:
                described[name]["condition"] = p.condition.text
        return described

    # ---------------------------------------------------------------- points

    def _assign(self, value_of: Callable[[Parameter], Any]) -> Point:
        values: Point = {}
        for p in self._order:
            if p.condition is None or p.condition.holds(values, when_absent=False):
                values[p.name] = value_of(p)
        if self._in_order:
            return values
        return {name: values[name] for name in self.names if name in values}

    def from_unit(self, u: np.ndarray) -> Point:
        """The point at `u`, shape (dims,), in [0, 1]. Constraints are not looked at."""
        flat: list[float] = np.asarray(u, dtype=float).tolist()

        def value_of(p: Parameter) -> Any:
            at = self._offsets[p.name]
            return p.domain.from_unit(flat[at : at + p.domain.dims])

        return self._assign(value_of)

    def derived(self, value_of: Callable[[str, Domain], Any]) -> Point:
        """The point of these values, without the parameters whose condition does not hold.
        Constraints are not looked at."""
        return self._assign(lambda p: value_of(p.name, p.domain))

    def to_unit(self, point: Mapping[str, Any], absent: float = 0.5) -> np.ndarray:
        """Unit coordinates, shape (dims,), of a valid point; `absent` for absent parameters."""
        u = np.full(self.dims, absent)
        for name, value in point.items():
            domain, at = self._parameters[name].domain, self._offsets[name]
            u[at : at + domain.dims] = domain.to_unit(value)
        return u

    def domain(self, name: str) -> Domain:
        """The values of one parameter."""
        return self._parameters[name].domain

    def allows(self, point: Mapping[str, Any]) -> bool:
        """True when every constraint holds or needs a parameter that is absent."""
        return all(c.holds(point, when_absent=True) for c in self._constraints)

    def sample(self, rng: np.random.Generator) -> Point:
        """A random point by the parameters' distributions that satisfies the constraints.

        Raises:
            InputError: none was found in MAX_DRAWS tries, nor by looking at every point of a
                space small enough for that.
        """
        for _ in range(MAX_DRAWS):
            point = self.from_unit(rng.random(self.dims))
            if self.allows(point):
                return point
        points = list(self.grid(None)) if self.enumerable() else []
        if not points:
            raise InputError(
                f"no point satisfies the constraints in {MAX_DRAWS} tries",
                key="constraint",
                found=self.constraints,
            )
        return points[int(rng.integers(len(points)))]

    def validate(self, point: Mapping[str, Any]) -> Point:
        """`point` with canonical plain values, in the order of names.

        Raises:
            InputErrors: unknown, missing or absent-by-condition parameters, values outside
                their domain (by more than rounding), a constraint that does not hold.
        """
        problems = Problems()
        for name in point:
            if name not in self._parameters:
                problems.add(
                    str(name), f"unknown parameter{nearest(name, self.names)}", valid=self.names
                )
        values: Point = {}
        failed: set[str] = set()
        for p in self._order:
            if p.condition and failed & p.condition.used:
                failed.add(p.name)  # whether it belongs to the point cannot be said
            elif p.condition and not p.condition.holds(values, when_absent=False):
                if p.name in point:
                    problems.add(
                        p.name,
                        "given although its condition does not hold",
                        found=point[p.name],
                        valid=f"only if {p.condition.text}",
                    )
            elif p.name not in point:
                problems.add(p.name, "the point lacks this parameter")
                failed.add(p.name)
            else:
                try:
                    values[p.name] = p.domain.check(plain(point[p.name]))
                except (ValueError, OverflowError) as error:
                    problems.add(p.name, "not a valid value", found=point[p.name], valid=str(error))
                    failed.add(p.name)
        for c in [] if problems.errors else self._constraints:
            if not c.holds(values, when_absent=True):
                problems.add(
                    ", ".join(sorted(c.used)),
                    "a constraint does not hold",
                    found=values,
                    valid=c.text,
                )
        problems.raise_any()
        return {name: values[name] for name in self.names if name in values}

    def key(self, point: Mapping[str, Any]) -> str:
        """Equal for equal valid points: a digest of their canonical JSON, whose 96 bits are a
        third of its memory; no two of a billion points share one by accident."""
        text = canonical(point).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=12).hexdigest()

    # ---------------------------------------------------------------- counting

    def grid_size(self, resolution: int | None) -> int:
        """Upper bound of the number of points of grid().

        Raises:
            ValueError: `resolution` is None and a parameter is continuous.
        """
        size = 1
        for p in self._order:
            size *= p.domain.grid_size(resolution)
        return size

    def enumerable(self) -> bool:
        """True when all points can be listed by ``grid(None)`` at little cost."""
        finite = all(p.domain.size is not None for p in self._order)
        return finite and self.grid_size(None) <= MAX_ENUMERATED

    def cardinality(self) -> int | None:
        """Number of points; None when a parameter has no end of values.

        Exact for a space without conditions and constraints, and for others of at most
        MAX_ENUMERATED assignments (they are enumerated once); an upper bound beyond.
        """
        if any(p.domain.size is None for p in self._order):
            return None
        if self._cardinality is None:
            plain_product = not self._constraints and not any(p.condition for p in self._order)
            if plain_product or not self.enumerable():
                self._cardinality = self.grid_size(None)
            else:
                self._cardinality = sum(1 for _ in self.grid(None))
        return self._cardinality

    def grid(self, resolution: int | None) -> Iterator[Point]:
        """Every combination of the parameters' grids, each once, the last name fastest.

        Args:
            resolution: values of each parameter, at least 2; a parameter with fewer gives
                all of its own, and so does every choice. None: all values of all of them.

        Raises:
            ValueError: a resolution below 2, or None with a continuous parameter.
        """
        if resolution is not None and resolution < 2:
            raise ValueError(f"a grid needs a resolution of at least 2, not {resolution}")
        values = {p.name: p.domain.grid(resolution) for p in self._order}
        yield from self._branch(0, {}, values)

    def _branch(self, depth: int, point: Point, values: Mapping[str, list[Any]]) -> Iterator[Point]:
        if depth == len(self._order):
            if self.allows(point):
                yield {name: point[name] for name in self.names if name in point}
            return
        p = self._order[depth]
        if p.condition is not None and not p.condition.holds(point, when_absent=False):
            yield from self._branch(depth + 1, point, values)
            return
        for value in values[p.name]:
            yield from self._branch(depth + 1, {**point, p.name: value}, values)

    # ---------------------------------------------------------------- surrogates

    @staticmethod
    def _flagged(p: Parameter) -> bool:
        """Conditional numbers have one more feature: 1 when present, 0 when absent. A choice
        needs none, because all its columns are 0 when it is absent."""
        return p.condition is not None and p.domain.dims > 0 and not isinstance(p.domain, Choice)

    def encode(self, points: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Features of valid points for a surrogate, shape (n, features), each in [0, 1].

        Numbers are on their own scale (log where their distribution is), choices one-hot.
        """
        rows = []
        for point in points:
            row: list[float] = []
            for name in self.names:
                p = self._parameters[name]
                present = name in point
                row += p.domain.encode(point[name]) if present else p.domain.encode_absent()
                if self._flagged(p):
                    row.append(1.0 if present else 0.0)
            rows.append(row)
        return np.array(rows, dtype=float).reshape(len(rows), self.features)


def _by_need(parameters: Sequence[Parameter]) -> list[Parameter]:
    """The parameters in an order in which each condition uses earlier ones; as given if it is."""
    seen: set[str] = set()
    for p in parameters:
        if p.condition and not p.condition.used <= seen:
            break
        seen.add(p.name)
    else:
        return list(parameters)
    by_name = {p.name: p for p in parameters}
    needs = {p.name: sorted(p.condition.used) if p.condition else [] for p in parameters}
    return [by_name[name] for name in graphlib.TopologicalSorter(needs).static_order()]
