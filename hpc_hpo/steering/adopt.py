"""After a restart: take over what the dead steering process's workers left behind.

Every slice that the journal has open belongs to a process that is gone. What a worker wrote
about it in its spool is taken as it is; a slice without an outcome is lost and its trial goes
on from its last checkpoint. Workers that still run are told to leave, and given a moment to
checkpoint; whatever they write after that is refused by the fencing numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpc_hpo.errors import CheckpointError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState
from hpc_hpo.model import CheckpointInfo, SliceEnd, SliceOutcome, Trial
from hpc_hpo.pilot.spool import SliceKey, SliceLog, SpoolReader
from hpc_hpo.worker.block import LEAVE

#: How long workers of a dead run may take to pause before their slices count as lost, in s.
PATIENCE_S = 2.0


class Inheritance:
    """The spools of all earlier runs, read into outcomes and block events."""

    def __init__(
        self, folder: StudyFolder, state: StudyState, now: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._state = state
        self._now = now
        #: Only these: the run that is about to begin writes into the same spool.
        self._runs = range(1, state.runs + 1)
        self._log = SliceLog(folder.spool)
        self._nodes = SpoolReader(folder.spool)
        self._node_ends: dict[str, dict[str, float]] = {}
        self._node_starts: dict[str, dict[str, float]] = {}

    def open_slices(self) -> list[SliceKey]:
        """What the journal has submitted without an end."""
        trials = self._state.trials.values()
        return [(t.id, t.open_slice.number) for t in trials if t.open_slice is not None]

    def dismiss_workers(self) -> None:
        """Ask the blocks of earlier runs to checkpoint and leave."""
        for run in self._runs:
            if any(b.state != "ended" for b in self._blocks_of(run)):
                self._folder.stop_file(run).write_text(LEAVE)

    def _blocks_of(self, run: int) -> list[Any]:
        prefix = f"{run}."
        return [b for b in self._state.blocks.values() if b.id.startswith(prefix)]

    def _read(self, wanted: Callable[[SliceKey], bool]) -> None:
        for run in self._runs:
            self._log.update(f"r{run}-*", wanted)
            for record in self._nodes.read(f"block-r{run}-*"):
                block = f"{run}.{record['block']}"
                book = self._node_ends if record["e"] == "node-end" else self._node_starts
                book.setdefault(block, {})[record["host"]] = record["at"]

    def collect(self, sleep: Callable[[float], None] = time.sleep) -> list[SliceOutcome]:
        """Outcomes of all open slices, waiting a moment for workers that are still at it."""
        pending = set(self.open_slices())
        end = time.monotonic() + PATIENCE_S
        # Of all that earlier runs wrote, the outcomes that nobody has taken in yet.
        wanted = pending.__contains__
        self._read(wanted)
        while (
            any(key in self._log.started and not self._block_over(key) for key in pending)
            and time.monotonic() < end
        ):
            sleep(0.1)
            self._read(wanted)
        return [self._outcome(key) for key in sorted(pending)]

    def _block_of(self, key: SliceKey) -> str:
        begun = self._log.started[key]
        return f"{begun['run']}.{begun['block']}"

    def _block_over(self, key: SliceKey) -> bool:
        block = self._state.blocks.get(self._block_of(key))
        if block is not None and block.deadline is not None and block.deadline < self._now():
            return True
        return self._block_of(key) in self._node_ends

    def _outcome(self, key: SliceKey) -> SliceOutcome:
        ended = self._log.ended.get(key)
        if ended is not None:
            return ended  # type: ignore[return-value]
        begun = self._log.started.get(key)
        if begun is None:
            return SliceOutcome(trial=key[0], slice=key[1], end=SliceEnd.DECLINED.value)
        ends = self._node_ends.get(self._block_of(key), {})
        # Without the node's own word, the last thing known about the dead run has to do.
        ended_at = max(ends.values(), default=self._state.last_at or begun["at"])
        return SliceOutcome(
            run=begun["run"], trial=key[0], slice=key[1], end=SliceEnd.LOST.value,
            reason="steering", started=begun["at"], ended=max(begun["at"], ended_at),
            block=begun["block"], worker=begun["worker"], host=begun["host"],
        )  # fmt: skip

    def block_events(self) -> list[dict[str, Any]]:
        """`block` events that close the blocks of earlier runs."""
        events = []
        now = self._now()
        for block in self._state.blocks.values():
            if block.state == "ended":
                continue
            starts = self._node_starts.get(block.id, {})
            ends = self._node_ends.get(block.id, {})
            last = max(ends.values(), default=min(block.deadline or now, now))
            facts: dict[str, Any] = {"ended": last, "reason": "steering"}
            if starts and block.started is None:
                facts["started"] = min(starts.values())
            events.append({"e": "block", "block": block.id, "state": "ended", "at": now, **facts})
        return events

    def late_outcomes(self) -> list[SliceOutcome]:
        """Outcomes that workers of earlier runs wrote after they were given up."""
        known = set(self._log.ended)
        self._read(lambda key: True)
        return [o for k, o in self._log.ended.items() if k not in known]  # type: ignore[misc]


def newest_checkpoint_in(folder: StudyFolder) -> Callable[[int, int], Any]:
    """A function (trial, slice) -> the newest checkpoint that the slice committed, or None."""
    from hpc_hpo.worker.checkpoint import newest_of

    def find(trial: int, slice_: int) -> Any:
        path: Path = folder.trial(trial)
        if not path.is_dir():
            return None
        saved = newest_of(path, slice_)
        return saved.info if saved is not None else None

    return find


def inherit_in(folder: StudyFolder) -> Callable[[Trial, int], CheckpointInfo | None]:
    """A function that gives a new trial the checkpoint of another: the one that the journal names,
    or a newer one where the other runs and has pruned that; None where none can be taken."""
    from hpc_hpo.worker.checkpoint import inherit, names_of

    def give(parent: Trial, child: int) -> CheckpointInfo | None:
        assert parent.checkpoint is not None, "models are chosen among those that have one"
        place = folder.trial(parent.id)
        for name in (parent.checkpoint["name"], *names_of(place)):
            try:
                saved = inherit(place / name, folder.trial(child))
            except (CheckpointError, OSError):
                continue  # at the worst there is no copy, and the bad trial goes on
            return CheckpointInfo(name=name, slice=0, at=saved.meta["at"], step=saved.meta["step"])
        return None

    return give
