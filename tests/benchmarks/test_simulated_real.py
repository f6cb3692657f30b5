"""The simulator beside a real run of the same study on this machine."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(name="both")
def _both(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import simulated_real

    yield simulated_real
    for name in ("simulated_real", "common"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_that_a_simulation_says_what_the_same_study_does_in_reality(both, tmp_path):
    shape = {"trials": 60, "workers": 4, "blocks": 1, "walltime": 25, "median": 2.0}
    found = both.measure(tmp_path, **shape)
    real, simulated = found["real"], found["simulated"]
    assert real["completed"] == simulated["completed"] == 60
    assert real["blocks"] > 1 and real["slices"] > 60, "trials go on in a second block"
    # Other work of the machine delays what is real.
    assert simulated["finish_s"] / real["finish_s"] == pytest.approx(1.0, abs=0.25)
    assert simulated["utilisation"] / real["utilisation"] == pytest.approx(1.0, abs=0.25)
    assert simulated["slices"] / real["slices"] == pytest.approx(1.0, abs=0.15)
    assert abs(simulated["blocks"] - real["blocks"]) <= 1
