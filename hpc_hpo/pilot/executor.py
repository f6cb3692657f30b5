"""Parsl's HighThroughputExecutor as this package uses it.

It is used without Parsl's DataFlowKernel: when to start and end blocks, what counts as a failure
and what is tried again is this package's own business (pilot/policy.py, steering). What is
changed, and why:

- The interchange is pilot/interchange.py, which matches slices to blocks by the time left.
- The block's command is composed as an argument list, so that folders with spaces and quotes
  work (Parsl formats a string), and it runs under worker/block.py.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from parsl.executors import HighThroughputExecutor
from parsl.providers.base import ExecutionProvider

from hpc_hpo.pilot.launchers import with_lead
from hpc_hpo.pilot.names import LEAD

#: What a worker calls for each slice: bytes of a JSON request in, bytes of a JSON outcome out.
ENTRY = "hpc_hpo.worker.entry.run_request"


def port_ranges() -> dict[str, tuple[int, int]]:
    """The ports that Parsl takes one of, as (first, one past the last).

    Those of "workers" are on the address that workers are told; those of "steering" on this
    machine's loopback.
    """
    defaults = inspect.signature(HighThroughputExecutor.__init__).parameters
    return {
        "workers": defaults["worker_port_range"].default,
        "steering": defaults["interchange_port_range"].default,
    }


class BlockExecutor(HighThroughputExecutor):
    """A HighThroughputExecutor whose blocks run our supervisor around Parsl's worker pool.

    Args:
        supervise: block id -> the supervisor's argument list, up to and including ``--``.
        python: the workers' Python.
        leads: trials of several ranks that run in a block at one time; where there are any, a
            block has a *lead* besides its nodes: the worker pool that calls the launcher.
        places: what the placer knows of the site (shapes.place_settings).
        settings: passed on to HighThroughputExecutor.

    Attributes:
        on_nodes: puts a launch line before the nodes' command.
        lead_beside: whether the block's command starts the lead, too.
    """

    def __init__(
        self,
        supervise: Callable[[str], Sequence[str]],
        python: str,
        *,
        leads: int = 0,
        places: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            interchange_launch_cmd=[
                sys.executable,
                "-m",
                "hpc_hpo.pilot.interchange",
                str(os.getpid()),
                json.dumps(dict(places or {})),
            ],
            block_error_handler=False,
            **settings,
        )
        self._supervise = supervise
        self._python = python
        self._leads = leads
        self.on_nodes: Callable[[str], str] = str
        self.lead_beside = True

    @property
    def blocks_from(self) -> ExecutionProvider:
        """The provider; Parsl's own property says it may be missing, ours never is."""
        assert self.provider is not None
        return self.provider

    def prepare(self, run_dir: Path, scripts: Path, run_id: str) -> None:
        """Do what Parsl's DataFlowKernel does for an executor before starting it."""
        self.run_dir = str(run_dir)
        self.run_id = run_id
        self.blocks_from.script_dir = str(scripts)
        logging.getLogger("parsl").propagate = False

    def initialize_scaling(self) -> None:
        """Parsl composes the launch command here; ours depends on the block."""

    def _get_launch_command(self, block_id: str) -> str:
        workers = self.max_workers_per_node
        pool = shlex.join([*self._supervise(block_id), *self._pool(block_id, int(workers))])
        lead = self.lead_command(block_id) if self.lead_beside else ""
        command = self.on_nodes(pool)
        return with_lead(lead, command) if lead else command

    def lead_command(self, block_id: str) -> str:
        """What starts a block's lead, as a shell command; "" where it needs none."""
        if self._leads == 0:
            return ""
        supervise = self._supervise(block_id)
        assert supervise[-1] == "--"
        pool = self._pool(f"{block_id}{LEAD}", self._leads)
        return shlex.join([*supervise[:-1], "--lead", "--", *pool])

    def _pool(self, block_id: str, workers: int) -> list[str]:
        return [
            self._python, "-m", "hpc_hpo.pilot.pool",
            f"--max_workers_per_node={workers}",
            "--addresses", ",".join(sorted(self.all_addresses)),
            f"--port={self.worker_port}",
            f"--prefetch_capacity={self.prefetch_capacity}",
            f"--cores_per_worker={self.cores_per_worker}",
            "--mem_per_worker=None",
            f"--poll={self.poll_period}",
            f"--cert_dir={self.cert_dir}",
            f"--logdir={self.worker_logdir}",
            f"--block_id={block_id}",
            f"--hb_period={self.heartbeat_period}",
            f"--hb_threshold={self.heartbeat_threshold}",
            "--cpu-affinity=none",
            "--mpi-launcher=mpiexec",
            "--available-accelerators",  # none: the placer says which
            "--drain_period=None",  # the supervisor puts the block's end behind this
        ]  # fmt: skip

    def submit_slice(
        self, request: bytes, priority: int, needs_s: float, shape: Sequence[Any]
    ) -> Future[bytes]:
        """Queue one slice; the future holds the worker's answer.

        Args:
            shape: Shape.spec() of its trial.
        """
        context = {
            "task_executor": {"f": ENTRY},
            "resource_spec": {"priority": priority, "needs_s": needs_s, "shape": list(shape)},
        }
        future: Future[bytes] = self.submit_payload(context, request)
        return future

    def hold_block(self, block: str) -> None:
        """Send no further slices to a block's workers; they go on with what they have."""
        for manager in (block, f"{block}{LEAD}"):
            self._hold_block(manager)  # type: ignore[no-untyped-call]

    def interchange_alive(self) -> bool:
        """False once the interchange process has ended."""
        return self.interchange_proc is not None and self.interchange_proc.poll() is None

    def launch_block(self) -> tuple[str, str]:
        """Submit one block; its id and the scheduler's job id.

        Raises:
            Exception: whatever the provider raises when the scheduler refuses.
        """
        block = str(self._block_id_counter.get_id())
        job = str(self._launch_block(block))
        self.blocks_to_job_id[block] = job
        self.job_ids_to_block[job] = block
        return block, job


class _LogFile(logging.FileHandler):
    """A log that a full disk makes shorter, never an error of the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""

    def close(self) -> None:
        """Close, whether or not what is buffered still fits."""
        with contextlib.suppress(OSError):
            super().close()


def log_parsl_to(path: Path) -> logging.Handler:
    """Send Parsl's own log to a file; returns the handler for `logging`'s removeHandler."""
    handler = _LogFile(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("parsl")
    logger.addHandler(handler)
    logger.setLevel(os.environ.get("HPC_HPO_PARSL_LOG", "WARNING"))
    return handler
