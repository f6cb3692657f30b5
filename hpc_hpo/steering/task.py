"""What all slices of a study are told alike, written into its folder."""

from __future__ import annotations

import os

from hpc_hpo.folder import StudyFolder
from hpc_hpo.model import TaskSpec
from hpc_hpo.prestage.manifest import Manifest
from hpc_hpo.prestage.node_copies import node_copies, node_folder
from hpc_hpo.site import Site
from hpc_hpo.study import Study, network_of, payload_fields


def task_of(study: Study, manifest: Manifest, folder: StudyFolder, site: Site) -> TaskSpec:
    """What every slice of the study shares."""
    checkpoint = study.checkpoint
    task = TaskSpec(
        study=study.name,
        kind=study.kind,
        env=study.env,
        network=network_of(study, site.network),
        inputs=manifest.absolute(folder),
        local=node_copies(study, manifest, folder),
        local_folder=node_folder(site, study.account, os.environ),
        max_time_s=study.trial.max_time,
        signal=checkpoint.signal,
        kill_grace_s=checkpoint.kill_grace,
        checkpoint_files=list(checkpoint.files),
        checkpoint_every_s=checkpoint.every,
        checkpoint_keep=checkpoint.keep,
        fresh_process=study.trial.fresh_process,
        distributed=study.trial.ranks != 1,
        rank_timeout_s=study.trial.rank_timeout,
    )
    environments = [i.name for i in study.all_inputs() if i.kind == "environment"]
    if environments:
        task["environment"] = environments[0]
    if study.objectives:
        task["objectives"] = {one.name: one.rule() for one in study.objectives}
    if study.kind == "python":
        task["target"], task["path"] = study.python_target()
    else:
        assert study.command is not None, "validated: objective or command"
        task["argv"] = list(study.command)
        task["loss"] = study.loss.spec()
        # A command's relative program and files are relative to the study file.
        task["path"] = [str(study.folder)]
        task.update(payload_fields(study, site.node.gpu_vendor))
    return task
