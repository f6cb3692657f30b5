"""Models of the loss with a joint uncertainty over many points: Gaussian processes and trees.

All give the mean and the covariance matrix over a set of candidates. Conditioning that
matrix on a point, as if its loss had come out at the mean, takes one rank-one update
(``condition``). So the points of a batch are accounted for without fitting again.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from hpc_hpo.optimizers.prediction import Prediction

#: Rows that scikit-optimize's Gaussian process is fitted to; its cost grows with the cube.
GP_ROWS = 300
#: Rows hyperparameters are learned from.
LEARN_ROWS = 200
FOREST_ROWS, BOOST_ROWS = 2000, 1000
_TREES = 96
_GROWTH = 1.15
#: Quantiles that boosting fits: the middle, and one standard deviation to both sides.
_QUANTILES = (0.16, 0.5, 0.84)
#: How far the uncertainties of two points go together, for models that say nothing of it.
_REACH = 0.15


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

    def extend(self, x: np.ndarray) -> None:
        """Take points in flight in, shape (m, features), as if they had come out as expected.

        Nothing is changed in place: a shallow copy made before stays as it was.
        """

    def expect(self, x: np.ndarray) -> np.ndarray:
        """Mean of the loss at `x`, shape (n, features); (n,)."""

    def predict(self, x: np.ndarray) -> Prediction:
        """Mean and uncertainty of the loss at `x`, shape (n, features)."""


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


def thin(losses: np.ndarray, limit: int) -> np.ndarray:
    """Indices, ascending, of at most about `limit` losses: the best, the most recent, and an
    even choice of all."""
    n = len(losses)
    if n <= limit:
        return np.arange(n)
    order = np.argsort(np.where(np.isnan(losses), np.inf, losses), kind="stable")
    even = np.linspace(0, n - 1, limit // 2).astype(int)
    return np.unique(np.concatenate([order[: limit // 4], even, np.arange(n - limit // 4, n)]))


def standardise(losses: Sequence[float | None] | np.ndarray) -> np.ndarray:
    """Losses as a surrogate's targets: mean 0 and standard deviation 1, shape (n,).

    Losses far above the usual are drawn in, since one of 1e9 would hide all other
    differences. A failure (None or NaN) counts as worse than the worst, by the usual spread.
    """
    y = np.array(losses, dtype=float)
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


def straighten(y: np.ndarray) -> np.ndarray:
    """Standardised losses drawn towards a normal distribution where they are skewed (Yeo and
    Johnson, 2000), shape (n,).

    Most losses of a search lie far above the best; straightened, the differences among the good
    count as much as those among the bad.
    """
    from scipy.stats import yeojohnson  # slow to import

    if len(y) < 8 or np.ptp(y) == 0.0:
        return y
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bent, _ = yeojohnson(y)
    deviation = float(np.std(bent))
    if not np.isfinite(bent).all() or not 1e-6 < deviation < 1e6:
        return y
    straight: np.ndarray = (bent - bent.mean()) / deviation
    return straight


def rows_to_learn_from(told: int) -> int:
    """How many of the first losses hyperparameters are learned from: it grows in steps, so that
    they are learned seldom, and depends on nothing but `told`."""
    step = 3
    while max(step + 1, int(step * _GROWTH)) <= told:
        step = max(step + 1, int(step * _GROWTH))
    return step


class SkoptProcess:
    """scikit-optimize's Gaussian process with a Matern 5/2 kernel, one length a feature.

    Args:
        x: features of the points with a loss, in the order told, shape (n, features).
        y: standardised losses, shape (n,).
        hyperparameters: as given by `learn`.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, hyperparameters: Any) -> None:
        from skopt.learning import GaussianProcessRegressor

        rows = select_rows(y, GP_ROWS)
        signal, noise = hyperparameters
        self.noise = max(noise, 1e-6)
        # 1e-8 keeps the matrix invertible when points lie close together.
        self._model = GaussianProcessRegressor(
            kernel=signal, alpha=self.noise + 1e-8, optimizer=None
        )
        self._x, self._y = x[rows], y[rows]
        self._model.fit(self._x, self._y)

    @staticmethod
    def learn(x: np.ndarray, y: np.ndarray, seed: int) -> Any:
        """Hyperparameters by marginal likelihood: (kernel of the signal, noise variance)."""
        from skopt.learning import GaussianProcessRegressor
        from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        rows = select_rows(y, LEARN_ROWS)
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

    def extend(self, x: np.ndarray) -> None:
        if len(x):
            self._y = np.concatenate([self._y, self._model.predict(x)])
            self._x = np.vstack([self._x, x])
            self._model = copy.copy(self._model)  # copies of this one may share it
            self._model.fit(self._x, self._y)

    def expect(self, x: np.ndarray) -> np.ndarray:
        mean: np.ndarray = self._model.predict(x)
        return mean

    def predict(self, x: np.ndarray) -> Prediction:
        model = self._model
        mean, deviation = model.predict(x, return_std=True)
        return Prediction(
            mean, np.maximum(deviation, 1e-6), (x,), lambda x: model.predict(x, return_cov=True)[1]
        )


class Forest:
    """scikit-optimize's extra trees or random forest; the trees' disagreement, and the spread
    of the losses in a leaf, are the uncertainty.

    Points in flight enter the fit with the mean loss, which keeps new ones away from them.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, kind: str, seed: int) -> None:
        rows = select_rows(y, FOREST_ROWS)
        self._x, self._y = x[rows], y[rows]
        self._pending = np.zeros((0, x.shape[1]))
        self._kind, self._seed = kind, seed
        self._trees: Any = None
        self.noise = 1e-2

    def extend(self, x: np.ndarray) -> None:
        self._pending = np.vstack([self._pending, x])
        self._trees = None

    def _fit(self) -> None:
        from skopt.learning import ExtraTreesRegressor, RandomForestRegressor

        cls = ExtraTreesRegressor if self._kind == "ET" else RandomForestRegressor
        model = cls(n_estimators=_TREES, min_samples_leaf=2, random_state=self._seed)
        lies = np.zeros(len(self._pending))
        model.fit(np.vstack([self._x, self._pending]), np.concatenate([self._y, lies]))
        self._trees = model.estimators_

    def _votes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each tree's loss, and the variance in its leaves, averaged over the trees."""
        if self._trees is None:
            self._fit()
        # Trees compare in float32; asking each directly saves the forest's thread pool.
        x32 = np.ascontiguousarray(x, dtype=np.float32)
        votes, inside = [], np.zeros(len(x))
        for tree in self._trees:
            leaves = tree.apply(x32, check_input=False)
            votes.append(tree.tree_.value[leaves, 0, 0])
            inside += tree.tree_.impurity[leaves]
        return np.stack(votes), inside / len(votes)

    def expect(self, x: np.ndarray) -> np.ndarray:
        mean: np.ndarray = self._votes(x)[0].mean(axis=0)
        return mean

    def predict(self, x: np.ndarray) -> Prediction:
        votes, inside = self._votes(x)
        mean = votes.mean(axis=0)
        deviation = np.sqrt(votes.var(axis=0) + inside + 1e-12)
        return Prediction(mean, deviation, ((votes - mean).T, inside), _disagreement)


def _disagreement(centred: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Covariance by trees: shape (n, n) from (n, trees) and (n,)."""
    covariance: np.ndarray = centred @ centred.T / centred.shape[1] + np.diag(inside)
    return covariance


class Boosting:
    """Gradient boosting of three quantiles: the middle, and the uncertainty to both sides.

    scikit-optimize's own GBRT cannot be fitted with scikit-learn >= 1.6. What boosting does not
    say, how the uncertainties of two points go together, is taken to fall with their distance.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        rows = select_rows(y, BOOST_ROWS)
        self._x, self._y = x[rows], y[rows]
        self._pending = np.zeros((0, x.shape[1]))
        self._seed = seed
        self._models: list[Any] = []
        self.noise = 1e-2

    def extend(self, x: np.ndarray) -> None:
        self._pending = np.vstack([self._pending, x])
        self._models = []

    def _fit(self) -> None:
        from sklearn.ensemble import GradientBoostingRegressor

        x = np.vstack([self._x, self._pending])
        y = np.concatenate([self._y, np.zeros(len(self._pending))])
        self._models = [
            GradientBoostingRegressor(
                loss="quantile", alpha=quantile, n_estimators=40, min_samples_leaf=3,
                random_state=self._seed,
            ).fit(x, y)
            for quantile in _QUANTILES
        ]  # fmt: skip

    def expect(self, x: np.ndarray) -> np.ndarray:
        middle: np.ndarray = self._quantiles(x)[1]
        return middle

    def predict(self, x: np.ndarray) -> Prediction:
        below, middle, above = self._quantiles(x)
        # Far from any loss the quantiles meet; the distance says what they do not.
        gap = np.sqrt(
            np.min(((x[:, None] - np.vstack([self._x, self._pending])[None]) ** 2).sum(2), axis=1)
        )
        deviation = (above - below) / 2.0 + 0.5 * gap / np.sqrt(x.shape[1]) + 1e-6
        return Prediction(middle, deviation, (x, deviation), _nearness)

    def _quantiles(self, x: np.ndarray) -> np.ndarray:
        """Losses that are exceeded ever less, shape (3, n)."""
        if not self._models:
            self._fit()
        # Fitted one by one, they may cross.
        ordered: np.ndarray = np.sort([model.predict(x) for model in self._models], axis=0)
        return ordered


def _nearness(x: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Covariance that falls with the distance, shape (n, n)."""
    square = ((x[:, None] - x[None]) ** 2).sum(2) / x.shape[1]
    covariance: np.ndarray = np.outer(deviation, deviation) * np.exp(-square / (2.0 * _REACH**2))
    return covariance
