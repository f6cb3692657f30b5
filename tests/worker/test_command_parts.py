"""Placeholders, logs and checkpoint files, without processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.errors import InputError, StorageError
from hpc_hpo.worker.command_files import FileWatch
from hpc_hpo.worker.command_output import StepWatch, read_reports
from hpc_hpo.worker.log import LogFile
from hpc_hpo.worker.template import fill, locate


def test_that_placeholders_are_replaced_within_arguments() -> None:
    point = {"lr": 1e-05, "n": 3, "act": "relu", "sizes": [1, 2], "on": True}
    argv = ["run", "--lr={lr}", "{n}x{act}", "{sizes}", "{on}", "{{{n}}}", "{inputs.d}", "{trial}"]
    assert fill(argv, point, {"d": "/d"}, 5, 6) == [
        *("run", "--lr=1e-05", "3xrelu", "[1, 2]", "True", "{3}", "/d", "5")
    ]


def test_that_an_inactive_parameter_leaves_nothing() -> None:
    assert fill(["a", "{width2}", "--w={width2}", ""], {}, {}, 1, 1) == ["a", "--w=", ""]


def test_that_a_parameter_named_seed_wins_over_the_trial_s() -> None:
    assert fill(["{seed}"], {"seed": 9}, {}, 1, 2) == ["9"]


def test_that_a_value_is_never_read_as_a_template() -> None:
    assert fill(["{a}"], {"a": "{b} $(rm) `x`"}, {}, 1, 1) == ["{b} $(rm) `x`"]


def test_that_an_unknown_input_is_named() -> None:
    with pytest.raises(InputError, match=r"inputs\.x.*valid: data"):
        fill(["{inputs.x}"], {}, {"data": "/d"}, 1, 1)


@given(st.text())
def test_that_doubled_braces_are_the_text_itself(text: str) -> None:
    assert fill(["-" + text.replace("{", "{{").replace("}", "}}")], {}, {}, 1, 1) == ["-" + text]


def test_that_only_files_of_the_source_folder_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "data").mkdir()
    argv = ["python", "train.py", "data", "{x}", ""]
    found = locate(argv, [str(tmp_path / "missing"), str(tmp_path)])
    assert found == ["python", str(tmp_path / "train.py"), "data", "{x}", ""]


def test_that_the_tail_of_a_huge_log_is_read_without_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(tmp_path, "w.log")
    os.truncate(tmp_path / "w.log", 100 << 20)  # a hole: no disk is used
    os.write(log.fd, "\nval=7 the end: é\n".encode())
    read = []
    pread = os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        block = pread(fd, size, offset)
        read.append(len(block))
        return block

    monkeypatch.setattr("hpc_hpo.worker.log.os.pread", counting)
    assert log.tail(0).endswith("the end: é\n")
    assert sum(read) <= 2048
    assert log.last_match(0, r"val=(\d+)") == "7"
    assert sum(read) <= 2 << 20
    log.close()


def test_that_a_slice_s_tail_begins_at_its_start(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "logs/w.log")
    log.note("earlier slice")
    start = log.size()
    log.note("mine")
    assert log.tail(start) == "hpc-hpo: mine\n"
    assert log.last_match(start, "earlier") is None
    log.close()


def test_that_the_last_match_is_found_in_any_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_hpo.worker.log._WINDOW_BYTES", 16)
    log = LogFile(tmp_path, "w.log")
    os.write(log.fd, b"a=1 a=22\n" + b"filler line\n" * 9 + b"a=333 and no newline")
    assert log.last_match(0, r"a=(\d+)") == "333"
    assert log.last_match(0, r"a=\d\d\b") == "a=22"
    monkeypatch.setattr("hpc_hpo.worker.log._LONGEST_LINE", 16)
    assert log.last_match(0, r"newline") == "newline"
    assert log.last_match(0, r"nothing") is None
    log.close()


def test_that_a_log_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, not a folder")
    with pytest.raises(StorageError, match="logs"):
        LogFile(tmp_path, "logs/w.log")


def test_that_checkpoint_files_are_saved_only_when_new_and_at_rest(tmp_path: Path) -> None:
    (tmp_path / "old.ckpt").write_text("put back")
    watch = FileWatch(tmp_path, ["*.ckpt", "*.json"], ["output.json"])
    (tmp_path / "output.json").write_text("{}")
    assert watch.changed(0.0, quiet=True) is None, "put back, and never the loss"
    (tmp_path / "new.ckpt").write_text("a")
    assert watch.changed(1.0, quiet=True) is None, "just changed"
    assert watch.changed(1.1, quiet=False) is not None
    signature = watch.changed(1.3, quiet=True)
    assert signature is not None and sorted(signature) == ["new.ckpt", "old.ckpt"]
    watch.copy(signature, tmp_path / "saved")
    watch.mark_saved(signature)
    assert (tmp_path / "saved" / "files" / "new.ckpt").read_text() == "a"
    assert watch.changed(9.0, quiet=True) is None, "saved already"


def test_that_a_file_that_changes_while_it_is_copied_is_not_saved(tmp_path: Path) -> None:
    watch = FileWatch(tmp_path, ["*.ckpt"], [])
    (tmp_path / "a.ckpt").write_text("a")
    signature = watch.changed(0.0, quiet=False)
    assert signature is not None
    (tmp_path / "a.ckpt").write_text("more")
    with pytest.raises(OSError, match="changed while"):
        watch.copy(signature, tmp_path / "saved")
    (tmp_path / "a.ckpt").unlink()
    with pytest.raises(OSError, match="removed while"):
        watch.copy(signature, tmp_path / "again")


def test_that_only_whole_report_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 0.5, "note": "x", "ok": true}\nnoise\n[1]\n{"step": "2"}\n{"step": 3'
    )
    assert read_reports(tmp_path) == {1: {"loss": 0.5}}
    assert read_reports(tmp_path / "missing") == {}


def test_that_the_highest_step_is_known_while_its_file_grows(tmp_path: Path) -> None:
    watch, file = StepWatch(tmp_path), tmp_path / "metrics.jsonl"
    assert watch.look() == -1
    file.write_text('{"step": 1}\nnoise\n{"step": 2')
    assert watch.look() == 1, "half a line is none"
    with open(file, "a") as stream:
        stream.write('7, "loss": 0.5}\n{"step": 4}\n')
    assert watch.look() == 27
    file.write_text('{"step": 28}\n')
    assert watch.look() == 28, "written anew, and shorter"
