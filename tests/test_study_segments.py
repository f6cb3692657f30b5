"""The key `segments` of study.yaml: what it makes, and what is said about the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.errors import InputError, InputErrors
from hpc_hpo.fsio import to_json
from hpc_hpo.study import Study, compare, parse_study
from hpc_hpo.yamlio import load_yaml

BASE = """\
name: showers
objective: objective.py:train
space: {lr: {float: [0.1, 1.0]}, width: {int: [1, 9]}}
budget: {trials: 4}
"""
COMMAND = BASE.replace("objective: objective.py:train", 'command: [python, t.py, "{segment.pid}"]')
TABLE = 'segments: {table: {pid: [22, 11], eta: 0..2}, name: "pid{pid}_eta{eta}"}\n'
DATA = 'inputs: [{name: data, source: "d/pid{segment.pid}_{segment.name}.tar"}]\n'


def study_of(text: str, folder: Path = Path("/s")) -> Study:
    return parse_study(load_yaml(text, "study.yaml"), path=folder / "study.yaml")


def fault(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        study_of(text)
    error = caught.value
    errors = error.errors if isinstance(error, InputErrors) else [error]
    assert len(errors) == 1, [str(e) for e in errors]
    return errors[0]


def test_that_a_study_without_segments_has_one_without_a_name() -> None:
    study = study_of(BASE)
    (only,) = study.segments.values()
    assert (only.name, only.values, only.trials, only.seed) == (None, {}, 4, 0)
    assert only.space is not None and only.space.names == study.space.names
    assert not study.segments.named and study.segments.total_trials == 4
    assert "segments" not in study.to_dict()


def test_that_a_table_makes_a_segment_of_every_combination() -> None:
    segments = study_of(BASE + TABLE).segments
    assert list(segments) == [f"pid{p}_eta{e}" for p in (22, 11) for e in (0, 1, 2)]
    assert segments["pid11_eta2"].values == {"pid": 11, "eta": 2}
    assert segments.total_trials == 6 * 4, "the budget is each segment's"
    assert len({segment.seed for segment in segments.values()}) == 6


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("[3, 1]", [3, 1]),
        ("2..4", [2, 3, 4]),
        ("-1..1", [-1, 0, 1]),
        ("{range: [0, 9, 4]}", [0, 4, 8]),
        ("{range: [5, 5]}", [5]),
        ("[a, b]", ["a", "b"]),
        ("[true, false]", [True, False]),
    ],
)
def test_that_a_column_is_a_list_or_a_range(column: str, values: list[object]) -> None:
    text = f'{BASE}segments: {{table: {{k: {column}}}, name: "s{{k}}"}}'
    assert [s.values["k"] for s in study_of(text).segments.values()] == values


def test_that_a_listed_segment_has_what_it_says_and_shares_the_rest() -> None:
    study = study_of(
        BASE + "segments:\n"
        "  - {name: a}\n"
        "  - name: b\n"
        "    values: {pid: 11}\n"
        "    space: {width: {int: [100, 200]}, depth: {choice: [1, 2]}, lr: null}\n"
        "    optimizer: {name: random, seed: 3}\n"
        "    budget: {trials: 9, target_loss: 0.5}\n"
        "    inputs: [{name: data, source: b.csv}]\n"
    )
    a, b = study.segments.values()
    assert (a.space.names, a.optimizer, a.trials) == (["lr", "width"], {"name": "auto"}, 4)
    assert b.space.names == ["width", "depth"]
    assert b.space.describe()["width"]["dimension"] == {"low": 100, "high": 200}
    assert (b.optimizer, b.trials, b.target_loss) == ({"name": "random"}, 9, 0.5)
    assert [(i.name, i.segment) for i in study.all_inputs()] == [("data", "b")]


def test_that_changes_hold_for_the_segments_that_their_expression_names() -> None:
    text = (
        BASE + TABLE.rstrip("}\n") + ", changes: [{where: pid == 22 and eta < 1, "
        "budget: {trials: 50}, space: {width: {int: [64, 128]}}}, "
        '{where: name == "pid11_eta2", optimizer: sobol}]}\n'
    )
    segments = study_of(text).segments
    assert [segments.trials(name) for name in segments] == [50, 4, 4, 4, 4, 4]
    assert segments["pid11_eta2"].optimizer == {"name": "sobol"}
    assert segments["pid22_eta1"].space is segments["pid11_eta0"].space, "parsed once"


def test_that_inputs_with_a_placeholder_belong_to_segments() -> None:
    shared = DATA.replace("]\n", ", {name: binning, source: binning.xml}]\n")
    study = study_of(BASE + TABLE + shared)
    inputs = study.all_inputs()
    assert [(i.name, i.segment) for i in inputs[:2]] == [("binning", None), ("data", "pid22_eta0")]
    assert inputs[6].source == "d/pid11_pid11_eta2.tar"
    assert len(inputs) == 7


def test_that_a_segment_spec_file_makes_segments_with_their_files(tmp_path: Path) -> None:
    spec = [{"name": "A", "files": ["f1", "f3"]}, {"name": "B", "files": ["f2"]}]
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    study = study_of(BASE + "segments: {file: spec.json, folder: ds}\n", tmp_path)
    found = [(i.segment, i.name, i.source) for i in study.all_inputs()]
    assert found == [
        ("A", "data_1", "ds/f1"), ("A", "data_2", "ds/f3"), ("B", "data", "ds/f2")
    ]  # fmt: skip
    (tmp_path / "spec.json").unlink()
    frozen = study.to_dict()
    assert list(study_of(to_json(frozen)).segments) == ["A", "B"], "frozen with what it said"


@pytest.mark.parametrize(
    ("content", "key", "words"),
    [
        ("{}", "", "not a list of segments"),
        ('[{"name": "a", "files": []}]', "[0].files", "no files"),
        ('[{"files": ["f"]}]', "[0].name", "no name"),
        ('[{"name": "a", "file": ["f"], "files": ["f"]}]', "[0].file", "unknown key"),
        ('[{"name": "a", "files": ["f"]', "segments.file", "spec.json"),
    ],
)
def test_that_a_bad_segment_spec_file_is_named(
    tmp_path: Path, content: str, key: str, words: str
) -> None:
    (tmp_path / "spec.json").write_text(content)
    with pytest.raises(InputError, match=r"spec\.json") as caught:
        study_of(BASE + "segments: {file: spec.json}\n", tmp_path)
    assert (caught.value.key or "") == key
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("segments: 3", "segments", "wrong type"),
        ("segments: []", "segments", "no segments"),
        ("segments: {policy: fair}", "segments", "one of list, table and file"),
        ("segments: {table: {k: [1]}, file: f}", "segments", "table and file at once"),
        ("segments: [{name: a}, {name: a}]", "segments[1].name", "two segments have this name"),
        ("segments: [{name: a/b}]", "segments[0].name", "a folder's"),
        ("segments: [{name: a, valus: {}}]", "segments[0].valus", "did you mean 'values'"),
        ("segments: [{name: a, values: {name: 1}}]", "segments[0].values", "called name"),
        ("segments: [{name: a, values: {k: [1]}}]", "segments[0].values", "no single value"),
        ("segments: [{name: a, budget: {trials: 0}}]", "segments[0].budget.trials", "at least 1"),
        ("segments: [{name: a, space: {lr: {flot: [0, 1]}}}]", "segments[0].space.lr", "float"),
        ("segments: [{name: a, space: {lr: null, width: null}}]", "segments[0].space", "no param"),
        ("segments: {table: {}}", "segments.table", "no table"),
        ("segments: {table: {k: []}}", "segments.table", "no values"),
        ("segments: {table: {k: 5..1}}", "segments.table", "the range is empty"),
        ("segments: {table: {k: {range: [1]}}}", "segments.table", "not a range"),
        ("segments: {table: {k: [1, 1]}}", "segments.table", "given twice"),
        ("segments: {table: {k: 1..1000, l: 1..1000}}", "segments.table", "1000000 segments"),
        ('segments: {table: {k: [1]}, name: "s{j}"}', "segments.name", "'{j}'; valid: k"),
        ('segments: {table: {k: [1]}, name: "s{k"}', "segments.name", "without its partner"),
        ('segments: {table: {k: [1], l: [2, 3]}, name: "s{k}"}', "segments.name", "'s1'"),
        ('segments: {table: {k: ["a b"]}, name: "{k}"}', "segments.name", "found 'a b'"),
        ("segments: {list: [{name: a}], name: x}", "segments", "name goes with table"),
        ("segments: {table: {k: [1]}, policy: fare}", "segments.policy", "did you mean 'fair'"),
        ("segments: {table: {k: [1]}, floor: 0}", "segments.floor", "more than 0"),
        (
            "segments: {table: {k: [1]}, changes: [{where: k > 1, budget: {trials: 1}}]}",
            "segments.changes[0].where", "holds for no segment",
        ),
        (
            "segments: {table: {k: [1]}, changes: [{where: j > 1, budget: {trials: 1}}]}",
            "segments.changes[0].where", "unknown name 'j'",
        ),
        (
            "segments: [{name: a}]\ninputs: [{name: d, source: x, segment: b}]",
            "inputs[0].segment", "no such segment; found 'b'; valid: a",
        ),
        ("inputs: [{name: d, source: x, segment: b}]", "inputs[0].segment", "no key `segments`"),
        ('inputs: [{name: d, source: "{segment.k}"}]', "inputs[0].source", "no segments"),
        (
            "segments: [{name: a, values: {pd: 1}}]\n"
            'inputs: [{name: d, source: "{segment.pid}"}]',
            "inputs[0].source", "did you mean 'segment.pd'",
        ),
        (
            "segments: [{name: a, inputs: [{name: D, source: x}]}]\n"
            "inputs: [{name: d, source: y}]",
            "segments[0]", "have one name",
        ),
    ],
)  # fmt: skip
def test_that_a_mistake_is_named_with_its_key(text: str, key: str, words: str) -> None:
    error = fault(BASE + text)
    assert (error.file, error.key) == ("study.yaml", key)
    assert error.line is not None and error.line >= 5
    assert words in str(error)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", "no segments"),
        ("segments: [{name: a, values: {pid: 1}}, {name: b}]", "segment b has no such value"),
        ("segments: [{name: a, values: {pie: 1}}]", "did you mean 'segment.pie'"),
    ],
)
def test_that_a_command_names_values_that_every_segment_has(more: str, words: str) -> None:
    error = fault(COMMAND + more)
    assert error.key == "command[2]"
    assert words in str(error)


def test_that_a_command_may_name_inputs_that_every_segment_has() -> None:
    command = COMMAND.replace('"{segment.pid}"', '"{inputs.data}"')
    one = "segments:\n- {name: a, inputs: [{name: data, source: x}]}\n"
    assert study_of(command + one)
    assert "segment b has no such input" in str(fault(command + one + "- {name: b}\n"))


@pytest.mark.parametrize(
    "text",
    [
        BASE + TABLE,
        BASE + "segments: [{name: a, space: {lr: null}}, {name: b, budget: {trials: 2}}]\n",
    ],
)
def test_that_the_frozen_form_is_a_study_with_the_same_segments(text: str) -> None:
    study = study_of(text)
    frozen = study.to_dict()
    again = study_of(to_json(frozen))
    assert again.to_dict() == frozen and compare(frozen, again.to_dict()) == []
    for one, other in zip(study.segments.values(), again.segments.values(), strict=True):
        assert (one.name, one.seed, one.trials) == (other.name, other.seed, other.trials)
        assert one.space.describe() == other.space.describe()


def changes(before: str, after: str) -> dict[str, bool]:
    first, second = study_of(BASE + before).to_dict(), study_of(BASE + after).to_dict()
    return {change.key: change.harmless for change in compare(first, second)}


def test_that_only_what_mixes_results_is_a_harmful_change() -> None:
    two = "segments: [{name: a, values: {k: 1}}, {name: b}]"
    assert changes(two, two.replace("]", ", {name: c}]")) == {"segments": True}
    assert changes(two, "segments: [{name: a, values: {k: 1}}]") == {"segments": False}
    assert changes(two, two.replace("b}", "b, budget: {trials: 9}}")) == {
        "segments.b.budget.trials": True
    }
    assert changes(two, two.replace("k: 1", "k: 2")) == {"segments.a.values.k": False}
    assert changes("", two) == {"segments": False}
    same = "segments: {table: {k: [1, 2]}, policy: fair}"
    assert changes(same, same.replace("[1, 2]", "1..2")) == {}, "another way to write it"
    assert changes(same, same.replace("fair", "best-gain")) == {"segments.policy": True}
    assert changes(same, same.replace("[1, 2]", "1..9")) == {"segments": True}


def test_that_a_segment_that_is_added_later_gets_the_changes_that_hold_for_it() -> None:
    study = study_of(
        BASE + DATA + 'segments: {table: {pid: [22]}, name: "p{pid}", '
        "changes: [{where: pid > 20, budget: {trials: 77}}]}"
    )
    more = study.with_segments([{"name": "p211", "values": {"pid": 211}}, {"name": "p22"}])
    assert list(more.segments) == ["p22", "p211"] and list(study.segments) == ["p22"]
    assert more.segments["p211"].trials == 77
    assert more.segments["p22"].values == {"pid": 22}, "one that is known stays as it is"
    assert more.all_inputs()[1].source == "d/pid211_p211.tar"
    with pytest.raises(InputError, match=r"segment q\.valus: unknown key"):
        study.with_segments([{"name": "q", "valus": {}}])
    with pytest.raises(InputError, match=r"q.*pid"):
        study.with_segments([{"name": "q"}])


@given(st.lists(st.integers(-99, 99), unique=True, min_size=1, max_size=9), st.integers(0, 20))
def test_that_seeds_and_names_do_not_depend_on_the_other_segments(
    pids: list[int], last: int
) -> None:
    text = f'{BASE}segments: {{table: {{k: {pids}, n: 0..{last}}}, name: "s{{k}}.{{n}}"}}'
    segments = study_of(text).segments
    assert len(segments) == len(pids) * (last + 1)
    alone = study_of(f'{BASE}segments: [{{name: "s{pids[0]}.0"}}]').segments
    (only,) = alone.values()
    assert only.seed == segments[only.name].seed
