"""From a study's resources and a site to the blocks that run them. One entry a scheduler."""

from __future__ import annotations

from hpc_hpo.errors import InputError
from hpc_hpo.pilot.local import LocalBlocks
from hpc_hpo.pilot.parsl_pilot import BlockSource
from hpc_hpo.site import Site
from hpc_hpo.study import Study


def check_shape(study: Study, site: Site) -> list[InputError]:
    """What of the study's resources the site cannot give."""
    errors = []
    trial, node = study.trial, site.node
    if site.scheduler != "local":
        errors.append(
            study.problem(
                "site",
                f"site {site.name} has a batch system ({site.scheduler}); blocks are run on this "
                "machine only so far",
                found=site.name,
                valid="local",
            )
        )
    if trial.ranks > 1:
        errors.append(
            study.problem(
                "trial.ranks", f"site {site.name} runs trials of one rank", found=trial.ranks,
                valid="1",
            )
        )  # fmt: skip
    if trial.gpus_per_rank > node.gpus:
        errors.append(
            study.problem(
                "trial.gpus_per_rank", f"a node of site {site.name} has {node.gpus} GPUs",
                found=trial.gpus_per_rank, valid=f"at most {node.gpus}",
            )
        )  # fmt: skip
    workers = study.blocks.workers_per_node
    if workers is not None and 0 < node.gpus < workers * trial.gpus_per_rank:
        errors.append(
            study.problem(
                "blocks.workers_per_node",
                f"a node of site {site.name} has {node.gpus} GPUs and each trial takes "
                f"{trial.gpus_per_rank}",
                found=workers,
                valid=f"at most {node.gpus // trial.gpus_per_rank}",
            )
        )
    if trial.cores_per_rank > node.cores:
        errors.append(
            study.problem(
                "trial.cores_per_rank", f"a node of site {site.name} has {node.cores} cores",
                found=trial.cores_per_rank, valid=f"at most {node.cores}",
            )
        )  # fmt: skip
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
    return errors


def workers_per_node(study: Study, site: Site) -> int:
    """How many trials run on a node at one time: as asked, or as many as fit."""
    if study.blocks.workers_per_node is not None:
        return study.blocks.workers_per_node
    trial, node = study.trial, site.node
    fit = [node.cores // trial.cores_per_rank]
    if trial.gpus_per_rank:
        fit.append(node.gpus // trial.gpus_per_rank)
    if trial.memory is not None and node.memory is not None:
        fit.append(node.memory // trial.memory)
    return max(1, min(fit))


def block_source(study: Study, site: Site) -> BlockSource:
    """The source of blocks for a checked study."""
    return LocalBlocks(
        workers_per_node=workers_per_node(study, site),
        max_blocks=study.blocks.max,
        walltime_s=study.blocks.walltime,
        kill_grace_s=site.kill_grace,
        address=site.address,
        heartbeat_period_s=max(1, round(site.heartbeat.period)),
        heartbeat_threshold_s=max(2, round(site.heartbeat.threshold)),
        worker_init=site.worker_init,
        gpus_per_worker=study.trial.gpus_per_rank,
        poll_s=site.poll,
    )
