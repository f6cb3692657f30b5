"""What people ask for segments while a study runs, or before it runs again.

Each request is a small file in the study folder. The steering process journals it, and then
removes the file; one that was journalled by a process which died before that is not heeded twice.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, Protocol

from hpc_hpo.errors import HpoError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import storage_error, write_atomic
from hpc_hpo.journal import Event, StudyState
from hpc_hpo.steering.search import Search

#: What may be asked for.
OPERATIONS = ("add", "stop", "resume", "rerun", "budget")
#: The folder is looked at this often, in seconds.
LOOK_S = 1.0


class Requests(Protocol):
    """Where requests come from."""

    def events(self, state: StudyState, known: Container[str | None]) -> list[Event]:
        """What was asked for since the last call, as events; those that cannot be are `refused`.

        Args:
            known: the segments there are.
        """

    def search(self, name: str) -> Search:
        """The search of a segment that was added."""

    def heeded(self) -> None:
        """What `events` gave last is in the journal for good."""


class _Nothing:
    """Nobody asks for anything."""

    def events(self, state: StudyState, known: Container[str | None]) -> list[Event]:
        return []

    def search(self, name: str) -> Search:
        raise KeyError(name)

    def heeded(self) -> None:
        return


NO_REQUESTS: Requests = _Nothing()


def room(folder: StudyFolder) -> Path:
    """Where the requests are."""
    return folder.control / "segments"


def write_request(folder: StudyFolder, op: str, segment: str, **facts: Any) -> Path:
    """Leave a request for the steering process, or for the next one.

    Args:
        facts: `spec` of op add (as an entry of ``segments.list``), `trials` of op budget.

    Raises:
        StorageError: the folder cannot be written.
    """
    place = room(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(place, error) from error
    path = place / f"{time.time_ns():020d}-{os.getpid()}.json"
    write_atomic(path, json.dumps({"op": op, "segment": segment, **facts}))
    return path


def pending(folder: StudyFolder) -> list[tuple[Path, dict[str, Any]]]:
    """The requests that were not heeded yet, in the order in which they were made."""
    found = []
    try:
        names = sorted(os.listdir(room(folder)))
    except OSError:
        return []
    for name in names:
        path = room(folder) / name
        if path.suffix != ".json":
            continue  # being written
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            content = None
        found.append((path, content if isinstance(content, dict) else {}))
    return found


class FolderRequests:
    """Requests as files of the study folder; see Requests.

    Args:
        extend: makes the search of a segment from its specification.
        now: seconds; to look into the folder no more often than every LOOK_S.
    """

    def __init__(
        self,
        folder: StudyFolder,
        extend: Callable[[dict[str, Any]], Search],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._extend, self._now = folder, extend, now
        self._next_look = float("-inf")
        self._taken: list[Path] = []
        self._searches: dict[str, Search] = {}

    def events(self, state: StudyState, known: Container[str | None]) -> list[Event]:
        """See Requests."""
        if self._now() < self._next_look:
            return []
        self._next_look = self._now() + LOOK_S
        found = []
        for path, content in pending(self._folder):
            if path in self._taken:
                continue
            self._taken.append(path)
            if path.stem not in state.requests:
                found.append(self._judge(content, known) | {"request": path.stem})
        return found

    def _judge(self, content: dict[str, Any], known: Container[str | None]) -> Event:
        op, name = content.get("op"), content.get("segment")
        event: Event = {"e": "segment", "op": op, "segment": name}
        problem = ""
        if op not in OPERATIONS or not isinstance(name, str):
            problem = f"not a request: {content!r}"
        elif op == "add":
            event["spec"] = content.get("spec")
            problem = self._add(name, content.get("spec"), known)
        elif name not in known and name not in self._searches:
            problem = "there is no such segment"
        elif op == "budget":
            trials = content.get("trials")
            event["trials"] = trials
            if not isinstance(trials, int) or trials < 1:
                problem = f"not a number of trials: {trials!r}"
        return event | {"op": "refused", "problem": problem} if problem else event

    def _add(self, name: str, spec: Any, known: Container[str | None]) -> str:
        if name in known or name in self._searches:
            return "there is a segment of this name"
        try:
            self._searches[name] = self._extend(spec)
        except (HpoError, TypeError, ValueError) as error:
            return str(error)
        return ""

    def search(self, name: str) -> Search:
        """See Requests."""
        return self._searches[name]

    def heeded(self) -> None:
        """See Requests."""
        while self._taken:
            self._taken.pop().unlink(missing_ok=True)
