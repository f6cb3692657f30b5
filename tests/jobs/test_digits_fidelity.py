"""The digits studies with early stopping and as a population: what their files say, and small ones
from start to end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hpc_hpo.journal import read_events, replay
from hpc_hpo.model import Trial, TrialState
from hpc_hpo.study import load_study
from tests.e2e.conftest import Workshop, wait_until

JOB = Path(__file__).resolve().parents[2] / "jobs" / "digits"


@pytest.mark.parametrize("policy", ["asha", "pbt"])
def test_that_the_studies_of_the_digits_have_one_space_and_the_objective_s_epochs(policy):
    plain, early = load_study(JOB / "study.yaml"), load_study(JOB / f"{policy}.yaml")
    assert early.space_spec == plain.space_spec
    code = (JOB / "objective.py").read_text()
    assert f"EPOCHS = {early.fidelity.max}\n" in code
    assert early.fidelity.policy == policy


def trained(folder: Path, policy: str, budget: dict[str, int], **fidelity: int) -> list[Trial]:
    """The trials of a smaller study: nine epochs, and ten classes that are easy to tell apart."""
    code = (JOB / "objective.py").read_text().replace("EPOCHS = 110", "EPOCHS = 9")
    (folder / "objective.py").write_text(code)
    shutil.copy(JOB / "make_data.py", folder)
    spec: dict[str, Any] = yaml.safe_load((JOB / f"{policy}.yaml").read_text())
    spec["budget"], spec["blocks"]["walltime"] = budget, "60s"
    spec["fidelity"] |= {"max": 9, **fidelity}
    (folder / f"{policy}.yaml").write_text(yaml.safe_dump(spec))
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 192), ("validation", 64)):
        labels = rng.integers(0, 10, count)
        arrays[f"x_{part}"] = np.eye(10, 64, dtype=np.float32)[labels]
        arrays[f"y_{part}"] = labels
    (folder / "data").mkdir()
    np.savez(folder / "data" / "digits.npz", **arrays)

    shop = Workshop(folder)
    try:
        for command in ("prestage", "run"):
            code, output = shop.call(command, f"{policy}.yaml", timeout=250)
            assert code == 0, output
    finally:
        shop.close()
    wait_until(lambda: not shop.processes("hpc_hpo.worker"), 45)
    journal = folder / f"digits-{policy}" / "journal.jsonl"
    return list(replay(read_events(journal)).trials.values())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_that_few_of_the_digits_networks_train_to_the_end(tmp_path):
    trials = trained(tmp_path, "asha", {"trials": 12}, min=1)
    assert len(trials) == 12
    states = [t.state for t in trials]
    assert set(states) == {TrialState.COMPLETED, TrialState.STOPPED}
    assert states.count(TrialState.STOPPED) >= 6
    for trial in trials:
        steps = sorted(trial.reports)
        assert steps == list(range(1, steps[-1] + 1))
        assert steps[-1] == 9 if trial.state is TrialState.COMPLETED else steps[-1] in (1, 3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_that_bad_digits_networks_go_on_as_copies_of_good_ones(tmp_path):
    trials = trained(tmp_path, "pbt", {"epochs": 90}, population=6, every=3)
    members = [t for t in trials if t.parent is None]
    copies = [t for t in trials if t.parent is not None]
    done = [t for t in trials if t.state is TrialState.COMPLETED]
    assert len(members) == len(done) == 6 and copies
    assert all(max(t.reports) == 9 for t in done)
    varied = {"lr", "momentum", "l2", "batch"}
    for copy in copies:
        of = trials[copy.parent["trial"]].point
        # The weights it goes on from have the shape that these say.
        assert {n: v for n, v in copy.point.items() if n not in varied} == {
            n: v for n, v in of.items() if n not in varied
        }
        assert copy.point != of
        assert min(copy.reports) == copy.parent["step"] + 1
