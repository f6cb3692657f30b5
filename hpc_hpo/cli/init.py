"""``hpc-hpo init``: a small study that runs as it is."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from hpc_hpo.errors import InputError
from hpc_hpo.fsio import storage_error, write_atomic

#: template -> the name it gets in the user's folder
PYTHON_STUDY = {"study.yaml": "study.yaml", "objective.py": "objective.py"}
COMMAND_STUDY = {"study-command.yaml": "study.yaml", "train.py": "train.py"}


@click.command()
@click.argument(
    "folder", type=click.Path(path_type=Path), default=Path("."), metavar="[DIR]", required=False
)
@click.option("--command", is_flag=True, help="A program is run instead of a Python function.")
def init(folder: Path, command: bool) -> None:
    """Write a small study that runs as it is, to be changed into yours.

    DIR is the folder to write to (default: here). Nothing there is overwritten.
    """
    names = COMMAND_STUDY if command else PYTHON_STUDY
    write_templates(folder, names)
    for name in names.values():
        click.echo(f"wrote {folder / name}")
    click.echo(f"now: hpc-hpo run {folder / 'study.yaml'}")


def write_templates(folder: Path, names: dict[str, str]) -> None:
    """Copy templates into `folder`, which is made when missing.

    Raises:
        InputError: one of the files exists; nothing has been written.
        StorageError: the folder cannot be written.
    """
    for name in names.values():
        if (folder / name).exists():
            raise InputError(
                "exists already", file=str(folder / name), valid="a folder without a study"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    templates = files("hpc_hpo.cli") / "templates"
    for template, name in names.items():
        write_atomic(folder / name, (templates / template).read_bytes())
