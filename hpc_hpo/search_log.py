"""The order in which trials were asked, told and paused, in a few bytes for each entry."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

#: What may happen to a trial, as its entry in the log says.
KINDS = ("asked", "heard", "told", "rung", "on")
_CODES = {kind: code for code, kind in enumerate(KINDS)}


class SearchLog:
    """(what, trial) pairs that only grow. A list of tuples would take nine times the memory, which
    counts at millions of trials."""

    __slots__ = ("_codes", "_trials")
    __hash__ = None  # type: ignore[assignment]  # it grows

    def __init__(self) -> None:
        self._codes = array("B")
        self._trials = array("q")

    def append(self, kind: str, trial: int) -> None:
        """Add an entry.

        Raises:
            KeyError: a kind that is none of KINDS.
        """
        self._codes.append(_CODES[kind])
        self._trials.append(trial)

    def since(self, place: int) -> Iterator[tuple[str, int]]:
        """The entries from number `place` on, in order."""
        for index in range(place, len(self._trials)):
            yield KINDS[self._codes[index]], self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return self.since(0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SearchLog):
            return NotImplemented
        return self._codes == other._codes and self._trials == other._trials

    def __repr__(self) -> str:
        return f"SearchLog({list(self)})"
