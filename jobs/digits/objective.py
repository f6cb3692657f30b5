"""A multi-layer perceptron on 8 x 8 handwritten digits, trained epoch by epoch.

It needs numpy only, and shows all that a resumable objective does: take up a checkpoint,
report each epoch, checkpoint when asked, and leave when the block is about to end.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Layers = list[tuple[Array, Array]]

EPOCHS = 110
CLASSES = 10
SIDE = 8
# Adam's other two constants are left at the values its authors give.
BETA2, EPSILON = 0.999, 1e-8


def train(config: dict[str, Any], trial: Any) -> float | None:
    """Train one network and return its cross-entropy on the validation split.

    Args:
        config: the point: ``lr``, ``momentum``, ``l2``, ``batch``, ``layers``, ``width1``,
            ``width2`` (only where ``layers >= 2``) and ``activation``.
        trial: the trial's context; ``trial.inputs["data"]`` is digits.npz or its folder.

    Returns:
        The loss after the last epoch, or None when asked to stop before it.
    """
    data = load_data(trial.inputs["data"])
    network = Network(config, inputs=SIDE * SIDE, seed=trial.seed)
    epoch = 0
    if (state := trial.restore()) is not None:
        epoch = int(state["epoch"])
        network.load(state)

    while epoch < EPOCHS:
        network.train_epoch(data["x_train"], data["y_train"], epoch)
        epoch += 1
        loss, accuracy = network.evaluate(data["x_validation"], data["y_validation"])
        trial.report(epoch, loss=loss, accuracy=accuracy)
        stop = epoch < EPOCHS and trial.should_stop()
        if stop or trial.should_checkpoint():
            trial.checkpoint({"epoch": epoch, **network.state()})
        if stop:
            return None
    return network.evaluate(data["x_validation"], data["y_validation"])[0]


def load_data(staged: str) -> dict[str, Array]:
    """The arrays of digits.npz, given the file itself or the folder it was staged into."""
    path = Path(staged)
    with np.load(path / "digits.npz" if path.is_dir() else path) as archive:
        return {name: archive[name] for name in archive.files}


class Network:
    """A perceptron with one to three hidden layers, trained by Adam on cross-entropy.

    All weights lie in one flat vector, so that an update, and a checkpoint, is one array
    for the weights and one for each of Adam's two moments.
    """

    def __init__(self, config: dict[str, Any], inputs: int, seed: int) -> None:
        depth = int(config["layers"])
        # A third hidden layer has the width of the second.
        widths = [int(config["width1"])] + [int(config["width2"]) for _ in range(depth - 1)]
        sizes = [inputs, *widths, CLASSES]
        self.shapes = list(pairwise(sizes))
        self.relu = config["activation"] == "relu"
        self.peak_lr, self.l2 = float(config["lr"]), float(config["l2"])
        self.lr = self.peak_lr
        self.beta1, self.batch = float(config["momentum"]), int(config["batch"])
        self.seed = int(seed)
        self.updates = 0
        count = sum((n_in + 1) * n_out for n_in, n_out in self.shapes)
        self.weights, self.gradient, self.mean, self.square = np.zeros((4, count), np.float32)
        self.layers, self.gradients = self._split(self.weights), self._split(self.gradient)
        rng = np.random.default_rng([self.seed, 0])
        for matrix, _ in self.layers:
            scale = np.sqrt((2.0 if self.relu else 1.0) / matrix.shape[0])
            matrix[:] = rng.normal(0.0, scale, matrix.shape)

    def _split(self, flat: Array) -> Layers:
        """Views of `flat`: for each layer its matrix (n_in, n_out) and its bias (n_out,)."""
        views, start = [], 0
        for n_in, n_out in self.shapes:
            middle, end = start + n_in * n_out, start + (n_in + 1) * n_out
            views.append((flat[start:middle].reshape(n_in, n_out), flat[middle:end]))
            start = end
        return views

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the epoch.

        No generator's state is in it: each epoch draws from a generator of its own.
        """
        return {
            "weights": self.weights,
            "mean": self.mean,
            "square": self.square,
            "updates": self.updates,
        }

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of state()."""
        self.weights[:] = state["weights"]
        self.mean[:] = state["mean"]
        self.square[:] = state["square"]
        self.updates = int(state["updates"])

    def train_epoch(self, images: Array, labels: Array, epoch: int) -> None:
        """One pass over the nine shifts by at most a pixel of every image, in random order.

        Args:
            images: (n, 64); labels: (n,); epoch: from 0, sets the order and the learning rate.
        """
        # A rate that falls to zero ends the training at a minimum instead of around it.
        self.lr = self.peak_lr * (1.0 - epoch / EPOCHS)
        rng = np.random.default_rng([self.seed, epoch + 1])
        shifts = rng.permuted(np.tile(np.arange(9), (len(labels), 1)), axis=1)
        for shift in shifts.T:
            shifted = shift_images(images, shift)
            order = rng.permutation(len(labels))
            for start in range(0, len(order), self.batch):
                rows = order[start : start + self.batch]
                self._learn(shifted[rows], labels[rows])
        for flat in (self.weights, self.mean, self.square):
            # The weights of a dead unit shrink without end; below about 1e-38 the processor
            # handles them in slow motion.
            flat[np.abs(flat) < 1e-30] = 0.0

    def _learn(self, images: Array, labels: Array) -> None:
        """One step of Adam on one batch."""
        outputs = self._forward(images)
        error = np.exp(log_softmax(outputs[-1]))
        error[np.arange(len(labels)), labels] -= 1.0
        error /= len(labels)
        for index in reversed(range(len(self.layers))):
            matrix, bias = self.gradients[index]
            np.matmul(outputs[index].T, error, out=matrix)
            np.sum(error, axis=0, out=bias)
            if index:
                hidden = outputs[index]
                slope = hidden > 0 if self.relu else 1.0 - hidden * hidden
                error = (error @ self.layers[index][0].T) * slope
        self.gradient += self.l2 * self.weights
        self.updates += 1
        self.mean += (1.0 - self.beta1) * (self.gradient - self.mean)
        self.square += (1.0 - BETA2) * (self.gradient * self.gradient - self.square)
        # Both moments start at zero; dividing by these takes that bias away.
        unbias_mean = 1.0 - self.beta1**self.updates
        unbias_square = 1.0 - BETA2**self.updates
        root = np.sqrt(self.square / unbias_square) + EPSILON
        self.weights -= (self.lr / unbias_mean) * self.mean / root

    def _forward(self, images: Array) -> list[Array]:
        """The input, the hidden layers' outputs and the logits, each (n, width)."""
        outputs = [images]
        for matrix, bias in self.layers[:-1]:
            sums = outputs[-1] @ matrix + bias
            outputs.append(np.maximum(sums, 0.0) if self.relu else np.tanh(sums))
        matrix, bias = self.layers[-1]
        outputs.append(outputs[-1] @ matrix + bias)
        return outputs

    def evaluate(self, images: Array, labels: Array) -> tuple[float, float]:
        """(mean cross-entropy in nats, share of right answers) on images (n, 64)."""
        scores = log_softmax(self._forward(images)[-1])
        loss = -scores[np.arange(len(labels)), labels].mean()
        return float(loss), float((scores.argmax(axis=1) == labels).mean())


def log_softmax(logits: Array) -> Array:
    """Row by row, with the largest logit taken out so that no exponential overflows."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def shift_images(images: Array, shift: Array) -> Array:
    """Move each image by one of the nine steps of at most a pixel; the border fills with 0.

    Args:
        images: (n, 64); shift: (n,) in 0..8, 4 being no move.
    """
    frame = np.zeros((len(images), SIDE + 2, SIDE + 2), images.dtype)
    frame[:, 1:-1, 1:-1] = images.reshape(-1, SIDE, SIDE)
    down, right = np.divmod(shift, 3)
    rows = down[:, None, None] + np.arange(SIDE)[None, :, None]
    columns = right[:, None, None] + np.arange(SIDE)[None, None, :]
    return frame[np.arange(len(images))[:, None, None], rows, columns].reshape(-1, SIDE * SIDE)
