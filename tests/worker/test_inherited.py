"""A trial that begins with the checkpoint of another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.errors import CheckpointError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.model import INHERITED, Parent, Trial
from hpc_hpo.steering.adopt import inherit_in
from hpc_hpo.worker.checkpoint import inherit, read_saved, verify
from hpc_hpo.worker.fence import candidates
from tests.worker.bench import Bench
from tests.worker.test_checkpoint import commit, names, store

RESUMABLE = """
def train(config, trial):
    state = trial.restore() or {"epoch": 0, "path": []}
    path = state["path"] + [config["x"]]
    for epoch in range(state["epoch"] + 1, 9):
        trial.report(epoch, loss=1.0 / epoch)
        trial.checkpoint({"epoch": epoch, "path": path})
        if trial.should_stop():
            return None
    return float(sum(path))
"""
CHILD, PARENT = 8, Parent(trial=7, checkpoint="ckpt-000001-000004", step=4, replaces=3)


def bear(bench: Bench, **facts: Any) -> None:
    """Give trial 8 what trial 7 has when it pauses at step 4."""
    bench.objective(RESUMABLE)
    paused = bench.run(stop_step=4)
    assert paused["checkpoint"]["name"] == PARENT["checkpoint"]
    inherit(bench.trial / PARENT["checkpoint"], bench.dir / "trials/000008")


def test_that_the_first_slice_of_a_copy_goes_on_with_its_own_values(bench: Bench) -> None:
    bear(bench)
    child = {"trial": CHILD, "point": {"x": 10.0}, "parent": PARENT, "known_step": 4}
    paused = bench.run(stop_step=6, **child)
    assert paused["restored"] == INHERITED
    assert [step for step, _ in paused["reports"]] == [5, 6]
    assert paused["checkpoint"]["name"] == "ckpt-000001-000002"
    done = bench.run(slice=2, **{**child, "known_step": 6})
    assert (done["end"], done["loss"]) == ("completed", 2.0 + 10.0 + 10.0)
    assert bench.run(slice=2, known_step=4)["loss"] == 4.0, "the parent goes on by itself"


def test_that_a_copy_outlives_its_parent_s_pruning_and_folder(bench: Bench) -> None:
    bear(bench)
    bench.run(slice=2, known_step=4)
    assert PARENT["checkpoint"] not in bench.checkpoints(), "pruned"
    shutil.rmtree(bench.trial)
    done = bench.run(trial=CHILD, parent=PARENT, known_step=4)
    assert (done["end"], done["loss"]) == ("completed", 4.0)


def test_that_a_copy_lost_before_its_own_checkpoint_begins_from_its_parent_s_again(
    bench: Bench,
) -> None:
    bear(bench)
    folder = bench.dir / "trials/000008"
    # Slices 1 and 2 were lost; 2 had chosen what to go on from, 3 never ran.
    for number in (2, 3):
        assert candidates(folder, number, inherits=True) == [INHERITED]
    paused = bench.run(trial=CHILD, slice=2, parent=PARENT, known_step=4, stop_step=5)
    shutil.rmtree(folder / paused["checkpoint"]["name"])
    done = bench.run(trial=CHILD, slice=3, parent=PARENT, known_step=4)
    assert (done["restored"], done["end"]) == (INHERITED, "completed")


def test_that_what_a_crash_left_of_a_copy_never_announced_is_not_gone_on_from(
    bench: Bench,
) -> None:
    bear(bench)
    fresh = bench.run(trial=CHILD)
    assert fresh["restored"] is None
    assert [step for step, _ in fresh["reports"]] == list(range(1, 9))
    assert candidates(bench.dir / "trials/000008", 2)[-1] != INHERITED


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_that_a_copy_does_not_begin_at_0_without_its_parent_s_checkpoint(
    bench: Bench, damage: str
) -> None:
    bear(bench)
    folder = bench.dir / "trials/000008" / INHERITED
    if damage == "gone":
        shutil.rmtree(folder)
    else:
        (folder / "state.h5").unlink()
        (folder / "state.h5").write_bytes(b"?")
    outcome = bench.run(trial=CHILD, parent=PARENT, known_step=4)
    assert outcome["end"] == "failed" and outcome["error"]["transient"]
    assert "checkpoint of trial 7 that this trial goes on from is" in outcome["error"]["message"]


@pytest.mark.parametrize("links", [True, False])
def test_that_a_copy_has_the_same_content_with_and_without_hard_links(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = commit(store(tmp_path / "a", 1), "weights", step=3)

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "no links here")

    if not links:
        monkeypatch.setattr("os.link", refuse)
    inherit(saved.folder, tmp_path / "b")
    found = verify(tmp_path / "b" / INHERITED)
    assert found.meta["files"] and {**found.meta, **saved.meta} == found.meta
    model = found.folder / "files/model"
    assert model.read_text() == "weights"
    assert model.samefile(saved.folder / "files/model") is links


def test_that_a_checkpoint_that_is_being_removed_leaves_nothing_behind(tmp_path: Path) -> None:
    saved = commit(store(tmp_path / "a", 1), step=3)
    (saved.folder / "files/model").unlink()
    with pytest.raises(CheckpointError):
        inherit(saved.folder, tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_that_a_parent_that_has_gone_on_gives_the_newest_that_it_has(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    first = store(folder.trial(7), 1)
    parent = Trial(7, {}, checkpoint=commit(first, step=4).info)
    give = inherit_in(folder)
    taken = give(parent, 8)
    assert taken is not None and (taken["name"], taken["step"]) == ("ckpt-000001-000001", 4)
    later = store(folder.trial(7), 2, ["ckpt-000001-000001"])
    for step in (5, 6, 7):
        commit(later, step=step)
    assert names(folder.trial(7)) == ["ckpt-000002-000002", "ckpt-000002-000003"]
    taken = give(parent, 8)
    assert taken is not None and (taken["name"], taken["step"]) == ("ckpt-000002-000003", 7)
    assert read_saved(folder.trial(8) / INHERITED).meta["step"] == 7
    shutil.rmtree(folder.trial(7))
    assert give(parent, 9) is None
