"""Commands in a container: a fake runtime that closes the room as the real one does."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.worker.contained import needed_mounts
from hpc_hpo.worker.containers import Mount
from tests.worker.bench import Bench, is_running

FAKES = Path(__file__).parents[1] / "fakes" / "containers"


@pytest.fixture
def room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose payloads run in an image."""
    works = (
        shutil.which("bwrap")
        and not subprocess.run(
            ["bwrap", "--ro-bind", "/", "/", "--unshare-net", "true"],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not works:
        if os.environ.get("HPC_HPO_NEEDS_BUBBLEWRAP"):
            pytest.fail("bubblewrap is demanded and does not work")
        pytest.skip("needs bubblewrap (Debian package bubblewrap), allowed to unshare")
    monkeypatch.setenv("PATH", f"{FAKES}:{os.environ['PATH']}")
    monkeypatch.setenv("OF_THE_NODE", "1")
    image = bench.source / "train.sif"
    (image / "opt").mkdir(parents=True)
    (image / "opt" / "mark").write_text("of the image")
    bench.task.update(
        kind="evaluation", path=[str(bench.source)],
        container={"image": "train.sif", "runtime": "apptainer"},
    )  # fmt: skip
    return bench


def payload(bench: Bench, script: str, **task: Any) -> dict[str, Any]:
    plain = script.replace("{", "{{").replace("}", "}}")
    bench.task.update(argv=["/bin/sh", "-c", plain], **task)
    return bench.run()


def printed(bench: Bench, outcome: dict[str, Any]) -> str:
    name, start, end = outcome["log"]
    return (bench.dir / name).read_bytes()[start:end].decode()


def test_that_a_payload_runs_in_its_image(room: Bench) -> None:
    outcome = payload(room, "cat /opt/mark; echo '{\"loss\": 3}' > output.json")
    assert outcome["loss"] == 3.0, (outcome, printed(room, outcome))
    assert "of the image" in printed(room, outcome)


def test_that_inputs_are_seen_by_their_paths_through_links(room: Bench, tmp_path: Path) -> None:
    far = tmp_path / "far" / "away"
    far.mkdir(parents=True)
    (far / "d.csv").write_text("5")
    staged = room.dir / "inputs"
    (staged / "many").mkdir(parents=True)
    (staged / "one").symlink_to(far / "d.csv")
    (staged / "many" / "d.csv").symlink_to(far / "d.csv")
    room.task["inputs"] = {"one": str(staged / "one"), "many": str(staged / "many")}
    outcome = payload(
        room,
        f"a=$(cat {staged}/one) b=$(cat {staged}/many/d.csv);"
        ' echo "{\\"loss\\": $a$b}" > output.json; echo 1 > $HPC_HPO_INPUT_ONE && rm output.json',
    )
    assert outcome["loss"] == 55.0, printed(room, outcome)
    assert (far / "d.csv").read_text() == "5"


def test_that_nothing_else_of_the_node_is_seen_or_written(room: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    outcome = payload(
        room,
        f"cat {secret}; echo node=$OF_THE_NODE trial=$HPC_HPO_TRIAL rate=$RATE;"
        f" touch {room.source}/new; touch /opt/new; cat /proc/net/dev | tail -n +3 | wc -l;"
        " echo '{\"loss\": 1}' > output.json",
        env={"RATE": "0,10"},
    )
    said = printed(room, outcome)
    assert outcome["loss"] == 1.0, said
    assert "node= trial=7 rate=0,10" in said
    assert "\n1\n" in said, "the loopback interface alone"
    assert not (room.source / "new").exists()
    assert f"cat: {secret}: No such file" in said


def test_that_binds_and_the_network_come_in_when_asked_for(room: Bench, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    extra.mkdir()
    room.task["container"].update(binds=[f"{extra}:/extra"], network=True)
    devices = Path("/proc/net/dev").read_text().count(":")
    outcome = payload(
        room, 'echo hello > /extra/f; echo "{\\"loss\\": $(grep -c : /proc/net/dev)}" > output.json'
    )
    assert outcome["loss"] == devices
    assert (extra / "f").read_text() == "hello\n"


def test_that_a_contained_payload_pauses_and_goes_on(room: Bench) -> None:
    script = (
        "n=$(cat count 2>/dev/null || echo 0); [ $n = 0 ] || { echo '{\"loss\": 9}' > output.json;"
        " exit; }; trap 'exit 0' USR1; echo 1 > count; while :; do sleep 0.05; done"
    )
    plain = script.replace("{", "{{").replace("}", "}}")
    room.task.update(argv=["/bin/sh", "-c", plain], checkpoint_files=["count"])
    worker = room.worker(block_end=time.time() + 1.5)
    first = room.run(worker=worker, margin_s=0.8)
    assert (first["end"], first["reason"]) == ("paused", "walltime"), first
    assert room.run(slice=2)["loss"] == 9.0


def test_that_nothing_in_a_container_outlives_its_slice(room: Bench) -> None:
    outcome = payload(room, "sleep 60 & echo $! > output.json; sleep 60", max_time_s=0.8)
    assert outcome["error"]["kind"] == "timeout"
    pid = int((room.trial / "s000001" / "output.json").read_text())
    assert not is_running(pid)


def test_that_a_missing_image_is_the_payload_s_failure(room: Bench) -> None:
    room.task["container"]["image"] = "none.sif"
    outcome = payload(room, "true")
    assert outcome["end"] == "failed"
    assert "could not open image none.sif" in outcome["error"]["log_tail"]


def test_that_the_image_may_be_a_staged_input(room: Bench) -> None:
    room.task["inputs"] = {"image": str(room.source / "train.sif")}
    room.task["container"]["image"] = "{inputs.image}"
    outcome = payload(room, "cat /opt/mark; echo '{\"loss\": 3}' > output.json")
    assert outcome["end"] == "completed", printed(room, outcome)


def test_that_what_links_lead_to_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").symlink_to(tmp_path / "real" / "f")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "f")
    found = needed_mounts([str(tmp_path / "in"), str(tmp_path / "link")])
    assert set(found) == {
        Mount(str(tmp_path / "in"), str(tmp_path / "in")),
        Mount(str(tmp_path / "real"), str(tmp_path / "real")),
        Mount(str(tmp_path / "real" / "f"), str(tmp_path / "link")),
    }
