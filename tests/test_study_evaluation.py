"""The keys objective (as a mapping), evaluation and container of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.study import Study, check_payload, load_study, payload_fields

BASE = "name: s\nspace: {x: {float: [0, 1]}}\nbudget: {trials: 3}\n"


def study(folder: Path, text: str) -> Study:
    file = folder / "study.yaml"
    file.write_text(BASE + text)
    return load_study(file)


def test_that_an_objective_may_be_a_mapping(tmp_path: Path) -> None:
    nested = study(tmp_path, 'objective: {command: [sh, "-c", "0.10"], contract: evaluation}\n')
    assert nested.kind == "evaluation"
    assert nested.command == ("sh", "-c", "0.10")
    flat = study(tmp_path, 'command: [sh, "-c", "0.10"]\ncontract: evaluation\n')
    assert flat.to_dict() == nested.to_dict()
    again = tmp_path / "again.yaml"
    again.write_text(str(nested.to_dict()).replace("None", "null"))
    assert load_study(again).to_dict() == nested.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective: {comand: [sh]}", ":4: objective.comand: unknown key; valid: command"),
        ("objective: {command: [sh]}\ncommand: [a]", "command stands beside objective"),
        ("objective: {command: sh}", ":4: command: wrong type"),
        ("objective: {command: []}", "command"),
        ("objective: a.py:f\ncontainer: {image: a}", "container: this goes with command"),
        ("command: [sh]\nevaluation: {input: a}", "evaluation: this goes with contract"),
        (
            "command: [sh]\ncontract: evaluation\nevaluation: {output: /tmp/o}",
            ":6: evaluation.output: this must stay inside",
        ),
        (
            "command: [sh]\ncontract: evaluation\nevaluation: {otput: o}",
            "evaluation.otput: unknown key; valid",
        ),
        ("command: [sh]\ncontainer: {}", "container.image: this key is required"),
        (
            "command: [sh]\ncontainer: {image: a, runtime: docker}",
            "container.runtime: unknown word",
        ),
        ("command: [sh]\ncontainer: {image: a, binds: [a:b]}", "container.binds[0]: not a bind"),
        ("command: [sh]\ncontainer: {image: a, binds: [/a:/b:x]}", "not a bind"),
        ('command: [sh]\ncontainer: {image: "{x}"}', "container.image: only an input can stand"),
        ('command: [sh]\ncontainer: {image: "{"}', "container.image: bad placeholder"),
        ("command: [sh]\ncontainer: {image: a, netwrk: true}", "container.netwrk: unknown key"),
    ],
)
def test_that_mistakes_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        study(tmp_path, text + "\n")
    assert message in str(caught.value)


def test_that_the_sandbox_leaves_out_what_is_of_one_run(tmp_path: Path) -> None:
    for name in (
        "run.sh", "lib/a.py", "input.json", "output.json", ".git/x.sh",
        "s/journal.jsonl", "s/trials/1.sh", "notes.txt",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = study(
        tmp_path,
        "command: [sh]\ncontract: evaluation\n"
        'evaluation: {sandbox: ["**/*.sh", "**/*.py", "*.json", run.sh]}\n',
    )
    files = payload_fields(found, "")["evaluation"]["sandbox"]
    assert [name for _, name in files] == ["run.sh", "lib/a.py"]
    assert files[0][0] == str(tmp_path / "run.sh")


def test_that_gpus_are_those_of_the_site_and_only_when_used(tmp_path: Path) -> None:
    text = "command: [sh]\ncontainer: {image: a}\n"
    assert payload_fields(study(tmp_path, text), "amd")["container"]["gpus"] == ""
    text += "trial: {gpus_per_rank: 1}\n"
    assert payload_fields(study(tmp_path, text), "amd")["container"]["gpus"] == "amd"


def test_that_the_image_may_be_an_input(tmp_path: Path) -> None:
    text = 'command: [sh]\ncontainer: {image: "{inputs.image}"}\n'
    [problem] = check_payload(study(tmp_path, text))
    assert "container.image: no such input; found 'image'" in str(problem)
    text += "inputs: [{name: image, source: a.sif}]\n"
    assert check_payload(study(tmp_path, text)) == []
