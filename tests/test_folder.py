"""The study folder: where things are, who may write there, and who steers."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from hpc_hpo.errors import InputError, StorageError, StudyHeld
from hpc_hpo.folder import (
    HOLDER_TTL_S,
    StudyFolder,
    StudyLock,
    find_folder,
    process_start,
    steering_alive,
)

ROOT = Path(__file__).resolve().parents[1]
NOW = 1_700_000_000.0

HOLD = """
import sys
from pathlib import Path
from hpc_hpo.folder import StudyFolder, StudyLock
lock = StudyLock(StudyFolder(Path(sys.argv[1])))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    study = StudyFolder(tmp_path / "study")
    study.make()
    return study


@contextmanager
def another_process(folder: StudyFolder) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the study's lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def never(_: Path) -> str:
    raise AssertionError("no study file is to be read")


def test_that_a_second_process_is_told_who_holds_the_study(folder: StudyFolder) -> None:
    with another_process(folder) as holder:
        with pytest.raises(StudyHeld) as caught:
            StudyLock(folder).acquire()
        assert caught.value.exit_code == 4
        text = str(caught.value)
        assert f"process {holder.pid} on {socket.gethostname()}" in text
        assert "hpc-hpo stop" in text
        alive = steering_alive(folder, NOW)
        assert alive is not None and alive["pid"] == holder.pid
        holder.communicate()
    assert steering_alive(folder, NOW) is None
    lock = StudyLock(folder)
    lock.acquire()
    assert lock.taken_over is None, "the other process went in order"
    lock.release()


def test_that_the_lock_of_a_killed_process_is_taken_over(folder: StudyFolder) -> None:
    with another_process(folder) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert folder.holder.exists()
        assert steering_alive(folder, NOW) is None
        lock = StudyLock(folder)
        lock.acquire()
        assert lock.taken_over is not None and f"process {holder.pid} " in lock.taken_over
        assert json.loads(folder.holder.read_text())["pid"] == os.getpid()
        lock.release()


def test_that_a_released_lock_can_be_taken_again(folder: StudyFolder) -> None:
    lock = StudyLock(folder)
    for _ in range(2):
        lock.acquire()
        assert steering_alive(folder, NOW) is not None
        lock.release()
        assert not folder.holder.exists()
        assert steering_alive(folder, NOW) is None


def holder_elsewhere(folder: StudyFolder, alive: float) -> None:
    folder.holder.write_text(
        json.dumps(
            {"host": "login9", "pid": 5, "process_start": 1.0, "since": NOW - 999, "alive": alive}
        )
    )


def test_that_a_holder_on_another_host_with_a_fresh_sign_of_life_is_believed(
    folder: StudyFolder,
) -> None:
    holder_elsewhere(folder, NOW - 30)
    refused = StudyLock(folder, now=lambda: NOW)
    with pytest.raises(StudyHeld, match=r"process 5 on login9.*30 s old.*wait 60 s"):
        refused.acquire()
    assert json.loads(folder.holder.read_text())["host"] == "login9"
    alive = steering_alive(folder, NOW)
    assert alive is not None and alive["host"] == "login9"
    # The refusal must not keep the lock, or nobody could ever try again.
    lock = StudyLock(folder, now=lambda: NOW + HOLDER_TTL_S)
    lock.acquire()
    lock.release()


def test_that_a_holder_on_another_host_without_one_is_taken_over(folder: StudyFolder) -> None:
    holder_elsewhere(folder, NOW - HOLDER_TTL_S - 1)
    assert steering_alive(folder, NOW) is None
    lock = StudyLock(folder, now=lambda: NOW)
    lock.acquire()
    assert lock.taken_over is not None and "process 5 on login9" in lock.taken_over
    lock.release()


def test_that_signs_of_life_keep_the_time_of_the_start(folder: StudyFolder) -> None:
    times = iter([NOW, NOW + 1, NOW + 10])
    lock = StudyLock(folder, now=lambda: next(times))
    lock.acquire()
    before = json.loads(folder.holder.read_text())
    lock.refresh()
    after = json.loads(folder.holder.read_text())
    lock.release()
    assert after["since"] == before["since"]
    assert after["alive"] == NOW + 10


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_that_a_damaged_holder_file_does_not_hold_the_study(folder: StudyFolder, text: str) -> None:
    folder.holder.write_text(text)
    assert steering_alive(folder, NOW) is None
    lock = StudyLock(folder)
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("start", [None, 0.0])
def test_that_a_process_id_used_again_is_not_the_holder(
    folder: StudyFolder, start: float | None
) -> None:
    record = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": start}
    folder.holder.write_text(json.dumps(record))
    assert steering_alive(folder, NOW) is None
    record["process_start"] = process_start(os.getpid())
    folder.holder.write_text(json.dumps(record))
    assert steering_alive(folder, NOW) is not None


def test_that_a_process_that_is_gone_has_no_start() -> None:
    process = subprocess.Popen(["true"])
    # A zombie still has its entry in /proc until it is waited for.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(process.pid) is None
    process.wait()
    assert process_start(process.pid) is None


def test_that_a_gone_process_without_a_known_start_is_not_alive(folder: StudyFolder) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    record = {"host": socket.gethostname(), "pid": process.pid, "process_start": None}
    folder.holder.write_text(json.dumps(record))
    assert steering_alive(folder, NOW) is None


def refuse_with(code: int) -> object:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def test_that_a_read_only_place_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permission bits do not stop root, so the refusal is put in by hand.
    monkeypatch.setattr(Path, "mkdir", refuse_with(errno.EROFS))
    with pytest.raises(StorageError, match="choose a folder you may write, with --dir") as caught:
        StudyFolder(tmp_path / "study").make()
    assert caught.value.exit_code == 5


def test_that_an_existing_folder_that_became_read_only_is_refused(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", refuse_with(errno.EACCES))
    with pytest.raises(StorageError, match="--dir"):
        folder.make()


def test_that_a_lock_that_cannot_be_made_is_refused(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse_with(errno.EROFS))
    with pytest.raises(StorageError, match="--dir"):
        StudyLock(folder).acquire()


def test_that_making_the_folder_leaves_its_rooms_and_nothing_else(folder: StudyFolder) -> None:
    folder.make()
    names = sorted(entry.name for entry in folder.path.iterdir())
    assert names == ["control", "logs", "spool", "trials"]
    assert not folder.exists
    folder.study.write_text("name: x\n")
    assert folder.exists


def test_that_a_trial_s_folder_sorts_by_number(folder: StudyFolder) -> None:
    assert folder.trial(7).name < folder.trial(12).name < folder.trial(100_000).name


@pytest.mark.parametrize("sign", ["journal.jsonl", "manifest.json"])
def test_that_a_study_folder_is_found_by_itself(tmp_path: Path, sign: str) -> None:
    (tmp_path / sign).write_bytes(b"")
    (tmp_path / "study.yaml").write_text("name: frozen\n")
    assert find_folder(tmp_path, never).path == tmp_path.resolve()


def test_that_a_study_file_means_the_folder_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: digits\n")
    expected = (tmp_path / "digits").resolve()
    assert find_folder(file, lambda _: "digits").path == expected
    assert find_folder(tmp_path, lambda path: path.read_text()[6:-1]).path == expected


def test_that_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no study.*study\.yaml"):
        find_folder(tmp_path, never)


def test_that_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: does not exist"):
        find_folder(tmp_path / "nowhere", never)
