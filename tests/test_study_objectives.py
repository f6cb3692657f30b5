"""The key objectives of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.study import Study, load_study

BASE = "name: s\nspace: {x: {float: [0, 1]}}\nbudget: {trials: 3}\n"
PYTHON = BASE + "objective: o.py:f\n"
TWO = "objectives: [{name: error}, {name: speed, direction: maximize}]\n"


def study(folder: Path, text: str) -> Study:
    file = folder / "study.yaml"
    file.write_text(text)
    return load_study(file)


def test_that_the_first_objective_says_the_study_s_direction(tmp_path: Path) -> None:
    found = study(tmp_path, PYTHON + TWO)
    assert (found.direction, found.signs) == ("minimize", (1, -1))
    turned = study(tmp_path, PYTHON + "objectives: [{name: a, direction: maximize}, {name: b}]\n")
    assert (turned.direction_sign, turned.signs) == (-1, (-1, 1))


def test_that_a_study_of_one_loss_has_no_objectives(tmp_path: Path) -> None:
    plain = study(tmp_path, PYTHON)
    assert plain.signs == ()
    assert "objectives" not in plain.to_dict()


@pytest.mark.parametrize(
    "text",
    [
        PYTHON + "objectives: [{name: a, reference: 2}, {name: b, direction: maximize}]\n",
        BASE
        + "command: [sh]\nloss: {file: out.json}\n"
        + 'objectives: [{name: a, key: m.a}, {name: b, stdout: "b=(.*)"}]\n',
    ],
)
def test_that_a_frozen_study_is_the_study_again(tmp_path: Path, text: str) -> None:
    plain = study(tmp_path, text).to_dict()
    again = tmp_path / "again.yaml"
    again.write_text(str(plain).replace("None", "null").replace("False", "false"))
    assert load_study(again).to_dict() == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives: [{name: a}]", ":5: objectives: no list of two objectives or more"),
        ("objectives: loss", "objectives: no list of two"),
        ("objectives: [a, b]", "objectives[0]: wrong type"),
        ("objectives: [{name: a}, {name: a}]", "two objectives are called a"),
        ("objectives: [{name: a}, {name: loss}]", "only the first can be called loss"),
        ("objectives: [{name: a}, {name: b, dir: maximize}]", "objectives[1].dir: unknown key"),
        ("objectives: [{name: a}, {name: b, direction: up}]", "unknown word"),
        ("objectives: [{name: a}, {name: b, key: c}]", "objectives[1].key: this goes with command"),
        ("objectives: [{name: a}, {name: b, stdout: c}]", "the expression has 0 groups"),
        (TWO + "direction: maximize", ":6: direction: the first objective says minimize"),
        (TWO + "fidelity: {policy: asha, max: 9}", "fidelity: trials are stopped early by one"),
        (TWO + "segments: {policy: best-gain, list: [{name: s}]}", "segments.policy: it compares"),
        (TWO + "segments: {transfer: true, list: [{name: s}]}", "segments.transfer: it compares"),
        (
            TWO + "segments: {list: [{name: s, budget: {target_loss: 1}}]}",
            "segments.list[0].budget.target_loss: several objectives have no one target",
        ),
    ],
)
def test_that_what_cannot_go_with_objectives_is_named(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError) as error:
        study(tmp_path, PYTHON + text)
    assert message in str(error.value)


def test_that_segments_without_transfer_may_have_objectives(tmp_path: Path) -> None:
    segments = "segments: {policy: fair, transfer: false, list: [{name: s}]}\n"
    assert list(study(tmp_path, PYTHON + TWO + segments).segments) == ["s"]


def test_that_what_a_command_s_objectives_lack_is_named(tmp_path: Path) -> None:
    command = BASE + "command: [sh]\n" + TWO
    for text, message in (
        ("loss: {key: a}", "loss.key: there are several objectives; valid: key of each entry"),
        ("contract: evaluation", "contract: an evaluation has one loss"),
    ):
        with pytest.raises(InputError) as error:
            study(tmp_path, command + text)
        assert message in str(error.value)
    limited = command.replace("trials: 3", "trials: 3, target_loss: 1")
    with pytest.raises(InputError, match=r"budget.target_loss: several objectives have no one"):
        study(tmp_path, limited)
