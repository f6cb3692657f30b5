"""``hpc-hpo plan``: choices of blocks side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import duration, path_argument, site_option
from hpc_hpo.errors import InputError
from hpc_hpo.launch import open_study, site_of
from hpc_hpo.pilot.free import free_windows
from hpc_hpo.pilot.queues import lsf_walltime, queue_name
from hpc_hpo.plan import QUEUE_WAIT_S, START_UP_S, Choice, Plan, make_plan
from hpc_hpo.simulate.draws import Draw, parse_draw
from hpc_hpo.simulate.run import Assumptions
from hpc_hpo.simulate.sample import Sample, samples
from hpc_hpo.units import DURATION_FORMS, format_duration, parse_duration

HEADS = (
    "", "nodes", "walltime", "at once", "jobs", "trials at once", "node-hours", "lost",
    "finished in",
)  # fmt: skip
SIMULATED_HEADS = ("", "nodes", "walltime", "at once", "busy", "lost", "node-hours", "finished in")


def _draw(ctx: click.Context, param: click.Parameter, value: str | None) -> Draw | None:
    if value is None:
        return None
    return parse_draw(value, param.opts[0], positive=param.name == "trial_time")


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        option = param.opts[0]
        raise InputError(str(error), key=option, found=value, valid=DURATION_FORMS) from None


@click.command()
@path_argument
@site_option
@click.option(
    "--wait", "wait_s", default=format_duration(QUEUE_WAIT_S), show_default=True, callback=_seconds,
    help="How long a job is assumed to wait in the queue.",
)  # fmt: skip
@click.option(
    "--start-up", "start_up_s", default=format_duration(START_UP_S), show_default=True,
    callback=_seconds, help="Assumed time from a job's start to its first trial.",
)  # fmt: skip
@click.option("--trial-time", callback=_draw,
              help="In place of trial.expected_time: 10m or 'lognormal(600, 0.5)'.")  # fmt: skip
@click.option("--simulate/--no-simulate", "simulated", default=None,
              help="All choices, or none; default: those marked * and =.")  # fmt: skip
@click.option("--now", is_flag=True, help="Ask the scheduler what is free now, and count that in.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, times in seconds.")
def plan(
    path: Path,
    site_name: str | None,
    wait_s: float,
    start_up_s: float,
    trial_time: Draw | None,
    simulated: bool | None,
    now: bool,
    as_json: bool,
) -> None:
    """Compare sizes of batch jobs for a study, and recommend one.

    PATH is a study.yaml, or a study's folder (default: here). `blocks: auto` in the study takes
    the recommendation. Nothing is submitted. A sample of the study is simulated on the
    recommended blocks and on its own.
    """
    study, _ = open_study(path)
    site = site_of(study, site_name)
    if trial_time is not None:
        # Four digits are more than anybody knows of it.
        mean_s = float(f"{trial_time.mean:.4g}")
        needs = study.trial.model_copy(update={"expected_time": mean_s})
        study = study.model_copy(update={"trial": needs})
    free = free_windows(site, study.queue) if now and site.batch else []
    made = make_plan(study, site, queue_wait_s=wait_s, start_up_s=start_up_s, free=free)
    queue = queue_name(site, study.queue)
    given = Assumptions(
        trial_time or Draw("constant", (study.trial.expected_time or 0.0,)),
        queue_wait=Draw("constant", (wait_s,)), start_up=Draw("constant", (start_up_s,)),
    )  # fmt: skip
    shown = [
        choice for choice in made.choices
        if simulated or (simulated is None and (choice == made.recommended or choice.asked))
    ]  # fmt: skip
    known = samples(study, site, shown, given)
    if as_json:
        facts = {"study": study.name, "site": site.name, "queue": queue}
        click.echo(json.dumps({**facts, **_plain(made, known)}))
        return
    click.echo(f"{study.name} at {site.name}" + (f", queue {queue}" if queue else ""))
    _echo_table([HEADS, *(_row(choice, made) for choice in made.choices)])
    if any(choice.free_now for choice in made.choices):
        click.echo("\n! the first job could start now; another user's may be faster")
    click.echo(f"\n* recommended: {made.reason}")
    if any(choice.asked for choice in made.choices):
        click.echo("= what the study asks for; blocks: auto would take the recommended one")
    if made.refused:
        click.echo(f"the study's own blocks are not possible: {made.refused}")
    _echo_samples(made, known, given)
    for window in free:
        lasting = "" if window.seconds == math.inf else f" for {duration(window.seconds)}"
        click.echo(f"free now: {window.nodes} nodes{lasting}")
    if now and not free:
        click.echo("free now: nothing")
    for assumption in made.assumptions:
        click.echo(f"assumed: {assumption}")


def _plain(made: Plan, known: Mapping[Choice, Sample]) -> dict[str, Any]:
    best = made.recommended
    rows = [
        {**asdict(choice), "jobs": choice.jobs, "recommended": choice == best,
         "simulated": asdict(found) if (found := known.get(choice)) else None}
        for choice in made.choices
    ]  # fmt: skip
    return {
        "choices": rows,
        "reason": made.reason,
        "assumptions": made.assumptions,
        "refused": made.refused,
    }


def _blocks(choice: Choice, made: Plan) -> tuple[str, ...]:
    return (
        ("*" if choice == made.recommended else "=" if choice.asked else "")
        + ("!" if choice.free_now else ""),
        str(choice.nodes),
        lsf_walltime(choice.walltime_s) if choice.walltime_s is not None else "none",
        str(choice.at_once),
    )


def _row(choice: Choice, made: Plan) -> tuple[str, ...]:
    return (
        *_blocks(choice, made),
        str(choice.jobs),
        str(choice.workers),
        f"{choice.node_hours:.1f}",
        f"{choice.lost:.0%}",
        duration(choice.finish_s),
    )


def _echo_samples(made: Plan, known: Mapping[Choice, Sample], given: Assumptions) -> None:
    """What the simulations came to."""
    if not known:
        return
    trials = max(found.trials for found in known.values())
    click.echo(f"\nsimulated: {trials} trials of {given.trial_time.words()} each")
    rows = [
        (*_blocks(choice, made), f"{found.utilisation:.1%}", duration(found.lost_s),
         f"{found.node_hours:.1f}", duration(found.finish_s))
        for choice, found in known.items()
    ]  # fmt: skip
    _echo_table([SIMULATED_HEADS, *rows])


def _echo_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
