"""Reading the conditions and constraints of one space."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_hpo.model import Point
from hpc_hpo.space.domains import Choice, Domain
from hpc_hpo.space.expressions import Expression, ExpressionError
from hpc_hpo.space.reading import Problems


class ExpressionReader:
    """Reads conditions and constraints against the names of one space."""

    def __init__(
        self, names: Sequence[str], domains: Mapping[str, Domain], problems: Problems
    ) -> None:
        self._names, self._problems = names, problems
        self._texts = {
            value
            for domain in domains.values()
            if isinstance(domain, Choice)
            for value in domain.values
            if isinstance(value, str)
        }

    def read(self, text: Any, key: str) -> Expression | None:
        """The expression, or None after noting a problem."""
        if not isinstance(text, str):
            self._problems.add(
                key, "not an expression", found=text, valid='text such as "layers >= 2"'
            )
            return None
        try:
            return Expression(text, self._names, self._texts)
        except ExpressionError as error:
            self._problems.add(key, str(error), found=text)
            return None


def type_error(expression: Expression, point: Point) -> str | None:
    """Why `expression` cannot be evaluated for `point`; None when it can."""
    try:
        expression.evaluate(point)
    except TypeError as error:
        return str(error)
    except (ArithmeticError, ValueError):
        return None  # of this point's numbers, not of the expression
    return None


def refuse_cycles(
    conditions: Mapping[str, Expression | None], key: str, problems: Problems
) -> None:
    """Note conditions that need one another."""
    graph = {name: c.used for name, c in conditions.items() if c is not None}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        cycle = list(reversed(error.args[1]))
        problems.add(
            f"{key}.{cycle[0]}.condition",
            "conditions go round in a circle",
            found=" -> ".join(cycle),
            valid="conditions on earlier parameters",
        )
