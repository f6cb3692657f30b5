"""What workers make of several objectives."""

from __future__ import annotations

import os
import sys

import pytest

from tests.worker.bench import Bench

NAMES = {"error": {"key": "error"}, "cost": {"key": "m.cost"}}


@pytest.fixture(autouse=True)
def python3(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter of the tests is the ``python3`` of the commands."""
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + ":" + os.environ["PATH"])


@pytest.mark.parametrize("value", ["{'cost': 3, 'error': 0.5}", "[0.5, 3]", "(0.5, 3.0)"])
def test_that_a_function_gives_them_by_name_or_in_order(bench: Bench, value: str) -> None:
    bench.objective(f"def train(config, trial): return {value}")
    bench.task["objectives"] = NAMES
    outcome = bench.run()
    assert (outcome["end"], outcome["loss"]) == ("completed", 0.5)
    assert outcome["values"] == [0.5, 3.0]


def test_that_what_else_a_function_returns_are_metrics(bench: Bench) -> None:
    bench.objective("def train(config): return {'cost': 3, 'error': 0.5, 'auc': 0.9}")
    bench.task["objectives"] = NAMES
    assert bench.run()["reports"] == [[0, {"auc": 0.9}]]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("{'error': 1}", "output", "without the key 'cost'"),
        ("{'error': 1, 'cost': float('nan')}", "loss", "the objective cost is nan"),
        ("{'error': float('inf'), 'cost': 1}", "loss", "the objective error is inf"),
        ("{'error': 1, 'cost': '2'}", "output", "the objective cost is '2', not a number"),
        ("{'error': 1, 'cost': None}", "output", "the objective cost is a NoneType"),
        ("0.5", "output", "not a dict with the keys 'error', 'cost'"),
        ("[1, 2, 3]", "output", "not a dict with the keys 'error', 'cost'"),
        ("None", "output", "a dict with the key 'error', 'cost'"),
    ],
)
def test_that_one_that_is_missing_or_not_finite_fails_the_trial(
    bench: Bench, value: str, kind: str, message: str
) -> None:
    bench.objective(f"def train(config, trial): return {value}")
    bench.task["objectives"] = NAMES
    outcome = bench.run()
    assert (outcome["end"], outcome["loss"], outcome.get("values")) == ("failed", None, None)
    assert outcome["error"]["kind"] == kind
    assert message in outcome["error"]["message"]


WRITES = 'open("out.json", "w").write("""%s""")\nprint("t=1\\nt=2.5")'


def test_that_a_command_gives_them_in_its_file_and_in_print(bench: Bench) -> None:
    rules = {**NAMES, "time": {"stdout": "t=(.*)"}}
    bench.command(
        WRITES % '{"error": 0.5, "m": {"cost": 3}}', loss={"file": "out.json"}, objectives=rules
    )
    outcome = bench.run()
    assert (outcome["end"], outcome["values"]) == ("completed", [0.5, 3.0, 2.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"error": 0.5}', "out.json has no key 'm.cost'"),
        ('{"error": 0.5, "m": {"cost": NaN}}', "the objective cost is nan"),
    ],
)
def test_that_a_command_that_lacks_one_fails(bench: Bench, text: str, message: str) -> None:
    bench.command(WRITES % text, loss={"file": "out.json"}, objectives=NAMES)
    outcome = bench.run()
    assert outcome["end"] == "failed"
    assert message in outcome["error"]["message"]
