"""Conditions and constraints: Python-like expressions over parameter names.

Text is parsed by ``ast`` and turned into closures over an allowed set of nodes, so nothing of
Python can be reached from a study file but comparison, logic, arithmetic, literals and
``min``, ``max``, ``abs``.

A parameter that is absent from a point makes the comparison it stands in *unknown*. ``and``,
``or`` and ``not`` treat unknown as three-valued logic does, so the order of operands does not
matter.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hpc_hpo.space.reading import nearest

MAX_LENGTH = 1000
_Evaluate = Callable[[Mapping[str, Any]], Any]


class ExpressionError(ValueError):
    """The text is not an expression of this small language; the message says why."""


class _Absent:
    """The value of a parameter that is not part of the point, and of what is built on it."""


ABSENT = _Absent()


def _numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Arithmetic for numbers alone: Python's also repeats and joins strings and lists."""

    def checked(*operands: Any) -> Any:
        for operand in operands:
            if not isinstance(operand, (int, float)):
                raise TypeError(f"arithmetic with {operand!r}")
        return function(*operands)

    return checked


def _power(base: Any, exponent: Any) -> Any:
    # Integer powers have no size limit in Python; floats overflow instead of filling memory.
    if abs(exponent) > 100 or abs(base) > 1e9:
        base = float(base)
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("a fractional power of a negative number")
    return result


_ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _numbers(operator.add),
    ast.Sub: _numbers(operator.sub),
    ast.Mult: _numbers(operator.mul),
    ast.Div: _numbers(operator.truediv),
    ast.FloorDiv: _numbers(operator.floordiv),
    ast.Mod: _numbers(operator.mod),
    ast.Pow: _numbers(_power),
    ast.USub: _numbers(operator.neg),
    ast.UAdd: _numbers(operator.pos),
}
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": _numbers(min),
    "max": _numbers(max),
    "abs": _numbers(abs),
}


def _strict(function: Callable[..., Any], operands: list[_Evaluate]) -> _Evaluate:
    """Apply `function`; the result is unknown when an operand is."""

    def evaluate(point: Mapping[str, Any]) -> Any:
        values = [operand(point) for operand in operands]
        return ABSENT if any(v is ABSENT for v in values) else function(*values)

    return evaluate


def _logic(decisive: bool, operands: list[_Evaluate]) -> _Evaluate:
    """``or`` (decisive True) or ``and`` (decisive False) in three-valued logic."""

    def evaluate(point: Mapping[str, Any]) -> Any:
        unknown = False
        for operand in operands:
            value = operand(point)
            if value is ABSENT:
                unknown = True
            elif bool(value) is decisive:
                return decisive
        return ABSENT if unknown else not decisive

    return evaluate


def _chain(operators: list[Callable[[Any, Any], Any]], operands: list[_Evaluate]) -> _Evaluate:
    """``a < b <= c``."""

    def compare(*values: Any) -> bool:
        return all(
            test(left, right)
            for test, left, right in zip(operators, values, values[1:], strict=False)
        )

    return _strict(compare, operands)


class _Compiler:
    """Turns one parsed expression into a closure and notes the names it uses."""

    def __init__(self, names: Collection[str], text_values: Collection[str]) -> None:
        self.names, self.text_values = names, text_values
        self.used: set[str] = set()

    def build(self, node: ast.AST) -> _Evaluate:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                constant = node.value
                return lambda point: constant
            case ast.Name(id=name):
                return self._name(name)
            case ast.BoolOp(op=op, values=values):
                return _logic(isinstance(op, ast.Or), [self.build(v) for v in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _strict(operator.not_, [self.build(operand)])
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _ARITHMETIC:
                return _strict(_ARITHMETIC[type(op)], [self.build(operand)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _strict(_ARITHMETIC[type(op)], [self.build(left), self.build(right)])
            case ast.Compare(left=left, ops=ops, comparators=others) if all(
                type(op) in _COMPARISONS for op in ops
            ):
                operands = [self.build(n) for n in (left, *others)]
                return _chain([_COMPARISONS[type(op)] for op in ops], operands)
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return _strict(lambda *values: list(values), [self.build(i) for i in items])
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return self._call(name, args)
        raise ExpressionError(
            f"{ast.unparse(node)!r} is not allowed; valid: names of parameters, literals, "
            "comparisons, in, and, or, not, + - * / // % **, min, max, abs"
        )

    def _name(self, name: str) -> _Evaluate:
        if name not in self.names:
            hint = nearest(name, [*self.names, *_FUNCTIONS, "True", "False", "None"])
            if name in self.text_values:
                hint = f"; to compare with the text, write {name!r} in quotes"
            raise ExpressionError(f"unknown name {name!r}{hint}")
        self.used.add(name)
        return lambda point: point.get(name, ABSENT)

    def _call(self, name: str, args: list[ast.expr]) -> _Evaluate:
        if (len(args) != 1) if name == "abs" else (len(args) < 2):
            needs = "one value" if name == "abs" else "two values or more"
            raise ExpressionError(f"{name}() takes {needs}")
        return _strict(_FUNCTIONS[name], [self.build(a) for a in args])


class Expression:
    """A condition or constraint.

    Args:
        text: at most MAX_LENGTH characters.
        names: the parameters that may be used.
        text_values: values of choices, to recognise a text whose quotes were forgotten.

    Attributes:
        text: as written.
        used: names of the parameters it needs.

    Raises:
        ExpressionError: a syntax error, a node that is not allowed, an unknown name.
    """

    def __init__(
        self, text: str, names: Collection[str], text_values: Collection[str] = ()
    ) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionError(f"longer than {MAX_LENGTH} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval")
            compiler = _Compiler(names, text_values)
            self._evaluate = compiler.build(tree.body)
        except SyntaxError as error:
            raise ExpressionError(f"not an expression: {error.msg}") from error
        except (RecursionError, MemoryError) as error:
            raise ExpressionError("nested too deeply") from error
        self.text = text.strip()
        self.used = frozenset(compiler.used)

    def evaluate(self, point: Mapping[str, Any]) -> bool | None:
        """Its truth for `point`; None when it needs an absent parameter.

        Raises:
            TypeError: values that cannot be compared or calculated with.
            ArithmeticError, ValueError: a division by zero, an overflow.
        """
        value = self._evaluate(point)
        return None if value is ABSENT else bool(value)

    def number(self, point: Mapping[str, Any]) -> int:
        """Its value for `point` as a whole number.

        Raises:
            ValueError: it needs an absent parameter, or is no whole number.
        """
        try:
            value = self._evaluate(point)
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"{self.text}: {error}") from error
        if value is ABSENT:
            absent = sorted(self.used - set(point))
            raise ValueError(f"{self.text}: {', '.join(absent)} is not part of this point")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise ValueError(f"{self.text} is {value!r}, not a whole number")
        return int(value)

    def holds(self, point: Mapping[str, Any], *, when_absent: bool) -> bool:
        """Its truth; `when_absent` where it needs an absent parameter, False where it fails."""
        try:
            truth = self.evaluate(point)
        except (TypeError, ArithmeticError, ValueError):
            return False
        return when_absent if truth is None else truth
