"""Submission files of phpo as studies: every key is kept, explained, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.errors import InputError
from hpc_hpo.study import Study, check_payload, load_study
from hpc_hpo.study.submission import as_yaml, is_submission, load_submission
from hpc_hpo.study.submission_keys import HONOURED, IDLE, REFUSED
from hpc_hpo.worker.template import fill

SPACE = {"x": {"method": "uniform", "dimension": {"low": 0, "high": 1}}}
LEAST: dict[str, Any] = {"evaluationExec": "./run.sh", "searchSpaceFile": "space.json"}

#: What phpo 2.2.0 knows: pandaclient/PhpoScript.py and what --dumpJson adds.
PHPO = [
    "version", "loadJson", "dumpJson", "nParallelEvaluation", "maxPoints", "maxEvaluationJobs",
    "maxPointsPerEvaluationJob", "nPointsPerIteration", "minUnevaluatedPoints",
    "steeringContainer", "steeringExec", "searchSpaceFile", "evaluationContainer",
    "evaluationExec", "evaluationInput", "evaluationTrainingData", "evaluationOutput",
    "evaluationMeta", "evaluationMetrics", "checkPointToSave", "checkPointToLoad",
    "checkPointInterval", "alrbArgs", "architecture", "segmentSpecFile", "verbose", "trainingDS",
    "outDS", "official", "site", "workingGroup", "noSubmit", "python3", "vomsRoles", "noEmail",
    "intrSrv", "returnCode", "returnOut", "jediTaskID",
]  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a submission and its search space; gives the submission's path."""

    def write_(space: Any = SPACE, **keys: Any) -> Path:
        (tmp_path / "space.json").write_text(json.dumps(space))
        path = tmp_path / "phpo.json"
        path.write_text(json.dumps({**LEAST, **keys}, indent=1))
        return path

    return write_


Write = Callable[..., Path]


def study_of(path: Path) -> Study:
    return load_study(path)


def test_that_every_key_of_phpo_has_its_fate() -> None:
    assert sorted([*HONOURED, *IDLE, *REFUSED]) == sorted(PHPO)


def test_that_defaults_are_those_of_the_contract(write: Write) -> None:
    study = study_of(write())
    assert (study.budget.trials, study.budget.parallel) == (10, 1)
    assert study.contract == "evaluation"
    names = study.evaluation
    assert (names.input, names.data, names.output) == ("input.json", "input_ds.json", "output.json")
    assert (names.meta, names.metrics, names.load) == (None, None, None)
    assert study.checkpoint.every == 300.0
    assert (study.name, study.container) == ("phpo", None)


def test_that_each_key_arrives(write: Write) -> None:
    study = study_of(
        write(
            outDS="user.someone.hpo_1/",
            maxPoints="25",
            nParallelEvaluation=4,
            maxEvaluationJobs=80,
            evaluationInput="in.json",
            evaluationTrainingData="ds.json",
            evaluationOutput="out.json",
            evaluationMeta="meta.json",
            evaluationMetrics="metrics.tgz",
            checkPointToSave="./model, ckpt.h5",
            checkPointToLoad="cp.tgz",
            checkPointInterval=2,
            evaluationContainer="train.sif",
            architecture="#x86_64-*-avx2&nvidia",
            steeringExec="run img hpc-hpo steer --in %IN --optimizer sobol --seed 7",
        )
    )
    assert study.name == "user.someone.hpo_1"
    assert (study.budget.trials, study.budget.parallel) == (25, 4)
    assert study.trial.max_attempts == 4
    assert study.trial.gpus_per_rank == 1
    names = study.evaluation.names()
    assert names == ["in.json", "ds.json", "out.json", "meta.json", "metrics.tgz", "cp.tgz"]
    assert study.checkpoint.files == ("model", "ckpt.h5")
    assert study.checkpoint.every == 120.0
    assert study.container is not None
    assert study.container.image == "train.sif"
    assert (study.optimizer.name, study.seed) == ("sobol", 7)


def test_that_a_steering_command_of_another_kind_changes_nothing(write: Write) -> None:
    path = write(steeringExec="run img hpogrid generate --n_point=%NUM_POINTS --lib nevergrad")
    assert study_of(path).optimizer.name == "auto"
    assert any("steeringExec" in key for key, _ in load_submission(path)[1].notes)


def test_that_an_optimizer_with_options_is_read_from_the_steering_command(write: Write) -> None:
    line = """hpc-hpo steer --optimizer '{"name": "skopt", "surrogate": "ET"}' --in %IN"""
    assert study_of(write(steeringExec=line)).optimizer.spec() == {
        "name": "skopt",
        "surrogate": "ET",
    }


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_that_any_execution_string_reaches_the_shell_as_it_is(line: str) -> None:
    escaped = line.replace("{", "{{").replace("}", "}}")
    assert fill([escaped], {"x": 1}, {}, 1, 1) == [line]


def test_that_training_data_is_looked_for_where_rucio_leaves_it(
    write: Write, tmp_path: Path
) -> None:
    path = write(trainingDS="user.someone:user.someone.data/")
    assert [i.source for i in study_of(path).inputs] == ["user.someone.data"]
    (tmp_path / "data").mkdir()
    assert [i.source for i in study_of(write(trainingDS="data")).inputs] == ["data"]


def test_that_segments_take_their_files_from_the_dataset(write: Write, tmp_path: Path) -> None:
    spec = [{"name": "name_A", "files": ["file_1", "file_3"]}, {"name": "name_B", "files": ["f2"]}]
    (tmp_path / "seg.json").write_text(json.dumps(spec))
    study = study_of(write(segmentSpecFile="seg.json", trainingDS="user.x:ds", maxPoints=3))
    assert list(study.segments) == ["name_A", "name_B"]
    assert [i.source for i in study.segments["name_A"].inputs] == ["ds/file_1", "ds/file_3"]
    assert study.segments.total_trials == 6


def test_that_each_segment_can_have_its_own_space(write: Write, tmp_path: Path) -> None:
    spec = [{"name": "a", "files": ["f1"]}, {"name": "b", "files": ["f2"]}]
    (tmp_path / "seg.json").write_text(json.dumps(spec))
    other = {"y": {"method": "uniformint", "dimension": {"low": 1, "high": 9}}}
    for spaces in (
        [SPACE, other],
        [{"model_id": i, "search_space": s} for i, s in enumerate([SPACE, other])],
    ):
        study = study_of(write(space=spaces, segmentSpecFile="seg.json"))
        assert study.segments["a"].space.names == ["x"]
        assert study.segments["b"].space.names == ["y"]
    with pytest.raises(InputError, match="as many search spaces as segments"):
        study_of(write(space=[SPACE], segmentSpecFile="seg.json"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"maxPoint": 3}, "maxPoint: unknown key; valid"),
        ({"alrbArgs": "--nohome"}, "alrbArgs: this cannot be kept; found '--nohome'; valid: cont"),
        ({"maxPoints": "many"}, "maxPoints: not such a number; found 'many'"),
        ({"maxPoints": 0}, "maxPoints: not such a number"),
        ({"searchSpaceFile": None}, "searchSpaceFile: this key is required"),
        ({"searchSpaceFile": "none.json"}, "none.json cannot be read: No such file"),
        ({"evaluationExec": None, "maxPoints": 3}, "evaluationExec: this key is required"),
        ({"segmentSpecFile": "none.json"}, "none.json"),
        ({"evaluationOutput": ["a"]}, "evaluationOutput: wrong type"),
        ({"evaluationOutput": "../out.json"}, "phpo.json:4: evaluation.output: this must stay"),
        ({"steeringExec": "hpc-hpo steer --optimizer '{x}'"}, "--optimizer is not valid JSON"),
        (
            {"steeringExec": "hpc-hpo steer --seed 1", "checkPointInterval": -1},
            "checkPointInterval",
        ),
    ],
)
def test_that_a_mistake_is_told_by_key(write: Write, keys: dict[str, Any], message: str) -> None:
    path = write(**keys)
    with pytest.raises(InputError) as caught:
        study_of(path)
    assert message in str(caught.value)
    assert "phpo.json" in str(caught.value)


def test_that_a_bad_search_space_is_told_with_its_file(write: Write) -> None:
    with pytest.raises(InputError) as caught:
        study_of(write(space={"x": {"method": "unifrom", "dimension": {}}}))
    assert "space.json: space.x.method: unknown method; did you mean 'uniform'" in str(caught.value)


def test_that_a_study_and_a_submission_are_told_apart(write: Write, tmp_path: Path) -> None:
    assert is_submission(write())
    study = tmp_path / "study.json"
    study.write_text(json.dumps({"name": "s", "command": ["a"], "space": SPACE, "budget": {}}))
    assert not is_submission(study)
    broken = tmp_path / "broken.json"
    broken.write_text('{"evaluationExec": ')
    assert not is_submission(broken)
    with pytest.raises(InputError, match=r"broken\.json"):
        load_study(broken)


def test_that_the_converted_study_is_the_same_study(write: Write, tmp_path: Path) -> None:
    path = write(
        evaluationExec="echo {a} > $HOME/x; python -c 'print(\"1:30\")'\n# 010",
        checkPointToSave="a,b",
        noEmail=True,
    )
    notes: list[str] = []
    text = as_yaml(load_submission(path)[1], path, notes.append)
    (tmp_path / "study.yaml").write_text(text)
    assert load_study(tmp_path / "study.yaml").to_dict() == study_of(path).to_dict()
    assert notes == ["noEmail has no effect: there is no grid here"]
    assert "# noEmail has no effect: there is no grid here" in text


def test_that_an_image_of_a_registry_is_to_be_pulled_first(write: Write, tmp_path: Path) -> None:
    study = study_of(write(evaluationContainer="docker://gitlab-registry.cern.ch/me/train:v1"))
    [problem] = check_payload(study)
    assert "compute nodes cannot pull an image" in str(problem)
    assert "apptainer pull train.sif docker://gitlab-registry.cern.ch/me/train:v1" in str(problem)
    (tmp_path / "train.sif").touch()
    assert check_payload(study_of(write(evaluationContainer="train.sif"))) == []
