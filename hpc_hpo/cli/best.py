"""``hpc-hpo best``: the best point, for people and for training scripts."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import echo_rows, open_study, path_argument, value_text
from hpc_hpo.errors import ExitCode, InputError
from hpc_hpo.results.segments import segment_rows
from hpc_hpo.results.table import strict_json
from hpc_hpo.schema import one_of


@click.command()
@path_argument
@click.option("--segment", help="The best of this segment.")
@click.option("--params", is_flag=True, help="Print its parameters alone, as one JSON object.")
def best(path: Path, segment: str | None, params: bool) -> int:
    """Show the best point so far.

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
    found = rows[segment].best
    if found is None:
        click.echo("no trial has a loss yet", err=True)
        return ExitCode.NO_RESULT
    if params:
        click.echo(strict_json(found.point))
        return ExitCode.DONE
    click.echo(f"loss {found.loss!r}, trial {found.id}")
    echo_rows([(name, value_text(value)) for name, value in found.point.items()])
    return ExitCode.DONE
