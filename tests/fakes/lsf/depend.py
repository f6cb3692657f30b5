"""Dependency expressions of ``bsub -w``: ``done(1) && (ended(2) || !exit(3))``, a bare id."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.fakes.lsf.state import DONE, EXIT, FINISHED, STARTED

_TOKEN = re.compile(r"\s*(?:(done|ended|exit|started)\s*\(\s*(\d+)\s*\)|(\d+)|(&&|\|\||!|\(|\)))")
_HOLDS: dict[str, Callable[[str], bool]] = {
    "done": lambda state: state == DONE,
    "exit": lambda state: state == EXIT,
    "ended": lambda state: state in FINISHED,
    "started": lambda state: state in STARTED + FINISHED,
}

StateOf = Callable[[int], str]
Condition = Callable[[StateOf], bool]


class BadDependency(ValueError):
    """The expression cannot be read."""


def _tokens(text: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    text, at = text.rstrip(), 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadDependency(text)
        word, inside, bare, sign = match.groups()
        # A bare id means done(), says the user guide.
        found.append((word or sign or "done", int(inside or bare or 0)))
        at = match.end()
    return found


def _test(word: str, job: int) -> Condition:
    return lambda state_of: _HOLDS[word](state_of(job))


def _either(left: Condition, right: Condition) -> Condition:
    return lambda state_of: left(state_of) or right(state_of)


def _both(left: Condition, right: Condition) -> Condition:
    return lambda state_of: left(state_of) and right(state_of)


class Dependency:
    """A parsed expression.

    Attributes:
        ids: the jobs it names.

    Raises:
        BadDependency: it is not one.
    """

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        named = [token for token in self._rest if token[0] in _HOLDS]
        self._only = named[0] if len(self._rest) == 1 and named else None
        self.ids = {job for _, job in named}
        self._holds = self._read_either()
        if self._rest:
            raise BadDependency(text)

    def _take(self, word: str) -> bool:
        if self._rest and self._rest[0][0] == word:
            self._rest.pop(0)
            return True
        return False

    def _read_either(self) -> Condition:
        condition = self._read_both()
        while self._take("||"):
            condition = _either(condition, self._read_both())
        return condition

    def _read_both(self) -> Condition:
        condition = self._read_one()
        while self._take("&&"):
            condition = _both(condition, self._read_one())
        return condition

    def _read_one(self) -> Condition:
        if self._take("!"):
            denied = self._read_one()
            return lambda state_of: not denied(state_of)
        if self._take("("):
            condition = self._read_either()
            if not self._take(")"):
                raise BadDependency("unbalanced parentheses")
            return condition
        if self._rest and self._rest[0][0] in _HOLDS:
            return _test(*self._rest.pop(0))
        raise BadDependency("a condition is missing")

    def holds(self, state_of: StateOf) -> bool:
        """Whether the job may start; `state_of` gives the state of a job by its id."""
        return self._holds(state_of)

    def never(self, state_of: StateOf) -> bool:
        """Whether a single condition can no longer come true, which is all that LSF notices."""
        if self._only is None:
            return False
        word, job = self._only
        return (word, state_of(job)) in (("done", EXIT), ("exit", DONE))
