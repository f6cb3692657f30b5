"""A Gaussian process with a Matern 5/2 kernel, one length for each parameter.

Hyperparameters are the most probable ones under priors which hold where losses are few: lengths
that grow with the root of the number of parameters (Hvarfner et al., ICML 2024), and little
noise. scikit-optimize's regressor takes seconds for what takes a tenth here, because its
gradients are computed for each length in turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpc_hpo.optimizers.prediction import Prediction

_ROOT5 = math.sqrt(5.0)
_LENGTH_SD, _SIGNAL_SD, _NOISE_SD = 1.0, 1.0, 2.0
_TYPICAL_NOISE = 1e-3
#: Added to the diagonal so that points which lie close together do no harm.
_JITTER = 1e-8


@dataclass(frozen=True)
class Hyperparameters:
    """Of a fitted process.

    Attributes:
        lengths: shape (features,), in units of the features.
        signal, noise: variances, in standardised losses.
    """

    lengths: np.ndarray
    signal: float
    noise: float


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances between the rows of `a` and `b`."""
    square: np.ndarray = a @ (-2.0 * b.T)
    square += (a**2).sum(1)[:, None]
    square += (b**2).sum(1)[None, :]
    np.maximum(square, 0.0, out=square)
    np.sqrt(square, out=square)
    return square


def _matern(distance: np.ndarray) -> np.ndarray:
    """The kernel; in few arrays, since making large ones takes longer than filling them."""
    scaled = _ROOT5 * distance
    decay = np.exp(-scaled)
    kernel: np.ndarray = scaled * scaled
    kernel /= 3.0
    kernel += scaled
    kernel += 1.0
    kernel *= decay
    return kernel


def learn(x: np.ndarray, y: np.ndarray, groups: np.ndarray, steps: int = 40) -> Hyperparameters:
    """The most probable hyperparameters.

    Args:
        x: features, shape (n, features).
        y: standardised losses, shape (n,).
        groups: shape (features,), from 0: features of one group share a length.
        steps: the optimiser's iterations, at most.
    """
    from scipy.optimize import minimize  # slow to import

    count = int(groups.max()) + 1 if len(groups) else 0
    centre = np.concatenate(
        [np.full(count, math.log(0.5 * math.sqrt(max(count, 1)))), [0.0, math.log(_TYPICAL_NOISE)]]
    )
    spread = np.concatenate([np.full(count, _LENGTH_SD), [_SIGNAL_SD, _NOISE_SD]])
    bounds = [(math.log(0.02), math.log(50.0))] * count
    bounds += [(math.log(0.02), math.log(50.0)), (math.log(1e-6), 0.0)]

    def cost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _likelihood(theta, x, y, groups, count)
        pull = (theta - centre) / spread
        return value + 0.5 * float(pull @ pull), slope + pull / spread

    best = None
    for shift in (0.0, -1.0):
        start = centre.copy()
        start[:count] += shift
        found = minimize(
            cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
        )
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    values = np.exp(best.x)
    return Hyperparameters(values[:count][groups], float(values[count]), float(values[count + 1]))


def _likelihood(
    theta: np.ndarray, x: np.ndarray, y: np.ndarray, groups: np.ndarray, count: int
) -> tuple[float, np.ndarray]:
    """Negative logarithm of the marginal likelihood, and its gradient by `theta`."""
    from scipy.linalg import lapack

    n = len(y)
    lengths, signal, noise = np.exp(theta[:count]), math.exp(theta[count]), math.exp(theta[-1])
    scaled = x / lengths[groups]
    distance = distances(scaled, scaled)
    decay = np.exp(-_ROOT5 * distance)
    kernel = signal * (1.0 + _ROOT5 * distance + 5.0 / 3.0 * distance**2) * decay
    kernel[np.diag_indices(n)] = signal
    matrix = kernel + (noise + _JITTER) * np.eye(n)
    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        return 1e10, np.zeros_like(theta)
    inverse, failed = lapack.dpotri(factor, lower=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    alpha = inverse @ y
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor)).sum())
    weight = np.outer(alpha, alpha) - inverse  # the slope is -tr(weight dK) / 2
    slope = np.empty_like(theta)
    slope[count] = -0.5 * float((weight * kernel).sum())
    slope[-1] = -0.5 * noise * float(np.trace(weight))
    bent = weight * (signal * 5.0 / 3.0 * (1.0 + _ROOT5 * distance) * decay)
    each = 2.0 * (bent.sum(1) @ scaled**2) - 2.0 * (scaled * (bent @ scaled)).sum(0)
    slope[:count] = -0.5 * np.bincount(groups, weights=each, minlength=count)
    return value, slope


class Process:
    """The process given losses, and points in flight as if they had come out at the mean."""

    def __init__(self, x: np.ndarray, y: np.ndarray, hyper: Hyperparameters) -> None:
        self._hyper = hyper
        self.noise = max(hyper.noise, 1e-6)
        self._x = x / hyper.lengths
        self._factor = self._cholesky(self._kernel(self._x, self._x))
        self._inner = _solve(self._factor, y)
        self._weights = _solve(self._factor, self._inner, transposed=True)

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._hyper.signal * _matern(distances(a, b))

    def _cholesky(self, matrix: np.ndarray) -> np.ndarray:
        n = len(matrix)
        ridge = self.noise + _JITTER
        while True:
            try:
                factor: np.ndarray = np.linalg.cholesky(matrix + ridge * np.eye(n))
                return factor
            except np.linalg.LinAlgError:
                ridge *= 10.0  # rounding, where points lie all but on one another

    def extend(self, x: np.ndarray) -> None:
        """Take points in flight in, shape (m, features)."""
        if len(x) == 0:
            return
        scaled = x / self._hyper.lengths
        across = _solve(self._factor, self._kernel(self._x, scaled))
        corner = self._cholesky(self._kernel(scaled, scaled) - across.T @ across)
        n, m = len(self._x), len(x)
        factor = np.zeros((n + m, n + m))
        factor[:n, :n], factor[n:, :n], factor[n:, n:] = self._factor, across.T, corner
        self._factor = factor
        self._x = np.vstack([self._x, scaled])
        # A loss that comes out as expected tells the mean nothing.
        self._inner = np.concatenate([self._inner, np.zeros(m)])
        self._weights = np.concatenate([self._weights, np.zeros(m)])

    def expect(self, x: np.ndarray) -> np.ndarray:
        """Mean at `x`, shape (m,)."""
        mean: np.ndarray = self._weights @ self._kernel(self._x, x / self._hyper.lengths)
        return mean

    def predict(self, x: np.ndarray) -> Prediction:
        """Mean and uncertainty at `x`, shape (m, features)."""
        scaled = x / self._hyper.lengths
        across = _solve(self._factor, self._kernel(self._x, scaled)).T
        variance = self._hyper.signal - (across**2).sum(1)
        return Prediction(
            across @ self._inner, np.sqrt(np.maximum(variance, 1e-12)), (scaled, across),
            lambda scaled, across: self._kernel(scaled, scaled) - across @ across.T,
        )  # fmt: skip


def _solve(factor: np.ndarray, right: np.ndarray, *, transposed: bool = False) -> np.ndarray:
    from scipy.linalg import solve_triangular

    solved: np.ndarray = solve_triangular(
        factor, right, lower=True, trans=1 if transposed else 0, check_finite=False
    )
    return solved
