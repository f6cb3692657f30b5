"""GANs trained by the real command, in blocks that end before the trainings do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from hpc_hpo import journal
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState
from tests.jobs.scripts import JOBS, require_torch, scripts

require_torch()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOB = JOBS / "fastcalogan"
MODULES = ("voxels", "showers", "chi2", "make_data", "gan", "objective")
#: How long a trial should train, and a block last beyond PyTorch's start, in seconds of this
#: machine: no trial fits a block.
TRIAL_S, BLOCK_S = 6, 6
#: A point in the middle of the space, by which a training is timed.
MIDDLE: dict[str, Any] = {
    "lr": 1e-3, "beta": 0.5, "lambda": 10.0, "gdratio": 3, "batch": 64, "latent": 12, "width": 16,
    "activation": "swish",
}  # fmt: skip


@pytest.fixture(scope="module")
def job() -> Iterator[dict[str, ModuleType]]:
    with scripts("fastcalogan", MODULES) as modules:
        yield modules


def hpc_hpo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpc_hpo.cli.main", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": str(JOBS.parent), "HOME": str(folder)},
    )  # fmt: skip


class Alone:
    """A trial without blocks."""

    def __init__(self, seed: int, showers: Path, binning: Path) -> None:
        self.seed, self.inputs = seed, {"showers": str(showers), "binning": str(binning)}
        self.restore = lambda: None
        self.report = lambda step, **metrics: None
        self.should_stop = self.should_checkpoint = lambda: False


def epochs_of(seconds: float, job: dict[str, ModuleType], showers: Path, binning: Path) -> int:
    """Epochs that take this machine so long, by the difference of a short and a longer training:
    what both need for reading and judging is none of an epoch's time."""
    took = []
    for epochs in (10, 10, 70):  # the first one imports, too
        begun = time.monotonic()
        job["objective"].train({**MIDDLE, "epochs": epochs}, Alone(1, showers, binning))
        took.append(time.monotonic() - begun)
    return round(60 * seconds / max(took[2] - took[1], 0.01))


def start_of_torch() -> float:
    """How long each block's first slice takes to import it, in seconds of this machine."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def place(job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job with four small GANs: two particles in two slices."""
    folder = tmp_path_factory.mktemp("atlas") / "job"
    shutil.copytree(JOB, folder, ignore=shutil.ignore_patterns("data", "fastcalogan*"))
    data = folder / "data" / "demo"
    job["make_data"].make(data, JOB / "binning.xml", [22, 211], [0, 5], [4096, 65536], 200, seed=1)
    study: dict[str, Any] = yaml.safe_load((JOB / "demo.yaml").read_text())
    study["segments"]["table"] = {"pid": [22, 211], "eta": [0, 5]}
    epochs = epochs_of(TRIAL_S, job, data / "pid22_eta_0_5.v02.tar", JOB / "binning.xml")
    study["space"]["epochs"] = {"method": "fixed", "dimension": {"value": epochs}}
    study |= {"optimizer": "sobol", "budget": {"trials": 2}}
    # On a machine that others use, reading and imports may take some blocks whole.
    study["trial"] = {"max_attempts": 1, "max_losses": 50}
    study |= {"checkpoint": {"every": "1s"}, "env": {"OMP_NUM_THREADS": "1"}}
    study["blocks"]["walltime"] = f"{BLOCK_S + 2 * start_of_torch():.0f}s"
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def ended(place: Path) -> StudyState:
    """The study after its run; the first number of one GAN's showers is none."""
    broken = place / "data" / "demo" / "pid211_eta_5_10.v02.tar"
    raw = broken.read_bytes()
    broken.write_bytes(raw[:512] + b"x" + raw[513:])  # 512 bytes are the member's header
    staged = hpc_hpo(place, "prestage", "study.yaml", "--dir", "run")
    assert staged.returncode == 0, staged.stderr
    done = hpc_hpo(place, "run", "study.yaml", "--dir", "run", "--plain")
    # Done, though a segment has no result, which the last lines say by name.
    assert done.returncode == 9, done.stdout + done.stderr
    assert "segment pid211_eta5: all its 2 trials have failed" in done.stdout
    return journal.replay(journal.read_events(StudyFolder(place / "run").journal))


def test_that_every_gan_but_the_one_with_broken_showers_has_a_best_point(
    ended: StudyState,
) -> None:
    losses: dict[str | None, list[float | None]] = {}
    for trial in ended.trials.values():
        losses.setdefault(trial.segment, []).append(trial.loss)
    assert sorted(map(str, losses)) == ["pid211_eta0", "pid211_eta5", "pid22_eta0", "pid22_eta5"]
    assert losses.pop("pid211_eta5") == [None, None]
    assert all(loss is not None for segment in losses.values() for loss in segment)


def test_that_the_failed_trials_name_the_file_and_the_line(ended: StudyState) -> None:
    for trial in ended.trials.values():
        if trial.segment == "pid211_eta5":
            assert trial.error is not None
            message = trial.error["message"]
            assert "v02.tar:pid211_E4096_eta_5_10_voxalisation.csv:1: column 1 is not" in message


def test_that_trials_that_went_on_from_checkpoints_end_as_if_undisturbed(
    ended: StudyState, place: Path, job
) -> None:
    resumed = [
        trial
        for trial in ended.trials.values()
        if trial.loss is not None and any(record.restored for record in trial.slices)
    ]
    assert resumed, "no block ended before a trial did"
    trial = resumed[0]
    pid, eta = str(trial.segment).split("_eta")
    tar = place / "data" / "demo" / f"{pid}_eta_{eta}_{int(eta) + 5}.v02.tar"
    alone = Alone(trial.seed, tar, place / "binning.xml")
    assert job["objective"].train(trial.point, alone)["loss"] == trial.loss


def test_that_the_table_of_best_points_has_a_line_for_each_gan(
    ended: StudyState, place: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "best_points.py", "run", "study.yaml"],
        cwd=place, capture_output=True, text=True, timeout=60,
        env={**os.environ, "HOME": str(place)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["GAN", "chi2/ndf"]
    best = {line.split()[0]: line.split()[1] for line in lines[1:5]}
    for name in ("pid22_eta0", "pid22_eta5", "pid211_eta0"):
        found = ended.best_of(name)
        assert found is not None and best[name] == f"{found.loss:.2f}"
    assert best["pid211_eta5"] == "none"
    assert lines[-1] == "cut from study.yaml: nothing"
    status = json.loads(hpc_hpo(place, "status", "--json", "run").stdout)
    assert status["trials"]["failed"] == 2
