"""hpc-hpo plan: choices side by side, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.fakes.lsf import FakeLsf

Command = Callable[..., Result]
STUDY = """\
name: planned
command: [prog, "{lr}"]
space: {lr: {float: [0.0, 1.0]}}
budget: {trials: 200}
trial: {cores_per_rank: 7, gpus_per_rank: 1, expected_time: 50m}
checkpoint: {files: ["*.pt"]}
site: summit
account: ABC123
blocks: {nodes: 4, walltime: 2:00, max: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_that_the_choices_stand_side_by_side(hpc_hpo: Command, file: Path) -> None:
    done = hpc_hpo("plan", file)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "planned at summit, queue batch"
    heads = "nodes walltime at once jobs trials at once node-hours lost finished in"
    assert " ".join(lines[1].split()) == heads
    worked_out = lines[: lines.index("simulated: 200 trials of 50m each")]
    assert [line.split()[1:3] for line in worked_out if line.startswith("=  ")] == [["4", "2:00"]]
    assert len([line for line in worked_out if line.startswith("*  ")]) == 1
    assert "* recommended: " in done.output
    assert "waits 1h in the queue" in done.output


def test_that_json_has_the_same_choices(hpc_hpo: Command, file: Path) -> None:
    made = json.loads(hpc_hpo("plan", file, "--json").output)
    assert (made["study"], made["site"], made["queue"]) == ("planned", "summit", "batch")
    (best,) = [c for c in made["choices"] if c["recommended"]]
    assert set(best) == {
        "nodes", "walltime_s", "at_once", "chain", "workers", "node_hours", "lost", "finish_s",
        "asked", "free_now", "jobs", "recommended", "simulated",
    }  # fmt: skip
    assert best["jobs"] == best["chain"] * best["at_once"]
    assert made["refused"] is None and made["reason"] and made["assumptions"]


def test_that_another_site_and_wait_may_be_tried(hpc_hpo: Command, file: Path) -> None:
    text = hpc_hpo("plan", file, "--site", "polaris", "--wait", "2h", "--start-up", "3m").output
    assert "planned at polaris, queue prod" in text
    assert "waits 2h in the queue, and needs 3m to start up" in text
    assert "own blocks are not possible: queue prod at polaris takes jobs of 10 to 496" in text


def test_that_nothing_is_written(hpc_hpo: Command, file: Path) -> None:
    hpc_hpo("plan", file)
    assert list(file.parent.iterdir()) == [file]


def test_that_a_wait_without_a_unit_is_refused(hpc_hpo: Command, file: Path) -> None:
    done = hpc_hpo("plan", file, "--wait", "5")
    assert done.exit_code == 2
    assert "--wait: a duration needs a unit" in done.stderr


def test_that_a_study_without_expected_time_is_told_its_line(hpc_hpo: Command, file: Path) -> None:
    file.write_text(STUDY.replace(", expected_time: 50m", ""))
    done = hpc_hpo("plan", file)
    assert done.exit_code == 2
    assert "study.yaml:5: trial.expected_time" in done.stderr


def test_that_what_is_free_now_is_asked_for_and_shown(
    hpc_hpo: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeLsf(tmp_path / "lsf", nodes=6) as lsf:
        for key, value in lsf.env().items():
            monkeypatch.setenv(key, value)
        text = hpc_hpo("plan", file, "--now", "--wait", "12h").output
        assert "free now: 6 nodes\n" in text
        assert any(line.split()[:1] in (["!"], ["*!"]) for line in text.splitlines())
        assert "the first job could start now" in text
    done = hpc_hpo("plan", file, "--now")
    assert done.exit_code != 0 and "bslots" in done.stderr
    assert "free now" not in hpc_hpo("plan", file).output


# ---------------------------------------------------------------- simulated


def choices(hpc_hpo: Command, file: Path, *arguments: str) -> list[dict[str, Any]]:
    done = hpc_hpo("plan", file, "--json", *arguments)
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.output)["choices"]
    return found


def test_that_the_recommended_and_the_asked_blocks_are_simulated(
    hpc_hpo: Command, file: Path
) -> None:
    found = choices(hpc_hpo, file)
    for choice in found:
        assert (choice["simulated"] is not None) == (choice["recommended"] or choice["asked"])
    text = hpc_hpo("plan", file).output
    table = text[text.index("simulated: 200 trials of 50m each") :].splitlines()[1:4]
    assert table[0].split()[:3] == ["nodes", "walltime", "at"]
    assert {line.split()[0] for line in table[1:]} == {"*", "="}
    assert "simulated" not in hpc_hpo("plan", file, "--no-simulate").output
    assert all(c["simulated"] for c in choices(hpc_hpo, file, "--simulate"))


@pytest.mark.parametrize("trials", [200, 5000, 1_000_000])
def test_that_a_sample_of_equal_trials_comes_to_what_the_plan_works_out(
    hpc_hpo: Command, file: Path, trials: int
) -> None:
    file.write_text(STUDY.replace("trials: 200", f"trials: {trials}"))
    for choice in choices(hpc_hpo, file):
        if (found := choice["simulated"]) is None:
            continue
        assert found["trials"] <= min(trials, 4000)
        assert found["node_hours"] / choice["node_hours"] == pytest.approx(1.0, abs=0.15)
        assert found["finish_s"] / choice["finish_s"] == pytest.approx(1.0, abs=0.15)
        assert 0.8 < found["utilisation"] < 1.0


def test_that_unequal_trials_leave_workers_idle_where_there_are_few_rounds(
    hpc_hpo: Command, file: Path
) -> None:
    file.write_text(STUDY.replace(", expected_time: 50m", ""))
    by_time = {
        time: next(c["simulated"] for c in choices(hpc_hpo, file, "--trial-time", time)
                   if c["recommended"])
        for time in ("50m", "lognormal(40m, 0.7)")
    }  # fmt: skip
    equal, unequal = by_time.values()
    assert unequal["utilisation"] < 0.9 * equal["utilisation"]
    done = hpc_hpo("plan", file, "--trial-time", "lognormal(40m)")
    assert done.exit_code == 2
    assert "--trial-time: lognormal takes 2 values" in done.stderr


@pytest.mark.parametrize("budget", ["epochs: 20000", "node_hours: 100"])
def test_that_steps_and_hours_end_a_sample_and_not_the_whole_trials_that_they_pay_for(
    hpc_hpo: Command, file: Path, budget: str
) -> None:
    text = STUDY.replace("trials: 200", budget) + "fidelity: {policy: asha, min: 1, max: 27}\n"
    file.write_text(text)
    best = next(c for c in choices(hpc_hpo, file) if c["recommended"])
    done = hpc_hpo(
        "simulate",
        file,
        "--cpu",
        "0",
        "--json",
        "--nodes",
        str(best["nodes"]),
        "--walltime",
        f"{best['walltime_s']:.0f}s",
        "--blocks",
        str(best["at_once"]),
    )
    whole = json.loads(done.output)  # fmt: skip
    assert best["simulated"]["node_hours"] / whole["node_hours"] == pytest.approx(1.0, abs=0.25)
    assert best["simulated"]["finish_s"] / whole["finish_seconds"] == pytest.approx(1.0, abs=0.25)


def test_that_segments_are_sampled_each_in_its_share(hpc_hpo: Command, file: Path) -> None:
    text = STUDY.replace("budget: {trials: 200}", "budget: {trials: 1000}")
    names = "".join(f"    - {{name: s{n}}}\n" for n in range(20))
    file.write_text(text + "segments:\n  list:\n" + names)
    best = next(c for c in choices(hpc_hpo, file) if c["recommended"])
    assert 0.1 * 20_000 < best["simulated"]["trials"] <= 4000
    assert best["simulated"]["node_hours"] / best["node_hours"] == pytest.approx(1.0, abs=0.2)
