"""``hpc-hpo run``: steer a study in this process until it is done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import click

from hpc_hpo.cli.common import (
    directory_option,
    duration,
    echo_rows,
    front_text,
    overran_text,
    path_argument,
    point_text,
    site_option,
    value_text,
)
from hpc_hpo.cli.progress import make_view
from hpc_hpo.cli.tally import Tally
from hpc_hpo.clock import SystemClock
from hpc_hpo.errors import InputError
from hpc_hpo.launch import SteeringRun, open_study, site_of
from hpc_hpo.results.fronts import front_row, fronts, goals_of
from hpc_hpo.steerer.batch import begin_chain, chain_length, may_chain, require_no_chain
from hpc_hpo.steerer.manners import CpuWatch
from hpc_hpo.steering.outcome import Outcome
from hpc_hpo.study import Study

#: What ended a run, for people.
REASONS = {
    "budget": "done: the budget is used",
    "epochs": "done: the steps of the budget are used; with more, `run` goes on",
    "node_hours": "done: the node-hours of the budget are used; with more, `run` goes on",
    "population": "done: the population is trained",
    "failing": "ended: every trial has failed, and budget.trials sets no limit",
    "segments": "done, but for segments that were stopped or have no inputs",
    "exhausted": "done: the search space holds no other point",
    "target": "done: the target loss is reached",
    "wall_time": "done: the wall time of the budget is used",
    "stop": "stopped; the same command goes on with it",
    "now": "stopped at once; the same command goes on from the last checkpoints",
    "cpu": "stopped before this machine's limit of CPU time; the same command goes on with it",
    "time": "stopped at the end of this job",
    "signal": "stopped: the scheduler ends this job",
}
#: Segments without a result that are named at the end.
SHOWN = 10
DRAIN_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Ctrl-C once drains and checkpoints, twice stops."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.count = 0
        self.told = 0

    def install(self, *numbers: signal.Signals) -> None:
        """Take over signals."""
        for number in numbers:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def wish(self) -> str:
        """What the user wants, as Steering's `stop` asks it."""
        wanted = ("", "drain", "now")[min(self.count, 2)]
        if self.count > self.told:
            self.told = self.count
            self._say(
                "stopping: running trials checkpoint; Ctrl-C again stops at once"
                if wanted == "drain"
                else "stopping at once"
            )
        return wanted


class Wishes:
    """Several reasons to stop as one, which remembers the one that came first."""

    def __init__(self, sources: Mapping[str, Callable[[], str]]) -> None:
        self._sources = sources
        self.first = ""

    def wish(self) -> str:
        """The strongest wish now, as Steering's `stop` asks it."""
        wishes = {name: source() for name, source in self._sources.items()}
        named = [name for name, wanted in wishes.items() if wanted]
        self.first = self.first or (named[0] if named else "")
        return max(wishes.values(), key=("", "drain", "now").index)


@click.command()
@path_argument
@directory_option
@site_option
@click.option("--salvage", is_flag=True, help="Set damaged journal records aside and go on.")
@click.option("--plain", is_flag=True, help="Log lines in place of the live panel.")
@click.option(
    "--hand-over", is_flag=True,
    help="Go on inside batch jobs when this machine's limit of CPU time is near.",
)  # fmt: skip
def run(
    path: Path,
    directory: Path | None,
    site_name: str | None,
    salvage: bool,
    plain: bool,
    hand_over: bool,
) -> int:
    """Run a study, or go on with one.

    PATH is a study.yaml, or a study's folder (default: here). Ctrl-C once lets the running
    trials checkpoint and stops; twice stops at once.
    """
    study, folder = open_study(path, directory)
    site = site_of(study, site_name)
    # A job that waits would find the study held, or go on with it behind the user's back.
    require_no_chain(folder)
    steering = SteeringRun(study, site, folder, salvage=salvage)
    steering.open()
    try:
        title = f"{study.name} in {folder.path}"
        view = make_view(Tally(study.to_dict()), title, plain=plain)
        for note in steering.notes:
            view.say(f"note: {note}")
        interrupts = Interrupts(view.say)
        interrupts.install(*DRAIN_SIGNALS)
        watch = CpuWatch(site.cpu_limit, SystemClock(), view.say)
        wishes = Wishes({"stop": interrupts.wish, "cpu": watch.wish})
        try:
            outcome = steering.steer(stop=wishes.wish, observe=view.update, say=view.say)
        finally:
            view.close()
        near_limit = wishes.first == "cpu" and outcome.reason == "stop"
        # Before the lock is given back: `logs -f` reads until then.
        report(outcome, study, folder.path, "cpu" if near_limit else outcome.reason)
    finally:
        steering.close()
    if near_limit and hand_over and site.batch and may_chain(steering.planned, site):
        longest = chain_length(steering.planned, site, None)
        job = begin_chain(folder, steering.planned, site, longest)
        click.echo(f"job {job} goes on with it")
    return outcome.exit_code


def report(outcome: Outcome, study: Study, folder: Path, reason: str) -> None:
    """The last lines of a run.

    Args:
        reason: the outcome's, or what is behind it.
    """
    state = outcome.state
    now = state.last_at or 0.0
    states, ends = state.trial_states, state.slice_ends
    best, goals = state.best(study.direction_sign), goals_of(study.to_dict())
    allocated = state.allocated_s(now)
    rows = [
        ("trials", f"{states['completed']} completed, {states['failed']} failed, "
         f"{states['stopped']} stopped early, {states['paused'] + states['asked']} open"),
        ("slices", ", ".join(f"{count} {end}" for end, count in ends.items() if count) or "none"),
        ("blocks", str(len(state.blocks))),
        ("workers", f"busy {duration(state.busy_s)} of {duration(allocated)} allocated"
         + (f" ({state.busy_s / allocated:.0%})" if allocated else "")
         + f"; {duration(state.wasted_s)} lost"),
        ("folder", str(folder)),
    ]  # fmt: skip
    if state.network_refused:
        first = next(s.network[0] for t in state.trials.values() for s in t.slices if s.network)
        text = f"{state.network_refused} slices asked for it and were refused: {first}"
        rows.insert(-1, ("network", text))
    if state.overran:
        rows.insert(-1, ("rungs", overran_text(len(state.overran))))
    if goals and best is not None and best.segment is None:
        front = front_row(fronts(state, goals).get(None, []), goals)
        assert front is not None, "there are objectives"
        rows.insert(0, ("best", f"{front_text(front)}; `hpc-hpo best` lists them"))
    elif not goals and best is not None and best.loss is not None:
        where = f" of segment {best.segment}" if best.segment is not None else ""
        rows.insert(0, ("best", f"loss {value_text(best.loss)}, trial {best.id}{where}"))
        rows.insert(1, ("", point_text(best.point)))
    if outcome.shown:
        rows.append(("mlflow", outcome.shown))
    lacking = [(name, why) for name, why in outcome.without_result.items() if name is not None]
    rows += [("no result", f"segment {name}: {why}") for name, why in lacking[:SHOWN]]
    if len(lacking) > SHOWN:
        rows.append(("", f"{len(lacking) - SHOWN} more; `hpc-hpo segment list` shows all"))
    click.echo(REASONS.get(reason, reason))
    echo_rows(rows)


def site_arguments(site_name: str | None) -> list[str]:
    """``--site`` for a process that may begin in another folder."""
    if site_name is None:
        return []
    is_path = "/" in site_name or site_name.endswith((".yaml", ".yml"))
    return ["--site", str(Path(site_name).expanduser().resolve()) if is_path else site_name]


def require_batch(batch: bool, site: str) -> None:
    """Refuse what needs a batch system.

    Raises:
        InputError: the site has none.
    """
    if not batch:
        raise InputError(
            f"site {site} has no batch system", key="--site", valid="a site whose scheduler is "
            "lsf, slurm or pbs"
        )  # fmt: skip
