"""``hpc-hpo simulate``: a study on a whole machine, in virtual time."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import duration, echo_rows, path_argument, site_option, value_text
from hpc_hpo.errors import InputError
from hpc_hpo.journal import StudyState
from hpc_hpo.launch import open_study, site_of
from hpc_hpo.simulate.draws import Draw, parse_draw
from hpc_hpo.simulate.objectives import Maker, objective_named
from hpc_hpo.simulate.plot import check_plot, write_plot
from hpc_hpo.simulate.run import Assumptions, Simulated, prepare, simulate
from hpc_hpo.simulate.table import Table
from hpc_hpo.study import Study
from hpc_hpo.units import DURATION_FORMS, format_duration, parse_duration


def _draw(ctx: click.Context, param: click.Parameter, value: str | None) -> Draw | None:
    if value is None:
        return None
    return parse_draw(value, param.opts[0], positive=param.name == "trial_time")


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise InputError(str(error), key=param.opts[0], found=value, valid=DURATION_FORMS) from None


def _finite(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise InputError("not a finite number", key=param.opts[0], found=value)
    return value


def _losses(study: Study, options: dict[str, Any]) -> tuple[Table | None, Maker | None]:
    """The table that is asked for, and what makes objectives."""
    function, file, seed = options["objective"], options["table"], options["seed"]
    if file is not None:
        if function is not None:
            raise InputError("a table has the losses already", key="--objective", found=function,
                             valid="one of --objective and --table")  # fmt: skip
        table = Table(file, study, seed)
        return table, table.maker
    if function is None:
        return None, None
    sys.path.insert(0, str(Path.cwd()))
    try:
        return None, objective_named(function, study, seed)
    finally:
        sys.path.pop(0)


#: Improvements of the loss that are printed.
LISTED = 8


class _Progress:
    """A line on the terminal, renewed once a second."""

    def __init__(self, total: int | None) -> None:
        self._of = "" if total is None else f" of {total}"
        self._next = time.monotonic() + 1.0
        self._shown = sys.stderr.isatty()

    def show(self, state: StudyState, seconds: float) -> None:
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0
            ended = state.trial_states["completed"] + state.trial_states["failed"]
            click.echo(
                f"\r{ended}{self._of} trials, {duration(seconds)} simulated   ", err=True,
                nl=False,
            )  # fmt: skip

    def close(self) -> None:
        if self._shown:
            click.echo("\r" + " " * 60 + "\r", err=True, nl=False)


@click.command("simulate")
@path_argument
@site_option
@click.option("--nodes", type=click.IntRange(1), help="Nodes of a block.")
@click.option("--walltime", callback=_seconds, help="Of a block; with --nodes, the longest.")
@click.option("--blocks", type=click.IntRange(1), help="Blocks at one time.")
@click.option("--trials", type=click.IntRange(1), help="The budget.")
@click.option("--trial-time", callback=_draw, help="As in 10m or 'lognormal(600, 0.5)'.")
@click.option("--steps", type=click.IntRange(1),
              help="Of a trial, where it can pause; default: fidelity.max or 20.")  # fmt: skip
@click.option("--checkpoints/--no-checkpoints", default=None, help="Whether trials have them.")
@click.option("--checkpoint-time", callback=_seconds,
              help="To write one; default: 5s, less where trials are short.")  # fmt: skip
@click.option("--fail", type=click.FloatRange(0, 0.99), default=0.0, show_default=True,
              callback=_finite,
              help="Probability that a slice fails by its own error.")  # fmt: skip
@click.option("--queue-wait", default="1h", show_default=True, callback=_draw,
              help="Of a job; a time or a distribution.")  # fmt: skip
@click.option("--start-up", default="60s", show_default=True, callback=_draw,
              help="From a job's start to its first trial.")  # fmt: skip
@click.option("--mtbf", callback=_seconds, help="Mean time between failures of a node.")
@click.option("--preempt", callback=_draw,
              help="How long jobs last from when the queue may preempt them.")  # fmt: skip
@click.option("--time", "stop_s", callback=_seconds, help="Ends the simulation after so long.")
@click.option("--cpu", type=click.FloatRange(0), default=1.0, show_default=True,
              callback=_finite,
              help="Scales steering's CPU time; with 0, equal seeds give equal runs.")  # fmt: skip
@click.option("--objective", help="A test function's name, or module:function of a point.")
@click.option("--table", type=click.Path(path_type=Path),
              help="A CSV file of points with their losses, in place of a function.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="A new folder for the journal.")
@click.option("--plot", type=click.Path(path_type=Path), help="An HTML page of it, to be written.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, times in seconds.")
def simulate_command(path: Path, site_name: str | None, as_json: bool, **options: Any) -> None:
    """Simulate a study on a site, with the real steering loop and optimiser.

    PATH is a study.yaml, or a study's folder (default: here). Nothing is submitted, and nothing
    is written but what --keep and --plot ask for.
    """
    plot = check_plot(options["plot"]) if options["plot"] is not None else None
    study, _ = open_study(path)
    site = site_of(study, site_name)
    study = prepare(
        study, site, nodes=options["nodes"], walltime_s=options["walltime"],
        blocks=options["blocks"],
    )  # fmt: skip
    table, maker = _losses(study, options)
    trial_time = options["trial_time"]
    if trial_time is None:
        seconds = table.mean_s if table is not None else None
        trial_time = Draw("constant", (seconds,)) if seconds is not None else _expected(study)
    elif table is not None:
        table.timeless()
    given = Assumptions(
        trial_time=trial_time,
        steps=options["steps"] or (table.steps if table and not study.fidelity else None),
        resumable=options["checkpoints"], checkpoint_s=options["checkpoint_time"],
        fails=options["fail"], queue_wait=options["queue_wait"], start_up=options["start_up"],
        mtbf_s=options["mtbf"] or None, preempted=options["preempt"], stop_s=options["stop_s"],
        trials=options["trials"], cpu=options["cpu"], seed=options["seed"],
        objective=maker,
    )  # fmt: skip
    progress = _Progress(options["trials"] or study.segments.total_trials)
    try:
        found = simulate(study, site, given, keep=options["keep"], observe=progress.show)
    finally:
        progress.close()
    words = f"simulated at {site.name}: {found.study.blocks.words()}"
    size = write_plot(found, words, plot) if plot is not None else 0
    if as_json:
        click.echo(json.dumps({"site": site.name, **found.plain()}))
    else:
        _report(found, site.name, table, assumed=maker is None)
        if plot is not None:
            click.echo(f"drawn in {plot} ({size / 1e6:.1f} MB)")


def _expected(study: Study) -> Draw:
    expected = study.trial.expected_time
    if expected is None:
        raise study.problem(
            "trial.expected_time", "a simulation needs to know how long a trial takes",
            valid="a duration, or the option --trial-time",
        )  # fmt: skip
    return Draw("constant", (expected,))


def _improvements(best: Sequence[tuple[float, float]]) -> Iterator[str]:
    """The best loss against time: at most LISTED of its improvements, the last included."""
    step = -(-len(best) // LISTED)
    for at, loss in best[(len(best) - 1) % step :: step]:
        yield f"{value_text(loss)} after {format_duration(round(at))}"


def _report(found: Simulated, site: str, table: Table | None, *, assumed: bool) -> None:
    states, blocks, total = found.state.trial_states, found.study.blocks, found.allocated_s or 1.0
    click.echo(f"{found.study.name} at {site}, simulated: {blocks.words()}")
    rows = [
        ("utilisation", f"{found.utilisation:.2%} of {duration(found.allocated_s)} of workers"),
        *(("", f"{share / total:8.3%}  {name}, {duration(share)}")
          for name, share in found.parts.items() if share),
        ("lost", f"{found.lost_s:.0f} worker-seconds of work that was lost or failed, "
         "and of dead nodes"),
        ("trials", f"{states['completed']} completed, "
         + (f"{states['stopped']} stopped early, " if found.study.fidelity else "")
         + f"{states['failed']} failed, {len(found.state.trials)} begun"),
        ("node-hours", f"{found.node_hours:.1f}"),
        ("finished in", duration(found.finish_s) + f" ({found.reason})"),
        ("jobs", f"{found.jobs}, at most {found.most_waiting} waiting"),
        ("steering", f"{duration(found.steering_cpu_s)} of CPU time"),
        ("fits", str(found.fits)),
        ("wait", "of a free worker for its next trial: p50 {:.3f} s, p99 {:.3f} s".format(
            *found.waits)),
    ]  # fmt: skip
    if found.best and not assumed:
        rows += zip(["best loss", *[""] * LISTED], _improvements(found.best), strict=False)
    elif found.best:
        rows.append(("best loss", f"{value_text(found.best[-1][1])} of the assumed function"))
    if table is not None:
        asked, exact = table.use()
        rows.append(("table", f"{exact} of {asked} points are in it, the others took the nearest"))
    echo_rows(rows)
