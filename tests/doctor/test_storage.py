"""Folders as the doctor sees them: locks, clocks, room, quotas, purged disks."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.doctor import storage
from hpc_hpo.doctor.rows import Row
from hpc_hpo.doctor.storage import (
    clock_row,
    kind_of,
    quota_rows,
    read_gpfs,
    read_lfs,
    read_quota,
    storage_rows,
)
from tests.doctor.conftest import MakeSite

GPFS = """\
mmlsquota::HEADER:version:reserved:reserved:filesystemName:quotaType:id:name:blockUsage:blockQuota:blockLimit:blockInDoubt:blockGrace:filesUsage:filesQuota:filesLimit:filesInDoubt:filesGrace:
mmlsquota::0:1:::alpine:USR:1001:me:950:1000:1100:0:none:5:0:0:0:none:
"""
LFS = "/lustre  1048576* 1000000 2000000 6d23h59m 990 0 1000 -\n"
QUOTA = """\
Disk quotas for user me (uid 1001):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
server:/home     100    1000    1200              10       0       0
server:/proj     1000*  1000    1200   6days      10      20      30
"""


def by_check(rows: list[Row]) -> dict[str, Row]:
    return {row.check: row for row in rows}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_that_a_local_folder_is_right_and_left_as_it_was(
    site: MakeSite, tmp_path: Path, home: Path
) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    rows = by_check(list(storage_rows(site("local"), folder)))
    for check in ("folder", "locks", "clock of the file server", "home purged", "folder purged"):
        assert rows[check].state == "ok", rows[check]
    assert "GiB free" in rows["room"].found
    assert list(folder.iterdir()) == []


def test_that_a_batch_site_s_folder_on_a_local_disk_is_warned_of(
    site: MakeSite, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = site("slurm")
    monkeypatch.setattr(storage, "kind_of", lambda path: "ext4")
    assert by_check(list(storage_rows(slurm, tmp_path)))["folder"].state == "warn"
    monkeypatch.setattr(storage, "kind_of", lambda path: "lustre")
    assert by_check(list(storage_rows(slurm, tmp_path)))["folder"].state == "ok"


def test_that_a_purged_home_fails_and_a_purged_folder_is_warned_of(
    site: MakeSite, tmp_path: Path, home: Path
) -> None:
    (tmp_path / "link").symlink_to(home)
    purged = site("local", f"purged: [{tmp_path}/link]")
    rows = by_check(list(storage_rows(purged, home)))
    assert (rows["home purged"].state, rows["folder purged"].state) == ("fail", "warn")
    assert by_check(list(storage_rows(purged, tmp_path)))["folder purged"].state == "ok"


def test_that_nothing_is_claimed_where_the_site_names_no_purged_folder(
    site: MakeSite, tmp_path: Path, home: Path
) -> None:
    rows = by_check(list(storage_rows(site("slurm"), tmp_path)))
    assert rows["home purged"].state == "not checked"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_that_a_folder_that_cannot_be_written_fails(
    site: MakeSite, tmp_path: Path, home: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o500)
    assert "fail" in [row.state for row in storage_rows(site("local"), folder)]


def test_that_locks_that_do_not_exclude_are_told(
    site: MakeSite, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_LOCK", "")  # the other process gets the lock
    assert by_check(list(storage_rows(site("local"), tmp_path)))["locks"].state == "fail"


@pytest.mark.parametrize(
    ("ahead", "state"), [(0, "ok"), (0.5, "ok"), (-0.9, "ok"), (5, "warn"), (-45, "fail")]
)
def test_that_clocks_may_differ_by_little(ahead: float, state: str) -> None:
    assert clock_row("clock", ahead).state == state


@pytest.mark.parametrize(("wrong", "state"), [(-100.0, "fail"), (10.0, "warn"), (0.0, "ok")])
def test_that_a_clock_that_is_wrong_here_is_seen_by_a_fresh_file(
    site: MakeSite, tmp_path: Path, home: Path, wrong: float, state: str
) -> None:
    import time

    rows = storage_rows(site("local"), tmp_path, now=lambda: time.time() + wrong)
    row = by_check(list(rows))["clock of the file server"]
    assert row.state == state
    assert wrong == 0 or ("ahead" in row.found) is (wrong < 0)


@pytest.mark.parametrize(
    ("free", "inodes", "room", "left"),
    [
        (1 << 40, 1 << 30, "ok", "ok"),
        (1 << 32, 5000, "warn", "warn"),
        (1 << 20, 10, "fail", "fail"),
    ],
)
def test_that_little_room_and_few_inodes_are_told(
    site: MakeSite, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch,
    free: int, inodes: int, room: str, left: str,
) -> None:  # fmt: skip
    real = os.statvfs(tmp_path)
    facts = os.statvfs_result((4096, 1, real.f_blocks, free, free, 1 << 40, inodes, inodes, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: facts)
    rows = by_check(list(storage_rows(site("local"), tmp_path)))
    assert (rows["room"].state, rows["inodes of room"].state) == (room, left)


def test_that_quotas_are_read_of_each_tool() -> None:
    assert read_lfs(LFS) == [("space", 1048576, 1000000), ("files", 990, 1000)]
    assert read_gpfs(GPFS) == [("space on alpine", 950, 1000)]
    assert read_quota(QUOTA) == [
        ("space on server:/home", 100, 1000),
        ("space on server:/proj", 1000, 1000),
        ("files on server:/proj", 10, 20),
    ]


@given(st.text(max_size=200))
def test_that_any_text_of_a_quota_command_is_read_or_refused(text: str) -> None:
    for read in (read_lfs, read_gpfs, read_quota):
        for _, used, limit in read(text) or []:
            assert used >= 0 and limit > 0


@pytest.mark.parametrize(
    ("kind", "name", "script", "expected"),
    [
        ("lustre", "lfs", f"echo '{LFS.strip()}'", ["fail", "warn"]),
        ("gpfs", "mmlsquota", f"printf '%s' '{GPFS}'", ["warn"]),
        ("nfs4", "quota", f"printf '%s' '{QUOTA}'; exit 1", ["ok", "fail", "ok"]),
        ("ext4", "quota", "exit 0", ["ok"]),
        ("lustre", "lfs", "echo no such thing; exit 2", ["not checked"]),
        ("gpfs", "other", "exit 0", ["not checked"]),
    ],
)
def test_that_the_quota_command_of_the_file_system_is_asked(
    commands: Callable[..., Path], tmp_path: Path, kind: str, name: str, script: str,
    expected: list[str],
) -> None:  # fmt: skip
    commands(**{name: script})
    assert [row.state for row in quota_rows(tmp_path, kind)] == expected


def test_that_lustre_is_asked_for_this_user_and_folder(
    commands: Callable[..., Path], tmp_path: Path
) -> None:
    commands(lfs=f'echo "$@" > {tmp_path}/asked; echo /l 1 0 0 - 1 0 0 -')
    (row,) = quota_rows(tmp_path, "lustre")
    assert row.found == "no limit for this user"
    assert (tmp_path / "asked").read_text().split() == [
        "quota", "-q", "-u", getpass.getuser(), str(tmp_path),
    ]  # fmt: skip


def test_that_scratch_with_the_account_in_it_is_looked_at(
    site: MakeSite, tmp_path: Path, home: Path
) -> None:
    mine = site("local", f"scratch: {tmp_path}/$PROJECT")
    (tmp_path / "abc").mkdir()

    def state(account: str | None) -> str:
        return by_check(list(storage_rows(mine, tmp_path, account)))["scratch"].state

    assert (state("abc"), state("xyz"), state(None)) == ("ok", "warn", "not checked")


def test_that_the_file_system_of_a_path_is_the_kernel_s_word() -> None:
    assert kind_of(Path("/proc/self")) == "proc"
