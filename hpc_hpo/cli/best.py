"""``hpc-hpo best``: the best point, for people and for training scripts."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import (
    echo_findings,
    echo_rows,
    front_text,
    open_study,
    path_argument,
    value_text,
)
from hpc_hpo.errors import ExitCode, InputError
from hpc_hpo.model import Trial
from hpc_hpo.results.fronts import named
from hpc_hpo.results.segments import SegmentRow, segment_rows
from hpc_hpo.results.table import strict_json
from hpc_hpo.schema import one_of


@click.command()
@path_argument
@click.option("--segment", help="The best of this segment.")
@click.option("--trial", type=int, help="With several objectives: this one of the best trials.")
@click.option("--params", is_flag=True, help="Print its parameters alone, as one JSON object.")
@click.option(
    "--json", "as_json", is_flag=True,
    help="Print a JSON list of the best trials: one, or all of the front of several objectives.",
)  # fmt: skip
def best(path: Path, segment: str | None, trial: int | None, params: bool, as_json: bool) -> int:
    """Show the best point so far; of several objectives, the front.

    PATH is the study's folder or its study.yaml (default: here). In a study with segments, name
    one: losses of different models do not compare. Exit code 8: no trial has a loss yet.
    """
    view = open_study(path)
    rows = {row.name: row for row in segment_rows(view.state, view.study)}
    if segment not in rows:
        names = [name for name in rows if name is not None]
        valid = one_of(segment or "", names) if names else "none: the study has no segments"
        why = "there is no such segment" if segment else "the study has segments: name one"
        raise InputError(why, key="--segment", found=segment, valid=valid)
    row = rows[segment]
    if trial is not None and not row.goals:
        raise InputError("the study has one loss, and so one best trial", key="--trial",
                         found=trial, valid="no --trial")  # fmt: skip
    if row.best is None:
        click.echo("no trial has a loss yet", err=True)
        return ExitCode.NO_RESULT
    found = _chosen(row, trial, params)
    if as_json:
        click.echo(strict_json([
            {"trial": t.id, "loss": t.loss, "point": t.point,
             **({"objectives": named(t, row.goals)} if row.goals else {})}
            for t in found
        ]))  # fmt: skip
    elif params:
        click.echo(strict_json(found[0].point))
    elif row.goals and trial is None:
        click.echo(front_text(row.plain()["front"]))
        names = list(dict.fromkeys(name for t in found for name in t.point))
        echo_findings(
            ["trial", *(goal.name for goal in row.goals), *names],
            [
                [str(t.id), *map(value_text, t.values or ()),
                 *(value_text(t.point[n]) if n in t.point else "-" for n in names)]
                for t in found
            ],
            plain=False,
        )  # fmt: skip
    else:
        values = [f"{name} {value!r}" for name, value in named(found[0], row.goals).items()]
        click.echo(f"{', '.join(values) or f'loss {found[0].loss!r}'}, trial {found[0].id}")
        echo_rows([(name, value_text(value)) for name, value in found[0].point.items()])
    return ExitCode.DONE


def _chosen(row: SegmentRow, trial: int | None, params: bool) -> list[Trial]:
    """The trials that are meant."""
    if not row.goals:
        return [row.best] if row.best is not None else []
    numbers = ", ".join(str(t.id) for t in row.front)
    if trial is None:
        if params and len(row.front) > 1:
            raise InputError(
                "several trials are best, each in its own way: name one, or take --json",
                key="--trial", valid=numbers,
            )  # fmt: skip
        return list(row.front)
    found = [t for t in row.front if t.id == trial]
    if not found:
        raise InputError("not on the front", key="--trial", found=trial, valid=numbers)
    return found
