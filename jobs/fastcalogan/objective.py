"""Train the GAN of one particle and slice; its loss is chi2/ndf of the total energy.

It runs as a trial of hpc_hpo, and resumes exactly: see gan.Training.state.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import torch

from gan import Data, Training, prepare
from voxels import DataError, read_showers

#: Epochs between two looks at whether the trial has to stop: a tenth of a second or so.
LOOK = 5
REPORTS = 20


def train(config: dict[str, Any], trial: Any) -> dict[str, float] | None:
    """Train one GAN.

    Args:
        config: the point: what gan.Training takes, and ``epochs``.
        trial: the trial's context; ``trial.inputs["showers"]`` is a tar of showers or the folder
            it was staged into, ``trial.inputs["binning"]`` binning.xml.

    Returns:
        loss, the chi2/ndf of the best epoch's generator on events kept for it, and that epoch;
        None when asked to stop before the end.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    showers = one_file(Path(trial.inputs["showers"]), "*.tar")
    binning = one_file(Path(trial.inputs["binning"]), "*.xml")
    data = load(showers, binning, showers.stat().st_mtime_ns)
    epochs = int(config["epochs"])
    training = Training(config, data, trial.seed, device)
    if (state := trial.restore()) is not None:
        training.load(state)
    every = max(1, epochs // REPORTS)
    while training.epoch < epochs:
        training.step()
        if training.epoch % every == 0 or training.epoch == epochs:
            chi2 = training.choose()
            trial.report(training.epoch, chi2_ndf=chi2, distance=training.distance)
        if training.epoch % LOOK and training.epoch < epochs:
            continue
        stop = training.epoch < epochs and trial.should_stop()
        if stop or trial.should_checkpoint():
            trial.checkpoint(training.state())
        if stop:
            return None
    return {"loss": training.loss(), "best_epoch": float(training.best_epoch)}


def one_file(place: Path, pattern: str) -> Path:
    """The file itself, or the one that matches in the folder it was staged into.

    Raises:
        DataError: none matches, or several do.
    """
    if not place.is_dir():
        return place
    found = sorted(place.rglob(pattern))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(f"{place}: needs exactly one {pattern}; found {names}")
    return found[0]


@functools.lru_cache(maxsize=2)
def load(showers: Path, binning: Path, changed: int) -> Data:
    """The events, ready for training; read once for all trials of a process.

    Args:
        changed: the file's time, so that one that was replaced is read again.
    """
    return prepare(*read_showers(showers, binning))
