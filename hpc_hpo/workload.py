"""How much a study has to compute, as far as its budget says so. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_hpo.pilot.shapes import Shapes
from hpc_hpo.site import Site
from hpc_hpo.study import Study
from hpc_hpo.units import format_duration

HOURS = "budget.node_hours"


@dataclass(frozen=True, slots=True)
class Work:
    """What a study has to compute; times in seconds.

    Attributes:
        trials: trials of its budget.
        trial_s: expected time of one.
        resumable: a trial may go on in a later block.
        margin_s: kept free before a block's end for checkpoints.
        start_up_s: from a block's start to its first trial.
        by_hours: there are as many trials as budget.node_hours pays for.
    """

    trials: int
    trial_s: float
    resumable: bool
    margin_s: float
    start_up_s: float
    by_hours: bool = False


def is_resumable(study: Study) -> bool:
    """Whether a trial may go on in a later block: a Python objective is taken to checkpoint."""
    return study.objective is not None or bool(study.checkpoint.files)


def most_trials(study: Study, site: Site, trial_s: float | None) -> tuple[int | None, str]:
    """The whole trials that the budget is enough for, and the limit that says so in words; None
    where it does not tell: steps without the length of a trial.

    Args:
        trial_s: expected time of one; None: not known.
    """
    budget, found = study.budget, list[tuple[int, str]]()
    # Of equals, the one that is told first.
    trials = study.segments.total_trials
    if trials is not None:
        found.append((trials, ""))
    if budget.epochs is not None and study.fidelity is not None:
        whole = max(1, round(budget.epochs / study.fidelity.max))
        found.append((whole, f"budget.epochs is the work of {whole} trials of "
                      f"{study.fidelity.max} steps"))  # fmt: skip
    if budget.node_hours is not None and trial_s is not None:
        fit = max(1, int(budget.node_hours * 3600 / trial_s * Shapes(study, site).trials_per_node))
        found.append((fit, f"{HOURS} is enough for {fit} trials"))
    return min(found, key=lambda pair: pair[0], default=(None, ""))


def work_of(study: Study, site: Site, start_up_s: float) -> tuple[Work, str]:
    """The work of a study, and what it rests on in words.

    Args:
        start_up_s: assumed time from a job's start to its first trial, seconds.

    Raises:
        InputError: the expected time is missing, or the budget does not tell how many trials.
    """
    trial_s = study.trial.expected_time
    if trial_s is None:
        raise study.problem(
            "trial.expected_time", "a plan needs to know how long a trial takes",
            valid="a duration, as in trial: {expected_time: 20m}",
        )  # fmt: skip
    trials, why = most_trials(study, site, trial_s)
    if trials is None:
        raise study.problem(
            "budget.epochs", "a plan needs to know how many trials these steps are",
            found=study.budget.epochs, valid="with budget.trials or budget.node_hours, or with "
            "fidelity.max, the steps of a trial",
        )  # fmt: skip
    words = f"each of {trials} trials takes {format_duration(trial_s)}"
    work = Work(
        trials, trial_s, is_resumable(study), site.checkpoint_floor, start_up_s,
        by_hours=why.startswith(HOURS),
    )  # fmt: skip
    return work, f"{words} ({why})" if why else words
