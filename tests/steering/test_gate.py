"""Whose inputs are there: a manifest that changes while it is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState
from hpc_hpo.prestage.manifest import Failure, Manifest
from hpc_hpo.prestage.staging import stage
from hpc_hpo.prestage.verify import broken_segments
from hpc_hpo.steering.gate import LOOK_S, ManifestGate
from hpc_hpo.steering.opening import Opening
from hpc_hpo.study import load_study

STUDY = """
name: many
objective: objective.py:train
space: {x: {float: [0, 1]}}
budget: {trials: 2}
segments: [{name: a}, {name: b}, {name: c}]
inputs:
  - {name: shared, source: shared.txt}
  - {name: data, source: "{segment.name}.txt"}
"""


class Place:
    """A study in a folder, with all or some of its inputs staged, and a clock."""

    def __init__(self, path: Path) -> None:
        (path / "study.yaml").write_text(STUDY)
        for name in ("shared", "a", "b", "c"):
            (path / f"{name}.txt").write_text(name)
        self.study, self.folder = load_study(path / "study.yaml"), StudyFolder(path / "many")
        self.folder.make()
        self.whole = stage(self.study, self.folder)
        self.at_work, self.time = False, 0.0

    def part(self, *names: str, failed: tuple[Failure, ...] = ()) -> Manifest:
        """The manifest as a prestage leaves it that has brought these segments' inputs."""
        files = [f for f in self.whole.files if f.segment in (None, *names)]
        segments = {name: self.whole.segments[name] for name in names}
        manifest = Manifest(files, self.whole.paths, segments, list(failed))
        manifest.save(self.folder)
        return manifest

    def gate(self, manifest: Manifest, **options) -> ManifestGate:
        return ManifestGate(
            self.study, self.folder, manifest, at_work=lambda folder: self.at_work,
            now=lambda: self.time, **options,
        )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_that_all_are_ready_once_all_is_staged(place: Place) -> None:
    gate = place.gate(place.whole)
    assert [gate.look(name) for name in "abc"] == [None, None, None]
    assert not gate.changed()


def test_that_a_segment_waits_while_prestage_goes_on_and_is_ready_when_it_has_come(
    place: Place,
) -> None:
    place.at_work = True
    gate = place.gate(place.part("a"))
    assert (gate.look("a"), gate.look("b")) == (None, "")
    place.part("a", "b")
    assert not gate.changed(), "it was looked at just now"
    place.time += LOOK_S
    assert gate.changed()
    assert (gate.look("b"), gate.look("c")) == (None, "")


def test_that_a_segment_fails_with_its_reason_once_prestage_has_ended(place: Place) -> None:
    place.at_work = True
    gate = place.gate(place.part("a"))
    assert gate.look("b") == "", "it may still come"
    place.part("a", failed=(Failure("data", "b", "the server is gone"),))
    place.at_work = False
    place.time += LOOK_S
    assert gate.changed()
    assert gate.look("a") is None
    assert gate.look("b") == "input data: the server is gone"
    assert "input data of segment c: not staged" in (gate.look("c") or "")


def test_that_a_missing_shared_input_fails_every_segment(place: Place) -> None:
    gate = place.gate(Manifest(segments=place.whole.segments))
    assert all("input shared: not staged" in (gate.look(name) or "") for name in "abc")


def test_that_an_input_that_was_changed_since_fails_its_segment_alone(place: Place) -> None:
    staged = place.folder.path / place.whole.segments["b"]["data"]
    staged.resolve().write_text("something longer")
    broken = broken_segments(place.whole, place.folder)
    assert list(broken) == ["b"]
    gate = place.gate(place.whole, broken=broken)
    assert gate.look("a") is None
    assert "b.txt has 16 bytes, 1 were staged" in (gate.look("b") or "")


def test_that_what_came_is_told(place: Place) -> None:
    told: list[Manifest] = []
    gate = place.gate(place.part(), came=told.append)
    place.part("a", "b", "c")
    assert gate.changed(at_once=True)
    assert [set(manifest.segments) for manifest in told] == [{"a", "b", "c"}]


def test_that_slices_are_told_the_values_and_inputs_of_their_segment(place: Place) -> None:
    opening = Opening(
        place.study, place.folder, StudyState(), place.whole, {}, lambda manifest: None
    )
    info = opening.info("b")
    assert (info["name"], info["values"]) == ("b", {})
    assert {n: Path(p).read_text() for n, p in info["inputs"].items()} == {"data": "b"}
    assert opening.total_trials() == 6
