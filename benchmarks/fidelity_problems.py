"""Learning curves for benchmarks/fidelity.py: trained ones, and a function with published biases.

No policy's default was chosen on them.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_hpo.simulate.functions import ALPHA, CENTRES, WIDTHS

#: Epochs of a whole training.
MOST = 81
#: The networks that are trained: every combination of these.
LR = tuple(float(x) for x in np.logspace(-4, -1, 8))
WIDTH = (8, 16, 32, 64, 128)
BATCH = (16, 32, 64, 128)
L2 = (1e-5, 1e-3, 1e-1)
TRAIN = 1077
#: Of the lengths of epochs, where they do not come with the curves; 1 in the mean.
SIGMA = 0.5


@dataclass(frozen=True)
class Curves:
    """A space of points and how each trains.

    Attributes:
        sizes: as of quality_problems.Problem.
        losses: of a point, after each of the MOST epochs; the last is what full training gives.
        length: of one epoch of a point, 1 in the mean; None where it has nothing to do with it.
    """

    sizes: tuple[int, ...]
    losses: Callable[[Sequence[float]], np.ndarray]
    length: Callable[[Sequence[float]], float] | None = None


def train_digits(file: Path) -> None:
    """Train every network on scikit-learn's bundled digits and save the curves; some minutes.

    Multi-layer perceptrons by `partial_fit` with Adam; the validation split's cross-entropy after
    each epoch, and the median length of an epoch in seconds of CPU.
    """
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[order] / 16.0, labels[order]
    seen, unseen = slice(0, TRAIN), slice(TRAIN, None)
    classes = np.unique(labels)
    grid = list(itertools.product(LR, WIDTH, BATCH, L2))
    losses, seconds = np.empty((len(grid), MOST)), np.empty(len(grid))
    for number, (lr, width, batch, l2) in enumerate(grid):
        network = MLPClassifier(
            (width,), learning_rate_init=lr, batch_size=batch, alpha=l2, random_state=number
        )
        took = []
        for epoch in range(MOST):
            begun = time.process_time()
            network.partial_fit(images[seen], labels[seen], classes=classes)
            took.append(time.process_time() - begun)
            chances = network.predict_proba(images[unseen])
            losses[number, epoch] = log_loss(labels[unseen], chances, labels=classes)
        seconds[number] = float(np.median(took))
    part = file.with_name(f".{file.name}.npz")
    np.savez(part, losses=losses.astype(np.float32), seconds=seconds)
    part.replace(file)


def digits(file: Path) -> Curves:
    """The trained curves; they are made where the file is not there."""
    if not file.exists():
        print(f"training {len(LR) * len(WIDTH) * len(BATCH) * len(L2)} networks into {file}")
        train_digits(file)
    with np.load(file) as table:
        losses, seconds = table["losses"].astype(float), table["seconds"]
    sizes = (len(LR), len(WIDTH), len(BATCH), len(L2))
    length = seconds / seconds.mean()

    def row(at: Sequence[float]) -> int:
        return int(np.ravel_multi_index([int(v) for v in at], sizes))

    return Curves(sizes, lambda at: losses[row(at)], lambda at: float(length[row(at)]))


def hartmann_curves(bias: float, noise: float) -> Curves:
    """MF-Hartmann in 6 dimensions over the share z of the epochs (Kandasamy et al., ICML 2017).

    The bumps' heights are short by bias (1 - z), so that the best early are not the best at
    the end; normal noise of deviation noise (1 - z) is on each epoch, the same for the same point.
    """
    z = np.arange(1, MOST + 1) / MOST

    def losses(at: Sequence[float]) -> np.ndarray:
        x = np.array(at, dtype=float)
        bumps = np.exp(-(WIDTHS[6] * (x - CENTRES[6]) ** 2).sum(1))
        clean = -((ALPHA[None] - bias * (1 - z[:, None])) @ bumps)
        seed = np.frombuffer(x.tobytes(), dtype=np.uint32).tolist()
        draws: np.ndarray = np.random.default_rng(seed).standard_normal(MOST)
        return np.asarray(clean + noise * (1 - z) * draws)

    return Curves((0,) * 6, losses)


def problems(file: Path) -> dict[str, Callable[[], Curves]]:
    """All by name.

    Args:
        file: of the trained curves.
    """
    return {
        "digits": lambda: digits(file),
        # Bias and noise of the paper's own experiment; ...
        "hartmann6": lambda: hartmann_curves(0.1, math.sqrt(0.05)),
        # ... and those of the case that mf-prior-bench calls good, where noise hides the function
        # until the end.
        "hartmann6-noisy": lambda: hartmann_curves(2.5, 2.0),
    }


def lengths(count: int, seed: int) -> np.ndarray:
    """Lengths of an epoch of each trial by its number, where they do not come with the curves."""
    rng = np.random.default_rng([seed, 7])
    return rng.lognormal(-0.5 * SIGMA**2, SIGMA, size=count) if count else np.empty(0)


def rank_agreement(curves: Curves, epoch: int, points: int = 300) -> float:
    """Spearman's correlation of the losses after `epoch` with those at the end, random points."""
    from quality_problems import random_values

    rng = np.random.default_rng(1)
    rows = np.array([curves.losses(random_values(curves.sizes, rng)) for _ in range(points)])
    first, last = (np.argsort(np.argsort(rows[:, i])) for i in (epoch - 1, -1))
    value = float(np.corrcoef(first, last)[0, 1])
    return value if math.isfinite(value) else 0.0
