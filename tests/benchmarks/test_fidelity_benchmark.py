"""The pieces of benchmarks/fidelity.py: its curves, its workers, its shares."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.extras import needs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = (
    "fidelity", "fidelity_runs", "fidelity_problems", "quality_problems", "common",
)  # fmt: skip


@pytest.fixture(name="bench")
def _bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    import fidelity

    yield fidelity
    for name in OURS:
        sys.modules.pop(name, None)


@pytest.fixture(name="straight")
def _straight(bench):
    """Curves that never cross, of unequal pace."""
    z = np.arange(1, bench.MOST + 1)
    return bench.Curves((0,), lambda at: at[0] + 1.0 / z, lambda at: 0.5 + at[0])


def test_that_hartmann_s_curves_end_at_the_function_and_repeat(bench):
    from fidelity_problems import hartmann_curves

    curves = hartmann_curves(0.1, 0.2)
    lowest = [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573]
    assert curves.losses(lowest)[-1] == pytest.approx(-3.32237, abs=1e-4)
    assert (curves.losses(lowest) == curves.losses(lowest)).all()
    assert np.std(np.diff(curves.losses(lowest)[:20])) > 0.1
    clear = bench.rank_agreement(curves, 1)
    assert bench.rank_agreement(hartmann_curves(2.5, 2.0), 1) < clear < 1


@pytest.mark.parametrize("workers", [1, 4])
def test_that_full_training_spends_all_its_epochs_on_busy_workers(bench, straight, workers):
    course = bench.ours(straight, "random", "full", workers, 0, bench.Limits(8))
    assert (course.begun, course.whole) == (8, 8)
    assert course.epochs == 8 * bench.MOST
    # An epoch of a point lasts from 30 to 90 s.
    assert 0.5 <= course.worker_s / (course.epochs * 60.0) <= 1.5 * (1.5 if workers > 1 else 1.0)
    assert course.best[0][0] >= bench.MOST


@pytest.mark.parametrize("policy", ["asha", "hyperband", "median"])
def test_that_a_policy_ends_once_it_is_as_good_as_full_training(bench, straight, policy):
    full = bench.ours(straight, "random", "full", 4, 0, bench.Limits(27))
    target = full.best[-1][2]
    course = bench.ours(straight, "random", policy, 4, 0, bench.Limits(2187, target, full.epochs))
    assert course.best[-1][2] <= target
    assert course.epochs < full.epochs
    assert all(loss > target for _, _, loss in course.best[:-1]), "it ends there"


def test_that_a_run_without_a_reachable_target_ends_with_its_epochs(bench, straight):
    course = bench.ours(straight, "random", "asha", 4, 0, bench.Limits(500, -9.0, 400.0))
    assert 400 <= course.epochs <= 400 + 4 * bench.MOST


def test_that_a_run_that_computes_for_too_long_is_given_up(bench, straight):
    with pytest.raises(bench.TooSlow):
        bench.ours(straight, "random", "asha", 1, 0, bench.Limits(500, -9.0, cpu_s=0.0))


def test_that_optuna_s_trials_have_the_same_workers(bench, straight):
    needs("optuna")
    full = bench.optuna_runs(straight, "random", "full", 4, 0, bench.Limits(27))
    assert full.epochs == 27 * bench.MOST
    limits = bench.Limits(2187, full.best[-1][2], full.epochs)
    halved = bench.optuna_runs(straight, "random", "SHA", 4, 0, limits)
    assert halved.epochs < full.epochs
    assert halved.whole < halved.begun


def row(method, seed, best, epochs=100.0, worker_s=1000.0):
    return {"problem": "p", "workers": 1, "seed": seed, "method": method, "best": best,
            "epochs": epochs, "worker_s": worker_s, "cpu_s": 1.0}  # fmt: skip


def test_that_shares_are_of_full_training_and_a_run_that_falls_short_counts_one(bench):
    rows = []
    for seed in (0, 1):
        rows.append(row("random/full", seed, [[40.0, 400.0, 2.0], [80.0, 800.0, 1.0]]))
    rows.append(row("random/asha", 0, [[10.0, 90.0, 3.0], [20.0, 150.0, 0.5]]))
    rows.append(row("random/asha", 1, [[10.0, 90.0, 1.5]]))
    table = {entry["method"]: entry for entry in bench.summarise(rows)}
    assert table["random/full"]["epochs"] == 0.8 and table["random/full"]["strict"] == 1.0
    asha = table["random/asha"]
    assert asha["reached"] == 1
    assert asha["epochs"] == pytest.approx((0.2 + 1.0) / 2)
    assert asha["time"] == pytest.approx((0.15 + 1.0) / 2)
    assert asha["strict"] == pytest.approx((20 + 100) / (80 + 80))
    assert asha["epochs_error"] == pytest.approx(0.8 / math.sqrt(2) / math.sqrt(2))
