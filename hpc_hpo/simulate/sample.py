"""What a plan's choices come to when a sample of the study is simulated on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpc_hpo.pilot.shapes import Shapes
from hpc_hpo.plan import Choice
from hpc_hpo.simulate.clock import NAP_S
from hpc_hpo.simulate.run import Assumptions, simulate
from hpc_hpo.site import Site
from hpc_hpo.study import Study
from hpc_hpo.workload import work_of

#: Trials of all samples of a plan together, and of one where there are many: a few seconds' work.
ALL, LEAST = 8_000, 500
#: Trials that are begun for each whole one that steps or hours pay for, where some stop early.
BEGUN = 4
#: Looks at the blocks in the time of one trial, and the longest and shortest time between two.
LOOKS, NAPS_S = 50, (NAP_S, 60.0)


@dataclass(frozen=True)
class Sample:
    """A simulated choice, scaled to the whole study; times in seconds.

    Attributes:
        trials: that were simulated.
        utilisation: share of the workers' time in trials whose work counted.
        lost_s: worker-seconds of work that was lost, failed, or of nodes that had died.
    """

    trials: int
    utilisation: float
    lost_s: float
    node_hours: float
    finish_s: float


def samples(
    study: Study, site: Site, choices: Sequence[Choice], given: Assumptions
) -> dict[Choice, Sample]:
    """Simulate choices of a plan, each with its part of ALL trials; without those that `sample` has
    nothing on."""
    most = max(LEAST, ALL // max(1, len(choices)))
    found = {choice: sample(study, site, choice, given, most) for choice in choices}
    return {choice: one for choice, one in found.items() if one is not None}


def sample(
    study: Study, site: Site, choice: Choice, given: Assumptions, most: int
) -> Sample | None:
    """Simulate a choice of a plan; None where the study has too many segments for a sample.

    A study of more than `most` trials has a part of them simulated, on blocks that are smaller by
    as much: as many rounds of trials, in blocks as long. Where blocks have too few nodes for
    that, the first ones are, and the rest is taken to go on like them. Points are random, which
    is quick, and steering takes no time.

    Args:
        study: with an expected time of trials.
        given: of it, the times are used, and what fails.
        most: trials that are simulated.

    Raises:
        InputError: the budget does not tell how many trials there are.
    """
    trials = work_of(study, site, given.start_up.mean)[0].trials
    if study.fidelity is not None and study.segments.total_trials is None:
        most //= BEGUN
    least = Shapes(study, site).largest.nodes
    nodes = max(least, math.ceil(choice.nodes * min(1.0, most / trials)))
    shrunk = choice.nodes / nodes
    wanted = max(1, round(trials / shrunk))
    taken = min(wanted, most)
    more = wanted / taken
    named, total = study.segments.named, study.segments.total_trials
    part, budget = taken / trials, study.budget
    if named and len(study.segments) > most:
        return None
    nap_s = min(max(given.trial_time.mean / LOOKS, NAPS_S[0]), NAPS_S[1])
    assumed = replace(
        given, nap_s=nap_s, cpu=0.0, learns=False,
        trials=None if named or total is None else max(1, round(total * part)),
        share=part if named else 1.0,
    )  # fmt: skip
    blocks = study.blocks.model_copy(
        update={"nodes": nodes, "walltime": choice.walltime_s, "max": choice.at_once}
    )
    blocks._auto = False
    # Where steps or hours end the study, they end the sample: trials that are stopped early leave
    # room for more than the whole ones that these would pay for.
    budget = budget.model_copy(update={
        "epochs": budget.epochs and max(1, round(budget.epochs * part)),
        "node_hours": budget.node_hours and budget.node_hours * part,
    })  # fmt: skip
    found = simulate(study.model_copy(update={"blocks": blocks, "budget": budget}), site, assumed)
    wait_s = min(given.queue_wait.mean if site.batch else 0.0, found.finish_s)
    return Sample(
        len(found.state.trials), found.utilisation,
        found.lost_s * shrunk * more,
        found.node_hours * shrunk * more,
        (0.0 if choice.free_now else wait_s) + (found.finish_s - wait_s) * more,
    )  # fmt: skip
