"""What Optuna is told of failures."""

import pytest

from hpc_hpo.optimizers.registry import create
from hpc_hpo.space import Space
from tests.extras import needs

needs("optuna")
needs("torch")
SQUARE = Space.parse({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}})


def gp(**options):
    return create({"name": "optuna", "sampler": "GP", **options}, SQUARE, 5, budget=60)


def after(losses):
    """The GP after these losses, and Optuna's values of its trials: None while they run."""
    made = gp()
    made.ask(list(range(len(losses))))
    for trial, loss in enumerate(losses):
        made.tell(trial, loss)
    return [trial.value for trial in made._study.trials]


@pytest.mark.parametrize(
    ("losses", "values"),
    [
        ([None, 5.0, 9.0], [9.0, 5.0, 9.0]),
        ([None, 5.0, 2.0], [5.0, 5.0, 2.0]),
        ([None, -5.0, -9.0], [-5.0, -5.0, -9.0]),
        ([5.0, None, 9.0], [5.0, 9.0, 9.0]),
        ([5.0, 9.0, None], [5.0, 9.0, 9.0]),
        ([None, None, 5.0], [None, None, 5.0]),
        ([None, 5.0, 5.0], [None, 5.0, 5.0]),
    ],
)
def test_that_no_failure_is_as_good_as_the_best_point(losses, values):
    assert after(losses) == values


def test_that_failures_and_equal_losses_leave_the_gp_at_its_initial_design():
    made, design = gp(n_initial=2), create("sobol", SQUARE, 5)
    for trial, loss in enumerate([None, 5.0, None, 5.0, 5.0]):
        assert made.ask([trial]) == design.ask([trial])
        made.tell(trial, loss)
    made.ask([5])
    made.tell(5, 1.0)
    design.ask([5])
    assert made.ask([6]) != design.ask([6]), "the model is used"


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_that_a_replay_with_a_first_failure_goes_on_alike(cut):
    losses = [None, 5.0, None, 3.0, 9.0, None]
    whole, resumed = gp(n_initial=2), gp(n_initial=2)
    for trial, loss in enumerate(losses[:cut]):
        (point,) = whole.ask([trial])
        whole.tell(trial, loss)
        resumed.adopt(trial, point)
        resumed.tell(trial, loss)
    for trial, loss in enumerate(losses[cut:], start=cut):
        assert whole.ask([trial]) == resumed.ask([trial])
        whole.tell(trial, loss)
        resumed.tell(trial, loss)
