"""The Pilot over Parsl: blocks from a provider, slices over the HighThroughputExecutor."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from hpc_hpo.errors import HpoError, PilotError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import storage_error, to_json
from hpc_hpo.model import Shape, SliceOutcome, SliceRequest
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.pilot.blocks import RELEASED, STOPPED, Block, BlockSource, JobSeen
from hpc_hpo.pilot.executor import log_parsl_to
from hpc_hpo.pilot.flights import Flights
from hpc_hpo.pilot.names import LEAD
from hpc_hpo.pilot.patience import Patience
from hpc_hpo.pilot.policy import LEAD_SHARE, Limits, LiveBlock, decide
from hpc_hpo.pilot.spool import SpoolReader

#: Blocks in a row that end without ever registering a worker before the pilot gives up.
MAX_STILLBORN = 3
#: How long `stop` waits for cancelled jobs to be gone, in seconds.
STOP_WAIT_S = 15.0
#: Submissions refused in a row, for a reason that stays, before the pilot gives up.
MAX_REFUSALS = 3
#: How long a scheduler may be out of reach before the pilot gives up, in seconds.
OUTAGE_S = 6 * 3600.0
#: Waits between submissions that fail: the first, and the longest, in seconds.
RETRY_S = (5.0, 600.0)

log = logging.getLogger(__name__)


class ParslPilot:
    """See base.Pilot.

    Args:
        folder: the study's.
        source: of the blocks.
        leftovers: jobs of earlier runs, which are cancelled at the start.
    """

    def __init__(
        self, folder: StudyFolder, source: BlockSource, now: Callable[[], float] = time.time,
        leftovers: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._folder = folder
        self._source = source
        self._now = now
        self._leftovers = list(leftovers)
        self._run = 0
        self._blocks: dict[str, Block] = {}
        self._nodes = SpoolReader(folder.spool)
        self._demand = 0
        self._connected: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._held: set[str] = set()
        self._next_look = 0.0
        self._stillborn = 0
        self._lead_s = 3.0
        self._pausing = False
        self._submissions = Patience(*RETRY_S)
        self._log_handler: logging.Handler | None = None

    # -- life ---------------------------------------------------------------

    def start(self, run: int) -> None:
        self._run = run
        self._flights = Flights(self._folder.spool, run, self._now)
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
        if self._leftovers:
            self._executor.blocks_from.cancel(self._leftovers)

    def submit(self, request: SliceRequest, priority: int) -> Future[SliceOutcome]:
        future = self._flights.add(request)
        answer = self._executor.submit_slice(
            to_json(request).encode(), priority, request.get("needs_s", 0.0),
            request.get("shape") or Shape().spec(),
        )  # fmt: skip
        self._flights.await_answer(request, answer)
        return future

    # -- blocks ---------------------------------------------------------------

    def want(self, slices: int) -> None:
        self._demand = slices

    def pause_all(self) -> None:
        self._pausing = True
        # Whoever waits for the slices to pause must not take workers that came up since the last
        # look for absent, and cancel their blocks at once.
        self._next_look = 0.0
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
        self._next_look = now + self._source.look_s
        if not self._executor.interchange_alive():
            raise PilotError(
                "Parsl's interchange process has ended; see "
                f"{self._folder.logs / 'parsl'}. Run the same command again to go on."
            )
        events = self._look_at_nodes(now)
        self._look_at_managers()
        events += self._look_at_jobs(now)
        self._flights.settle_suspects()
        if not self._pausing:
            events += self._resize(now)
        return events + self._refusals(now)

    def _refusals(self, now: float) -> list[dict[str, Any]]:
        """Events about outcomes that came after their slices had been given up."""
        facts = [
            {k: v for k, v in outcome.items() if k in ("run", "trial", "slice", "end")}
            for outcome in self._flights.late()
        ]
        return [{"e": "refused", "at": now, "outcome": outcome} for outcome in facts]

    def _live(self) -> list[Block]:
        return [b for b in self._blocks.values() if b.state != "ended"]

    def _event(self, block: Block, **facts: Any) -> dict[str, Any]:
        return {"e": "block", "block": f"{self._run}.{block.id}", "state": block.state, **facts}

    def _look_at_nodes(self, now: float) -> list[dict[str, Any]]:
        """What the supervisors wrote: beginnings and ends of nodes."""
        events = []
        for record in self._nodes.read(f"block-r{self._run}-*"):
            if record["block"] not in self._blocks:
                # A requeued job's next life, if it is one of ours.
                first = self._blocks.get(record["block"].partition(".")[0])
                if first is None:
                    continue
                events += self._restart(first.job, record["block"], now)
            block = self._blocks[record["block"]]
            if record["e"] == "node-start":
                block.workers += record["workers"]
                block.nodes += 1
                block.started = min(block.started or record["at"], record["at"])
                block.deadline = min(block.deadline, record["deadline"] or math.inf)
                if block.state == "requested":
                    block.state, block.noticed = "running", now
                events.append(
                    self._event(
                        block, at=record["at"], started=block.started, workers=block.workers,
                        nodes=block.nodes,
                        deadline=block.deadline if math.isfinite(block.deadline) else None,
                    )
                )  # fmt: skip
            elif record["e"] == "node-end":
                block.nodes_ended += 1
                block.ended = max(block.ended or 0.0, record["at"])
                block.reason = block.reason or record["reason"]
        return events

    def _restart(self, job: str, block_id: str, now: float) -> list[dict[str, Any]]:
        """A job was requeued: what it was has ended, and it is a new block."""
        events = []
        for block in self._blocks.values():
            if block.job == job:
                if block.state != "ended":
                    block.reason = block.reason or "requeued"
                    events += self._end(block, now)
                block.leaving = False
        new = self._blocks[block_id] = Block(block_id, job, now)
        return [*events, self._event(new, at=now, job=job, requested=now)]

    def _look_at_managers(self) -> None:
        """Ask the interchange which workers are connected and what they have to do."""
        self._connected, self._tasks = {}, {}
        for block in self._blocks.values():
            block.managers = 0
        for manager in self._executor.connected_managers():
            block_id, lead, _ = manager["block_id"].partition(LEAD)
            if block_id not in self._blocks or not manager["active"]:
                continue
            block = self._blocks[block_id]
            if block.state == "ended":
                self._hold(block)
                continue
            self._tasks[block.id] = self._tasks.get(block.id, 0) + manager["tasks"]
            if lead:
                continue
            block.managers += 1
            if not block.connected:
                block.connected = True
                self._stillborn = 0
                if block.started is not None:
                    # From the request of a block to its first worker: what a successor needs of
                    # head start so that no worker idles between them.
                    self._lead_s = max(1.0, self._now() - block.requested)
            self._connected[block.id] = self._connected.get(block.id, 0) + manager["worker_count"]

    def _hold(self, block: Block) -> None:
        """Give no further slices to the workers of a block that is over: they are orphans.

        A node whose daemon died goes on with what it has; the scheduler has given it up.
        """
        if block.id not in self._held:
            self._held.add(block.id)
            self._executor.hold_block(block.id)

    def _look_at_jobs(self, now: float) -> list[dict[str, Any]]:
        """Find the blocks that ended or were requeued, and settle the slices they took along."""
        watched = [b for b in self._blocks.values() if b.state != "ended" or b.leaving]
        if not watched:
            return []
        nodes = self._source.nodes
        hurry = any(b.leaving or b.reason or (b.connected and b.managers < nodes) for b in watched)
        seen = self._source.states(self._executor, [b.job for b in watched], hurry)
        events = []
        for block in watched:
            state, at = seen.get(block.job, JobSeen("running", 0.0))
            if state == "gone":
                block.leaving = False
            elif state == "waiting" and at > block.noticed and block.state != "requested":
                events += self._restart(block.job, block.next_start(), now)
                continue
            if block.state != "ended" and (state == "gone" or block.nodes_ended >= nodes):
                block.leaving = state != "gone"
                events += self._end(block, now)
        return events

    def _end(self, block: Block, now: float) -> list[dict[str, Any]]:
        """A block is over: settle what ran on it."""
        block.state, block.noticed = "ended", now
        block.ended = block.ended or min(now, block.deadline)
        self._connected.pop(block.id, None)
        event = self._event(block, at=now, ended=block.ended, reason=block.reason or "died")
        self._flights.settle_block(block.id, block.reason or "died", block.ended)
        if not block.connected and block.reason not in (RELEASED, STOPPED):
            self._count_stillborn(block)
        return [event]

    def _count_stillborn(self, block: Block) -> None:
        self._stillborn += 1
        if self._stillborn >= MAX_STILLBORN:
            raise PilotError(
                f"{self._stillborn} blocks in a row ended before a worker of theirs registered; "
                f"the last one (job {block.job}) printed:\n"
                f"{self._source.complaint(self._executor, block.job)}"
            )

    def _resize(self, now: float) -> list[dict[str, Any]]:
        """Request and release blocks as the policy says."""
        walltime = self._source.walltime_s or math.inf
        limits = Limits(
            self._source.max_blocks,
            self._source.nodes * self._source.workers_per_node,
            min(self._lead_s, LEAD_SHARE * walltime),
            min(self._flights.needs(), default=0.0),
        )
        live = [
            LiveBlock(
                b.id, b.state == "running", b.deadline - now,
                b.connected and self._tasks.get(b.id, 0) == 0,
            )
            for b in self._blocks.values()
            if (b.state != "ended" or b.ended_early) and b.reason != RELEASED
        ]  # fmt: skip
        decision = decide(live, self._demand, limits)
        for block_id in decision.release:
            self._cancel([self._blocks[block_id]], RELEASED)
        if decision.request == 0 or not self._submissions.ready(now):
            return []
        waiting = sum(1 for b in self._live() if b.state == "requested")
        running = len(self._live()) - waiting + sum(b.leaving for b in self._blocks.values())
        events = []
        for _ in range(self._source.room(decision.request, waiting, running)):
            event = self._request_block(now)
            if event is None:
                break
            events.append(event)
        return events

    def _request_block(self, now: float) -> dict[str, Any] | None:
        """Submit a block; None when the scheduler does not take it now."""
        try:
            block_id, job = self._executor.launch_block()
        except HpoError as error:
            if not isinstance(error, PilotError):
                raise
            self._refused(error, now)
            return None
        except Exception as error:
            # Parsl's ScriptPathError hides the OSError of a full disk in `reason`.
            reason = getattr(error, "reason", None)
            if isinstance(reason, OSError):
                raise storage_error(self._folder.logs, reason) from error
            raise PilotError(f"the scheduler took no block: {error}") from error
        if self._submissions.failures:
            log.warning("the scheduler takes blocks again")
        self._submissions.succeeded()
        block = self._blocks[block_id] = Block(block_id, job, now)
        return self._event(block, at=now, job=job, requested=now)

    def _refused(self, error: PilotError, now: float) -> None:
        """Try again later, and say so once; give up when it cannot help, or has not for long.

        While blocks run, nothing is given up.
        """
        self._submissions.failed(now)
        since = self._submissions.since or now
        lasting = not error.transient and self._submissions.failures >= MAX_REFUSALS
        if (lasting or now - since > OUTAGE_S) and not self._live():
            raise error
        if self._submissions.failures == 1:
            log.warning("%s\n  It is tried again later.", error)

    def _cancel(self, blocks: list[Block], reason: str) -> bool:
        """Ask the scheduler to end blocks; whether it will."""
        for block in blocks:
            block.reason = block.reason or reason
            self._connected.pop(block.id, None)
            if reason == RELEASED:
                # Without the file (disk full) the block only takes its grace to end.
                with contextlib.suppress(OSError):
                    self._folder.release_file(self._run, block.id).touch()
        return all(self._executor.blocks_from.cancel([b.job for b in blocks]))

    # -- the end ---------------------------------------------------------------

    def stop(self) -> list[dict[str, Any]]:
        # A short study may be over before anybody has looked at the block that ran it.
        events = self._look_at_nodes(self._now())
        live = self._live()
        cancelled = not live or self._cancel(live, STOPPED if self._flights else RELEASED)
        if cancelled:
            for block in live:
                if block.state == "requested":
                    # It never ran, and the scheduler has taken it out of the queue.
                    events += self._end(block, self._now())
        end = time.monotonic() + STOP_WAIT_S
        while self._live() and time.monotonic() < end:
            events += self._look_at_nodes(self._now())
            with contextlib.suppress(PilotError):
                events += self._look_at_jobs(self._now())
            time.sleep(0.1)
        self._flights.settle_all()
        events += self._refusals(self._now())
        self._executor.shutdown()
        if self._log_handler is not None:
            logging.getLogger("parsl").removeHandler(self._log_handler)
            self._log_handler.close()
        self._tidy(cancelled)
        return events

    def _tidy(self, cancelled: bool) -> None:
        """Remove the requests to blocks, unless some may still have to read them."""
        stop_file = self._folder.stop_file(self._run)
        if cancelled:
            stop_file.unlink(missing_ok=True)
        else:
            log.warning("the scheduler cancelled nothing; the blocks end when they start")
            stop_file.touch()
        for block in self._blocks:
            self._folder.release_file(self._run, block).unlink(missing_ok=True)
            self._folder.signal_file(self._run, block).unlink(missing_ok=True)
