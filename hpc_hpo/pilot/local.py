"""Blocks on this machine: Parsl's LocalProvider, ended at their walltime by our supervisor."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import tail_of
from hpc_hpo.pilot.blocks import JobSeen
from hpc_hpo.pilot.executor import BlockExecutor


@dataclass
class LocalBlocks:
    """A BlockSource for site ``local``; times in seconds."""

    workers_per_node: int
    max_blocks: int
    walltime_s: float | None
    kill_grace_s: float = 1.0
    address: str = "127.0.0.1"
    heartbeat_period_s: int = 2
    heartbeat_threshold_s: int = 6
    worker_init: str = ""
    #: the workers' interpreter
    python: str = sys.executable
    #: trials of several ranks at one time, and what the placer knows of the site
    leads: int = 0
    places: Mapping[str, Any] = field(default_factory=dict)
    look_s: float = 0.5
    nodes: int = 1

    def executor(self, folder: StudyFolder, run: int) -> BlockExecutor:
        provider = LocalProvider(
            nodes_per_block=1, init_blocks=0, min_blocks=0, max_blocks=self.max_blocks,
            launcher=SimpleLauncher(), worker_init=self.worker_init,
        )  # fmt: skip

        def supervise(block: str) -> list[str]:
            walltime = ["--walltime", repr(self.walltime_s), "--enforce"] if self.walltime_s else []
            return [
                self.python, "-m", "hpc_hpo.worker.block",
                "--dir", str(folder.path), "--run", str(run), "--block", block,
                "--workers", str(self.workers_per_node), *walltime,
                "--kill-grace", repr(self.kill_grace_s), "--term-grace", repr(self.kill_grace_s),
                "--poll", repr(self.look_s), "--",
            ]  # fmt: skip

        return BlockExecutor(
            supervise, self.python, label="pool", provider=provider, address=self.address,
            max_workers_per_node=self.workers_per_node, cores_per_worker=1e-3,
            leads=self.leads, places=self.places,
            heartbeat_period=self.heartbeat_period_s,
            heartbeat_threshold=self.heartbeat_threshold_s, encrypted=True,
        )  # fmt: skip

    def states(self, executor: BlockExecutor, jobs: list[str], hurry: bool) -> dict[str, JobSeen]:
        """See BlockSource; asking costs nothing here."""
        now = time.time()
        statuses = executor.blocks_from.status(jobs)
        return {
            job: JobSeen("gone" if status.terminal else "running", now)
            for job, status in zip(jobs, statuses, strict=True)
        }

    def room(self, wanted: int, waiting: int, running: int) -> int:
        """See BlockSource; a machine of one's own has no queue."""
        return wanted

    def complaint(self, executor: BlockExecutor, job: str) -> str:
        script = executor.blocks_from.resources[job]["script_path"]
        return tail_of(Path(f"{script}.err")) or tail_of(Path(f"{script}.out")) or "(nothing)"

    def script_folder(self, folder: Path) -> Path:
        """`folder`, or a link to it whose path needs no quoting.

        LocalProvider puts the path of its scripts into a shell command without quotes.
        """
        if shlex.quote(str(folder)) == str(folder):
            return folder
        self._links = tempfile.TemporaryDirectory(prefix="hpc-hpo-")
        link = Path(self._links.name) / "scripts"
        os.symlink(folder, link)
        return link
