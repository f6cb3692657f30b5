"""``hpc-hpo export``: the results in a file that other programs read."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from hpc_hpo.cli.common import open_study, path_argument
from hpc_hpo.errors import InputError
from hpc_hpo.results.export import FORMATS
from hpc_hpo.results.view import StudyView
from hpc_hpo.study.stores import STORE, Store, read_store

#: Not a file that is replaced, but a store that is added to.
MLFLOW = "mlflow"
#: So many of the things that were left out are shown.
_SHOWN = 10


@click.command()
@path_argument
@click.option(
    "--format",
    "name",
    type=click.Choice([*FORMATS, MLFLOW]),
    required=True,
    help="The file's format.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The file; - is standard output. Default: results.<suffix> in the study's folder. "
    "For mlflow: a folder, sqlite:///FILE or file:FOLDER. Default: that of the study's key "
    "tracking, or mlflow in its folder.",
)
@click.option("--follow", is_flag=True, hidden=True, help="mlflow: until standard input ends.")
def export(path: Path, name: str, output: str | None, follow: bool) -> None:
    """Write the results as CSV, JSON, HDF5, Parquet, for Optuna or for MLflow.

    PATH is the study's folder or its study.yaml (default: here).
    """
    view = open_study(path)
    if name == MLFLOW:
        _to_mlflow(view, output, follow)
        return
    chosen = FORMATS[name]
    if output == "-":
        if not chosen.is_text:
            raise InputError(f"{name} is not text", key="-o", found="-", valid="a file's name")
        with tempfile.TemporaryDirectory() as room:
            file = Path(room) / f"results.{chosen.suffix}"
            chosen.write(view.state, view.study, file)
            click.echo(file.read_bytes(), nl=False)
        return
    target = Path(output) if output else view.folder.path / f"results.{chosen.suffix}"
    if not target.parent.is_dir():
        why = "there is no such folder" if output else "the study has never been run"
        raise InputError(why, file=str(target.parent))
    if target.is_dir():
        raise InputError("is a folder", file=str(target), key="-o", valid="a file's name")
    chosen.write(view.state, view.study, target)
    click.echo(f"{len(view.state.trials)} trials written to {target}")


def _to_mlflow(view: StudyView, output: str | None, until_the_end: bool) -> None:
    from hpc_hpo.results.mlflow.export import MlflowExport

    if not view.folder.exists:
        raise InputError("the study has never been run", file=str(view.folder.path))
    if output == "-":
        raise InputError("a store of MLflow is no text", key="-o", found="-", valid="a folder")
    store = _store_of(view, output)
    if until_the_end:
        from hpc_hpo.results.mlflow.live import follow

        follow(view, store)
        return
    count = len(view.state.trials)
    with click.progressbar(length=count, label="trials", file=sys.stderr) as bar:
        found = MlflowExport(view, store).write(progress=bar.update)
    runs = found.runs
    click.echo(
        f"{count} trials in {store.place}: {runs['made']} runs made, {runs['added']} added to, "
        f"{runs['same']} as they were"
    )
    click.echo(f"look at them with: mlflow ui --backend-store-uri {store.uri}")
    for line in found.skipped[:_SHOWN]:
        click.echo(f"skipped: {line}", err=True)
    if len(found.skipped) > _SHOWN:
        click.echo(f"skipped: {len(found.skipped) - _SHOWN} more", err=True)


def _store_of(view: StudyView, output: str | None) -> Store:
    """The one that was named, else the one that the study is shown in while it runs."""
    if output is None and view.study.get("tracking"):
        from hpc_hpo.launch import load_frozen

        frozen = load_frozen(view.folder)
        assert frozen.tracking is not None, "it is the same study"
        return frozen.tracking.store(frozen.folder, view.folder.path)
    return read_store(output or str(view.folder.path / STORE), Path.cwd(), "-o")
