"""``hpc-hpo convert``: a submission file of phpo as a study file."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.errors import InputError
from hpc_hpo.fsio import write_atomic
from hpc_hpo.study.load import load_study, parse_study
from hpc_hpo.study.submission import as_yaml, is_submission, load_submission
from hpc_hpo.yamlio import load_yaml


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="PHPO_JSON")
@click.argument("target", type=click.Path(path_type=Path), metavar="STUDY_YAML")
def convert(source: Path, target: Path) -> None:
    """Turn a submission file, as `phpo --loadJson` takes it, into a study file.

    Every key is kept, or is named with what becomes of it. The study belongs beside the
    submission, whose relative paths it keeps.
    """
    if not source.is_file():
        raise InputError("there is no such file", file=str(source))
    if not is_submission(source):
        load_study(source)  # says what is wrong with it
        raise InputError("this is a study already", file=str(source))
    if target.exists():
        raise InputError("exists already", file=str(target), valid="the name of a new file")
    if target.resolve().parent != source.resolve().parent:
        raise InputError(
            "the study's paths would lead elsewhere", file=str(target),
            valid=f"a file in {source.resolve().parent}",
        )  # fmt: skip
    doc, found = load_submission(source)
    parse_study(doc, path=source)
    text = as_yaml(found, source, lambda note: click.echo(f"note: {note}"))
    parse_study(load_yaml(text, str(target)), path=target)
    write_atomic(target, text)
    click.echo(f"wrote {target}")
