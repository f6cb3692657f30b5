"""``hpc-hpo segment``: how each segment stands, and what is to be done with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import open_study, path_argument, point_text, value_text
from hpc_hpo.clock import SystemClock
from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder, steering_alive
from hpc_hpo.results.segments import SegmentRow, segment_rows
from hpc_hpo.results.table import strict_json

_folder = click.argument("path", type=click.Path(path_type=Path))
_name = click.argument("name")
_names = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.group()
def segment() -> None:
    """List the segments of a study, or add, stop, resume, rerun or enlarge one.

    PATH is the study's folder or its study.yaml. A study that runs heeds it within seconds; one
    that does not, when it next runs.
    """


@segment.command("list")
@path_argument
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_segments(path: Path, as_json: bool) -> None:
    """Show every segment with its best point."""
    view = open_study(path)
    rows = segment_rows(view.state, view.study)
    if as_json:
        click.echo(strict_json([row.plain() for row in rows], indent=1))
        return
    table = [("segment", "state", "trials", "best", "trial", "point"), *map(_cells, rows)]
    widths = [max(len(cells[i]) for cells in table) for i in range(5)]
    for cells in table:
        start = "  ".join(text.ljust(width) for text, width in zip(cells[:5], widths, strict=True))
        click.echo(f"{start}  {cells[5]}".rstrip())


def _cells(row: SegmentRow) -> tuple[str, str, str, str, str, str]:
    best = row.best
    trials = f"{row.record.ended}/{row.budget if row.budget is not None else '?'}"
    if best is None or best.loss is None:
        return row.name or "-", row.state, trials, "", "", row.problem or ""
    text = point_text(best.point)
    return row.name or "-", row.state, trials, value_text(best.loss), str(best.id), text


@segment.command()
@_folder
@_name
@click.option("--value", "values", multiple=True, metavar="NAME=VALUE", help="One of its values.")
@click.option(
    "--spec", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A YAML file with its space, optimizer, budget, inputs, values.",
)  # fmt: skip
def add(path: Path, name: str, values: tuple[str, ...], spec: Path | None) -> None:
    """Add a segment; its inputs are staged first."""
    from hpc_hpo.launch import open_study as open_file
    from hpc_hpo.steering.asking import add_segment

    study, folder = open_file(path)
    add_segment(study, folder, _spec(name, values, spec))
    _tell(folder, f"segment {name} is to be added")


def _spec(name: str, values: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    from hpc_hpo.yamlio import load_yaml

    content: Any = {} if file is None else load_yaml(file).data
    if not isinstance(content, dict):
        raise InputError("not a mapping", file=str(file), valid="the keys of a segment")
    if content.get("name", name) != name:
        raise InputError("another name", file=str(file), key="name", found=content["name"],
                         valid=name)  # fmt: skip
    given = dict(content.get("values") or {})
    for text in values:
        key, found, value = text.partition("=")
        if not found:
            raise InputError("no value", key="--value", found=text, valid="as in pid=22")
        # As in a study file: 22 is a number, relu a text.
        given[key] = load_yaml(value).data
    return {**content, "name": name, **({"values": given} if given else {})}


def _request(path: Path, names: tuple[str, ...], op: str, words: str, **facts: Any) -> None:
    from hpc_hpo.launch import open_study as open_file
    from hpc_hpo.steering.asking import ask_for

    study, folder = open_file(path)
    ask_for(study, folder, op, names, **facts)
    count = f"segment {names[0]}" if len(names) == 1 else f"{len(names)} segments"
    _tell(folder, f"{count}: {words}")


@segment.command()
@_folder
@_names
def stop(path: Path, names: tuple[str, ...]) -> None:
    """Ask for no further point of a segment; its open trials are left as they are."""
    _request(path, names, "stop", "to be stopped")


@segment.command()
@_folder
@_names
def resume(path: Path, names: tuple[str, ...]) -> None:
    """Go on with a segment that was stopped, or whose inputs were missing."""
    _request(path, names, "resume", "to go on")


@segment.command()
@_folder
@_names
def rerun(path: Path, names: tuple[str, ...]) -> None:
    """Begin a segment again: its trials so far are kept, but count no more."""
    _request(path, names, "rerun", "to begin again")


@segment.command()
@_folder
@_name
@click.argument("trials", type=click.IntRange(min=1))
def budget(path: Path, name: str, trials: int) -> None:
    """Give a segment another budget of trials, those that it has had included."""
    _request(path, (name,), "budget", f"a budget of {trials} trials", trials=trials)


def _tell(folder: StudyFolder, words: str) -> None:
    holder = steering_alive(folder, SystemClock().now())
    when = (
        f"process {holder['pid']} on {holder['host']} heeds it"
        if holder else "heeded when the study next runs"
    )  # fmt: skip
    click.echo(f"{folder.path}: {words}; {when}")
