"""A pilot in this process: slices run one after another in `poll`. For tests and debugging."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from hpc_hpo.model import SliceEnd, SliceOutcome, SliceRequest
from hpc_hpo.pilot.base import Capacity


class InlinePilot:
    """See base.Pilot.

    Args:
        execute: runs one slice and returns its outcome; it is given the request.
        workers: slices taken from the queue at each poll.
    """

    def __init__(self, execute: Callable[[SliceRequest], SliceOutcome], workers: int = 1) -> None:
        self._execute = execute
        self._workers = workers
        self._queue: list[tuple[int, int, SliceRequest, Future[SliceOutcome]]] = []
        self._count = 0
        self._pausing = False

    def start(self, run: int) -> None:
        self._run = run

    def submit(self, request: SliceRequest, priority: int) -> Future[SliceOutcome]:
        future: Future[SliceOutcome] = Future()
        self._count += 1
        heapq.heappush(self._queue, (priority, self._count, request, future))
        return future

    def want(self, slices: int) -> None:
        """Workers are always there."""

    def poll(self) -> list[dict[str, Any]]:
        for _ in range(min(self._workers, len(self._queue))):
            _, _, request, future = heapq.heappop(self._queue)
            if self._pausing:
                future.set_result(self._declined(request))
            else:
                future.set_result(self._execute(request))
        return []

    def capacity(self) -> Capacity:
        return Capacity(self._workers, math.inf, 0)

    def pause_all(self) -> None:
        self._pausing = True

    def stop(self) -> list[dict[str, Any]]:
        for _, _, request, future in self._queue:
            future.set_result(self._declined(request))
        self._queue.clear()
        return []

    def _declined(self, request: SliceRequest) -> SliceOutcome:
        return SliceOutcome(
            run=request["run"], trial=request["trial"], slice=request["slice"],
            end=SliceEnd.DECLINED.value,
        )  # fmt: skip
