"""study.yaml: what is accepted, and what is said about the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.fsio import to_json
from hpc_hpo.study import Study, compare, load_study, parse_study
from hpc_hpo.yamlio import load_yaml

MINIMAL = """\
name: digits
objective: objective.py:train
space: {lr: {float: [0.1, 1.0]}}
budget: {trials: 4}
"""
COMMAND = MINIMAL.replace("objective: objective.py:train", 'command: [python, t.py, "{lr}"]')


def study_of(text: str) -> Study:
    return parse_study(load_yaml(text, "study.yaml"), path=Path("/s/study.yaml"))


def faults(text: str) -> list[InputError]:
    with pytest.raises(InputError) as caught:
        study_of(text)
    error = caught.value
    return error.errors if isinstance(error, InputErrors) else [error]


def fault(text: str) -> InputError:
    errors = faults(text)
    assert len(errors) == 1, [str(e) for e in errors]
    return errors[0]


def test_that_four_keys_make_a_study(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(MINIMAL)
    study = load_study(file)
    assert (study.path, study.folder, study.text) == (file, tmp_path, MINIMAL)
    assert list(study.space.names) == ["lr"]
    assert (study.kind, study.direction, study.direction_sign) == ("python", "minimize", 1)
    assert study.optimizer.spec() == {"name": "auto"}
    assert (study.seed, study.site, study.budget.trials) == (0, "local", 4)
    assert (study.trial.ranks, study.trial.max_attempts, study.trial.max_losses) == (1, 3, 5)
    assert (study.checkpoint.every, study.checkpoint.keep) == (None, 2)
    assert (study.checkpoint.signal, study.checkpoint.kill_grace) == ("SIGUSR1", 10.0)
    assert (study.blocks.nodes, study.blocks.walltime, study.blocks.max) == (1, None, 1)


FULL = """\
name: full-1.0
command: [python, train.py, --lr, "{lr}", --n, 10, --x=0.10, "{inputs.data}", "{trial}-{seed}",
          "{{plain}}"]
loss: {stdout: "val_loss=(\\\\S+)"}
direction: maximize
space:
  lr: {method: loguniform, dimension: {low: 1e-5, high: 1e-1}}
  act: {choice: [on, off]}
  n: {int: [1, 4]}
constraint: n > lr
optimizer: {name: skopt, surrogate: ET, seed: 7}
seed: 3
budget: {trials: 40, wall_time: 1h30m, target_loss: 1e-3}
trial: {ranks: 2, cores_per_rank: 7, gpus_per_rank: 1, memory: 4GB, expected_time: 2m,
        max_time: 20m, max_attempts: 1, max_losses: 9, fresh_process: true}
checkpoint: {files: ["*.pt", "log/*"], every: 30s, keep: 3, signal: USR2, kill_grace: 0.5s}
inputs:
  - {name: data, source: "data/*.npz"}
  - {name: more, source: /abs/x, mode: copy}
env: {OMP_NUM_THREADS: 1, RATE: 0.10, DEBUG: yes, ON: true, EMPTY: ""}
site: ./my.yaml
blocks: {nodes: 2, walltime: 2:00, max: 4, workers_per_node: 6}
"""


def test_that_every_key_is_read() -> None:
    study = study_of(FULL)
    assert study.command is not None
    assert study.command[5:7] == ("10", "--x=0.10")
    assert study.loss.spec() == {"stdout": r"val_loss=(\S+)"}
    assert (study.kind, study.direction_sign) == ("command", -1)
    assert study.constraint == ("n > lr",)
    assert study.optimizer.spec() == {"name": "skopt", "surrogate": "ET"}
    assert (study.seed, study.optimizer_seed) == (3, 7)
    assert (study.budget.wall_time, study.budget.target_loss) == (5400.0, 0.001)
    assert (study.trial.memory, study.trial.expected_time) == (4 * 10**9, 120.0)
    assert study.checkpoint.files == ("*.pt", "log/*")
    assert (study.checkpoint.signal, study.checkpoint.kill_grace) == ("SIGUSR2", 0.5)
    assert [i.mode for i in study.inputs] == ["link", "copy"]
    assert study.env == {
        "OMP_NUM_THREADS": "1", "RATE": "0.10", "DEBUG": "yes", "ON": "true", "EMPTY": "",
    }  # fmt: skip
    assert (study.blocks.walltime, study.blocks.workers_per_node) == (7200.0, 6)


@pytest.mark.parametrize("text", [MINIMAL, COMMAND, FULL])
def test_that_the_frozen_form_is_a_study_with_the_same_frozen_form(text: str) -> None:
    frozen = study_of(text).to_dict()
    assert json.loads(to_json(frozen)) == frozen
    assert study_of(to_json(frozen)).to_dict() == frozen
    assert compare(frozen, study_of(to_json(frozen)).to_dict()) == []


def test_that_the_frozen_form_keeps_a_none_among_the_choices() -> None:
    text = MINIMAL.replace("{float: [0.1, 1.0]}", "{choice: [null, 1]}")
    assert study_of(text).to_dict()["space"] == {"lr": {"choice": [None, 1]}}


def test_that_the_walltime_means_the_same_with_and_without_quotes() -> None:
    for word in ("2:00", '"2:00"', "2h", "120m"):
        assert study_of(f"{MINIMAL}blocks: {{walltime: {word}}}").blocks.walltime == 7200.0


def test_that_the_network_is_a_word_or_a_list_of_hosts() -> None:
    assert study_of(MINIMAL).network is None
    assert study_of(MINIMAL + "network: deny\n").network == "deny"
    hosts = study_of(MINIMAL + "network: [db.cluster, 10.4.0.0/16, '::1']\n").network
    assert hosts == ("db.cluster", "10.4.0.0/16", "::1")
    for bad in ("no", "[]", "[http://x/]", "[1]", "{deny: true}"):
        assert fault(MINIMAL + f"network: {bad}\n").key == "network", bad


def test_that_a_study_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        study_of(MINIMAL).name = "other"


def test_that_a_file_target_names_its_module_and_folder() -> None:
    assert study_of(MINIMAL).python_target() == ("objective:train", ["/s"])
    below = MINIMAL.replace("objective.py:", "code/my.py:")
    assert study_of(below).python_target() == ("my:train", ["/s/code"])
    module = MINIMAL.replace("objective.py:", "pkg.mod:")
    assert study_of(module).python_target() == ("pkg.mod:train", ["/s"])
    with pytest.raises(ValueError, match="command"):
        study_of(COMMAND).python_target()


def test_that_a_frozen_study_finds_its_files_where_the_original_lay(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(MINIMAL)
    assert load_study(file, folder=Path("/s")).python_target()[1] == ["/s"]


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        # unknown keys, with the nearest one
        (MINIMAL + "buget: 3", "buget", 5, "did you mean 'budget'"),
        (MINIMAL + "trial: {maxtime: 3m}", "trial.maxtime", 5, "did you mean 'max_time'"),
        (MINIMAL + "inputs:\n- {name: a, src: b, source: b}", "inputs[0].src", 6, "'source'"),
        (MINIMAL + "space_spec: 3", "space_spec", 5, "unknown key"),
        # wrong types
        (MINIMAL + 'trial: {ranks: "2"}', "trial.ranks", 5, "a whole number, without quotes"),
        (MINIMAL + "trial: {ranks: 2.0}", "trial.ranks", 5, "found 2.0; valid: a whole number"),
        (MINIMAL + "trial: {fresh_process: yes}", "trial.fresh_process", 5, "true or false"),
        (MINIMAL + "seed: true", "seed", 5, "found True; valid: a whole number"),
        (MINIMAL + "seed: ", "seed", 5, "found nothing"),
        (MINIMAL + "blocks: 3", "blocks", 5, "a mapping"),
        (MINIMAL + "inputs: data", "inputs", 5, "a list"),
        (MINIMAL + "env: [A=1]", "env", 5, "a mapping"),
        (MINIMAL + "env: {A: [1]}", "env.A", 5, "text"),
        (MINIMAL + "constraint: [3]", "constraint[0]", 5, "text; put it in quotes"),
        (MINIMAL + "optimizer: [skopt]", "optimizer", 5, "a mapping"),
        (MINIMAL.replace("digits", "12"), "name", 1, "text; put it in quotes"),
        (MINIMAL.replace("{lr: {float: [0.1, 1.0]}}", "[lr]"), "space", 3, "a mapping"),
        # values out of range
        (MINIMAL.replace("4}", "-1}"), "budget.trials", 4, "found -1; valid: at least 1"),
        (MINIMAL.replace("4}", "0}"), "budget.trials", 4, "at least 1"),
        (MINIMAL.replace("{trials: 4}", "{}"), "budget", 4, "trials, epochs or node_hours"),
        (MINIMAL.replace("4}", "4, wall_time: 120}"), "budget.wall_time", 4, "120s or 120m"),
        (MINIMAL.replace("4}", "4, wall_time: 0s}"), "budget.wall_time", 4, "longer than nothing"),
        (MINIMAL.replace("4}", "4, target_loss: .nan}"), "budget.target_loss", 4, "finite"),
        (MINIMAL + "blocks: {walltime: 1:30:00}", "blocks.walltime", 5, "1h30m15s"),
        (MINIMAL + "trial: {memory: 4G}", "trial.memory", 5, "4GB or 4GiB"),
        (MINIMAL + "trial: {memory: 0B}", "trial.memory", 5, "larger than nothing"),
        (MINIMAL + "trial: {gpus_per_rank: -1}", "trial.gpus_per_rank", 5, "at least 0"),
        (MINIMAL + "trial: {expected_time: 1h, max_time: 1m}", "trial.expected_time", 5, "1m"),
        (MINIMAL + "direction: minimise", "direction", 5, "did you mean 'minimize'"),
        (MINIMAL + "checkpoint: {signal: KILL}", "checkpoint.signal", 5, "SIGUSR1"),
        (MINIMAL + "env: {2A: x}", "env", 5, "'2A'"),
        (MINIMAL + "env: {HPC_HPO_TRIAL: x}", "env", 5, "HPC_HPO_TRIAL"),
        (MINIMAL + 'env: {A: "\\0"}', "env", 5, "NUL"),
        (MINIMAL.replace("digits", "a/b"), "name", 1, "folder"),
        (MINIMAL.replace("digits", ".."), "name", 1, "folder"),
        (MINIMAL + "inputs: [{name: a b, source: x}]", "inputs[0].name", 5, "letters"),
        (
            MINIMAL + "inputs: [{name: A, source: x}, {name: a, source: y}]",
            "inputs[1].name", 5, "two inputs",
        ),
        # objective and command
        (MINIMAL.replace("objective: objective.py:train\n", ""), "objective", None, "nothing to"),
        (MINIMAL + "command: [a]", "command", 5, "not both"),
        (MINIMAL.replace("objective.py:train", "train"), "objective", 2, "no function"),
        (MINIMAL.replace("objective.py:train", "a-b:train"), "objective", 2, "no Python file"),
        (MINIMAL.replace("objective.py:train", "a.b.py:train"), "objective", 2, "no Python file"),
        (MINIMAL + "loss: {key: a}", "loss", 5, "goes with command"),
        (MINIMAL + "contract: evaluation", "contract", 5, "goes with command"),
        (MINIMAL + 'checkpoint: {files: ["*.pt"]}', "checkpoint.files", 5, "goes with command"),
        # commands
        (COMMAND.replace('[python, t.py, "{lr}"]', "[]"), "command", 2, "at least 1"),
        (COMMAND.replace('[python, t.py, "{lr}"]', "python t.py"), "command", 2, "a list"),
        (COMMAND.replace("python,", '"",'), "command[0]", 2, "empty"),
        (COMMAND.replace("{lr}", "{lrr}"), "command[2]", 2, "did you mean 'lr'"),
        (COMMAND.replace("{lr}", "{inputs.x}"), "command[2]", 2, "unknown placeholder"),
        (COMMAND.replace("{lr}", "{lr"), "command[2]", 2, "{{ or }} for a plain brace"),
        (COMMAND.replace("{lr}", "{}"), "command[2]", 2, "bad placeholder"),
        (COMMAND.replace("{lr}", "{lr:.3f}"), "command[2]", 2, "bad placeholder"),
        (COMMAND.replace('"{lr}"', "{lr}"), "command[2]", 2, "put it in quotes"),
        (COMMAND.replace("lr", "seed"), "space.seed", 3, "must not be called seed"),
        (COMMAND + 'loss: {stdout: "("}', "loss.stdout", 5, "not a regular expression"),
        (COMMAND + "loss: {stdout: abc}", "loss.stdout", 5, "0 groups"),
        (COMMAND + 'loss: {stdout: "(a)(b)"}', "loss.stdout", 5, "2 groups"),
        (COMMAND + 'loss: {stdout: "(a)", key: b}', "loss", 5, "not both"),
        (COMMAND + "loss: {file: ../x.json}", "loss.file", 5, "stay inside"),
        (COMMAND + "contract: evaluation\nloss: {key: a}", "loss", 6, "output.json"),
        (COMMAND + "contract: evalution", "contract", 5, "did you mean 'evaluation'"),
        (COMMAND + "checkpoint: {files: [/x/*.pt]}", "checkpoint.files[0]", 5, "stay inside"),
        # the space's own errors come with their place
        (MINIMAL.replace("{lr: {float: [0.1, 1.0]}}", "{}"), "space", 3, "empty"),
        (MINIMAL.replace("[0.1, 1.0]", "[2, 1]"), "space.lr.float", 3, "2"),
        (MINIMAL.replace("float: [0.1, 1.0]", "choice: [a]"), "space.lr.choice", 3, "fixed"),
    ],
)  # fmt: skip
def test_that_a_mistake_is_named_with_its_key_and_line(
    text: str, key: str, line: int | None, words: str
) -> None:
    error = fault(text)
    assert (error.key, error.line) == (key, line), str(error)
    assert words in str(error)
    assert str(error).startswith("study.yaml:")
    assert "\n" not in str(error)


def test_that_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = MINIMAL.replace("[0.1, 1.0]", "[2, 1]").replace("trials: 4", "trials: no")
    errors = faults(text + "buget: 1\nseed: x")
    keys = [e.key for e in errors]
    assert keys == ["space.lr.float", "budget.trials", "buget", "seed"]


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n"])
def test_that_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert "a study file is a mapping" in str(fault(text))


def test_that_low_and_high_may_be_written_without_a_dot() -> None:
    space = "{lr: {method: loguniform, dimension: {low: 1e-5, high: 1e-1}}}"
    study = study_of(MINIMAL.replace("{lr: {float: [0.1, 1.0]}}", space))
    assert study.space_spec["lr"]["dimension"] == {"low": 1e-5, "high": 0.1}


def test_that_the_evaluation_contract_goes_with_a_command() -> None:
    study = study_of(COMMAND + "contract: evaluation")
    assert study.kind == "evaluation"
    assert "loss" not in study.to_dict()


def changes(old: str, new: str) -> dict[str, bool]:
    found = compare(study_of(old).to_dict(), study_of(new).to_dict())
    return {change.key: change.harmless for change in found}


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("budget: {trials: 9}", "budget.trials"),
        ("budget: {trials: 4, target_loss: 0.5}", "budget.target_loss"),
        ("blocks: {walltime: 1h}", "blocks.walltime"),
        ("site: other", "site"),
        ("trial: {max_time: 1h}", "trial.max_time"),
        ("trial: {max_attempts: 9}", "trial.max_attempts"),
        ("checkpoint: {every: 1m}", "checkpoint.every"),
    ],
)
def test_that_a_change_of_how_the_work_is_done_is_harmless(more: str, key: str) -> None:
    base = MINIMAL.replace("budget: {trials: 4}\n", "") if more.startswith("budget") else MINIMAL
    assert changes(MINIMAL, base + more) == {key: True}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("name: digits", "name: other", "name"),
        (":train", ":other", "objective"),
        ("[0.1, 1.0]", "[0.1, 2.0]", "space.lr.float"),
        ("{lr: {", "{x: {int: [1, 3]}, lr: {", "space.x"),
        ("budget", "direction: maximize\nbudget", "direction"),
        ("budget", "constraint: lr > 0.5\nbudget", "constraint"),
        ("budget", "seed: 5\noptimizer: {seed: 0}\nbudget", "seed"),
        ("budget", "optimizer: random\nbudget", "optimizer.name"),
        ("budget", "env: {A: b}\nbudget", "env.A"),
        ("budget", "inputs: [{name: a, source: b}]\nbudget", "inputs"),
        ("budget", "trial: {ranks: 2}\nbudget", "trial.ranks"),
    ],
)
def test_that_a_change_of_what_is_measured_is_harmful(old: str, new: str, key: str) -> None:
    assert changes(MINIMAL, MINIMAL.replace(old, new)) == {key: False}


def test_that_another_order_of_parameters_is_a_change() -> None:
    two = MINIMAL.replace("{lr: {float: [0.1, 1.0]}}", "{a: {int: [1, 2]}, b: {int: [1, 2]}}")
    turned = MINIMAL.replace("{lr: {float: [0.1, 1.0]}}", "{b: {int: [1, 2]}, a: {int: [1, 2]}}")
    assert changes(two, turned) == {"space (order)": False}


def test_that_a_choice_of_true_is_not_a_choice_of_one() -> None:
    one = MINIMAL.replace("float: [0.1, 1.0]", "choice: [1, a]")
    true = MINIMAL.replace("float: [0.1, 1.0]", "choice: [true, a]")
    assert changes(one, true) == {"space.lr.choice": False}


def test_that_a_rewritten_but_equal_study_has_not_changed() -> None:
    assert changes(MINIMAL, MINIMAL + "blocks: {max: 1}\ntrial: {ranks: 1}\nsite: local") == {}


def test_that_a_parameter_which_a_segment_takes_out_is_not_one_it_says_nothing_of() -> None:
    text = MINIMAL + "segments: [{name: a, space: {x: {int: [1, 3]}, lr: null}}]\n"
    frozen, new = study_of(text).to_dict(), study_of(text.replace(", lr: null", "")).to_dict()
    (change,) = compare(frozen, new)
    assert str(change) == "segments.a.space.lr: 'null' -> (not set)" and not change.harmless
    assert [c.key for c in compare(new, frozen)] == ["segments.a.space.lr"]


def test_that_a_change_reads_as_a_sentence() -> None:
    frozen = study_of(MINIMAL).to_dict()
    new = study_of(MINIMAL.replace("trials: 4", "trials: 9, wall_time: 2h")).to_dict()
    assert [str(c) for c in compare(frozen, new)] == [
        "budget.trials: 4 -> 9",
        "budget.wall_time: (not set) -> '2h'",
    ]


def test_that_the_study_page_explains_every_key() -> None:
    page = (Path(__file__).parents[1] / "docs" / "study.md").read_text()
    explained = set(re.findall(r"^\| `([\w.\[\]]+)` \|", page, re.MULTILINE))
    frozen = study_of(FULL).to_dict()
    keys = {*frozen, "objective", "contract", "loss.file", "loss.key", "loss.stdout"}
    for section in ("budget", "trial", "checkpoint", "blocks"):
        keys |= {f"{section}.{key}" for key in frozen[section]}
    keys |= {f"inputs[].{key}" for key in frozen["inputs"][0]} | {"optimizer.name"}
    assert keys <= explained, keys - explained


def test_that_the_examples_of_the_study_page_are_studies() -> None:
    page = (Path(__file__).parents[1] / "docs" / "study.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 2
    for text in examples:
        study_of(text)
