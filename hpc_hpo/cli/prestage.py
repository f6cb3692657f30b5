"""``hpc-hpo prestage``: bring the inputs into the study folder, or prove that they are there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hpc_hpo.cli.common import directory_option, path_argument, site_option
from hpc_hpo.cli.preflight import every_option, plain_option, run_preflight
from hpc_hpo.cli.transfers import Transfers
from hpc_hpo.errors import ExitCode, InputError
from hpc_hpo.launch import freeze, open_study, site_of
from hpc_hpo.prestage.manifest import Manifest, load_manifest
from hpc_hpo.prestage.staging import stage
from hpc_hpo.prestage.store import Store, store_folder
from hpc_hpo.prestage.verify import verify as find_changes
from hpc_hpo.prestage.wheel_inputs import stage_wheels
from hpc_hpo.site.target import target_of
from hpc_hpo.steering.asking import with_all_segments
from hpc_hpo.units import format_size


@click.command()
@path_argument
@directory_option
@click.option("--verify", is_flag=True, help="Only read all staged files and compare.")
@click.option(
    "--update", is_flag=True, help="Take sources that have changed, though trials used the old."
)
@site_option
@plain_option
@every_option
def prestage(
    path: Path, directory: Path | None, verify: bool, update: bool, site_name: str | None,
    plain: bool, every: bool,
) -> int:  # fmt: skip
    """Bring the inputs into the study folder and write manifest.json.

    What is staged is then held against the site's architecture. Of the commands, this one and
    `segment add` alone use the network.

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
        store = Store(store_folder(folder.path, site, study.account, os.environ))
        with Transfers(live=sys.stderr.isatty() and not plain) as transfers:
            manifest = stage(
                study, folder, store=store, network=True, update=update or None, events=transfers
            )
        stage_wheels(study, manifest, folder, target_of(site), site.supplies)
    total = sum(file.size for file in manifest.files)
    word = "verified" if verify else "staged"
    inputs = len(manifest.paths) + sum(map(len, manifest.segments.values()))
    click.echo(
        f"{study.name}: {inputs} inputs {word}, {len(manifest.files)} files, "
        f"{format_size(total)}, in {folder.inputs}"
    )
    if not verify:
        fit = run_preflight(study, folder, site, plain=plain, every=every)
        click.echo(f"preflight for {site.name}: {fit}")
    return _report(manifest)


def _report(manifest: Manifest) -> int:
    """Say which segments lack an input; the exit code."""
    for failure in manifest.failed:
        click.echo(f"segment {failure.segment}: input {failure.input}: {failure.problem}", err=True)
    if manifest.failed:
        segments = len({failure.segment for failure in manifest.failed})
        click.echo(
            f"{segments} segments lack an input and cannot start; the others can. "
            "Prestage again once the cause is mended.", err=True,
        )  # fmt: skip
    return ExitCode.WORK_LEFT if manifest.failed else ExitCode.DONE
