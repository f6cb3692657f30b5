"""Models of the loss: what they expect, however it is asked for, and points in flight in them."""

import copy

import numpy as np
import pytest

from hpc_hpo.optimizers import gp
from hpc_hpo.optimizers.surrogates import Boosting, Forest, SkoptProcess, standardise

RNG = np.random.default_rng(2)
X = RNG.random((60, 3))
Y = standardise(((X - 0.4) ** 2).sum(1) + 0.1 * np.sin(9 * X[:, 0]))
FLYING, HERE, THERE = RNG.random((7, 3)), RNG.random((20, 3)), RNG.random((11, 3))


def process():
    return gp.Process(X, Y, gp.learn(X, Y, np.arange(3)))


MODELS = {
    "gp": process,
    "skopt": lambda: SkoptProcess(X, Y, SkoptProcess.learn(X, Y, 0)),
    "forest": lambda: Forest(X, Y, "ET", 0),
    "boosting": lambda: Boosting(X, Y, 0),
}


@pytest.fixture(params=MODELS, name="model")
def _model(request):
    return MODELS[request.param]()


def test_that_a_prediction_cut_and_joined_is_that_of_the_candidates_together(model):
    model.extend(FLYING)
    rows = np.array([3, 0, 17, 5])
    parts = model.predict(HERE).take(rows).joined(model.predict(THERE))
    whole = model.predict(np.vstack([HERE[rows], THERE]))
    for found, expected in [
        (parts.mean, whole.mean),
        (parts.deviation, whole.deviation),
        (parts.covariance(), whole.covariance()),
        (model.expect(THERE), model.predict(THERE).mean),
    ]:
        assert np.allclose(found, expected, atol=1e-6)
    # The spread inside a leaf, or the jitter, is all that the two may differ by.
    assert np.allclose(np.sqrt(np.diag(whole.covariance())), whole.deviation, atol=1e-3)


def test_that_points_in_flight_make_the_model_surer_there_and_leave_a_copy_alone(model):
    before, kept = model.predict(FLYING), copy.copy(model)
    model.extend(FLYING)
    assert model.predict(FLYING).deviation.mean() < 0.8 * before.deviation.mean()
    again = kept.predict(FLYING)
    assert np.allclose(again.mean, before.mean)
    assert np.allclose(again.deviation, before.deviation)


def test_that_a_process_with_points_in_flight_is_one_that_was_told_their_means():
    made = process()
    told = gp.Process(np.vstack([X, FLYING]), np.append(Y, made.expect(FLYING)), made._hyper)
    made.extend(FLYING[:4])
    made.extend(FLYING[4:])
    one, other = made.predict(HERE), told.predict(HERE)
    assert np.allclose(one.mean, other.mean, atol=1e-6)
    assert np.allclose(one.covariance(), other.covariance(), atol=1e-6)
    assert np.allclose(made.expect(HERE), process().expect(HERE)), "what is expected says nothing"
