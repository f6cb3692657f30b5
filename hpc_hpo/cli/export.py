"""``hpc-hpo export``: the results in a file that other programs read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from hpc_hpo.cli.common import open_study, path_argument
from hpc_hpo.errors import InputError
from hpc_hpo.results.export import FORMATS


@click.command()
@path_argument
@click.option(
    "--format", "name", type=click.Choice(list(FORMATS)), required=True, help="The file's format."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file; - is standard output. Default: results.<suffix> in the study's folder.",
)
def export(path: Path, name: str, output: Path | None) -> None:
    """Write the results as CSV, JSON, HDF5 or Parquet.

    PATH is the study's folder or its study.yaml (default: here).
    """
    view = open_study(path)
    chosen = FORMATS[name]
    if str(output) == "-":
        if not chosen.is_text:
            raise InputError(f"{name} is not text", key="-o", found="-", valid="a file's name")
        with tempfile.TemporaryDirectory() as room:
            file = Path(room) / f"results.{chosen.suffix}"
            chosen.write(view.state, view.study, file)
            click.echo(file.read_bytes(), nl=False)
        return
    target = output or view.folder.path / f"results.{chosen.suffix}"
    if not target.parent.is_dir():
        why = "there is no such folder" if output else "the study has never been run"
        raise InputError(why, file=str(target.parent))
    chosen.write(view.state, view.study, target)
    click.echo(f"{len(view.state.trials)} trials written to {target}")
