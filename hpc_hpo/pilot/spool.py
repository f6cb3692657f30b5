"""Reads what workers and block supervisors left in the spool.

Completion comes from what a worker wrote, never from a scheduler's job state alone. Each
reader remembers how far it has read each file, so looking again costs only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import unseal

#: A slice's name within a study: (trial, slice number).
SliceKey = tuple[int, int]


class SpoolReader:
    """New records of the spool's files, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def read(self, pattern: str) -> Iterator[dict[str, Any]]:
        """Whole new records of the files matching `pattern`; damaged ones are passed over.

        A damaged record is as good as none: its slice counts as lost and is run again.
        """
        for path in sorted(self._folder.glob(pattern)):
            with open(path, "rb") as stream:
                stream.seek(self._offsets.get(path, 0))
                data = stream.read()
            # A last line without its end may still be in writing: it is left for next time.
            whole = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(whole)
            for line in whole.split(b"\n")[:-1]:
                record = unseal(line)
                if record is not None:
                    yield record


class SliceLog:
    """Which slices began and ended on a block, by their workers' own words.

    A spool has all slices of a run, a study of a million trials as many outcomes: only those that
    somebody waits for are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._reader = SpoolReader(folder)
        self.started: dict[SliceKey, dict[str, Any]] = {}
        self.ended: dict[SliceKey, dict[str, Any]] = {}

    def update(self, pattern: str, wanted: Callable[[SliceKey], bool]) -> None:
        """Read what is new in the matching worker spools, and keep what is wanted of it."""
        for record in self._reader.read(pattern):
            if "trial" not in record:
                continue
            key = (record["trial"], record["slice"])
            if record["e"] == "end":
                self.started.pop(key, None)
            if not wanted(key):
                continue
            if record["e"] == "start":
                self.started[key] = record
            elif record["e"] == "end":
                self.ended[key] = {k: v for k, v in record.items() if k != "e"}
