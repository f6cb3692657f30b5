"""``hpc-hpo prestage``: bring the inputs into the study folder, or prove that they are there."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import path_argument
from hpc_hpo.cli.preflight import every_option, plain_option, run_preflight
from hpc_hpo.errors import InputError
from hpc_hpo.launch import freeze, open_study, site_of
from hpc_hpo.prestage.local import stage
from hpc_hpo.prestage.manifest import load_manifest
from hpc_hpo.prestage.verify import verify as find_changes
from hpc_hpo.prestage.wheel_inputs import stage_wheels
from hpc_hpo.site.target import target_of
from hpc_hpo.steering.asking import with_all_segments
from hpc_hpo.units import format_size


@click.command()
@path_argument
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The study folder.")
@click.option("--verify", is_flag=True, help="Only read all staged files and compare.")
@click.option("--site", "site_name", help="A site's name or file, in place of the study's.")
@plain_option
@every_option
def prestage(
    path: Path, directory: Path | None, verify: bool, site_name: str | None, plain: bool,
    every: bool,
) -> None:  # fmt: skip
    """Bring the inputs into the study folder and write manifest.json.

    What is staged is then held against the site's architecture.

    PATH is a study.yaml, or a study's folder (default: here).
    """
    study, folder = open_study(path, directory)
    site = site_of(study, site_name)
    if verify:
        manifest = load_manifest(folder)
        if manifest is None:
            raise InputError("nothing was staged yet", file=str(folder.manifest))
        problems = list(find_changes(manifest, folder, rehash=True))
        if problems:
            raise InputError("\n  ".join(["staged inputs have changed:", *problems]))
    else:
        folder.make()
        freeze(study, folder)
        study = with_all_segments(study, folder)
        manifest = stage(study, folder)
        stage_wheels(study, manifest, folder, target_of(site), site.supplies)
    total = sum(file.size for file in manifest.files)
    word = "verified" if verify else "staged"
    click.echo(
        f"{study.name}: {len(manifest.paths)} inputs {word}, {len(manifest.files)} files, "
        f"{format_size(total)}, in {folder.inputs}"
    )
    if not verify:
        fit = run_preflight(study, folder, site, plain=plain, every=every)
        click.echo(f"preflight for {site.name}: {fit}")
