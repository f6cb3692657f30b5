"""The pieces of benchmarks/search_quality.py: its functions, its clock, its ranks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(name="quality")
def _quality(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    import search_quality

    yield search_quality
    for name in ("search_quality", "quality_problems", "quality_peers", "dev_functions", "common"):
        sys.modules.pop(name, None)


#: Where the lowest losses are, as fractions of the ranges; from the functions' publications.
LOWEST = {
    "mf-hartmann3": [0.114614, 0.555649, 0.852547],
    "mf-hartmann6": [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573],
    "branin2": [(9.42478 + 5) / 15, 2.475 / 15],
    "ackley6": [20 / 52] * 6,
    "rosenbrock4": [6 / 15] * 4,
    "levy8": [11 / 20] * 8,
    "styblinski4": [(5 - 2.903534) / 10] * 4,
    "michalewicz5": [x / np.pi for x in (2.202906, 1.570796, 1.284992, 1.923058, 1.720470)],
    "dixonprice6": [(10 + 2.0 ** -((2**i - 2) / 2**i)) / 20 for i in range(1, 7)],
    "schwefel3": [(500 + 420.968746) / 1000] * 3,
    "rastrigin4": [4 / 9.5] * 4,
}


@pytest.mark.parametrize("name", LOWEST)
def test_that_a_function_is_lowest_where_its_publication_says(quality, name):
    problem = {**quality.PROBLEMS, **quality.FUNCTIONS}[name]()
    at = np.array(LOWEST[name])
    assert problem.regret(problem.loss(at.tolist())) < 1e-4
    rng = np.random.default_rng(0)
    around = np.clip(at + rng.normal(scale=0.05, size=(200, len(at))), 0, 1)
    lowest = min(problem.loss(row.tolist()) for row in around)
    assert problem.loss(at.tolist()) <= lowest
    assert lowest >= problem.optimum - 1e-4


def test_that_a_lower_fidelity_flattens_hartmann(quality):
    from quality_problems import hartmann

    x = np.array(LOWEST["mf-hartmann3"])
    losses = [hartmann(x, z) for z in (1.0, 0.5, 0.0)]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


def test_that_no_function_defaults_are_chosen_on_is_in_the_benchmark(quality):
    assert not set(quality.FUNCTIONS) & set(quality.PROBLEMS)
    assert set(quality.TABLES["dev"].problems) == set(quality.FUNCTIONS)
    for name in ("peers", "budgets"):
        assert set(quality.TABLES[name].problems) <= set(quality.PROBLEMS)


class Recorder:
    """An optimiser that notes how it is called."""

    def __init__(self, sizes, seed, budget):
        self.calls, self.flying = [], set()

    def ask(self, count):
        start = sum(n for kind, n in self.calls if kind == "ask")
        self.calls.append(("ask", count))
        tickets = range(start, start + count)
        self.flying |= set(tickets)
        return [(ticket, [0.5, ticket / 100]) for ticket in tickets]

    def tell(self, ended):
        self.calls.append(("tell", len(ended)))
        self.flying -= {ticket for ticket, _ in ended}
        assert len(self.flying) <= 8


def test_that_workers_are_kept_busy_and_every_trial_is_told(quality, monkeypatch):
    made = []

    def maker(*arguments):
        made.append(Recorder(*arguments))
        return made[-1]

    monkeypatch.setitem(quality.ASKERS, "recorder", maker)
    problem = quality.Problem("line", (0, 0), lambda at: abs(at[1] - 0.2), 0.0)
    best = quality.run(quality.Case("recorder", "line", 8, 40, 0), problem, 60.0)
    calls = made[0].calls
    assert best == 0.0
    assert calls[0] == ("ask", 8)
    assert sum(n for kind, n in calls if kind == "ask") == 40
    assert sum(n for kind, n in calls if kind == "tell") == 40
    # Trials last differently: rounds of eight would be five tells.
    assert len([1 for kind, _ in calls if kind == "tell"]) > 8
    assert not made[0].flying


def test_that_a_run_that_takes_too_long_is_given_up(quality, monkeypatch):
    monkeypatch.setitem(quality.ASKERS, "recorder", Recorder)
    problem = quality.Problem("line", (0, 0), lambda at: 1.0, 0.0)
    with pytest.raises(quality.TooSlow) as raised:
        quality.run(quality.Case("recorder", "line", 8, 40, 0), problem, 0.0)
    assert 1 <= raised.value.told < 40


def rows_of(regrets):
    return [
        {"asker": name, "problem": "p", "seed": seed, "regret": regret, "cpu_s": 1.0}
        for name, values in regrets.items()
        for seed, regret in enumerate(values)
    ]


def test_that_equal_regrets_share_a_rank_and_the_first_is_marked(quality):
    table = quality.summarise(rows_of({"a": [0.1, 0.1, 0.1], "b": [0.2, 0.1, 0.3], "c": [0.9] * 3}))
    assert [row["asker"] for row in table] == ["a", "b", "c"]
    assert [row["rank"] for row in table] == pytest.approx([3.5 / 3, 5.5 / 3, 3.0])
    assert [row["first_or_tied"] for row in table] == [True, False, False]


def test_that_an_optimiser_without_all_cases_has_no_rank(quality):
    table = quality.summarise(rows_of({"a": [0.1, 0.1], "b": [0.2]}))
    assert [row["asker"] for row in table] == ["a"]
    assert table[0]["cases"] == 2


def test_that_known_runs_stay_and_a_torn_line_is_left_out(quality, tmp_path, capsys):
    path = tmp_path / "runs.jsonl"
    rows = rows_of({"auto": [0.1], "random": [0.5]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"asker": "au')
    assert quality.read_runs(path, "asker", []) == rows
    assert "no run" in capsys.readouterr().err
    assert quality.read_runs(path, "asker", ["auto"]) == [rows[1]]
    assert json.loads(path.read_text()) == rows[1]
