"""Parsl's worker pool as a node of a block starts it: ``python -m hpc_hpo.pilot.pool ARGS``.

It is Parsl's own program (2026.10.26, the version that setup.cfg pins) with changes that keep a
node's start short, whose imports come from a parallel file system, and its end in order:

- Workers come from a fork server that has imported what they need. Parsl spawns each as a new
  Python: 43 times the imports on a node of 42 workers.
- The packages ``parsl`` and ``parsl.executors`` are entered without running their ``__init__``,
  which import every executor, provider and the DataFlowKernel: more than half of the time.
- The registration does not list the versions of all installed packages, which nobody here reads:
  one more file for each of them.
- It is deaf to TERM. Slurm sends that to every process of a step, and the slices may use the time
  from there to the KILL; the block's supervisor ends the pool when they have.

The block's name and end come from the supervisor by the environment. Parsl counts the end from
the moment that its manager is made, hence it is computed as late as possible.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import runpy
import signal
import socket
import sys
import time
from types import ModuleType

from hpc_hpo.pilot.names import LEAD

POOL = "parsl.executors.high_throughput.process_worker_pool"
BARE = ("parsl", "parsl.executors")
#: What the fork server imports once for all workers of a node.
PRELOADED = ["hpc_hpo.pilot.forked", POOL, "hpc_hpo.worker.entry"]
#: From reading the clock here to Parsl's manager reading it, at most, in seconds.
SLACK_S = 0.05


def enter_bare() -> None:
    """Make the packages of BARE importable from without running their ``__init__``."""
    for name in BARE:
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"{name} is installed"
        package = ModuleType(name)
        package.__spec__, package.__file__ = spec, spec.origin
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)


def options(now: float) -> list[str]:
    """What the supervisor's environment adds to the pool's options; the last of each counts.

    Whole seconds only: workers decline what no longer fits, to the fraction.
    """
    added = []
    if block := os.environ.get("HPC_HPO_BLOCK"):
        lead = LEAD if os.environ.get("HPC_HPO_LEAD") else ""
        added.append(f"--block_id={block}{lead}")
    if end := os.environ.get("HPC_HPO_BLOCK_END"):
        added.append(f"--drain_period={max(1, int(float(end) - now - SLACK_S))}")
    return added


def main() -> None:
    """Run the pool until it ends."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    enter_bare()
    import parsl.multiprocessing

    context = multiprocessing.get_context("forkserver")
    more = os.environ.get("HPC_HPO_PAYLOADS", "").split(",")
    context.set_forkserver_preload([*PRELOADED, *filter(None, more)])
    parsl.multiprocessing.SpawnContext = context  # type: ignore[assignment]
    importlib.metadata.distributions = lambda **_: ()
    # By which the placer and the launcher know this node.
    platform.node = lambda: os.environ.get("HPC_HPO_NODE") or socket.gethostname()
    # Its imports are made here, so that little comes between the clock and the manager.
    importlib.import_module(POOL)
    del sys.modules[POOL]
    sys.argv += options(time.time())
    runpy.run_module(POOL, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
