"""Optimisers of other packages, installed beside this one, in whole studies by the command."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import ROOT
from tests.e2e.test_run import state_of
from tests.optimizers.plugin import distribution

STUDY = """
name: plugged
objective: objective.py:train
space: {{x: {{float: [0.0, 1.0]}}, n: {{int: [1, 3]}}}}
optimizer: {optimizer}
budget: {{trials: {trials}}}
blocks: {{workers_per_node: 2, walltime: 60s}}
"""
OBJECTIVE = """
def train(config, trial):
    return (config["x"] - 0.3) ** 2 + config["n"]
"""
#: Says where it was fitted; its trials wait for that, so that the helper has the time to start.
#: None is so short that points are asked ahead: with its last point a search drops its model.
MODEL = """
import os
from hpc_hpo.optimizers.model_search import ModelSearch
from hpc_hpo.optimizers.surrogates import Forest, standardise

class Trees(ModelSearch):
    OPTIONS = ModelSearch.SHARED

    def _model(self, x, losses):
        with open({log!r}, "a") as file:
            file.write(os.environ.get("HPC_HPO_HELPER", "steering") + "\\n")
        return Forest(x, standardise(losses), "RF", 0)
"""
PATIENT = """
import os, time

def train(config, trial):
    time.sleep(0.5)
    end = time.monotonic() + 60
    while trial.id >= 6 and not os.path.exists({log!r}) and time.monotonic() < end:
        time.sleep(0.05)
    return (config["x"] - 0.3) ** 2 + config["n"]
"""


def plugged(workshop, code, attribute, optimizer, trials=8, objective=OBJECTIVE):
    installed = distribution(workshop.folder / "site", "corner_hpo", code, "corner", attribute)
    workshop.paths = [ROOT, installed]
    workshop.study.write_text(STUDY.format(optimizer=optimizer, trials=trials))
    (workshop.folder / "objective.py").write_text(objective)


def test_that_a_study_runs_with_the_optimizer_of_an_installed_package(workshop):
    text = (ROOT / "docs" / "optimizers.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    plugged(workshop, code, "CornerSearch", "{name: corner, tries: 50}")
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    points = [t.point for t in state_of(workshop.folder / "plugged").trials.values()]
    assert len(points) == 8
    corners = {(x, n) for x in (0.0, 1.0) for n in (1, 3)}
    assert {(p["x"], p["n"]) for p in points[:4]} == corners


def test_that_a_model_of_an_installed_package_is_fitted_in_the_helper(workshop):
    log = workshop.folder / "fits"
    code = MODEL.format(log=str(log))
    objective = PATIENT.format(log=str(log))
    plugged(workshop, code, "Trees", "{name: corner, n_initial: 4}", 12, objective)
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    assert state_of(workshop.folder / "plugged").trial_states["completed"] == 12
    assert set(Path(log).read_text().split()) == {"1"}


def test_that_a_broken_package_ends_the_command_with_its_name_before_anything_runs(workshop):
    plugged(workshop, "raise OSError('no licence server')", "Corner", "corner")
    code, output = workshop.call("run", "study.yaml")
    assert code == 2
    assert output.strip() == (
        f"hpc-hpo: {workshop.study}:5: optimizer: the optimizer 'corner' of corner-hpo 1.2 "
        "(corner_hpo:Corner) cannot be loaded: OSError: no licence server"
    )
    assert not (workshop.folder / "plugged" / "journal.jsonl").exists()
