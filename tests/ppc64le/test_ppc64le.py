"""Steering on this machine, workers on ppc64le: the same study, its ranks, and its checkpoints."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ppc64le, pytest.mark.timeout(240)]

STUDY = """
name: study
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}, k: {int: [0, 5]}}
optimizer: sobol
seed: 3
budget: {trials: TRIALS}
trial: {ranks: RANKS}
checkpoint: {every: 0.3s}
network: deny
blocks: {workers_per_node: 2}
"""

WHERE = """
import platform
from pathlib import Path

def train(config, trial):
    (Path.cwd() / f"machine-{trial.id}").write_text(platform.machine())
    return (config["x"] - 0.3) ** 2 + config["k"]
"""

RANKS = """
import json, platform

def train(config, trial):
    everyone = trial.comm.gather([trial.rank, trial.size, platform.machine()])
    if trial.rank == 0:
        (trial.folder / "seen.json").write_text(json.dumps(everyone))
    return trial.reduce(float(trial.rank), "sum")
"""

#: Sums that come out exactly, whichever machine adds; arrays of several types and byte widths.
TRAVELLER = """
import platform, time
import numpy as np

def train(config, trial):
    state = trial.restore() or {
        "step": 0, "way": [], "weights": np.zeros(1000), "counts": np.zeros((3, 4), np.int32),
        "half": np.arange(5, dtype=np.float32), "flag": True, "note": "\\u00fc",
    }
    step, way = int(state["step"]), [str(w) for w in state["way"]]
    assert np.array_equal(state["weights"], step * np.arange(1000) / 8)
    assert state["counts"].dtype == np.int32 and (state["counts"] == step).all()
    assert state["half"].dtype == np.float32 and state["half"][3] == 3
    assert state["note"] == "\\u00fc"
    way.append(f"{platform.machine()}:{step}")
    weights, counts = np.array(state["weights"]), np.array(state["counts"])
    while not (trial.folder.parent.parent / "enough").exists() or len(way) < 3:
        time.sleep(0.05)
        step += 1
        weights += np.arange(1000) / 8
        counts += 1
        trial.report(step, moves=float(len(way)))
        stop = trial.should_stop()
        if stop or trial.should_checkpoint():
            trial.checkpoint({**state, "step": step, "way": way, "weights": weights,
                              "counts": counts})
        if stop:
            return None
    (trial.folder / "way.txt").write_text("\\n".join(way))
    return float(weights[8] - step)
"""


def study(trials: int, ranks: int = 1) -> str:
    return STUDY.replace("TRIALS", str(trials)).replace("RANKS", str(ranks))


def steps_seen(shop, slice_number: int) -> list[Path]:
    return list((shop.folder / "study/trials").glob(f"*/ckpt-{slice_number:06d}-*"))


def test_that_a_study_finishes_on_workers_of_another_architecture(shop):
    shop.write(study(trials=6), WHERE)
    shop.start("./emulated.yaml")
    state = shop.finish(0, 100)
    assert platform.machine() != "ppc64le", "this process steers"
    machines = [p.read_text() for p in (shop.folder / "study").glob("machine-*")]
    assert machines == ["ppc64le"] * 6
    assert state.trial_states["completed"] == 6
    for trial in state.trials.values():
        assert trial.loss == (trial.point["x"] - 0.3) ** 2 + trial.point["k"], "bit by bit"


ASKS = """
import urllib.request

def train(config):
    urllib.request.urlopen("http://192.0.2.1/data")
"""


def test_that_a_payload_there_is_kept_off_the_network_too(shop):
    shop.write(study(trials=1), ASKS)
    shop.start("./emulated.yaml")
    state = shop.finish(8, 100)
    (record,) = state.trials[0].slices
    assert record.error["kind"] == "network"
    assert "connection to 192.0.2.1:80 (http://192.0.2.1/data) at " in record.error["message"]


def test_that_a_trial_of_two_ranks_runs_on_another_architecture(shop):
    shop.write(study(trials=1, ranks=2), RANKS)
    shop.start("./emulated.yaml")
    state = shop.finish(0, 100)
    assert state.trials[0].loss == 1.0
    (seen,) = (shop.folder / "study/trials").glob("*/seen.json")
    assert json.loads(seen.read_text()) == [[0, 2, "ppc64le"], [1, 2, "ppc64le"]]


def test_that_checkpoints_travel_between_architectures_and_back(shop):
    shop.write(study(trials=1), TRAVELLER)
    way = ["local", "./emulated.yaml"]
    for number, site in enumerate(way, start=1):
        shop.start(site)
        shop.wait_until(lambda n=number: bool(steps_seen(shop, n)), 100)
        shop.stop()
        state = shop.finish(3, 60)
        assert state.trials[0].slices[-1].end.value == "paused"
    (shop.folder / "study/enough").touch()
    shop.start("local")
    state = shop.finish(0, 60)
    trial = state.trials[0]
    assert (trial.loss, trial.failures, len(trial.slices)) == (0.0, 0, 3)
    (text,) = (shop.folder / "study/trials").glob("*/way.txt")
    machines, steps = zip(*(line.split(":") for line in text.read_text().split()), strict=True)
    assert machines == (platform.machine(), "ppc64le", platform.machine())
    assert 0 == int(steps[0]) < int(steps[1]) < int(steps[2]), "each went on from the other's"


def test_that_the_worker_s_modules_and_parsl_s_import_there(ppc64le):
    said = ppc64le.run(
        str(ppc64le.python), "-c",
        "from hpc_hpo.pilot import pool; pool.enter_bare()\n"
        "import importlib, platform\n"
        "for name in pool.PRELOADED: importlib.import_module(name)\n"
        "import h5py, numpy; print(platform.machine())",
    )  # fmt: skip
    assert said.split() == ["ppc64le"]
