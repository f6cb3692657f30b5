"""Reading values that a person wrote: problems are collected, numbers are recognised.

YAML 1.1 reads ``1e-5`` and ``1.0e5`` as text (a float needs a dot and a signed exponent), so
plain decimal text is accepted wherever a number is needed. What could mean two things
(``010``, ``1_000``, ``1:30``) is refused.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hpc_hpo.errors import InputError, InputErrors

LineOf = Callable[[str], "int | None"]

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def nearest(word: object, valid: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'low'?``, or nothing when no valid word is similar."""
    close = difflib.get_close_matches(str(word), list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def is_number(value: Any) -> bool:
    """True for an int or a float; a bool is not a number here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def looks_like_exponent(text: str) -> bool:
    """True for text such as ``1e-5``: a number to a person, a string to YAML 1.1."""
    return bool(_DECIMAL.fullmatch(text)) and "e" in text.lower()


def parse_number(value: Any) -> int | float | None:
    """The finite number that `value` plainly is, or None.

    ``"8"`` gives an int, ``"1e3"`` a float.
    """
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text)
        if not _DECIMAL.fullmatch(text):
            return None
        value = float(text)
    if not is_number(value):
        return None
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None
    return int(value)


def plain(value: Any) -> Any:
    """`value` as plain JSON types: numpy scalars become Python's, tuples become lists.

    Raises:
        ValueError: it is not a JSON value (a date, NaN, a key that is not text).
    """
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, float) and math.isfinite(value):
        return value + 0.0  # -0.0 and 0.0 are one value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise ValueError(f"{value!r} is not a JSON value")


class Problems:
    """Collects every problem of one file, so that one edit mends them all.

    Args:
        file: named in each error.
        line_of: the line of a key path, or None when the file does not have it; a missing
            key is then reported at its nearest parent's line.
    """

    def __init__(self, file: str | None = None, line_of: LineOf | None = None) -> None:
        self._file, self._line_of = file, line_of
        self.errors: list[InputError] = []

    def add(
        self,
        key: str,
        problem: str,
        *,
        found: Any = None,
        valid: str | Sequence[str] | None = None,
    ) -> None:
        """Note one problem at the key path `key`."""
        self.errors.append(
            InputError(
                problem, file=self._file, line=self._line(key), key=key, found=found, valid=valid
            )
        )

    def _line(self, key: str) -> int | None:
        if self._line_of is None:
            return None
        while key:
            line = self._line_of(key)
            if line is not None:
                return line
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return None

    def raise_any(self) -> None:
        """Raise what was collected.

        Raises:
            InputErrors: at least one problem was noted.
        """
        if self.errors:
            raise InputErrors(self.errors)


class Section:
    """One mapping of the user's file, read key by key; None stands for a noted problem."""

    def __init__(self, content: Mapping[Any, Any], key: str, problems: Problems) -> None:
        self.content, self.key, self.problems = content, key, problems

    def path(self, name: str) -> str:
        """The key path of the entry `name`."""
        return f"{self.key}.{name}"

    def only(self, required: Sequence[str], optional: Sequence[str] = ()) -> bool:
        """Note unknown and missing keys; True when there are none."""
        valid = [*required, *optional]
        before = len(self.problems.errors)
        for name in self.content:
            if name not in valid:
                self.problems.add(
                    self.path(str(name)),
                    f"unknown key {name!r}{nearest(name, valid)}",
                    valid=valid or "nothing",
                )
        for name in required:
            if name not in self.content:
                self.problems.add(self.path(name), f"{name!r} is missing", valid=valid)
        return len(self.problems.errors) == before

    def number(self, name: str) -> int | float | None:
        """A finite number."""
        number = parse_number(self.content[name])
        if number is None:
            self.problems.add(
                self.path(name),
                "not a plain finite number",
                found=self.content[name],
                valid="a number such as 3 or 1.0e-5",
            )
        return number

    def real(self, name: str) -> float | None:
        """A finite number as a float."""
        number = self.number(name)
        return None if number is None else float(number)

    def integer(self, name: str) -> int | None:
        """A whole number; 4.0 counts as 4."""
        number = parse_number(self.content[name])
        if number is None or number != int(number):
            self.problems.add(
                self.path(name),
                "not a whole number",
                found=self.content[name],
                valid="an integer such as 4",
            )
            return None
        return int(number)

    def flag(self, name: str) -> bool | None:
        """True or false (also 0 and 1); False when absent."""
        value = self.content.get(name, False)
        if value not in (True, False):
            self.problems.add(
                self.path(name), "not a truth value", found=value, valid="true, false"
            )
            return None
        return bool(value)
