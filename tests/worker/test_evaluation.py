"""Evaluation payloads: programs of a grid that know nothing of slices, most of them in shell."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.worker.payload_evaluation import given_checkpoint
from tests.worker.bench import Bench

#: Two thirds of ten steps, each kept in a file; no Python, no signal handler.
COUNTER = """
x=$(sed 's/.*"x": *\\([0-9.]*\\).*/\\1/' input.json)
n=$(cat state/count 2>/dev/null || echo 0)
echo "begins at $n with x=$x"
while [ "$n" -lt 10 ]; do
  n=$((n + 1))
  mkdir -p state; echo "$n" > state/new; mv state/new state/count
  %s
done
echo "{\\"status\\": 0, \\"loss\\": 0.$n}" > output.json
"""


def payload(bench: Bench, script: str, **task: Any) -> None:
    """Make the trial a shell program, as a grid's wrapper starts one."""
    plain = script.replace("{", "{{").replace("}", "}}")
    bench.task.update(kind="evaluation", argv=["/bin/sh", "-c", plain], **task)


def printed(bench: Bench, outcome: dict[str, Any]) -> str:
    name, start, end = outcome["log"]
    return (bench.dir / name).read_bytes()[start:end].decode()


def test_that_a_shell_payload_needs_no_python(bench: Bench) -> None:
    bench.task["inputs"] = {"a": "/d/a.csv", "b": "/d/b.csv"}
    payload(bench, COUNTER % ":" + "cat input_ds.json")
    outcome = bench.run()
    assert (outcome["end"], outcome["loss"]) == ("completed", 0.10)
    assert "begins at 0 with x=2.0" in printed(bench, outcome)
    assert '["/d/a.csv", "/d/b.csv"]' in printed(bench, outcome)


def test_that_a_payload_killed_half_way_goes_on_from_its_checkpoint(bench: Bench) -> None:
    wait = "while [ $n = 7 ] && [ ! -d ../ckpt-000001-000001 ]; do sleep 0.05; done; "
    payload(
        bench, COUNTER % (wait + "[ $n != 7 ] || kill -9 $$"),
        checkpoint_files=["state"], checkpoint_every_s=0.3,
    )  # fmt: skip
    first = bench.run()
    assert first["end"] == "failed"
    assert "killed by SIGKILL" in first["error"]["message"]
    payload(bench, COUNTER % ":", checkpoint_files=["state"])
    second = bench.run(slice=2)
    assert second["loss"] == 0.10
    assert "begins at 7" in printed(bench, second)


def test_that_a_payload_that_ignores_everything_loses_little_at_the_block_s_end(
    bench: Bench,
) -> None:
    payload(
        bench, "trap '' USR1 TERM\n" + COUNTER % "[ $n != 4 ] || exec sleep 60",
        checkpoint_files=["state"],
    )  # fmt: skip
    outcome = bench.run(worker=bench.worker(block_end=time.time() + 1.5), margin_s=0.7)
    assert (outcome["end"], outcome["reason"]) == ("lost", "walltime")
    payload(bench, COUNTER % ":", checkpoint_files=["state"])
    second = bench.run(slice=2)
    assert "begins at 4" in printed(bench, second)


def test_that_a_checkpoint_can_be_given_back_packed(bench: Bench) -> None:
    names = {"input": "input.json", "data": "d.json", "output": "output.json", "load": "cp.tgz"}
    payload(
        bench, "mkdir -p model/deep; echo 5 > model/deep/w; echo 1 > extra; kill -USR1 $$",
        checkpoint_files=["model", "extra"], evaluation=names,
    )  # fmt: skip
    bench.notice.write_text(json.dumps({"deadline": time.time() + 60, "reason": "stop"}))
    assert bench.run()["end"] in ("declined", "paused")
    bench.notice.unlink()
    payload(
        bench, "mkdir -p model/deep; echo 5 > model/deep/w; echo 1 > extra; sleep 0.6; exit 3",
        checkpoint_files=["model", "extra"], checkpoint_every_s=0.1, evaluation=names,
    )  # fmt: skip
    bench.run(slice=2)
    payload(
        bench,
        "[ ! -e model ] && tar xzf cp.tgz"
        " && printf '{\"loss\": %s}' $(cat model/deep/w) > output.json",
        checkpoint_files=["model"], evaluation=names,
    )  # fmt: skip
    assert bench.run(slice=3)["loss"] == 5.0


@pytest.mark.parametrize(
    ("script", "end", "message"),
    [
        ("true", "failed", "wrote no output.json"),
        ("exit 1", "failed", "exited with status 1"),
        ("echo '{\"loss\": 0.2' > output.json", "failed", "output.json is not valid JSON"),
        ('echo \'{"status": 1, "message": "no data"}\' > output.json', "failed", "1: no data"),
        ('echo \'{"status": 1, "loss": 3}\' > output.json', "failed", "ended with status 1"),
        ("echo '{\"loss\": NaN}' > output.json", "failed", "nan"),
        ("echo '{\"loss\": 0.0}' > output.json", "completed", ""),
        # The grid's wrapper looks at the file alone.
        ("echo '{\"loss\": 0.5}' > output.json; exit 1", "completed", ""),
    ],
)
def test_that_the_output_file_decides(bench: Bench, script: str, end: str, message: str) -> None:
    payload(bench, script)
    outcome = bench.run()
    assert outcome["end"] == end, outcome
    assert message in outcome.get("error", {}).get("message", "")


def test_that_metrics_and_meta_are_kept_by_the_trial_s_number(bench: Bench) -> None:
    payload(
        bench,
        "mkdir mlruns; echo 1 > mlruns/m; tar czf metrics.tgz mlruns;"
        " echo '{\"epochs\": 3}' > meta.json; echo '{\"loss\": 1}' > output.json",
        evaluation={"metrics": "metrics.tgz", "meta": "meta.json"},
    )
    assert bench.run()["loss"] == 1.0
    kept = bench.dir / "metrics"
    with tarfile.open(kept / "metrics.tgz_7") as tar:
        assert tar.getnames() == ["mlruns", "mlruns/m"]
    assert json.loads((kept / "meta.json_7").read_text()) == {"epochs": 3}
    assert {p.name for p in kept.iterdir()} == {"metrics.tgz_7", "meta.json_7"}


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        ("head -c 1000001 /dev/zero > meta.json", "1000001 bytes"),
        ("echo '[1]' > meta.json", "not a JSON object"),
        ("echo '{1' > meta.json", "not valid JSON"),
    ],
)
def test_that_a_bad_meta_file_costs_no_loss(bench: Bench, make: str, problem: str) -> None:
    payload(
        bench, f"{make}; echo '{{\"loss\": 1}}' > output.json", evaluation={"meta": "meta.json"}
    )
    outcome = bench.run()
    assert outcome["loss"] == 1.0
    assert problem in printed(bench, outcome)
    assert not (bench.dir / "metrics" / "meta.json_7").exists()


def test_that_the_sandbox_is_copied_and_the_original_is_safe(bench: Bench) -> None:
    script = bench.source / "run.sh"
    script.write_text("echo '{\"loss\": 2}' > output.json; echo changed > lib/settings.json\n")
    (bench.source / "lib").mkdir()
    (bench.source / "lib" / "settings.json").write_text("{}")
    files = [
        [str(script), "run.sh"],
        [str(bench.source / "lib/settings.json"), "lib/settings.json"],
    ]
    payload(bench, "sh run.sh", evaluation={"sandbox": files})
    assert bench.run()["loss"] == 2.0
    assert (bench.source / "lib" / "settings.json").read_text() == "{}"


def test_that_other_names_are_used(bench: Bench) -> None:
    payload(
        bench, "mkdir -p o; sed 's/x/loss/' p.json > o/out.json",
        evaluation={"input": "p.json", "data": "ds.json", "output": "o/out.json"},
        loss={"file": "o/out.json", "key": "loss"},
    )  # fmt: skip
    assert bench.run()["loss"] == 2.0


def test_that_files_which_never_rest_are_saved_all_the_same(bench: Bench) -> None:
    payload(
        bench,
        "while [ ! -d ../ckpt-000001-000001 ]; do echo x >> state; sleep 0.05; done; kill -9 $$",
        checkpoint_files=["state"], checkpoint_every_s=0.1, max_time_s=30.0,
    )  # fmt: skip
    outcome = bench.run()
    assert outcome["checkpoint"]["name"] == "ckpt-000001-000001", outcome
    assert outcome["error"]["kind"] == "signal"


def test_that_a_segment_s_point_begins_with_its_number(bench: Bench) -> None:
    archive(given_checkpoint(bench.dir, {"x": 2.0}, "pid22"), "state/count", b"8\n")
    payload(bench, "cat input.json; " + COUNTER % ":" + "echo %SEGMENT_NAME")
    outcome = bench.run(segment={"name": "pid22", "number": 4, "values": {"pid": 22}})
    said = printed(bench, outcome)
    assert '[4, {"x": 2.0}]' in said
    assert "begins at 8" in said
    assert "pid22" in said
    # The checkpoint is another segment's.
    assert "begins at 0" in printed(bench, bench.run(trial=8, segment={"name": "b", "number": 5}))


def test_that_data_is_listed_file_by_file(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "deep/c.csv"):
        (folder / name).touch()
    bench.task["inputs"] = {"many": str(folder), "one": str(folder / "b.csv")}
    payload(bench, "cat input_ds.json; echo '{\"loss\": 1}' > output.json")
    said = printed(bench, bench.run())
    names = ["a.csv", "b.csv", "deep/c.csv", "b.csv"]
    assert json.dumps([f"{folder}/{name}" for name in names]) in said


def archive(path: Path, name: str, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def test_that_a_trial_begins_with_the_checkpoint_it_was_given(bench: Bench) -> None:
    archive(given_checkpoint(bench.dir, {"x": 2.0}, None), "state/count", b"6\n")
    payload(bench, COUNTER % ":")
    outcome = bench.run()
    assert "begins at 6" in printed(bench, outcome)
    # Another point has none.
    assert "begins at 0" in printed(bench, bench.run(trial=8, point={"x": 3.0}))


def test_that_an_archive_leads_out_of_the_working_folder_for_nobody(bench: Bench) -> None:
    archive(given_checkpoint(bench.dir, {"x": 2.0}, None), "../../../../evil", b"")
    payload(bench, COUNTER % ":")
    outcome = bench.run()
    assert outcome["loss"] == 0.10
    assert "leads out of the folder" in printed(bench, outcome)
    assert not list(bench.dir.parent.rglob("evil"))
