"""``hpc-hpo check``: say what would go wrong, before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import echo_rows, path_argument
from hpc_hpo.cli.preflight import every_option, plain_option, run_preflight
from hpc_hpo.errors import InputErrors
from hpc_hpo.launch import check as find_problems
from hpc_hpo.launch import open_study, site_of
from hpc_hpo.pilot.sources import workers_per_node


@click.command()
@path_argument
@click.option("--site", "site_name", help="A site's name or file, in place of the study's.")
@plain_option
@every_option
def check(path: Path, site_name: str | None, plain: bool, every: bool) -> None:
    """Validate a study, its payload, its inputs and its resources on its site.

    Compiled files, environments and images are held against the site's architecture.

    PATH is a study.yaml, or a study's folder (default: here).
    """
    study, folder = open_study(path)
    site = site_of(study, site_name)
    problems = find_problems(study, site)
    if problems:
        raise problems[0] if len(problems) == 1 else InputErrors(problems)
    fit = run_preflight(study, folder, site, plain=plain, every=every)
    blocks = study.blocks
    workers = workers_per_node(study, site)
    shape = "auto: see hpc-hpo plan" if blocks.auto else blocks.words()
    click.echo(f"{study.name}: nothing wrong was found")
    echo_rows(
        [
            ("space", f"{len(study.space)} parameters: {', '.join(study.space.names)}"),
            ("optimizer", study.optimizer.name),
            *([("segments", str(len(study.segments)))] if study.segments.named else []),
            ("budget", f"{study.segments.total_trials} trials"),
            ("site", f"{site.name} ({site.path})"),
            ("workers", f"{shape}; up to {workers} trials at one time on a node"),
            ("preflight", fit),
            ("folder", str(folder.path)),
        ]
    )
