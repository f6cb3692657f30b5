"""`show` of blocks, segments and failures; `best`; `diff`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import seal
from tests import events as ev
from tests.cli.conftest import STUDY

Command = Callable[..., Result]


@pytest.fixture
def segmented(tmp_path: Path) -> Path:
    """A study of two segments of which one has a loss."""
    folder = StudyFolder(tmp_path / "many")
    folder.make()
    folder.study.write_text(STUDY + "segments: {list: [{name: a}, {name: b}]}\n")
    history = [
        ev.run(), {**ev.asked(0, {"lr": 0.1}), "segment": "a"}, ev.submit(0),
        ev.end(0, 1, "completed", "completed", loss=0.5),
    ]  # fmt: skip
    folder.journal.write_bytes(b"".join(map(seal, history)))
    return folder.path


def test_that_a_trial_is_shown_by_its_number_with_or_without_the_word(
    hpc_hpo: Command, folder: StudyFolder
) -> None:
    told = hpc_hpo("show", folder.path, "trial", 0).output
    assert told == hpc_hpo("show", folder.path, 0).output
    assert told.startswith("trial 0: completed")


def test_that_a_block_is_shown_with_its_slices(hpc_hpo: Command, folder: StudyFolder) -> None:
    more = [ev.submit(2), ev.end(2, 1, "completed", "completed", loss=1.0, block="1.b0")]
    with open(folder.journal, "ab") as stream:
        stream.write(b"".join(map(seal, [ev.asked(2, {"lr": 0.5}), *more])))
    lines = hpc_hpo("show", folder.path, "block", "1.b0").output.splitlines()
    assert lines[0] == "block 1.b0: ended (walltime)"
    assert "  workers   2" in lines and "  slices    1 completed" in lines
    assert lines[-1] == "  host      node1"


def test_that_failures_are_listed_and_one_cause_is_shown_with_its_logs(
    hpc_hpo: Command, folder: StudyFolder
) -> None:
    heads, row = hpc_hpo("show", folder.path, "failures").output.splitlines()
    assert heads.split()[:3] == ["group", "end", "slices"]
    assert row.split() == ["1", "failed", "1", "1", "1", "exception", "ValueError:", "no"]
    told = hpc_hpo("show", folder.path, "failures", 1).output
    assert "trial 1, slice 1, host node1" in told and told.endswith("    the last words\n")


def test_that_a_segment_is_shown_with_its_best_point(hpc_hpo: Command, segmented: Path) -> None:
    lines = hpc_hpo("show", segmented, "segment", "a").output.splitlines()
    assert lines[0] == "segment a: running"
    assert "  best     loss 0.5, trial 0" in lines and "           lr = 0.1" in lines
    assert hpc_hpo("show", segmented, "segment", "b").output.startswith("segment b: new")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (["trail", "1"], "failures GROUP"),
        (["trial"], "failures GROUP"),
        (["trial", "x"], "not a number"),
        (["block", "2.b0"], "1.b0"),
        (["segment", "a"], "has no segments"),
        (["failures", "4"], "1-1"),
        (["failures", "--log"], "only a trial has logs"),
    ],
)
def test_that_what_cannot_be_shown_is_bad_input(
    hpc_hpo: Command, folder: StudyFolder, what: list[str], says: str
) -> None:
    done = hpc_hpo("show", folder.path, *what)
    assert done.exit_code == 2
    assert says in done.stderr


def test_that_the_best_parameters_are_printed_exactly(
    hpc_hpo: Command, folder: StudyFolder
) -> None:
    done = hpc_hpo("best", folder.path, "--params")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"lr": 0.123456789, "act": "relu"}
    assert hpc_hpo("best", folder.path).output.startswith("loss 0.25, trial 0\n")


def test_that_the_best_of_a_segment_is_asked_for_by_its_name(
    hpc_hpo: Command, segmented: Path
) -> None:
    done = hpc_hpo("best", segmented, "--segment", "a", "--params")
    assert json.loads(done.stdout) == {"lr": 0.1}
    empty = hpc_hpo("best", segmented, "--segment", "b", "--params")
    assert (empty.exit_code, empty.stdout) == (8, "")
    for options in ([], ["--segment", "c"]):
        refused = hpc_hpo("best", segmented, *options)
        assert refused.exit_code == 2 and "--segment" in refused.stderr


def test_that_a_study_never_run_has_no_best_point(hpc_hpo: Command, study_file: Path) -> None:
    done = hpc_hpo("best", study_file, "--params")
    assert (done.exit_code, done.stdout) == (8, "")


def test_that_two_studies_differ_in_their_own_keys_and_in_those_of_their_sites(
    hpc_hpo: Command, study_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("extends: local\nname: mine\nnode: {gpus: 2}\n")
    other = tmp_path / "other.yaml"
    other.write_text(STUDY.replace("trials: 3", "trials: 9") + "site: mine.yaml\n")
    found = {d["key"]: d for d in json.loads(hpc_hpo("diff", study_file, other, "--json").stdout)}
    assert found["budget.trials"] == {"key": "budget.trials", "a": 3, "b": 9, "harmless": True}
    assert (found["site.node.gpus"]["a"], found["site.node.gpus"]["b"]) == (0, 2)
    assert "name" not in found
    lines = hpc_hpo("diff", study_file, other).output.splitlines()
    assert ["budget.trials", "3", "9"] in [line.split() for line in lines]
    assert hpc_hpo("diff", study_file, study_file).output == "no difference\n"


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A study of two objectives, with two trials on the front."""
    folder = StudyFolder(tmp_path / "several")
    folder.make()
    folder.study.write_text(
        STUDY + "objectives: [{name: error, reference: 9}, {name: cost, reference: 9}]\n"
    )
    history = [ev.run()]
    for n, values in enumerate([[1.0, 5.0], [2.0, 2.0], [3.0, 3.0]]):
        history += [ev.asked(n, {"lr": 0.1 + n}), ev.submit(n)]
        history.append(ev.end(n, 1, "completed", "completed", loss=values[0], values=values))
    folder.journal.write_bytes(b"".join(map(seal, history)))
    return folder.path


def test_that_the_best_of_several_objectives_are_a_front(hpc_hpo: Command, several: Path) -> None:
    lines = hpc_hpo("best", several).output.splitlines()
    assert lines[0] == "2 trials on the front, hypervolume 53"
    assert [line.split() for line in lines[1:]] == [
        ["trial", "error", "cost", "lr"], ["0", "1", "5", "0.1"], ["1", "2", "2", "1.1"],
    ]  # fmt: skip
    found = json.loads(hpc_hpo("best", several, "--json").output)
    assert [(one["trial"], one["objectives"]["cost"]) for one in found] == [(0, 5.0), (1, 2.0)]
    assert "2 trials on the front, hypervolume 53" in hpc_hpo("status", several).output
    assert "error 2.0, cost 2.0" in hpc_hpo("show", several, 1).output


def test_that_a_script_names_the_trial_of_the_front_that_it_means(
    hpc_hpo: Command, several: Path
) -> None:
    refused = hpc_hpo("best", several, "--params")
    assert refused.exit_code == 2
    assert "several trials are best" in refused.output and "valid: 0, 1" in refused.output
    assert json.loads(hpc_hpo("best", several, "--params", "--trial", 1).output) == {"lr": 1.1}
    assert "not on the front" in hpc_hpo("best", several, "--params", "--trial", 2).output


def test_that_one_loss_has_one_best_trial(hpc_hpo: Command, folder: StudyFolder) -> None:
    assert "the study has one loss" in hpc_hpo("best", folder.path, "--trial", 0).output
    assert [one["trial"] for one in json.loads(hpc_hpo("best", folder.path, "--json").output)] == [
        0
    ]
