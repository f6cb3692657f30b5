"""Requests about segments: files that are journalled, and then removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Journal, StudyState
from hpc_hpo.launch import freeze
from hpc_hpo.prestage.manifest import load_manifest
from hpc_hpo.steering.asking import add_segment, ask_for, journalled_specs, with_all_segments
from hpc_hpo.steering.requests import FolderRequests, pending, room, write_request
from hpc_hpo.steering.search import Search
from hpc_hpo.study import load_study

STUDY = """
name: many
objective: objective.py:train
space: {x: {float: [0, 1]}}
budget: {trials: 2}
segments: [{name: a, values: {k: 1}}]
inputs: [{name: data, source: "{segment.k}.txt"}]
"""


@pytest.fixture
def place(tmp_path: Path):
    (tmp_path / "study.yaml").write_text(STUDY)
    for k in (1, 2):
        (tmp_path / f"{k}.txt").write_text(str(k))
    study, folder = load_study(tmp_path / "study.yaml"), StudyFolder(tmp_path / "many")
    folder.make()
    freeze(study, folder)
    return study, folder


def reader(folder: StudyFolder, study=None) -> FolderRequests:
    def extend(spec):
        segments = study.with_segments([spec]).segments
        return Search(spec["name"], segments.trials(spec["name"]), lambda again: None)

    ticks = iter(range(0, 100_000, 10))
    return FolderRequests(folder, extend, now=lambda: float(next(ticks)))


def test_that_requests_become_events_in_their_order_and_their_files_go(place) -> None:
    study, folder = place
    ask_for(study, folder, "budget", ["a"], trials=7)
    ask_for(study, folder, "stop", ["a"])
    requests = reader(folder, study)
    events = requests.events(StudyState(), {"a"})
    assert [(e["op"], e["segment"], e.get("trials")) for e in events] == [
        ("budget", "a", 7), ("stop", "a", None),
    ]  # fmt: skip
    assert len(pending(folder)) == 2, "not before they are in the journal"
    assert requests.events(StudyState(), {"a"}) == [], "but told once"
    requests.heeded()
    assert pending(folder) == []


def test_that_a_request_that_is_in_the_journal_is_not_heeded_twice(place) -> None:
    study, folder = place
    ask_for(study, folder, "rerun", ["a"])
    state = StudyState()
    (event,) = reader(folder, study).events(state, {"a"})
    state.apply({**event, "at": 1.0})
    # Killed before the file was removed.
    again = reader(folder, study)
    assert again.events(state, {"a"}) == []
    again.heeded()
    assert pending(folder) == []


def test_that_an_added_segment_is_staged_first_and_known_from_then_on(place) -> None:
    study, folder = place
    add_segment(study, folder, {"name": "b", "values": {"k": 2}})
    manifest = load_manifest(folder)
    assert manifest is not None
    assert Path(manifest.absolute(folder, "b")["data"]).read_text() == "2"
    assert list(with_all_segments(study, folder).segments) == ["a", "b"]
    ask_for(study, folder, "budget", ["b"], trials=9)
    events = reader(folder, study).events(StudyState(), {"a"})
    assert [event["op"] for event in events] == ["add", "budget"]
    journal = Journal(folder.journal)
    journal.append({**events[0], "at": 1.0})
    journal.close()
    for path, _ in pending(folder):
        path.unlink()
    assert list(journalled_specs(folder)) == [{"name": "b", "values": {"k": 2}}]
    assert list(with_all_segments(study, folder).segments) == ["a", "b"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "a", "values": {"k": 2}}, "there is a segment of this name"),
        ({"name": "b", "values": {"k": 3}}, "no such file"),
        ({"name": "b"}, "no such value"),
        ({"name": "b/c", "values": {"k": 2}}, "a folder's"),
        ({"name": "b", "values": {"k": 2}, "space": {"x": {"flot": 1}}}, "float"),
        ({"name": "b", "values": {"k": 2}, "start_from": []}, "start_from: .* begins with nothing"),
    ],
)
def test_that_a_segment_that_cannot_be_is_refused_at_once(place, spec, words: str) -> None:
    study, folder = place
    with pytest.raises(InputError, match=words):
        add_segment(study, folder, spec)
    assert pending(folder) == []


def test_that_an_unknown_segment_is_refused_with_the_nearest(place) -> None:
    study, folder = place
    with pytest.raises(InputError, match=r"no such segment; found 'A'.*did you mean 'a'"):
        ask_for(study, folder, "stop", ["A"])
    assert pending(folder) == []


def test_that_a_damaged_request_is_journalled_as_refused(place) -> None:
    study, folder = place
    write_request(folder, "stop", "a")
    (path,) = room(folder).iterdir()
    path.write_text("{torn")
    write_request(folder, "fly", "a")
    write_request(folder, "stop", "z")
    write_request(folder, "budget", "a", trials=-1)
    write_request(folder, "add", "b", spec={"name": "b", "valus": {}})
    state = StudyState()
    events = reader(folder, study).events(state, {"a"})
    assert [event["op"] for event in events] == ["refused"] * 5
    for event in events:
        state.apply({**event, "at": 1.0})
    assert state.segments == {} and len(state.requests) == 5
