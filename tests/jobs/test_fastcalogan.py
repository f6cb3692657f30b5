"""The GAN of the job fastcalogan: its steps, its loss, and that it resumes exactly."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.jobs.scripts import JOBS, require_torch, scripts

require_torch()
import torch  # noqa: E402

MODULES = ("voxels", "showers", "chi2", "make_data", "gan", "objective")
BINNING = JOBS / "fastcalogan" / "binning.xml"
POINT: dict[str, Any] = {
    "lr": 2e-3, "beta": 0.5, "lambda": 10.0, "gdratio": 2, "batch": 32, "latent": 6, "width": 12,
    "activation": "swish", "epochs": 24,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job() -> Iterator[dict[str, ModuleType]]:
    with scripts("fastcalogan", MODULES) as modules:
        yield modules


@pytest.fixture(scope="module")
def tar(job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("showers")
    (path,) = job["make_data"].make(folder, BINNING, [22], [0], [4096, 65536], 200, seed=1)
    return path


@pytest.fixture(scope="module")
def data(job, tar: Path):
    return job["gan"].prepare(*job["voxels"].read_showers(tar, BINNING))


def new_training(job, data, **changes):
    return job["gan"].Training(POINT | changes, data, 5, torch.device("cpu"))


class FakeTrial:
    """A trial's context, kept in memory; it is stopped at the looks numbered in `stops`."""

    def __init__(self, tar: Path, stops: tuple[int, ...] = ()) -> None:
        self.inputs = {"showers": str(tar), "binning": str(BINNING)}
        self.seed, self.stops = 11, stops
        self.looks, self.saved = 0, None
        self.reports: dict[int, dict[str, float]] = {}

    def restore(self) -> Any:
        return copy.deepcopy(self.saved)

    def checkpoint(self, state: Any) -> None:
        self.saved = copy.deepcopy(state)

    def report(self, step: int, **metrics: float) -> None:
        self.reports[step] = metrics

    def should_stop(self) -> bool:
        self.looks += 1
        return self.looks in self.stops

    def should_checkpoint(self) -> bool:
        return False


# The training step


def test_that_the_gradient_penalty_of_a_linear_critic_is_that_of_its_slope(job) -> None:
    # D(x) = 3 x1 + 4 x2 has the slope 5 everywhere: (5 - 1)^2 = 16.
    weights = torch.tensor([[3.0], [4.0]])
    real, fake, mix = torch.randn(7, 2), torch.randn(7, 2), torch.rand(7, 1)
    penalty = job["gan"].gradient_penalty(lambda x: x @ weights, real, fake, mix)
    assert float(penalty) == pytest.approx(16.0, rel=1e-5)


def test_that_the_gradient_penalty_looks_between_real_and_generated(job) -> None:
    # D(x) = |x|^2 / 2 has the slope x. Between (1, 0) and (5, 0), a quarter of the way from the
    # generated one: x = 2, penalty (2 - 1)^2. Between (0, 2) and (0, 2): (2 - 1)^2.
    real, fake = torch.tensor([[5.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    mix = torch.tensor([[0.25], [0.5]])
    half = job["gan"].gradient_penalty(lambda x: (x**2).sum(1, keepdim=True) / 2, real, fake, mix)
    assert half.item() == pytest.approx(1.0)


def test_that_the_gradient_penalty_pulls_a_critics_slope_towards_one(job) -> None:
    weights = torch.tensor([[3.0], [4.0]], requires_grad=True)
    real, fake, mix = torch.randn(7, 2), torch.randn(7, 2), torch.rand(7, 1)
    job["gan"].gradient_penalty(lambda x: x @ weights, real, fake, mix).backward()
    # d (|w| - 1)^2 / d w = 2 (|w| - 1) w / |w| = 8 (3, 4) / 5.
    assert weights.grad is not None
    assert weights.grad[:, 0].tolist() == pytest.approx([4.8, 6.4], rel=1e-5)


def test_that_an_epoch_takes_gdratio_steps_of_the_critic_and_one_of_the_generator(
    job, data
) -> None:
    training = new_training(job, data, gdratio=3)
    training.step()
    training.step()
    steps = {
        name: {int(v["step"]) for v in training.state()["adam_" + name].values()}
        for name in ("generator", "critic")
    }
    assert steps == {"generator": {2}, "critic": {6}}
    assert training.epoch == 2


def test_that_only_the_generator_learns_from_its_own_step(job, data) -> None:
    training = new_training(job, data)
    before = training.state()
    training._descend("generator", -training._generate(data.train.label[:8], training.random).sum())
    after = training.state()
    changed = {
        name: any(not np.array_equal(before[name][k], after[name][k]) for k in before[name])
        for name in ("generator", "critic")
    }
    assert changed == {"generator": True, "critic": False}


def test_that_a_training_comes_nearer_to_the_showers(job, data) -> None:
    training = new_training(job, data, gdratio=4, batch=64, width=16)
    first = training.choose()
    for _ in range(150):
        training.step()
        training.choose()
    assert training.best_chi2 < 0.5 * first


# The data


def test_that_the_events_are_split_once_into_three_parts_that_share_none(job, tar, data) -> None:
    sizes = [len(part.x) for part in (data.train, data.choose, data.test)]
    assert sizes == [240, 80, 80]
    rows = torch.cat([part.x for part in (data.train, data.choose, data.test)])
    assert len(torch.unique(rows, dim=0)) == 400
    again = job["gan"].prepare(*job["voxels"].read_showers(tar, BINNING))
    assert torch.equal(again.test.x, data.test.x)


def test_that_totals_are_energies_over_the_kinetic_energy(data) -> None:
    for part in (data.train, data.choose, data.test):
        assert part.total.mean() == pytest.approx(1.0, abs=0.02)
        assert np.allclose((part.x * data.scale).sum(1).numpy(), part.total, rtol=1e-4)
        assert sorted(set(part.label[:, 0].tolist())) == [0.0, 1.0]


def test_that_the_critic_is_told_sums_of_unit_spread(data) -> None:
    sums = data.train.x @ data.sums
    assert torch.allclose(sums.std(0), torch.ones(sums.shape[1]), rtol=0.01)
    total = sums[:, -1] / sums[0, -1]
    assert np.allclose(total.numpy(), data.train.total / data.train.total[0], rtol=1e-4)


def test_that_too_few_events_are_refused(job, tmp_path: Path) -> None:
    (path,) = job["make_data"].make(tmp_path, BINNING, [11], [0], [4096], 20, seed=1)
    with pytest.raises(job["voxels"].DataError, match="20 events"):
        job["gan"].prepare(*job["voxels"].read_showers(path, BINNING))


# The loss


def test_that_a_generator_that_repeats_the_showers_has_a_chi2_of_about_its_freedom(
    job, data
) -> None:
    training = new_training(job, data)
    # In place of the network: events that were seen in training, drawn anew.
    pools = {v: data.train.x[data.train.label[:, 0] == v] for v in (0.0, 1.0)}

    def draw(label: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        pool = pools[float(label[0, 0])]
        return pool[torch.randint(len(pool), (len(label),), generator=random)]

    training._generate = draw
    assert training.chi2(data.choose, 0) < 3.0
    training._generate = lambda label, random: 1.05 * draw(label, random)
    assert training.chi2(data.choose, 0) > 5.0


def test_that_a_generator_that_only_makes_the_mean_shower_does_not_pass(job, data) -> None:
    training = new_training(job, data)
    means = {v: data.train.x[data.train.label[:, 0] == v].mean(0) for v in (0.0, 1.0)}
    training._generate = lambda label, random: means[float(label[0, 0])].expand(len(label), -1)
    assert training.chi2(data.choose, 0) > 10.0


def test_that_the_loss_is_of_the_best_epoch_and_of_other_events_than_chose_it(job, data) -> None:
    training = new_training(job, data)
    for _ in range(10):
        training.step()
        training.choose()
    best = copy.deepcopy(training.best)
    loss = training.loss()
    assert loss != training.best_chi2 and math.isfinite(loss)
    # Going on with the training changes neither.
    for _ in range(3):
        training.step()
    assert training.loss() == loss
    assert all(np.array_equal(best[k], training.best[k]) for k in best)


# Resuming


def test_that_a_restored_training_goes_on_as_the_very_same(job, data) -> None:
    whole, parts = new_training(job, data), new_training(job, data)
    for _ in range(6):
        whole.step()
    for _ in range(3):
        parts.step()
    resumed = new_training(job, data)
    resumed.load(copy.deepcopy(parts.state()))
    for _ in range(3):
        resumed.step()
    for name in ("generator", "critic"):
        for key, values in whole.state()[name].items():
            assert np.array_equal(values, resumed.state()[name][key]), (name, key)
    assert np.array_equal(whole.state()["random"], resumed.state()["random"])


@pytest.mark.parametrize("stops", [(1,), (2, 4)])
def test_that_a_paused_trial_ends_with_the_same_loss_and_reports(job, tar, stops) -> None:
    train = job["objective"].train
    whole = FakeTrial(tar)
    undisturbed = train(POINT, whole)
    parts = FakeTrial(tar, stops)
    results = []
    while not results or results[-1] is None:
        results.append(train(POINT, parts))
    assert len(results) == 1 + len(stops)
    assert results[-1] == undisturbed
    assert parts.reports == whole.reports
    # It looks every five epochs, and saved at the last of the looks at which it was stopped.
    assert parts.saved["epoch"] == 5 * stops[-1]
    assert max(whole.reports) == POINT["epochs"]


def test_that_a_checkpoint_is_what_the_package_can_store(job, data, tmp_path: Path) -> None:
    from hpc_hpo.worker.state import read_state, write_state

    training = new_training(job, data)
    training.step()
    training.choose()
    write_state(tmp_path / "state.h5", training.state())
    resumed = new_training(job, data)
    resumed.load(read_state(tmp_path / "state.h5"))
    training.step()
    resumed.step()
    first, second = training.state(), resumed.state()
    for key in first["critic"]:
        assert np.array_equal(first["critic"][key], second["critic"][key])


def test_that_inputs_may_be_files_or_the_folders_they_are_staged_into(job, tar, tmp_path) -> None:
    one_file = job["objective"].one_file
    assert one_file(tar, "*.tar") == tar
    assert one_file(tar.parent, "*.tar") == tar
    (tmp_path / "a.tar").touch()
    (tmp_path / "b.tar").touch()
    with pytest.raises(job["voxels"].DataError, match=r"found a\.tar, b\.tar"):
        one_file(tmp_path, "*.tar")
