"""``hpc-hpo check``: say what would go wrong, before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import echo_rows, path_argument, site_option
from hpc_hpo.cli.preflight import every_option, plain_option, run_preflight
from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.launch import check as find_problems
from hpc_hpo.launch import open_study, site_of, start_report
from hpc_hpo.pilot.sources import workers_per_node
from hpc_hpo.units import parse_duration
from hpc_hpo.workload import most_trials


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise InputError(str(error), key="--time", found=text) from None
    if seconds < 1:
        raise InputError("too short to see anything", key="--time", found=text, valid="1s or more")
    return seconds


@click.command()
@path_argument
@site_option
@plain_option
@every_option
@click.option(
    "--offline", is_flag=True, help="Also run one evaluation without a network, and tell of it."
)
@click.option(
    "--time", "limit", default="60s", show_default=True, help="How long that evaluation may take."
)
def check(
    path: Path, site_name: str | None, plain: bool, every: bool, offline: bool, limit: str
) -> int | None:
    """Validate a study, its payload, its inputs and its resources on its site.

    Compiled files, environments and images are held against the site's architecture.

    PATH is a study.yaml, or a study's folder (default: here).
    """
    seconds = _seconds(limit)
    study, folder = open_study(path)
    site = site_of(study, site_name)
    problems = find_problems(study, site)
    if problems:
        raise problems[0] if len(problems) == 1 else InputErrors(problems)
    start = start_report(study, folder)
    fit = run_preflight(study, folder, site, plain=plain, every=every)
    blocks = study.blocks
    _, meaning = most_trials(study, site, study.trial.expected_time)
    workers = workers_per_node(study, site)
    shape = "auto: see hpc-hpo plan" if blocks.auto else blocks.words()
    click.echo(f"{study.name}: nothing wrong was found")
    echo_rows(
        [
            ("space", f"{len(study.space)} parameters: {', '.join(study.space.names)}"),
            ("optimizer", study.optimizer.name),
            *([("segments", str(len(study.segments)))] if study.segments.named else []),
            *(("starts from" if i == 0 else "", line) for i, line in enumerate(start)),
            ("budget", study.budget.words(study.segments.total_trials)),
            *([("", meaning)] if meaning else []),
            ("site", f"{site.name} ({site.path})"),
            ("workers", f"{shape}; up to {workers} trials at one time on a node"),
            ("preflight", fit),
            ("folder", str(folder.path)),
        ]
    )
    if not offline:
        return None
    from hpc_hpo.cli.offline import check_offline

    return check_offline(study, site, folder, seconds)
