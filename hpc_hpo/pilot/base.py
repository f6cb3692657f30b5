"""What the steering loop knows of a pilot, whatever engine and scheduler are behind it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from hpc_hpo.model import SliceOutcome, SliceRequest


@dataclass(frozen=True, slots=True)
class Capacity:
    """Workers that can take a slice now or soon.

    Attributes:
        connected: workers of blocks that run.
        seconds_left: of the running block that lasts longest; None without a running block,
            infinity where blocks have no end.
        expected: workers of blocks that were requested and have none connected yet.
    """

    connected: int
    seconds_left: float | None
    expected: int


class Pilot(Protocol):
    """Runs slices on blocks of workers. Used from the steering thread alone."""

    def start(self, run: int) -> None:
        """Make ready; `run` numbers the steering process.

        Raises:
            PilotError: the engine does not start.
        """

    def submit(self, request: SliceRequest, priority: int) -> Future[SliceOutcome]:
        """Queue a slice; lower `priority` values go first.

        The future's result is what the worker wrote, or an outcome with end "lost" made here
        when its block or worker died without writing one. It never raises for a payload.
        """

    def want(self, slices: int) -> None:
        """Say how many slices could run now; the pilot sizes its blocks to it."""

    def poll(self) -> list[dict[str, Any]]:
        """Look after the blocks; the journal's `block` events since the last call.

        Raises:
            PilotError: blocks cannot be had.
        """

    def capacity(self) -> Capacity:
        """The workers as of the last poll."""

    def pause_all(self) -> None:
        """Ask every running slice to checkpoint and pause; queued ones will be declined."""

    def stop(self) -> list[dict[str, Any]]:
        """Cancel all blocks, settle all futures, shut the engine down; the last events.

        Leaves no process behind.
        """
