"""From a study's resources and a site to the blocks that run them. One entry a scheduler."""

from __future__ import annotations

import re
import shlex
import socket
import sys
from collections.abc import Sequence
from typing import Any

import psutil

from hpc_hpo.errors import InputError, PilotError
from hpc_hpo.pilot.batch import BatchBlocks, BatchJobs
from hpc_hpo.pilot.blocks import BlockSource
from hpc_hpo.pilot.local import LocalBlocks
from hpc_hpo.pilot.lsf import LsfJobs
from hpc_hpo.pilot.pbs import PbsJobs
from hpc_hpo.pilot.queues import (
    longest_walltime,
    lsf_walltime,
    pbs_walltime,
    queue_name,
    queue_of,
    slurm_queue,
    slurm_walltime,
)
from hpc_hpo.pilot.scheduler import Caller, call
from hpc_hpo.pilot.shapes import Shapes, check_shapes, place_settings
from hpc_hpo.pilot.slurm import SlurmJobs
from hpc_hpo.site import Site
from hpc_hpo.study import Study
from hpc_hpo.units import format_duration

#: Seconds between looks at what the workers of a batch job wrote: a glob on a shared file system.
LOOK_S = 2.0


def check_shape(study: Study, site: Site) -> list[InputError]:
    """What of the study's resources the site cannot give."""
    errors = check_shapes(study, site)
    trial, node = study.trial, site.node
    if trial.memory is not None and node.memory is not None and trial.memory > node.memory:
        errors.append(study.problem("trial.memory", f"more than a node of site {site.name} has"))
    if site.scheduler == "local" and study.blocks.nodes > 1:
        errors.append(
            study.problem(
                "blocks.nodes", f"site {site.name} is one machine", found=study.blocks.nodes,
                valid="1; more trials at one time with workers_per_node or max",
            )
        )  # fmt: skip
    walltime, longest = study.blocks.walltime, site.max_walltime
    if walltime is not None and longest is not None and walltime > longest:
        errors.append(study.problem("blocks.walltime", f"longer than site {site.name} allows"))
    warning = site.warning if site.batch else None
    if walltime is not None and warning is not None and walltime <= warning.ahead:
        ahead = format_duration(warning.ahead)
        errors.append(
            study.problem(
                "blocks.walltime", f"site {site.name} has a job's end announced {ahead} ahead, "
                "which is the whole of this block", found=format_duration(walltime),
                valid=f"more than {ahead}, or a shorter warning.ahead in the site's file",
            )
        )  # fmt: skip
    return errors


def workers_per_node(study: Study, site: Site) -> int:
    """How many of the smallest trials run on a node at one time: as asked, or as many as fit."""
    return Shapes(study, site).per_node


def block_source(study: Study, site: Site) -> BlockSource:
    """The source of blocks for a checked study.

    Raises:
        PilotError: this machine has no such network interface as the site names.
    """
    return batch_blocks(study, site) if site.batch else local_blocks(study, site)


def local_blocks(study: Study, site: Site) -> LocalBlocks:
    """Blocks that are processes of this machine."""
    shapes = Shapes(study, site)
    return LocalBlocks(
        workers_per_node=shapes.per_node,
        leads=shapes.steps(1),
        places=place_settings(shapes, site),
        max_blocks=study.blocks.max,
        walltime_s=study.blocks.walltime,
        kill_grace_s=site.kill_grace,
        address=site.address,
        heartbeat_period_s=max(1, round(site.heartbeat.period)),
        heartbeat_threshold_s=max(2, round(site.heartbeat.threshold)),
        worker_init=site.worker_init,
        python=site.python or sys.executable,
        look_s=site.poll,
    )


def batch_blocks(study: Study, site: Site, caller: Caller = call) -> BatchBlocks:
    """Blocks that are jobs of the site's scheduler.

    Args:
        caller: runs the scheduler's commands; replaced in tests.
    """
    blocks, shapes = study.blocks, Shapes(study, site)
    queue = queue_of(site, study.queue)
    python = site.python or sys.executable
    return BatchBlocks(
        jobs=lambda: batch_jobs(study, site),
        nodes=blocks.nodes,
        workers_per_node=shapes.per_node,
        leads=shapes.steps(blocks.nodes),
        places=place_settings(shapes, site),
        max_blocks=blocks.max,
        walltime_s=blocks.walltime,
        python=python,
        address=address_of(site),
        launcher=site.launcher,
        cores=site.node.cores,
        gpus=site.node.gpus,
        prepare=prepare_lines(site),
        queue=queue,
        ahead_s=site.warning.ahead if site.warning else 0.0,
        kill_grace_s=site.kill_grace,
        heartbeat_period_s=max(1, round(site.heartbeat.period)),
        heartbeat_threshold_s=max(2, round(site.heartbeat.threshold)),
        poll_s=site.poll,
        look_s=min(LOOK_S, site.poll),
        caller=caller,
    )


def prepare_lines(site: Site) -> list[str]:
    """Shell lines before workers start: the site's modules, then its worker_init."""
    modules = [f"module load {shlex.quote(name)}" for name in site.modules]
    return [*modules, *site.worker_init.splitlines()]


def batch_jobs(study: Study, site: Site) -> BatchJobs:
    """The provider for the study's blocks."""
    blocks, node = study.blocks, site.node
    shared: dict[str, Any] = {
        "nodes_per_block": blocks.nodes, "init_blocks": 0, "min_blocks": 0,
        "max_blocks": blocks.max,
    }  # fmt: skip
    gpus = node.gpus if study.trial.gpus_per_rank else 0
    longest = longest_walltime(site, study.queue, blocks.nodes)
    jobs: BatchJobs
    if site.scheduler == "slurm":
        partition, qos = slurm_queue(site, study.queue)
        jobs = SlurmJobs(
            partition=partition, qos=qos, account=study.account, gpus_per_node=gpus or None,
            scheduler_options=_lines("#SBATCH", site.directives), **shared,
        )  # fmt: skip
        write = slurm_walltime
    elif site.scheduler == "lsf":
        slots = site.submit.size == "slots"
        directives = [*site.directives, *([f'-gpu "num={gpus}"'] if slots and gpus else [])]
        jobs = LsfJobs(  # type: ignore[no-untyped-call]
            project=study.account, queue=queue_name(site, study.queue),
            request_by_nodes=not slots, cores_per_node=node.cores if slots else None,
            cores_per_block=node.cores * blocks.nodes if slots else None,
            bsub_redirection=site.submit.style == "redirection",
            scheduler_options=_lines("#BSUB", directives), **shared,
        )  # fmt: skip
        write = lsf_walltime
    else:
        jobs = PbsJobs(  # type: ignore[no-untyped-call]
            account=study.account, queue=queue_name(site, study.queue),
            cpus_per_node=node.cores * node.smt, select_options=f":ngpus={gpus}" if gpus else "",
            scheduler_options=_lines("#PBS", site.directives), **shared,
        )  # fmt: skip
        write = pbs_walltime
    jobs.job_name = job_name(study.name)
    if blocks.walltime is not None:
        jobs.walltime_text = write(blocks.walltime, longest)
    if site.warning is not None:
        jobs.warning = (site.warning.signal.removeprefix("SIG"), site.warning.ahead)
    return jobs


def job_name(study: str) -> str:
    """A study's name as every scheduler takes it for a job's: letters, digits, - and _."""
    return "hpo-" + re.sub(r"[^A-Za-z0-9_-]", "_", study)[:50]


def _lines(directive: str, options: Sequence[str]) -> str:
    return "\n".join(f"{directive} {option}" for option in options)


def address_of(site: Site) -> str:
    """Where workers reach this process: the site's address, or that of its interface.

    Raises:
        PilotError: this machine has no such interface, or it has no IPv4 address.
    """
    if site.interface is None or "address" in site.model_fields_set:
        return site.address
    found: dict[str, str] = {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    }
    if site.interface not in found:
        raise PilotError(
            f"site {site.name}: this machine has no interface {site.interface} with an address; "
            f"it has {', '.join(sorted(found))}. Name one in the site's file (interface:), or "
            "its address (address:)."
        )
    return found[site.interface]
