"""The digits study: its data, its objective's promise to resume exactly, and its summary."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

JOB = Path(__file__).resolve().parents[2] / "jobs" / "digits"
MODULES = ("objective", "make_data", "final_test")
EPOCHS = 5

POINT = {
    "lr": 0.004,
    "momentum": 0.8,
    "l2": 1e-4,
    "batch": 32,
    "layers": 2,
    "width1": 20,
    "width2": 12,
    "activation": "relu",
}


@pytest.fixture(scope="module")
def job() -> Iterator[dict[str, ModuleType]]:
    """The job's scripts as modules, imported as they import one another."""
    before = {name: sys.modules.pop(name, None) for name in MODULES}
    sys.path.insert(0, str(JOB))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(JOB))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


@pytest.fixture(scope="module")
def data(job: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole data set, as make_data.py writes it."""
    folder = tmp_path_factory.mktemp("data")
    job["make_data"].write_data(folder)
    return folder


@pytest.fixture(scope="module")
def small(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digits.npz with few images, for training in a blink."""
    path = tmp_path_factory.mktemp("small") / "digits.npz"
    with np.load(data / "digits.npz") as archive:
        np.savez(path, **{name: archive[name][:96] for name in archive.files})
    return path


@pytest.fixture(scope="module")
def objective(job: dict[str, ModuleType]) -> Iterator[ModuleType]:
    """The objective with few epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job["objective"], "EPOCHS", EPOCHS)
        yield job["objective"]


class StubTrial:
    """One slice's context, with a stop after a given epoch and checkpoints copied as if stored."""

    def __init__(
        self, data: Path, state: dict[str, Any] | None = None, stop_at: int | None = None
    ) -> None:
        self.inputs = {"data": str(data)}
        self.seed = 7
        self.saved = state
        self.stop_at = stop_at
        self.reports: dict[int, dict[str, float]] = {}

    def restore(self) -> dict[str, Any] | None:
        return self.saved

    def report(self, step: int, **metrics: float) -> None:
        self.reports[step] = metrics

    def should_stop(self) -> bool:
        return self.stop_at is not None and max(self.reports) >= self.stop_at

    def should_checkpoint(self) -> bool:
        return self.should_stop()

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.saved = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}


def test_that_the_three_splits_hold_every_digit_once(job: dict[str, ModuleType]) -> None:
    from sklearn.datasets import load_digits

    seen, unseen = job["make_data"].split_digits()
    images = np.concatenate([seen["x_train"], seen["x_validation"], unseen["x_test"]])
    labels = np.concatenate([seen["y_train"], seen["y_validation"], unseen["y_test"]])
    pixels, truth = load_digits(return_X_y=True)
    rows = np.column_stack([images * 16.0, labels])
    expected = np.column_stack([pixels, truth])
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_that_the_study_s_file_holds_nothing_of_the_test_split(data: Path) -> None:
    with np.load(data / "digits.npz") as seen:
        assert sorted(seen.files) == ["x_train", "x_validation", "y_train", "y_validation"]
    with np.load(data / "digits_test.npz") as unseen:
        assert sorted(unseen.files) == ["x_test", "y_test"]
        assert len(unseen["y_test"]) == 360
        assert set(unseen["y_test"]) == set(range(10))


def test_that_making_the_data_twice_gives_the_same_bytes(
    job: dict[str, ModuleType], data: Path, tmp_path: Path
) -> None:
    for again in job["make_data"].write_data(tmp_path):
        assert again.read_bytes() == (data / again.name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_that_data_is_found_as_a_file_and_in_its_folder(objective: ModuleType, small: Path) -> None:
    by_file, by_folder = objective.load_data(str(small)), objective.load_data(str(small.parent))
    assert all(np.array_equal(by_file[name], by_folder[name]) for name in by_file)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    stops=st.sets(st.integers(1, EPOCHS - 1)),
    layers=st.integers(1, 3),
    activation=st.sampled_from(["relu", "tanh"]),
)
def test_that_an_interrupted_trial_ends_with_the_very_same_loss(
    objective: ModuleType, small: Path, stops: set[int], layers: int, activation: str
) -> None:
    point = POINT | {"layers": layers, "activation": activation}
    whole = StubTrial(small)
    expected = objective.train(point, whole)

    state, reports = None, {}
    for stop in sorted(stops):
        part = StubTrial(small, state, stop_at=stop)
        assert objective.train(point, part) is None
        assert max(part.reports) == stop
        state, reports = part.saved, reports | part.reports
    last = StubTrial(small, state)
    assert objective.train(point, last) == expected
    assert reports | last.reports == whole.reports


def test_that_a_trial_lost_after_its_last_epoch_needs_no_training(
    objective: ModuleType, small: Path
) -> None:
    finished = StubTrial(small, stop_at=EPOCHS)
    loss = objective.train(POINT, finished)
    again = StubTrial(small, finished.saved)
    assert objective.train(POINT, again) == loss
    assert again.reports == {}


def test_that_a_stop_after_the_last_epoch_does_not_throw_the_loss_away(
    objective: ModuleType, small: Path
) -> None:
    assert objective.train(POINT, StubTrial(small, stop_at=EPOCHS)) is not None


def test_that_a_checkpoint_holds_arrays_and_plain_values_only(
    objective: ModuleType, small: Path
) -> None:
    trial = StubTrial(small, stop_at=1)
    objective.train(POINT, trial)
    assert trial.saved is not None
    assert {type(value) for value in trial.saved.values()} == {int, np.ndarray}


def test_that_a_point_without_its_conditional_width_trains(
    objective: ModuleType, small: Path
) -> None:
    point = {key: value for key, value in POINT.items() if key != "width2"} | {"layers": 1}
    assert objective.train(point, StubTrial(small)) is not None


def test_that_the_gradient_is_the_slope_of_the_loss(objective: ModuleType) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((6, 64)), rng.integers(0, 10, 6)
    point = POINT | {"layers": 3, "activation": "tanh", "l2": 0.0}
    network = objective.Network(point, inputs=64, seed=1)
    weights = network.weights.astype(np.float64)
    network._learn(images.astype(np.float32), labels)
    chosen = rng.choice(len(weights), 40, replace=False)
    for index in chosen:
        losses = []
        for step in (1e-6, -1e-6):
            moved = weights.copy()
            moved[index] += step
            network.layers = network._split(moved)
            losses.append(network.evaluate(images, labels)[0])
        slope = (losses[0] - losses[1]) / 2e-6
        assert network.gradient[index] == pytest.approx(slope, abs=2e-5)


def test_that_the_middle_of_the_nine_shifts_moves_nothing(objective: ModuleType) -> None:
    images = np.arange(128, dtype=np.float32).reshape(2, 64) + 1
    assert np.array_equal(objective.shift_images(images, np.array([4, 4])), images)


def test_that_a_shift_moves_an_image_and_fills_its_border_with_zeros(
    objective: ModuleType,
) -> None:
    images = np.arange(64, dtype=np.float32).reshape(1, 64) + 1
    moved = objective.shift_images(images, np.array([0])).reshape(8, 8)
    assert np.array_equal(moved[1:, 1:], images.reshape(8, 8)[:-1, :-1])
    assert not moved[0].any() and not moved[:, 0].any()


def test_that_training_learns_the_digits(job: dict[str, ModuleType], data: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job["objective"], "EPOCHS", 8)
        trial = StubTrial(data / "digits.npz")
        job["objective"].train(POINT, trial)
    assert trial.reports[8]["accuracy"] > 0.9
    assert trial.reports[8]["loss"] < trial.reports[1]["loss"]


def test_that_the_objective_needs_neither_scikit_learn_nor_the_package() -> None:
    script = "import sys, objective; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=JOB, capture_output=True, text=True, check=True
    )
    assert not {"sklearn", "scipy", "hpc_hpo", "h5py"} & set(answer.stdout.split())


def test_that_the_summary_names_the_point_its_accuracy_and_the_cost(
    job: dict[str, ModuleType], data: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job["final_test"], "EPOCHS", 4)
        accuracy = job["final_test"].accuracy_on_test(
            POINT, data / "digits.npz", data / "digits_test.npz"
        )
    assert accuracy > 0.8
    status = {
        "best": {"trial": 12, "loss": 0.0221, "point": POINT},
        "trials": {"running": 0, "completed": 39, "failed": 1, "total": 40, "budget": 40},
        "blocks": {"requested": 0, "ended": 9, "total": 9, "list": []},
        "slices": {"completed": 39, "paused": 14, "failed": 1},
        "utilisation": 0.81,
        "lost_worker_seconds": 3.25,
    }
    text = job["final_test"].summarise(status, 0.9876, "build/demo")
    for part in ("lr = 0.004", "0.0221", "98.76%", "39 completed, 1 failed", "9 ended"):
        assert part in text
    for part in ("14 paused", "3.2 worker-seconds", "81.0%", "build/demo"):
        assert part in text
    assert "40" not in text and "running" not in text


def test_that_the_final_test_shows_the_command_s_error_without_a_traceback(
    job: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "hpc-hpo"
    command.write_text("#!/bin/sh\necho no such study >&2\nexit 2\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit) as ended:
        job["final_test"].main(["nowhere"])
    assert ended.value.code == 2


def test_that_the_final_test_says_so_when_no_trial_has_a_loss(
    job: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = tmp_path / "status.json"
    answer.write_text(json.dumps({"study": "digits", "best": None}))
    command = tmp_path / "hpc-hpo"
    command.write_text(f"#!/bin/sh\ncat '{answer}'\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit, match="no trial has a loss"):
        job["final_test"].main(["somewhere"])
