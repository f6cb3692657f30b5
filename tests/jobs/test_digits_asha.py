"""The digits study with early stopping: what its file says, and a small one from start to end."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hpc_hpo.journal import read_events, replay
from hpc_hpo.model import TrialState
from hpc_hpo.study import load_study
from tests.e2e.conftest import Workshop, wait_until

JOB = Path(__file__).resolve().parents[2] / "jobs" / "digits"


def test_that_both_studies_of_the_digits_have_one_space_and_the_objective_s_epochs():
    plain, early = load_study(JOB / "study.yaml"), load_study(JOB / "asha.yaml")
    assert early.space_spec == plain.space_spec
    code = (JOB / "objective.py").read_text()
    assert f"EPOCHS = {early.fidelity.max}\n" in code
    assert early.fidelity.policy == "asha"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_that_few_of_the_digits_networks_train_to_the_end(tmp_path):
    code = (JOB / "objective.py").read_text().replace("EPOCHS = 110", "EPOCHS = 9")
    (tmp_path / "objective.py").write_text(code)
    shutil.copy(JOB / "make_data.py", tmp_path)
    spec = yaml.safe_load((JOB / "asha.yaml").read_text())
    spec["budget"], spec["blocks"]["walltime"] = {"trials": 12}, "60s"
    spec["fidelity"] |= {"min": 1, "max": 9}
    (tmp_path / "asha.yaml").write_text(yaml.safe_dump(spec))
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 192), ("validation", 64)):
        labels = rng.integers(0, 10, count)
        arrays[f"x_{part}"] = np.eye(10, 64, dtype=np.float32)[labels]
        arrays[f"y_{part}"] = labels
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "digits.npz", **arrays)

    shop = Workshop(tmp_path)
    try:
        for command in ("prestage", "run"):
            code, output = shop.call(command, "asha.yaml", timeout=250)
            assert code == 0, output
    finally:
        shop.close()
    wait_until(lambda: not shop.processes("hpc_hpo.worker"), 45)
    trials = replay(read_events(tmp_path / "digits-asha" / "journal.jsonl")).trials.values()
    assert len(trials) == 12
    states = [t.state for t in trials]
    assert set(states) == {TrialState.COMPLETED, TrialState.STOPPED}
    assert states.count(TrialState.STOPPED) >= 6
    for trial in trials:
        steps = sorted(trial.reports)
        assert steps == list(range(1, steps[-1] + 1))
        assert steps[-1] == 9 if trial.state is TrialState.COMPLETED else steps[-1] in (1, 3)
