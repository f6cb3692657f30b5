"""The slices that are with the pilot, from their submission to their one outcome.

Parsl's answer is the fast way; when a manager, worker or block is lost, what the worker wrote in
its spool decides, and a slice that neither answered nor wrote an end is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from hpc_hpo.fsio import from_json
from hpc_hpo.model import SliceEnd, SliceOutcome, SliceRequest
from hpc_hpo.pilot.spool import SliceKey, SliceLog


@dataclass
class _Flight:
    """A slice between submit and its outcome."""

    request: SliceRequest
    future: Future[SliceOutcome] = field(default_factory=Future)
    suspect: str | None = None  #: Parsl's word for why it believes the slice lost


class Flights:
    """Used from the steering thread, but for the callbacks in Parsl's result thread.

    Args:
        spool: the study's spool folder.
        run: the steering run.
        now: time, seconds since the epoch.
    """

    def __init__(self, spool: Path, run: int, now: Callable[[], float]) -> None:
        self._run = run
        self._now = now
        self._log = SliceLog(spool)
        self._lock = threading.Lock()
        self._flights: dict[SliceKey, _Flight] = {}
        self._given_up: set[SliceKey] = set()
        self._late: list[SliceOutcome] = []

    def add(self, request: SliceRequest) -> Future[SliceOutcome]:
        """Begin to wait for a slice."""
        flight = _Flight(request)
        with self._lock:
            self._flights[request["trial"], request["slice"]] = flight
        return flight.future

    def await_answer(self, request: SliceRequest, answer: Future[bytes]) -> None:
        """Take the slice's outcome from Parsl's answer when it comes."""
        key = (request["trial"], request["slice"])
        answer.add_done_callback(lambda done: self._arrive(key, done))

    def _arrive(self, key: SliceKey, answer: Future[bytes]) -> None:
        """Called in Parsl's result thread."""
        error = answer.exception()
        if error is None:
            self._land(key, from_json(answer.result()))
            return
        with self._lock:
            flight = self._flights.get(key)
        if flight is not None:
            # Whether the worker wrote an outcome before it died is looked up in `settle_suspects`.
            flight.suspect = f"{type(error).__name__}: {error}"

    def _land(self, key: SliceKey, outcome: SliceOutcome) -> None:
        """Give a slice its outcome, once: Parsl's answer and the spool may both bring it."""
        with self._lock:
            flight = self._flights.pop(key, None)
            if flight is None and key in self._given_up:
                self._given_up.discard(key)
                self._late.append(outcome)
        if flight is not None:
            flight.future.set_result(outcome)

    def _give_up(self, key: SliceKey, outcome: SliceOutcome) -> None:
        """Land a slice without its worker's word, which may still come."""
        with self._lock:
            known = key in self._flights
            if known:
                self._given_up.add(key)
        if known:
            self._land(key, outcome)

    def late(self) -> list[SliceOutcome]:
        """Outcomes, since the last call, of slices that had been given up as lost."""
        with self._lock:
            late, self._late = self._late, []
        return [o for o in late if o["end"] != SliceEnd.DECLINED.value]

    def needs(self) -> list[float]:
        """The seconds of block that each open slice needs."""
        with self._lock:
            return [f.request.get("needs_s", 0.0) for f in self._flights.values()]

    def __bool__(self) -> bool:
        return bool(self._flights)

    def settle_block(self, block: str, reason: str, ended: float | None) -> None:
        """Every slice that began on an ended block has its outcome in the spool, or is lost."""
        self._log.update(f"r{self._run}-b{block}-*", self._waited_for)
        self._settle_ended()
        for key, record in list(self._log.started.items()):
            if record.get("block") == block and key in self._flights:
                self._give_up(key, self._lost(key, reason, ended))

    def settle_suspects(self) -> None:
        """Decide about the slices that Parsl reported lost (ManagerLost, WorkerLost, errors)."""
        with self._lock:
            suspects = {k: f.suspect for k, f in self._flights.items() if f.suspect}
        if not suspects:
            return
        self._log.update(f"r{self._run}-*", self._waited_for)
        self._settle_ended()
        for key, word in suspects.items():
            self._give_up(key, self._lost(key, "worker", self._now(), word))

    def settle_all(self) -> None:
        """The pilot has stopped: what has no outcome by now is lost, or never began."""
        self._log.update(f"r{self._run}-*", self._waited_for)
        self._settle_ended()
        for key in list(self._flights):
            if key in self._log.started:
                self._give_up(key, self._lost(key, "steering", self._now()))
            else:
                end = SliceEnd.DECLINED.value
                self._land(
                    key, SliceOutcome(run=self._run, trial=key[0], slice=key[1], end=end)
                )  # fmt: skip

    def _waited_for(self, key: SliceKey) -> bool:
        return key in self._flights or key in self._given_up

    def _settle_ended(self) -> None:
        for key in list(self._log.ended):
            outcome = self._log.ended.pop(key)
            if self._waited_for(key):
                self._land(key, outcome)  # type: ignore[arg-type]

    def _lost(
        self, key: SliceKey, reason: str, ended: float | None, word: str | None = None
    ) -> SliceOutcome:
        """The outcome of a slice that wrote none."""
        begun = self._log.started.pop(key, None)
        # A slice that went down with its manager before it began has lost nothing. Any other
        # error counts, or workers that cannot even begin would be tried for ever.
        unbegun = begun is None and (word or "").startswith(("ManagerLost", "WorkerLost"))
        end = SliceEnd.DECLINED if unbegun else SliceEnd.LOST
        outcome = SliceOutcome(
            run=self._run, trial=key[0], slice=key[1], end=end.value, reason=reason
        )
        if begun is not None:
            outcome["started"], outcome["ended"] = begun["at"], ended or begun["at"]
            outcome["block"], outcome["worker"] = begun["block"], begun["worker"]
            outcome["host"] = begun["host"]
            flight = self._flights.get(key)
            if flight is not None and flight.request.get("width", 1) != 1:
                outcome["width"] = flight.request["width"]
        if word is not None:
            outcome["error"] = {"kind": "lost", "message": word}
        return outcome
