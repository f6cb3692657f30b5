"""Whole studies under population based training, on the toy of a rate that has to fall."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from hpc_hpo.journal import Journal, StudyState, read_events, replay
from hpc_hpo.model import INHERITED, TrialState
from hpc_hpo.optimizers.registry import create
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.space import Space
from hpc_hpo.steering.loop import Steering
from hpc_hpo.steering.portfolio import Portfolio
from hpc_hpo.steering.search import BEST_GAIN, FAIR, Search
from hpc_hpo.steering.terms import Terms
from hpc_hpo.study.fidelity import Fidelity
from tests.steering.test_loop import FakeClock, completed, ended

TOY = Space.parse({"lr": {"method": "loguniform", "dimension": {"low": 0.003, "high": 1.0}}})
LENGTH, EVERY = 80, 8


def train(x, lr):
    """One step of stochastic gradient descent on a noisy quadratic, as its expected loss: the best
    rate, x / (x + 1), falls as the loss does, so that no constant one is good all the way (Schaul
    et al. 2013, section 4)."""
    return (1 - lr) ** 2 * x + lr**2


class Trainer:
    """Checkpoints are kept by trial and name; a copy begins with its parent's."""

    def __init__(self, after=lambda request: None):
        self.saved, self.begun, self.after = {}, {}, after

    def inherit(self, parent, child):
        self.saved[child, INHERITED] = self.saved[parent.id, parent.checkpoint["name"]]
        return parent.checkpoint

    def __call__(self, request):
        number, slice_ = request["trial"], request["slice"]
        if (found := self.after(request)) is not None:
            return found
        name = f"ckpt-{slice_:06d}-000001"
        step, x = max(
            (at for key, at in self.saved.items() if key[0] == number and key[1] < name),
            default=(0, 1.0),
        )
        self.begun[number, slice_] = step
        reports = []
        while step < (request["stop_step"] or LENGTH):
            step += 1
            x = train(x, request["point"]["lr"])
            reports.append([step, {"loss": x}])
        facts = {"reports": [r for r in reports if r[0] > request["known_step"]]}
        if step == LENGTH:
            return {**completed(request, x), **facts}
        self.saved[number, name] = (step, x)
        info = {"name": name, "slice": slice_, "at": 1.0, "step": step}
        return ended(request, "paused", reason="rung", checkpoint=info, **facts)


def steer(tmp_path, trainer, *, population=8, workers=4, segments=(None,), trials=None,
          epochs=None, spec=None, spaces=None, policy=FAIR, **options):  # fmt: skip
    path = tmp_path / "journal.jsonl"
    state = replay(read_events(path))
    journal = Journal(path)
    event = {"e": "run", "run": state.runs + 1, "at": 999.0}
    journal.append(event)
    state.apply(event)
    spec = spec or Fidelity(policy="pbt", population=population, every=EVERY, max=LENGTH)
    spaces = spaces or {}
    searches = [
        Search(name, trials, lambda n, at=at, space=space: create(
                   "random", space, 5 + at, budget=trials),
               population=spec.population, space=space)
        for at, name in enumerate(segments) for space in [spaces.get(name, TOY)]
    ]  # fmt: skip
    terms = Terms(sign=1, task="t", fidelity=spec, epochs=epochs, endless=trials is None, seed=3)
    steering = Steering(
        terms, str(tmp_path), state, journal, Portfolio(searches, state, policy=policy),
        InlinePilot(trainer, workers), FakeClock(), inherit=trainer.inherit, **options,
    )  # fmt: skip
    try:
        reason = steering.run()
    finally:
        journal.close()
    assert replay(read_events(path)) == state
    return reason, state


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_that_a_population_beats_its_own_random_members(tmp_path, workers):
    trainer = Trainer()
    reason, state = steer(tmp_path, trainer, workers=workers)
    assert reason == "population"
    members = [t for t in state.trials.values() if t.parent is None]
    children = [t for t in state.trials.values() if t.parent is not None]
    assert len(members) == 8 and children
    states = Counter(t.state for t in state.trials.values())
    assert states[TrialState.COMPLETED] == 8, "every place of the population came to its end"
    assert states[TrialState.STOPPED] == len(children)

    def alone(lr):
        x = 1.0
        for _ in range(LENGTH):
            x = train(x, lr)
        return x

    best_alone = min(alone(t.point["lr"]) for t in members)
    assert state.best().loss < 0.9 * best_alone
    lineage = [state.best()]
    while lineage[-1].parent is not None:
        lineage.append(state.trials[lineage[-1].parent["trial"]])
    rates = [t.point["lr"] for t in reversed(lineage)]
    assert len(rates) > 1 and rates[-1] < rates[0], "a rate that falls was found"


def test_that_a_copy_goes_on_at_its_parent_s_step_and_only_its_own_steps_count(tmp_path):
    trainer = Trainer()
    _, state = steer(tmp_path, trainer)
    for trial in state.trials.values():
        if trial.parent is None:
            continue
        parent = state.trials[trial.parent["trial"]]
        step = trial.parent["step"]
        assert trainer.begun[trial.id, 1] == step
        assert step in parent.rungs and min(trial.reports) == step + 1
        assert state.trials[trial.parent["replaces"]].state is TrialState.STOPPED
        assert trial.point != parent.point
        # Continuous through the change: it took over the weights, not only the values.
        before, after = parent.reports[step]["loss"], trial.reports[step + 1]["loss"]
        assert after == pytest.approx(train(before, trial.point["lr"]))
    own = sum(t.gone - t.base for t in state.trials.values())
    assert state.steps == own < 8 * LENGTH + 8 * EVERY


def test_that_segments_have_each_a_population_of_their_own(tmp_path):
    reason, state = steer(tmp_path, Trainer(), population=4, segments=("a", "b"))
    assert reason == "population"
    for trial in state.trials.values():
        if trial.parent is not None:
            assert state.trials[trial.parent["trial"]].segment == trial.segment
    done = Counter(t.segment for t in state.trials.values() if t.state is TrialState.COMPLETED)
    assert done == {"a": 4, "b": 4}


def test_that_a_population_whose_space_is_too_small_holds_up_no_other(tmp_path):
    small, turns = Space.parse({"lr": {"choice": [0.1, 0.2]}}), itertools.count()
    reason, state = steer(
        tmp_path, Trainer(), population=4, segments=("a", "b"), trials=20, spaces={"a": small},
        policy=BEST_GAIN, stop=lambda: "now" if next(turns) > 2000 else "",
    )  # fmt: skip
    assert reason == "exhausted"
    done = Counter(t.segment for t in state.trials.values() if t.state is TrialState.COMPLETED)
    assert done == {"a": 2, "b": 4}


def decisions(state):
    return [(t.id, t.point, t.parent) for t in state.trials.values()]


@pytest.mark.parametrize("cut", [10, 20, 35, 60])
def test_that_a_restart_at_any_moment_comes_to_the_same_copies(tmp_path, cut):
    """One worker, so that outcomes come in one order; the journal is cut as by a SIGKILL."""
    trainer = Trainer()
    (tmp_path / "whole").mkdir()
    _, whole = steer(tmp_path / "whole", trainer, workers=1)
    lines = (tmp_path / "whole/journal.jsonl").read_bytes().splitlines(keepends=True)
    events = list(read_events(tmp_path / "whole/journal.jsonl"))
    place = [n for n, e in enumerate(events) if e["e"] in ("asked", "end")][cut]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[: place + 1]))
    before = replay(read_events(tmp_path / "journal.jsonl"))
    # What the workers of the dead run still brought in.
    inherited = [
        next(
            {k: v for k, v in e.items() if k not in ("e", "state", "futile")}
            for e in events[place:]
            if e["e"] == "end" and (e["trial"], e["slice"]) == (t.id, t.open_slice.number)
        )
        for t in before.trials.values()
        if t.open_slice is not None
    ]
    _, state = steer(tmp_path, trainer, workers=1, inherited=inherited)
    assert decisions(state) == decisions(whole)


def test_that_a_crash_between_a_copy_and_the_end_of_whom_it_replaces_is_mended(tmp_path):
    trainer = Trainer()
    (tmp_path / "whole").mkdir()
    steer(tmp_path / "whole", trainer, workers=1)
    lines = (tmp_path / "whole/journal.jsonl").read_bytes().splitlines(keepends=True)
    events = list(read_events(tmp_path / "whole/journal.jsonl"))
    place = next(n for n, e in enumerate(events) if e["e"] == "asked" and "parent" in e)
    assert events[place + 1]["e"] == "early"
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[: place + 1]))
    _, state = steer(tmp_path, trainer, workers=1)
    bad = events[place]["parent"]["replaces"]
    assert state.trials[bad].state is TrialState.STOPPED
    replaced = [t.parent["replaces"] for t in state.trials.values() if t.parent]
    assert len(replaced) == len(set(replaced)), "nobody is replaced twice"


def test_that_members_that_fail_are_replaced_too(tmp_path):
    def diverges(request):
        if request["trial"] in (2, 3) and request["slice"] == 2:
            return ended(request, "failed", error={"kind": "loss", "message": "nan"})
        return None

    reason, state = steer(tmp_path, Trainer(diverges))
    assert reason == "population"
    replaced = {t.parent["replaces"] for t in state.trials.values() if t.parent}
    assert {2, 3} <= replaced | {
        t.id for t in state.trials.values() if t.state is TrialState.STOPPED
    }
    assert state.trial_states["completed"] == 8


def test_that_the_last_member_to_end_is_replaced_where_it_fails(tmp_path):
    done, failed = [], []

    def diverges(request):
        if request["stop_step"] is None:
            done.append(request["trial"])
            if len(done) == 4 and not failed:
                failed.append(request["trial"])
                return ended(request, "failed", error={"kind": "loss", "message": "nan"})
        return None

    reason, state = steer(tmp_path, Trainer(diverges), population=4, workers=1)
    assert reason == "population"
    assert state.trial_states["failed"] == 1 and state.trial_states["completed"] == 4
    assert failed[0] in [t.parent["replaces"] for t in state.trials.values() if t.parent]


def test_that_copies_end_with_the_budget_of_trials_and_the_others_are_trained(tmp_path):
    reason, state = steer(tmp_path, Trainer(), trials=10)
    assert reason == "budget"
    assert len(state.trials) == 10
    assert state.trial_states["completed"] == 8


def test_that_steps_end_a_population_which_goes_on_with_more(tmp_path):
    trainer = Trainer()
    reason, state = steer(tmp_path, trainer, epochs=100)
    assert reason == "epochs"
    assert state.trial_states["completed"] == 1
    reason, state = steer(tmp_path, trainer, epochs=2000)
    assert reason == "population"
    assert state.trial_states["completed"] == 8


def test_that_nobody_is_replaced_where_no_checkpoint_can_be_had(tmp_path):
    trainer = Trainer()
    trainer.inherit = lambda parent, child: None
    reason, state = steer(tmp_path, trainer)
    assert (reason, len(state.trials)) == ("population", 8)
    assert state.trial_states["completed"] == 8


def test_that_a_model_of_points_hears_of_copies_as_of_its_own(tmp_path):
    state, made = StudyState(), []

    def make(begun_again):
        made.append(create("tpe", TOY, 1))
        return made[-1]

    portfolio = Portfolio([Search(None, None, make, population=4, space=TOY)], state)
    for number, (_, point, _) in enumerate(portfolio.ask(range(3))):
        state.apply({"e": "asked", "trial": number, "point": point})
        portfolio.asked(state.trials[number])
    parent = {"trial": 0, "checkpoint": "c", "step": 5, "replaces": 1}
    state.apply({"e": "asked", "trial": 3, "point": {"lr": 0.5}, "parent": parent})
    portfolio.asked(state.trials[3])
    state.apply({"e": "submit", "trial": 3, "slice": 1, "run": 1, "at": 1.0})
    done = {**completed({"run": 1, "trial": 3, "slice": 1}, 0.25), "e": "end", "state": "completed"}
    state.apply(done)
    portfolio.told(state.trials[3])
    assert portfolio.left == 1
    assert made[0].losses == {3: 0.25}
