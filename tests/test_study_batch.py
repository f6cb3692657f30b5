"""What a study says to a batch site: account, queue, and blocks that the plan chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.study import Study, compare, parse_study
from hpc_hpo.yamlio import load_yaml

MINIMAL = """\
name: s
objective: a.py:f
space: {x: {int: [1, 2]}}
budget: {trials: 3}
"""


def study_of(text: str) -> Study:
    return parse_study(load_yaml(text, "study.yaml"), path=Path("study.yaml"))


def test_that_account_and_queue_are_read_and_may_change() -> None:
    study = study_of(MINIMAL + "account: ABC123\nqueue: killable\n")
    assert (study.account, study.queue) == ("ABC123", "killable")
    changes = compare(study_of(MINIMAL).to_dict(), study.to_dict())
    assert [(c.key, c.harmless) for c in changes] == [("account", True), ("queue", True)]


def test_that_blocks_auto_is_kept_as_it_is_written() -> None:
    study = study_of(MINIMAL + "blocks: auto\n")
    assert study.blocks.auto
    assert study.to_dict()["blocks"] == "auto"
    assert not study_of(MINIMAL).blocks.auto
    assert study_of(MINIMAL).to_dict()["blocks"] == {"nodes": 1, "max": 1}


def test_that_resolved_blocks_are_as_if_they_had_been_written() -> None:
    study = study_of(MINIMAL + "blocks: auto\n")
    resolved = study.model_copy(update={"blocks": study_of(MINIMAL).blocks})
    assert resolved.to_dict()["blocks"] == {"nodes": 1, "max": 1}
    assert resolved.path == study.path
    changes = compare(study.to_dict(), resolved.to_dict())
    assert [(c.key, c.harmless) for c in changes] == [("blocks", True)]


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("blocks: autom", "blocks", "auto, or as in"),
        ("blocks: [1]", "blocks", "a mapping"),
        ("blocks: {node: 1}", "blocks.node", "did you mean 'nodes'"),
        ("account: 7", "account", "quotes"),
        ("queue: ''", "queue", "at least 1"),
    ],
)
def test_that_a_mistake_is_named_with_its_key(line: str, key: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        study_of(MINIMAL + line)
    assert (caught.value.key, caught.value.line) == (key, 5)
    assert words in str(caught.value)
