"""``hpc-hpo script``: scripts to edit and submit by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hpc_hpo.cli.common import directory_option, path_argument, site_option
from hpc_hpo.cli.run import require_batch, site_arguments
from hpc_hpo.errors import InputErrors
from hpc_hpo.fsio import write_atomic
from hpc_hpo.launch import open_study, site_of
from hpc_hpo.pilot.queues import check_queue
from hpc_hpo.pilot.sources import check_shape
from hpc_hpo.plan import resolve_blocks
from hpc_hpo.steerer.batch import chain_length, steering_script
from hpc_hpo.steerer.script import ENDINGS, prestage_script


@click.command()
@path_argument
@directory_option
@site_option
@click.option(
    "--steer", type=click.Choice(["batch", "prestage"]), default="batch", show_default=True,
    help="A job that steers the study, or a script that brings its inputs.",
)  # fmt: skip
@click.option(
    "--max-jobs", type=click.IntRange(min=1),
    help="Jobs at most, one after another. [default: from the plan, or 20]",
)  # fmt: skip
@click.option("-o", "output", type=click.Path(path_type=Path), help="Write to this file.")
def script(
    path: Path,
    directory: Path | None,
    site_name: str | None,
    steer: str,
    max_jobs: int | None,
    output: Path | None,
) -> None:
    """Print a script that you may edit and submit by hand.

    PATH is a study.yaml, or a study's folder (default: here). A job submits itself again from the
    file that the script names as its own: that of -o, else one beside the study.
    """
    study, _ = open_study(path, directory)
    site = site_of(study, site_name)
    place = path.resolve()
    options = ["--dir", str(directory.resolve())] if directory else []
    if steer == "prestage":
        text = prestage_script(study.name, sys.executable, str(place), options)
    else:
        require_batch(site.batch, site.name)
        if study.blocks.auto:
            study = study.model_copy(update={"blocks": resolve_blocks(study, site)})
        problems = [*check_shape(study, site), *check_queue(study, site)]
        if problems:
            raise problems[0] if len(problems) == 1 else InputErrors(problems)
        file = output or study.folder / f"{study.name}.{ENDINGS[site.scheduler]}"
        longest = chain_length(study, site, max_jobs)
        options += site_arguments(site_name)
        text = steering_script(study, site, place, file.resolve(), longest, *options)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomic(output, text)
