"""``hpc-hpo run``: steer a study in this terminal until it is done."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from hpc_hpo.cli.common import duration, echo_rows, path_argument, point_text, value_text
from hpc_hpo.cli.progress import LivePanel, PlainLog, Tally
from hpc_hpo.launch import Outcome, SteeringRun, open_study, site_of

#: What ended a run, for people.
REASONS = {
    "budget": "done: the budget is used",
    "exhausted": "done: the search space holds no other point",
    "target": "done: the target loss is reached",
    "wall_time": "done: the wall time of the budget is used",
    "stop": "stopped; the same command goes on with it",
    "now": "stopped at once; the same command goes on from the last checkpoints",
}


class Interrupts:
    """Ctrl-C once drains and checkpoints, twice stops."""

    def __init__(self) -> None:
        self.count = 0
        self.told = 0

    def install(self) -> None:
        """Take over SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def wish(self) -> str:
        """What the user wants, as Steering's `stop` asks it."""
        return ("", "drain", "now")[min(self.count, 2)]


@click.command()
@path_argument
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="The study folder.")
@click.option("--site", "site_name", help="A site's name or file, in place of the study's.")
@click.option("--salvage", is_flag=True, help="Set damaged journal records aside and go on.")
@click.option("--plain", is_flag=True, help="Log lines in place of the live panel.")
def run(
    path: Path, directory: Path | None, site_name: str | None, salvage: bool, plain: bool
) -> int:
    """Run a study, or go on with one.

    PATH is a study.yaml, or a study's folder (default: here). Ctrl-C once lets the running
    trials checkpoint and stops; twice stops at once.
    """
    study, folder = open_study(path, directory)
    steering = SteeringRun(study, site_of(study, site_name), folder, salvage=salvage)
    steering.open()
    try:
        tally = Tally(study.budget.trials, study.direction_sign)
        interrupts = Interrupts()
        interrupts.install()
        live = sys.stdout.isatty() and not plain
        view = LivePanel(tally, f"{study.name} in {folder.path}") if live else PlainLog(tally)
        for note in steering.notes:
            view.say(f"note: {note}")

        def wish() -> str:
            wanted = interrupts.wish()
            if interrupts.count > interrupts.told:
                interrupts.told = interrupts.count
                view.say(
                    "stopping: running trials checkpoint; Ctrl-C again stops at once"
                    if wanted == "drain"
                    else "stopping at once"
                )
            return wanted

        try:
            outcome = steering.steer(stop=wish, observe=view.update)
        finally:
            view.close()
    finally:
        steering.close()
    report(outcome, study.direction_sign, folder.path)
    return outcome.exit_code


def report(outcome: Outcome, sign: int, folder: Path) -> None:
    """The last lines of a run."""
    state = outcome.state
    now = state.last_at or 0.0
    states, ends = state.trial_states, state.slice_ends
    best = state.best(sign)
    allocated = state.allocated_s(now)
    rows = [
        ("trials", f"{states['completed']} completed, {states['failed']} failed, "
         f"{states['paused'] + states['asked']} open"),
        ("slices", ", ".join(f"{count} {end}" for end, count in ends.items() if count) or "none"),
        ("blocks", str(len(state.blocks))),
        ("workers", f"busy {duration(state.busy_s)} of {duration(allocated)} allocated"
         + (f" ({state.busy_s / allocated:.0%})" if allocated else "")
         + f"; {duration(state.wasted_s)} lost"),
        ("folder", str(folder)),
    ]  # fmt: skip
    if best is not None and best.loss is not None:
        rows.insert(0, ("best", f"loss {value_text(best.loss)}, trial {best.id}"))
        rows.insert(1, ("", point_text(best.point)))
    click.echo(REASONS.get(outcome.reason, outcome.reason))
    echo_rows(rows)
