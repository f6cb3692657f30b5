"""The Pilot over Parsl: blocks from a provider, slices over the HighThroughputExecutor."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hpc_hpo.errors import PilotError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import from_json, storage_error, to_json
from hpc_hpo.model import SliceEnd, SliceOutcome, SliceRequest
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.pilot.executor import BlockExecutor, log_parsl_to
from hpc_hpo.pilot.policy import Limits, LiveBlock, decide
from hpc_hpo.pilot.spool import SliceKey, SliceLog, SpoolReader

#: Blocks in a row that end without ever registering a worker before the pilot gives up.
MAX_STILLBORN = 3
#: Reason of a block that was cancelled because it was not needed any more.
RELEASED = "released"
#: How long `stop` waits for cancelled jobs to be gone, in seconds.
STOP_WAIT_S = 15.0


class BlockSource(Protocol):
    """How one kind of site gets blocks; one file a kind (local.py, ...)."""

    #: nodes of a block, workers on a node, blocks at one time
    nodes: int
    workers_per_node: int
    max_blocks: int
    #: seconds a block lasts; None = without end
    walltime_s: float | None
    #: seconds between two looks at the scheduler
    poll_s: float

    def executor(self, folder: StudyFolder, run: int) -> BlockExecutor:
        """The executor with its provider, not started."""

    def alive(self, executor: BlockExecutor, jobs: list[str]) -> dict[str, bool]:
        """Of each job, whether the scheduler still runs or queues it."""

    def script_folder(self, folder: Path) -> Path:
        """`folder`, or another name of it that the provider can handle."""

    def complaint(self, executor: BlockExecutor, job: str) -> str:
        """What a job that never came up has printed, for the error message."""


@dataclass
class _Block:
    """What the pilot remembers of a block; times in seconds since the epoch."""

    id: str
    job: str
    requested: float
    state: str = "requested"
    started: float | None = None
    deadline: float = math.inf
    ended: float | None = None
    workers: int = 0
    nodes_ended: int = 0
    nodes_started: int = 0
    reason: str | None = None
    connected: bool = False  #: a manager of it has registered


@dataclass
class _Flight:
    """A slice between submit and its outcome."""

    request: SliceRequest
    future: Future[SliceOutcome] = field(default_factory=Future)
    suspect: str | None = None  #: Parsl's word for why it believes the slice lost


class ParslPilot:
    """See base.Pilot."""

    def __init__(
        self, folder: StudyFolder, source: BlockSource, now: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._source = source
        self._now = now
        self._run = 0
        self._blocks: dict[str, _Block] = {}
        self._flights: dict[SliceKey, _Flight] = {}
        self._lock = threading.Lock()
        self._log = SliceLog(folder.spool)
        self._nodes = SpoolReader(folder.spool)
        self._demand = 0
        self._connected: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._next_look = 0.0
        self._stillborn = 0
        self._lead_s = 3.0
        self._pausing = False
        self._log_handler: logging.Handler | None = None

    # -- life ---------------------------------------------------------------

    def start(self, run: int) -> None:
        self._run = run
        self._executor = self._source.executor(self._folder, run)
        run_dir = self._folder.logs / "parsl" / f"r{run}"
        scripts = run_dir / "scripts"
        scripts.mkdir(parents=True, exist_ok=True)
        self._executor.prepare(run_dir, self._source.script_folder(scripts), f"r{run}")
        self._log_handler = log_parsl_to(self._folder.logs / f"parsl-r{run}.log")
        try:
            self._executor.start()  # type: ignore[no-untyped-call]
        except Exception as error:
            raise PilotError(f"Parsl's executor did not start: {error}") from error

    def submit(self, request: SliceRequest, priority: int) -> Future[SliceOutcome]:
        key = (request["trial"], request["slice"])
        flight = _Flight(request)
        with self._lock:
            self._flights[key] = flight
        answer = self._executor.submit_slice(
            to_json(request).encode(), priority, request.get("needs_s", 0.0)
        )
        answer.add_done_callback(lambda done: self._arrive(key, done))
        return flight.future

    def _arrive(self, key: SliceKey, answer: Future[bytes]) -> None:
        """Called in Parsl's result thread."""
        error = answer.exception()
        if error is None:
            self._land(key, from_json(answer.result()))
            return
        with self._lock:
            flight = self._flights.get(key)
        if flight is not None:
            # Whether the worker wrote an outcome before it died is looked up in `poll`.
            flight.suspect = f"{type(error).__name__}: {error}"

    def _land(self, key: SliceKey, outcome: SliceOutcome) -> None:
        """Give a slice its outcome, once: Parsl's answer and the spool may both bring it."""
        with self._lock:
            flight = self._flights.pop(key, None)
        if flight is not None:
            flight.future.set_result(outcome)

    # -- blocks ---------------------------------------------------------------

    def want(self, slices: int) -> None:
        self._demand = slices

    def pause_all(self) -> None:
        self._pausing = True
        # Without the file (disk full) slices learn of it when their blocks are cancelled.
        with contextlib.suppress(OSError):
            self._folder.stop_file(self._run).touch()

    def capacity(self) -> Capacity:
        running = [b for b in self._blocks.values() if b.state == "running"]
        now = self._now()
        return Capacity(
            connected=sum(self._connected.values()),
            seconds_left=max((b.deadline - now for b in running), default=None),
            expected=self._source.nodes
            * self._source.workers_per_node
            * sum(1 for b in self._live() if not b.connected),
        )

    def poll(self) -> list[dict[str, Any]]:
        now = self._now()
        if now < self._next_look:
            return []
        self._next_look = now + self._source.poll_s
        if not self._executor.interchange_alive():
            raise PilotError(
                "Parsl's interchange process has ended; see "
                f"{self._folder.logs / 'parsl'}. Run the same command again to go on."
            )
        events = self._look_at_nodes()
        self._look_at_managers()
        events += self._look_at_jobs(now)
        self._settle_suspects()
        if not self._pausing:
            events += self._resize(now)
        return events

    def _live(self) -> list[_Block]:
        return [b for b in self._blocks.values() if b.state != "ended"]

    def _event(self, block: _Block, **facts: Any) -> dict[str, Any]:
        return {"e": "block", "block": f"{self._run}.{block.id}", "state": block.state, **facts}

    def _look_at_nodes(self) -> list[dict[str, Any]]:
        """What the supervisors wrote: beginnings and ends of nodes."""
        events = []
        for record in self._nodes.read(f"block-r{self._run}-*"):
            block = self._blocks.get(record["block"])
            if block is None:
                continue
            if record["e"] == "node-start":
                block.nodes_started += 1
                block.workers += record["workers"]
                block.started = min(block.started or record["at"], record["at"])
                block.deadline = min(block.deadline, record["deadline"] or math.inf)
                block.state = "running"
                events.append(
                    self._event(
                        block, at=record["at"], started=block.started, workers=block.workers,
                        deadline=block.deadline if math.isfinite(block.deadline) else None,
                    )
                )  # fmt: skip
            elif record["e"] == "node-end":
                block.nodes_ended += 1
                block.ended = max(block.ended or 0.0, record["at"])
                block.reason = block.reason or record["reason"]
        return events

    def _look_at_managers(self) -> None:
        """Ask the interchange which workers are connected and what they have to do."""
        self._connected, self._tasks = {}, {}
        for manager in self._executor.connected_managers():
            block = self._blocks.get(manager["block_id"])
            if block is None or block.state == "ended" or not manager["active"]:
                continue
            if not block.connected:
                block.connected = True
                self._stillborn = 0
                if block.started is not None:
                    # The time from the block's start to its first worker: what a successor
                    # needs of head start so that no worker idles between them.
                    self._lead_s = max(1.0, self._now() - block.started)
            self._connected[block.id] = self._connected.get(block.id, 0) + manager["worker_count"]
            self._tasks[block.id] = self._tasks.get(block.id, 0) + manager["tasks"]

    def _look_at_jobs(self, now: float) -> list[dict[str, Any]]:
        """Find the blocks that ended, and settle the slices they took with them."""
        live = self._live()
        alive = self._source.alive(self._executor, [b.job for b in live]) if live else {}
        events = []
        for block in live:
            all_nodes_over = 0 < block.nodes_started == block.nodes_ended
            if alive.get(block.job, True) and not all_nodes_over:
                continue
            block.state = "ended"
            block.ended = block.ended or min(now, block.deadline)
            self._connected.pop(block.id, None)
            events.append(
                self._event(block, at=now, ended=block.ended, reason=block.reason or "died")
            )
            self._settle_block(block)
            if not block.connected:
                self._count_stillborn(block)
        return events

    def _count_stillborn(self, block: _Block) -> None:
        self._stillborn += 1
        if self._stillborn >= MAX_STILLBORN:
            raise PilotError(
                f"{self._stillborn} blocks in a row ended before a worker of theirs registered; "
                f"the last one (job {block.job}) printed:\n"
                f"{self._source.complaint(self._executor, block.job)}"
            )

    def _settle_block(self, block: _Block) -> None:
        """Every slice that began on an ended block has its outcome in the spool, or is lost."""
        self._log.update(f"r{self._run}-b{block.id}-*")
        for key, record in list(self._log.started.items()):
            if record.get("block") == block.id and key in self._flights:
                self._land(key, self._lost(key, block.reason or "died", block.ended))
        self._settle_ended()

    def _settle_ended(self) -> None:
        for key in [k for k in self._log.ended if k in self._flights]:
            self._land(key, self._log.ended[key])  # type: ignore[arg-type]

    def _settle_suspects(self) -> None:
        """Decide about the slices that Parsl reported lost (ManagerLost, WorkerLost, errors)."""
        with self._lock:
            suspects = {k: f.suspect for k, f in self._flights.items() if f.suspect}
        if not suspects:
            return
        self._log.update(f"r{self._run}-*")
        self._settle_ended()
        for key, word in suspects.items():
            if key in self._flights:
                self._land(key, self._lost(key, "worker", self._now(), word))

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
        if word is not None:
            outcome["error"] = {"kind": "lost", "message": word}
        return outcome

    def _resize(self, now: float) -> list[dict[str, Any]]:
        """Request and release blocks as the policy says."""
        with self._lock:
            needs = [f.request.get("needs_s", 0.0) for f in self._flights.values()]
        limits = Limits(
            self._source.max_blocks,
            self._source.nodes * self._source.workers_per_node,
            self._lead_s,
            min(needs, default=0.0),
        )
        live = [
            LiveBlock(
                b.id, b.state == "running", b.deadline - now,
                b.connected and self._tasks.get(b.id, 0) == 0,
            )
            for b in self._live()
            if b.reason != RELEASED
        ]  # fmt: skip
        decision = decide(live, self._demand, limits)
        for block_id in decision.release:
            self._cancel([self._blocks[block_id]], RELEASED)
        return [self._request_block(now) for _ in range(decision.request)]

    def _request_block(self, now: float) -> dict[str, Any]:
        try:
            block_id, job = self._executor.launch_block()
        except Exception as error:
            # Parsl's ScriptPathError hides the OSError of a full disk in `reason`.
            reason = getattr(error, "reason", None)
            if isinstance(reason, OSError):
                raise storage_error(self._folder.logs, reason) from error
            raise PilotError(f"the scheduler took no block: {error}") from error
        block = self._blocks[block_id] = _Block(block_id, job, now)
        return self._event(block, at=now, job=job, requested=now)

    def _cancel(self, blocks: list[_Block], reason: str) -> None:
        for block in blocks:
            block.reason = block.reason or reason
            self._connected.pop(block.id, None)
            if reason == RELEASED:
                # Without the file (disk full) the block only takes its grace to end.
                with contextlib.suppress(OSError):
                    self._folder.release_file(self._run, block.id).touch()
        self._executor.blocks_from.cancel([b.job for b in blocks])

    # -- the end ---------------------------------------------------------------

    def stop(self) -> list[dict[str, Any]]:
        live = self._live()
        if live:
            with self._lock:
                busy = bool(self._flights)
            self._cancel(live, "stopped" if busy else RELEASED)
        events: list[dict[str, Any]] = []
        end = time.monotonic() + STOP_WAIT_S
        while self._live() and time.monotonic() < end:
            events += self._look_at_nodes()
            with contextlib.suppress(PilotError):
                events += self._look_at_jobs(self._now())
            time.sleep(0.05)
        self._log.update(f"r{self._run}-*")
        self._settle_ended()
        for key in list(self._flights):
            if key in self._log.started:
                self._land(key, self._lost(key, "steering", self._now()))
            else:
                self._land(
                    key,
                    SliceOutcome(
                        run=self._run, trial=key[0], slice=key[1], end=SliceEnd.DECLINED.value
                    ),
                )
        self._executor.shutdown()
        if self._log_handler is not None:
            logging.getLogger("parsl").removeHandler(self._log_handler)
            self._log_handler.close()
        self._folder.stop_file(self._run).unlink(missing_ok=True)
        for block in self._blocks:
            self._folder.release_file(self._run, block).unlink(missing_ok=True)
        return events
