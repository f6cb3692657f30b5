"""What a model expects at some candidates, in a form that is cut and joined without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """Of n candidates.

    Attributes:
        mean, deviation: of the loss, shapes (n,).
        parts: what the covariance is made from; the first axis of each is the candidates'.
        combine: makes the covariance, shape (n, n), from the parts.
    """

    mean: np.ndarray
    deviation: np.ndarray
    parts: tuple[np.ndarray, ...]
    combine: Callable[..., np.ndarray]

    def take(self, rows: np.ndarray) -> Prediction:
        """Those of `rows` alone, in their order."""
        return Prediction(
            self.mean[rows], self.deviation[rows], tuple(part[rows] for part in self.parts),
            self.combine,
        )  # fmt: skip

    def joined(self, other: Prediction) -> Prediction:
        """These and those of another prediction by the same model."""
        return Prediction(
            np.concatenate([self.mean, other.mean]),
            np.concatenate([self.deviation, other.deviation]),
            tuple(map(lambda *both: np.concatenate(both), self.parts, other.parts)),
            self.combine,
        )

    def covariance(self) -> np.ndarray:
        """Of the losses, shape (n, n)."""
        return self.combine(*self.parts)
