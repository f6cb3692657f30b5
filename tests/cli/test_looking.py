"""The commands that look at a study: status, show and export."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import pytest
from click.testing import Result

from hpc_hpo.cli.run import report
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Event, read_events, replay
from hpc_hpo.steering.outcome import Outcome
from hpc_hpo.study import load_study
from tests import events as ev
from tests.cli.conftest import HISTORY, LOG_PARTS

Command = Callable[..., Result]


def test_that_status_tells_how_a_study_stands(hpc_hpo: Command, folder: StudyFolder) -> None:
    done = hpc_hpo("status", folder.path)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "digits: stopped with work left; `hpc-hpo run` goes on with it",
        f"  folder    {folder.path}",
        "  trials    1 completed, 1 failed; budget 3",
        "  best      loss 0.25, trial 0",
        "            lr = 0.123457, act = relu",
        "  blocks    1 ended",
        "  slices    1 completed, 1 paused, 1 failed",
        "  workers   busy 25.0 % of 2 min 00 s, 0.0 s lost",
        "  steering  0.0 s of CPU time, 1 run in 1 min 00 s",
    ]


@pytest.mark.parametrize("way", ["folder", "file", "folder of the file"])
def test_that_a_study_is_meant_by_its_folder_or_its_file(
    hpc_hpo: Command, folder: StudyFolder, study_file: Path, way: str
) -> None:
    path = {"folder": folder.path, "file": study_file, "folder of the file": study_file.parent}
    found = json.loads(hpc_hpo("status", path[way], "--json").output)
    assert found["dir"] == str(folder.path)
    assert found["trials"]["total"] == 2


def test_that_the_study_is_meant_by_the_current_folder(
    hpc_hpo: Command, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.path)
    assert json.loads(hpc_hpo("status", "--json").output)["study"] == "digits"


def test_that_status_names_the_process_and_the_time_left(
    hpc_hpo: Command, steered_by_us: StudyFolder
) -> None:
    found = json.loads(hpc_hpo("status", steered_by_us.path, "--json").output)
    assert found["state"] == "running"
    first = hpc_hpo("status", steered_by_us.path).output.splitlines()[0]
    holder = found["steering"]
    assert first == f"digits: running, by process {holder['pid']} on {holder['host']}"


def test_that_status_of_a_study_never_run_says_so(hpc_hpo: Command, study_file: Path) -> None:
    done = hpc_hpo("status", study_file)
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == "digits: never run, not prestaged"
    assert done.output.splitlines()[-1] == "  trials  none yet; budget 3"
    assert not (study_file.parent / "digits").exists(), "looking creates nothing"


def test_that_status_of_a_prestaged_study_says_so(hpc_hpo: Command, study_file: Path) -> None:
    folder = study_file.parent / "digits"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    for path in (study_file, folder):
        done = hpc_hpo("status", path)
        assert done.exit_code == 0
        assert done.output.splitlines()[0] == "digits: never run"


def test_that_status_ignores_a_record_still_being_written(
    hpc_hpo: Command, folder: StudyFolder
) -> None:
    with open(folder.journal, "ab") as stream:
        stream.write(b'{"crc":"0000')
    before = folder.journal.read_bytes()
    assert hpc_hpo("status", folder.path).exit_code == 0
    assert folder.journal.read_bytes() == before


def test_that_a_damaged_journal_is_told_with_its_place_and_code(
    hpc_hpo: Command, folder: StudyFolder
) -> None:
    raw = folder.journal.read_bytes()
    folder.journal.write_bytes(b"x" + raw[1:])
    done = hpc_hpo("status", folder.path)
    assert done.exit_code == 6
    assert "byte 0" in done.stderr and "--salvage" in done.stderr


@pytest.mark.parametrize("command", [["status"], ["show", "0"], ["export", "--format", "csv"]])
def test_that_a_path_that_does_not_exist_is_bad_input(
    hpc_hpo: Command, tmp_path: Path, command: list[str]
) -> None:
    name, *rest = command
    done = hpc_hpo(name, tmp_path / "nowhere", *rest)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"hpc-hpo: {tmp_path / 'nowhere'}: does not exist")


def test_that_a_file_that_is_no_study_is_bad_input(hpc_hpo: Command, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("nmae: digits\n")
    done = hpc_hpo("status", tmp_path)
    assert done.exit_code == 2
    assert "study.yaml" in done.stderr and "nmae" in done.stderr


def test_that_show_tells_each_slice(hpc_hpo: Command, folder: StudyFolder) -> None:
    done = hpc_hpo("show", folder.path, 0)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "trial 0: completed",
        "  lr          0.123457",
        "  act         relu",
        "  loss        0.25",
        "  seed        0",
        "  worked      20 s",
        "  reports     1, the last at step 3: loss 0.75",
        "  checkpoint  ckpt-000001-000003",
        "",
        "slice 1: paused (walltime)",
        "  where  block b0, worker b0-w0, host node1",
        "  took   10 s",
        "  from   the beginning",
        "  log    logs/w.log, bytes 0 to 12",
        "",
        "slice 2: completed",
        "  where  block b0, worker b0-w0, host node1",
        "  took   10 s",
        "  from   ckpt-000001-000003",
        "  log    logs/w.log, bytes 22 to 35",
    ]


def test_that_show_tells_why_a_trial_failed(hpc_hpo: Command, folder: StudyFolder) -> None:
    lines = hpc_hpo("show", folder.path, 1).output.splitlines()
    assert lines[0] == "trial 1: failed, 1 failed attempt"
    assert lines[-6:] == [
        "  exception: ValueError: no",
        "  traceback:",
        "    Traceback:",
        "      line 3",
        "  end of its log:",
        "    the last words",
    ]


def test_that_show_prints_a_trial_s_own_part_of_the_log(
    hpc_hpo: Command, folder: StudyFolder
) -> None:
    assert hpc_hpo("show", folder.path, 0, "--log").stdout_bytes == (
        b"--- slice 1: logs/w.log, bytes 0 to 12\nfirst slice\n"
        b"--- slice 2: logs/w.log, bytes 22 to 35\nsecond slice\n"
    )
    assert hpc_hpo("show", folder.path, 1, "--log").stdout_bytes.endswith(b"22\n" + LOG_PARTS[1])


def test_that_show_says_when_a_slice_wrote_nothing(
    hpc_hpo: Command, write_study: Callable[[list[Event]], StudyFolder]
) -> None:
    silent = ev.end(0, 1, "completed", "completed", loss=1.0, log=["logs/w.log", 12, 12])
    folder = write_study([ev.run(), ev.asked(0, {"lr": 0.1}), ev.submit(0, 1), silent])
    assert "  log    logs/w.log; it wrote nothing" in hpc_hpo("show", folder.path, 0).output
    told = hpc_hpo("show", folder.path, 0, "--log").output
    assert told == "--- slice 1: logs/w.log; it wrote nothing\n"


def test_that_show_says_when_a_log_is_gone(hpc_hpo: Command, folder: StudyFolder) -> None:
    (folder.logs / "w.log").unlink()
    done = hpc_hpo("show", folder.path, 0, "--log")
    assert done.exit_code == 0
    assert done.stderr.count("cannot be read") == 2


def test_that_show_of_a_running_trial_says_what_is_not_known_yet(
    hpc_hpo: Command, write_study: Callable[..., StudyFolder]
) -> None:
    folder = write_study([*HISTORY, ev.asked(2, {"lr": 0.1}), ev.submit(2)])
    assert hpc_hpo("show", folder.path, 2).output.splitlines()[-1] == "slice 1: not ended"
    assert "slice 1: no log" in hpc_hpo("show", folder.path, 2, "--log").output


@pytest.mark.parametrize("number", ["7", "-1", "x"])
def test_that_a_trial_that_does_not_exist_is_bad_input(
    hpc_hpo: Command, folder: StudyFolder, number: str
) -> None:
    done = hpc_hpo("show", folder.path, "--", number)
    assert done.exit_code == 2
    if number == "7":
        assert done.stderr.strip().endswith("there is no such trial; found 7; valid: 0-1")


def test_that_show_of_a_study_never_run_says_so(hpc_hpo: Command, study_file: Path) -> None:
    done = hpc_hpo("show", study_file, 0)
    assert done.exit_code == 2
    assert "the study has none yet" in done.stderr


@pytest.mark.parametrize(("name", "suffix"), [("csv", "csv"), ("json", "json"), ("hdf5", "h5")])
def test_that_export_writes_into_the_study_s_folder(
    hpc_hpo: Command, folder: StudyFolder, name: str, suffix: str
) -> None:
    done = hpc_hpo("export", folder.path, "--format", name)
    file = folder.path / f"results.{suffix}"
    assert done.exit_code == 0
    assert done.output == f"2 trials written to {file}\n"
    if name == "csv":
        with open(file, newline="") as stream:
            assert [row["loss"] for row in csv.DictReader(stream)] == ["0.25", ""]
    elif name == "json":
        assert json.loads(file.read_text())["best"]["trial"] == 0
    else:
        with h5py.File(file) as h5:
            assert h5["trials/loss"][0] == 0.25


def test_that_export_writes_where_it_is_told(
    hpc_hpo: Command, folder: StudyFolder, tmp_path: Path
) -> None:
    target = tmp_path / "table.csv"
    assert hpc_hpo("export", folder.path, "--format", "csv", "-o", target).exit_code == 0
    text = hpc_hpo("export", folder.path, "--format", "csv", "-o", "-").stdout_bytes
    assert text == target.read_bytes()
    assert len(list(csv.reader(io.StringIO(text.decode())))) == 3
    assert not (folder.path / "results.csv").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "hdf5", "-o", "-"], "hdf5 is not text"),
        (["--format", "csv", "-o", "no/such/folder/x.csv"], "there is no such folder"),
        (["--format", "xml"], "xml"),
        ([], "--format"),
    ],
)
def test_that_export_refuses_what_it_cannot_write(
    hpc_hpo: Command, folder: StudyFolder, options: list[str], says: str
) -> None:
    done = hpc_hpo("export", folder.path, *options)
    assert done.exit_code == 2
    assert says in done.stderr


def test_that_export_of_a_study_never_run_says_so(hpc_hpo: Command, study_file: Path) -> None:
    done = hpc_hpo("export", study_file, "--format", "csv")
    assert done.exit_code == 2
    assert "has never been run" in done.stderr


def test_that_trials_which_ran_past_their_rung_are_told_of_with_what_to_do(
    hpc_hpo: Command,
    write_study: Callable[[Sequence[Event]], StudyFolder],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_study(HISTORY)
    assert "rungs" not in hpc_hpo("status", folder.path).output
    past = [
        ev.asked(2, {"lr": 0.5}),
        {**ev.submit(2, 1), "stop_step": 1},
        ev.end(2, 1, "completed", "completed", loss=0.5, reports=[[3, {"loss": 0.5}]]),
    ]
    folder = write_study([*HISTORY, *past])
    told = "1 trial ran past a rung to the end: call trial.should_stop() after each"
    assert f"  rungs     {told}" in hpc_hpo("status", folder.path).output
    assert json.loads(hpc_hpo("status", folder.path, "--json").output)["overran"] == 1
    outcome = Outcome("budget", replay(read_events(folder.journal)))
    report(outcome, load_study(folder.study), folder.path, "budget")
    assert told in capsys.readouterr().out
