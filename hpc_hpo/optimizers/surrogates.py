"""Models of the loss with a joint uncertainty over many points: Gaussian process and trees.

Both give the mean and the covariance matrix over a set of candidates. Conditioning that
matrix on a point, as if its loss had come out at the mean, takes one rank-one update
(``condition``). So points in flight and the points of a batch are accounted for without
fitting again.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

#: Rows a Gaussian process is conditioned on; its cost grows with the cube.
GP_ROWS = 300
#: Rows its hyperparameters are fitted to.
GP_FIT_ROWS = 150
FOREST_ROWS = 1000
_TREES = 64
_GROWTH = 1.15


@functools.cache
def _thread_pools() -> Any:
    # A dependency of scikit-learn, which publishes no types.
    import threadpoolctl  # type: ignore[import-untyped]

    return threadpoolctl.ThreadpoolController()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep linear algebra in this thread: its matrices are small, a login node is shared, and
    sums would come out different with another number of threads."""
    import scipy.linalg  # noqa: F401  the pools are found once, after the libraries are loaded

    with _thread_pools().limit(limits=1):
        yield


class Surrogate(Protocol):
    """A fitted model.

    Attributes:
        noise: variance of a measurement, in standardised losses.
    """

    noise: float

    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean (n,) and covariance (n, n) of the loss at `x`, shape (n, features)."""


def condition(covariance: np.ndarray, index: int, noise: float) -> np.ndarray:
    """The covariance once row `index` has been measured with variance `noise`."""
    column = covariance[:, index]
    reduced: np.ndarray = covariance - np.outer(column, column) / (column[index] + noise)
    return reduced


def select_rows(y: np.ndarray, limit: int) -> np.ndarray:
    """Indices, ascending, of at most `limit` rows: the best half and the most recent ones."""
    if len(y) <= limit:
        return np.arange(len(y))
    best = np.argsort(y, kind="stable")[: limit // 2]
    others = np.setdiff1d(np.arange(len(y)), best)
    return np.sort(np.concatenate([best, others[-(limit - len(best)) :]]))


def standardise(losses: list[float | None]) -> np.ndarray:
    """Losses as a surrogate's targets: mean 0 and standard deviation 1, shape (n,).

    Losses far above the usual are drawn in, since one of 1e9 would hide all other
    differences. A failure (None) counts as worse than the worst, by the usual spread.
    """
    y = np.array([np.nan if loss is None else loss for loss in losses])
    known = y[np.isfinite(y)]
    if len(known) == 0:
        return np.zeros(len(y))
    # Scaled first: the spread of losses near the largest float would overflow.
    largest = float(np.max(np.abs(known)))
    if largest > 0:
        y, known = y / largest, known / largest
    quarter, middle, upper = np.quantile(known, [0.25, 0.5, 0.75])
    spread = max(upper - quarter, middle - known.min())
    if spread > 0:
        y = np.minimum(y, upper + 2.0 * spread)
    else:
        spread = float(np.std(known)) or 1.0
    worst = float(np.nanmax(y))
    y = np.where(np.isnan(y), worst + spread, y)
    deviation = float(np.std(y))
    result: np.ndarray = (y - y.mean()) / (deviation if deviation > 0 else 1.0)
    return result


class GaussianProcess:
    """scikit-optimize's Gaussian process with a Matern 5/2 kernel, one length a feature.

    Args:
        x: features of the points with a loss, in the order told, shape (n, features).
        losses: theirs; None for failures.
        pending: features of the points in flight, shape (m, features).
        hyperparameters: as given by `learn` for these rows.
    """

    def __init__(
        self,
        x: np.ndarray,
        losses: list[float | None],
        pending: np.ndarray,
        hyperparameters: Any,
    ) -> None:
        from skopt.learning import GaussianProcessRegressor

        y = standardise(losses)
        rows = select_rows(y, GP_ROWS)
        signal, noise = hyperparameters
        self.noise = max(noise, 1e-6)
        # 1e-8 keeps the matrix invertible when points lie close together.
        self._model = GaussianProcessRegressor(
            kernel=signal, alpha=self.noise + 1e-8, optimizer=None
        )
        self._model.fit(x[rows], y[rows])
        self._pending = pending

    @staticmethod
    def rows_to_learn_from(told: int) -> int:
        """How many of the first losses the hyperparameters are learned from: it grows in
        steps, so that they are fitted seldom, and depends on nothing but `told`."""
        step = 3
        while max(step + 1, int(step * _GROWTH)) <= told:
            step = max(step + 1, int(step * _GROWTH))
        return step

    @staticmethod
    def learn(x: np.ndarray, losses: list[float | None], seed: int) -> Any:
        """Hyperparameters by marginal likelihood: (kernel of the signal, noise variance)."""
        from skopt.learning import GaussianProcessRegressor
        from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        y = standardise(losses)
        rows = select_rows(y, GP_FIT_ROWS)
        features = x.shape[1]
        kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(
            np.full(features, 0.5), [(0.05, 10.0)] * features, nu=2.5
        ) + WhiteKernel(1e-3, (1e-6, 0.5))
        model = GaussianProcessRegressor(
            kernel=kernel, noise="gaussian", n_restarts_optimizer=1, random_state=seed
        )
        with warnings.catch_warnings():
            # Lengths at their bounds are expected for features that do not matter.
            warnings.simplefilter("ignore")
            model.fit(x[rows], y[rows])
        return model.kernel_.k1, float(model.noise_)

    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        m = len(self._pending)
        mean, cov = self._model.predict(np.vstack([self._pending, x]), return_cov=True)
        if m:
            inner = cov[:m, :m] + (self.noise + 1e-8) * np.eye(m)
            cov = cov[m:, m:] - cov[m:, :m] @ np.linalg.solve(inner, cov[:m, m:])
        return mean[m:], cov


class Forest:
    """scikit-optimize's extra trees or random forest; the trees' disagreement is the
    uncertainty.

    Points in flight enter the fit with the mean loss, which keeps new ones away from them.
    """

    def __init__(
        self,
        x: np.ndarray,
        losses: list[float | None],
        pending: np.ndarray,
        kind: str,
        seed: int,
    ) -> None:
        from skopt.learning import ExtraTreesRegressor, RandomForestRegressor

        y = standardise(losses)
        rows = select_rows(y, FOREST_ROWS)
        cls = ExtraTreesRegressor if kind == "ET" else RandomForestRegressor
        model = cls(n_estimators=_TREES, random_state=seed)
        model.fit(np.vstack([x[rows], pending]), np.concatenate([y[rows], np.zeros(len(pending))]))
        self._trees = model.estimators_
        self.noise = 1e-3

    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Trees compare in float32; asking each directly saves the forest's thread pool.
        x32 = np.ascontiguousarray(x, dtype=np.float32)
        votes = np.stack([t.predict(x32, check_input=False) for t in self._trees])
        mean: np.ndarray = votes.mean(axis=0)
        centred = votes - mean
        return mean, centred.T @ centred / len(votes)
