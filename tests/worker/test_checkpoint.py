"""Checkpoints and fences on a folder, without payloads."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hpc_hpo.clock import SystemClock
from hpc_hpo.errors import CheckpointError
from hpc_hpo.worker.checkpoint import Saved, Store, choose, newest_of, remove_leftovers, verify
from hpc_hpo.worker.fence import (
    Fenced,
    candidates,
    checkpoints_of,
    claim,
    fence_path,
    list_names,
    record_choice,
)


def store(folder: Path, slice_: int, lineage: list[str] | None = None, keep: int = 2) -> Store:
    return Store(folder, slice_, lineage or [], keep, SystemClock())


def commit(target: Store, text: str = "x", step: int | None = None) -> Saved:
    def build(folder: Path) -> None:
        (folder / "files").mkdir()
        (folder / "files" / "model").write_text(text)

    return target.commit(build, step=step, reports={1: {"loss": 0.5}}, kind="python")


def begin(folder: Path, slice_: int) -> list[str]:
    """Start a slice as run_slice does; the lineage it goes on from."""
    claim(folder, slice_)
    _, lineage = choose(folder, candidates(folder, slice_), print)
    record_choice(folder, slice_, lineage)
    return lineage


def names(folder: Path) -> list[str]:
    return sorted(n for n in list_names(folder) if n.startswith("ckpt-"))


def test_that_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    first = store(tmp_path, 1)
    for _ in range(4):
        commit(first)
    assert names(tmp_path) == ["ckpt-000001-000003", "ckpt-000001-000004"]


def test_that_two_are_kept_even_when_one_is_asked_for(tmp_path: Path) -> None:
    first = store(tmp_path, 1, keep=1)
    for _ in range(3):
        commit(first)
    assert len(names(tmp_path)) == 2


def test_that_a_checkpoint_tells_its_step_and_reports(tmp_path: Path) -> None:
    commit(store(tmp_path, 1), step=4)
    saved = verify(tmp_path / "ckpt-000001-000001")
    assert saved.info["step"] == 4
    assert saved.info["slice"] == 1
    assert saved.reports == {1: {"loss": 0.5}}


@pytest.mark.parametrize("damage", ["flip", "shorten", "remove", "meta", "meta-gone"])
def test_that_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    first = store(tmp_path, 1)
    commit(first, "older")
    newest = commit(first, "newer").folder
    model, meta = newest / "files" / "model", newest / "meta.json"
    if damage == "flip":
        model.write_text("newes")
    elif damage == "shorten":
        model.write_text("n")
    elif damage == "remove":
        model.unlink()
    elif damage == "meta":
        meta.write_bytes(meta.read_bytes().replace(b'"step":null', b'"step":70'))
    else:
        meta.unlink()
    notes: list[str] = []
    saved, lineage = choose(tmp_path, candidates(tmp_path, 2), notes.append)
    assert saved is not None
    assert saved.name == "ckpt-000001-000001"
    assert lineage == ["ckpt-000001-000001"]
    assert len(notes) == 1 and "ckpt-000001-000002 is damaged" in notes[0]


def test_that_a_checkpoint_damaged_after_a_restore_leaves_the_one_before(tmp_path: Path) -> None:
    first = store(tmp_path, 1)
    commit(first)
    newest = commit(first)
    begin(tmp_path, 2)  # chooses the newest, dies before it commits
    (newest.folder / "files" / "model").write_text("?")
    assert begin(tmp_path, 3) == ["ckpt-000001-000001"]


def test_that_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    first = store(tmp_path, 1)
    commit(first)

    def full(folder: Path) -> None:
        (folder / "part").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        first.commit(full, step=None, reports={}, kind="python")
    assert os.listdir(tmp_path) == ["ckpt-000001-000001"]
    assert commit(first).name == "ckpt-000001-000002"


def test_that_a_slice_is_fenced_once_a_newer_one_has_started(tmp_path: Path) -> None:
    orphan = store(tmp_path, 1)
    commit(orphan)
    begin(tmp_path, 2)
    with pytest.raises(Fenced, match="slice 2 has taken over"):
        commit(orphan)
    assert names(tmp_path) == ["ckpt-000001-000001"]


def test_that_a_slice_number_is_started_once(tmp_path: Path) -> None:
    claim(tmp_path, 2)
    with pytest.raises(Fenced, match="already"):
        claim(tmp_path, 2)
    with pytest.raises(Fenced, match="slice 2"):
        claim(tmp_path, 1)


def test_that_a_late_commit_of_an_orphan_is_never_merged(tmp_path: Path) -> None:
    orphan = store(tmp_path, 1)
    good = commit(orphan)
    lineage: list[str] = []

    def slow(folder: Path) -> None:
        (folder / "files").mkdir()
        (folder / "files" / "model").write_text("late")

    # The orphan passes its check of the fence, and slice 2 starts before its rename.
    rename = os.rename

    def rename_late(source: Path, target: Path) -> None:
        lineage.extend(begin(tmp_path, 2))
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Fenced):
        patch.setattr("hpc_hpo.worker.checkpoint.os.rename", rename_late)
        orphan.commit(slow, step=None, reports={}, kind="python")
    assert "ckpt-000001-000002" in names(tmp_path), "the race did not happen"
    assert lineage == [good.name]

    # Slice 3 goes on from what slice 2 had, with and without a checkpoint of slice 2's own.
    assert begin(tmp_path, 3) == [good.name]
    mine = commit(store(tmp_path, 3, [good.name]))
    assert begin(tmp_path, 4) == [mine.name, good.name]
    assert "ckpt-000001-000002" not in names(tmp_path), "the stray one is removed"


def test_that_an_orphan_removes_no_checkpoint_after_the_newer_slice_has_chosen(
    tmp_path: Path,
) -> None:
    orphan = store(tmp_path, 1)
    commit(orphan)
    commit(orphan)
    rename = os.rename

    def rename_late(source: Path, target: Path) -> None:
        begin(tmp_path, 2)
        rename(source, target)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Fenced):
        patch.setattr("hpc_hpo.worker.checkpoint.os.rename", rename_late)
        commit(orphan)
    assert {"ckpt-000001-000001", "ckpt-000001-000002"} <= set(names(tmp_path))


def test_that_a_slice_that_died_before_it_chose_is_looked_through(tmp_path: Path) -> None:
    saved = commit(store(tmp_path, 1))
    claim(tmp_path, 2)  # dies here: the fence is empty
    assert fence_path(tmp_path, 2).read_bytes() == b""
    assert begin(tmp_path, 3) == [saved.name]


def test_that_leftovers_of_dead_slices_are_removed(tmp_path: Path) -> None:
    for name in (".ckpt-000001-000002.77.tmp", ".ckpt-000003-000001.78.tmp", "mine.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".fence-000002.79.tmp").write_text("")
    remove_leftovers(tmp_path, 3)
    assert sorted(os.listdir(tmp_path)) == [".ckpt-000003-000001.78.tmp", "mine.tmp"]


def test_that_an_orphan_whose_files_were_cleaned_away_is_fenced_not_failed(tmp_path: Path) -> None:
    orphan = store(tmp_path, 1)

    def cleaned(folder: Path) -> None:
        claim(tmp_path, 2)
        remove_leftovers(tmp_path, 2)
        (folder / "model").write_text("x")

    with pytest.raises(Fenced):
        orphan.commit(cleaned, step=None, reports={}, kind="python")


def test_that_the_newest_readable_checkpoint_speaks_for_a_dead_payload(tmp_path: Path) -> None:
    first = store(tmp_path, 1)
    commit(first, step=1)
    (commit(first, step=2).folder / "meta.json").write_text("torn")
    saved = newest_of(tmp_path, 1)
    assert saved is not None and saved.info["step"] == 1
    assert newest_of(tmp_path, 2) is None


def test_that_checkpoints_sort_by_number(tmp_path: Path) -> None:
    listed = ["ckpt-000001-000009", "ckpt-000001-000010", "ckpt-000002-000001", "s000001"]
    assert checkpoints_of(listed, 1) == ["ckpt-000001-000010", "ckpt-000001-000009"]


def test_that_a_missing_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ckpt-000001-000001"):
        verify(tmp_path / "ckpt-000001-000001")
