"""The function that the worker pool calls for each slice, and the worker's own life.

A worker that gets TERM (its block ends, or its manager has lost the steering process) asks the
running slice to pause, spools the outcome and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import NoReturn, cast

from hpc_hpo.clock import Clock, SystemClock
from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import from_json, to_json
from hpc_hpo.model import ErrorInfo, SliceEnd, SliceOutcome, SliceRequest, TaskSpec
from hpc_hpo.worker.job import stamp
from hpc_hpo.worker.local_inputs import LocalInputs
from hpc_hpo.worker.log import LogFile
from hpc_hpo.worker.node import Node, Watch
from hpc_hpo.worker.node_local import Interrupted
from hpc_hpo.worker.objective import describe_error
from hpc_hpo.worker.payload_python import RunnerClient
from hpc_hpo.worker.slice import run_slice
from hpc_hpo.worker.spool import Spool


class Worker:
    """Runs slices one at a time and keeps what they share: spool, log, runner, task files.

    Args:
        node: where it runs.
        clock: injected time.
    """

    def __init__(self, node: Node, clock: Clock | None = None) -> None:
        self.node, self._clock = node, clock or SystemClock()
        self._runner = RunnerClient()
        self._inputs = LocalInputs()
        self._home: tuple[str, int] | None = None
        self._spool: Spool | None = None
        self._log: LogFile | None = None
        self._tasks: dict[tuple[str, int], TaskSpec] = {}
        self._parent = multiprocessing.parent_process()
        self._busy = False
        self._terminated = False

    def run(self, request: SliceRequest) -> SliceOutcome:
        """Run one slice, or decline it when the block ends too soon."""
        self._busy = True
        try:
            watch = Watch(self.node, self._clock, self._told_to_end)
            if watch.look() is not None or self._too_late(request, watch):
                return self._bare(request, SliceEnd.DECLINED)
            return self._run(request, watch)
        finally:
            self._busy = False

    def _told_to_end(self) -> bool:
        # A manager that was killed cannot send TERM.
        return self._terminated or not (self._parent is None or self._parent.is_alive())

    def _too_late(self, request: SliceRequest, watch: Watch) -> bool:
        if watch.deadline is None:
            return False
        return watch.deadline - self._clock.now() < request.get("needs_s", 0.0)

    def _run(self, request: SliceRequest, watch: Watch) -> SliceOutcome:
        try:
            spool, log = self._settle(request)
            task, request = self._inputs.bring(
                self._task(request), request, say=log.note,
                stopped=lambda: watch.look() is not None or self._too_late(request, watch),
            )  # fmt: skip
        except Interrupted:
            return self._bare(request, SliceEnd.DECLINED)
        except (StorageError, OSError, ValueError) as error:
            info = describe_error("storage", error)
            info["transient"] = True
            return self._bare(request, SliceEnd.FAILED, info)
        spool.start(request, self._clock.now())
        try:
            outcome = run_slice(
                request,
                task,
                node=self.node,
                watch=watch,
                log=log,
                runner=self._runner,
                clock=self._clock,
            )
        except Exception as error:
            # A fault of the worker itself. The runner's state is unknown after it.
            self._runner.kill(0.0)
            outcome = self._bare(request, SliceEnd.FAILED, describe_error("internal", error))
        unwritten = spool.end(outcome)
        if unwritten is not None and "error" in outcome:
            outcome["error"]["message"] = (
                f"{outcome['error'].get('message', '')} (not spooled: {unwritten})"
            )
        return outcome

    def _settle(self, request: SliceRequest) -> tuple[Spool, LogFile]:
        """The spool and log of this study and run."""
        home = (request["dir"], request["run"])
        if self._home != home or self._spool is None or self._log is None:
            self.close()
            study = Path(request["dir"])
            self._log = LogFile(study, f"logs/w-{self.node.stem(request['run'])}.log")
            self._spool = Spool(study, request["run"], self.node)
            self._home = home
        return self._spool, self._log

    def _task(self, request: SliceRequest) -> TaskSpec:
        path = Path(request["dir"], request["task"])
        key = (str(path), path.stat().st_mtime_ns)
        if key not in self._tasks:
            task = from_json(path.read_bytes())
            if not isinstance(task, dict):
                raise ValueError(f"{path}: not a JSON object")
            self._tasks[key] = cast(TaskSpec, task)
        return self._tasks[key]

    def _bare(
        self, request: SliceRequest, end: SliceEnd, error: ErrorInfo | None = None
    ) -> SliceOutcome:
        """The outcome of a slice whose payload was not run."""
        now = self._clock.now()
        outcome = SliceOutcome(end=end.value)
        if error is not None:
            outcome["error"] = error
        return stamp(outcome, request, self.node, now, now)

    def close(self) -> None:
        """End the runner and close the files."""
        self._runner.close()
        if self._spool is not None:
            self._spool.close()
        if self._log is not None:
            self._log.close()
        self._home = self._spool = self._log = None

    def on_term(self, number: int, frame: object) -> None:
        """TERM: at once when idle, else once the running slice has paused."""
        self._terminated = True
        if not self._busy:
            self.die()

    @property
    def terminated(self) -> bool:
        """True once TERM has come."""
        return self._terminated

    def die(self) -> NoReturn:
        """End this process as TERM would have."""
        self._runner.kill(0.0)
        if self._spool is not None:
            self._spool.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(128 + signal.SIGTERM)  # reached only where TERM is blocked


_worker: Worker | None = None


def run_request(buffer: bytes) -> bytes:
    """Run the slice of a JSON SliceRequest; returns its SliceOutcome as JSON.

    Called in the worker process's main thread; it keeps one Worker for the process's life.
    """
    global _worker
    if _worker is None or _worker.node.pid != os.getpid():
        _worker = Worker(Node.from_env(os.environ))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _worker.on_term)
    outcome = _worker.run(from_json(buffer))
    if _worker.terminated:
        _worker.die()
    return to_json(outcome).encode("utf-8", "surrogatepass")
